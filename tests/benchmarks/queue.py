"""What the job record costs: latency against a bare Celery task, submits against a bare Flask view.

    python -m tests.benchmarks.queue

Prints, all measured in this one run on the same Redis: (b) submit to the task's first line on a warm worker, and
(c) POST /v1/jobs per second.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

JOBS = 60
POSTS = 400


def main() -> None:
    """Start a Redis and two workers, measure, print."""
    from workers.redis_server import RedisServer

    with tempfile.TemporaryDirectory(prefix="dq") as folder:
        server = RedisServer(Path(folder) / "redis")
        server.start()
        os.environ.update(
            REDIS_URL=server.url, STORAGE_URL=f"{folder}/storage", EXTRA_KINDS="tests.benchmarks.stamp"
        )
        workers = [
            start_worker("shared.celery_app", "ours", "stamp"),
            start_worker("tests.benchmarks.bare", "bare", "bare"),
        ]
        try:
            latency(Path(folder))
        finally:
            for worker in workers:
                worker.terminate()
                worker.wait()
            try:
                posts()
            finally:
                server.stop()


def start_worker(app: str, name: str, queue: str) -> "subprocess.Popen[bytes]":
    """One Celery worker with one process, quiet."""
    command = [
        sys.executable,
        "-m",
        "celery",
        "-A",
        app,
        "worker",
        "-n",
        f"{name}@%h",
        "-Q",
        queue,
        "-l",
        "ERROR",
    ]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def latency(folder: Path) -> None:
    """(b) From the call that submits to the first line of the task, on workers that are up and idle."""
    from shared.queue import submit
    from tests.benchmarks.bare import stamp
    from tests.benchmarks.stamp import StampParams

    def ours() -> float:
        started = time.time()
        return float(submit(StampParams()).wait(60)["summary"]["at"]) - started

    def bare() -> float:
        path = folder / "stamp"
        path.unlink(missing_ok=True)
        started = time.time()
        stamp.delay(str(path))
        while not path.exists():
            time.sleep(0.0005)
        return float(path.read_text()) - started

    for measure in (ours, bare):
        measure()  # the worker comes up, connections are made
    pairs = [(ours(), bare()) for _ in range(JOBS)]
    ours_s, bare_s = (statistics.median(column) for column in zip(*pairs, strict=True))
    print(
        f"(b) submit to first line: {ours_s * 1000:.1f} ms, bare Celery {bare_s * 1000:.1f} ms: "
        f"{ours_s / bare_s:.2f}x (goal: at most 3x and under 30 ms)"
    )


def posts() -> None:
    """(c) POST /v1/jobs per second from one client, through each app's own WSGI call, without a socket."""
    from api.app import create_app
    from shared.settings import Settings
    from tests.benchmarks.bare import view

    ours = create_app(Settings.from_environment()).test_client()
    bare = view().test_client()
    body = {"kind": "stamp", "params": {}}
    rates: dict[str, list[float]] = {"ours": [], "bare": []}
    for _ in range(5):
        rates["ours"].append(per_second(lambda: ours.post("/v1/jobs", json=body)))
        rates["bare"].append(per_second(lambda: bare.post("/v1/jobs", json=body)))
    ours_rate, bare_rate = statistics.median(rates["ours"]), statistics.median(rates["bare"])
    print(
        f"(c) POST /v1/jobs: {ours_rate:.0f}/s, a view that calls delay() {bare_rate:.0f}/s: "
        f"{ours_rate / bare_rate:.2f}x (goal: 0.5x)"
    )


def per_second(post: Callable[[], Any]) -> float:
    """How often one client can post in a second."""
    started = time.perf_counter()
    for _ in range(POSTS // 5):
        assert post().status_code == 202
    return POSTS // 5 / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
