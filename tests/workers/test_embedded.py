"""The all-in-one stack: real Redis, worker and API, in a folder of the test's own."""

import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
from redis import Redis

from tests.workers.processes import descendants, python_process, running, until
from workers.embedded import HOST, StackRuns, lock_folder
from workers.redis_server import RedisServer


@pytest.fixture
def port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def serve(tmp_path: Path, port: int) -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """`make serve` in this test's folder, with the tests' own kind of job."""
    with ExitStack() as stack:

        def start(*, wait: bool = True) -> "subprocess.Popen[str]":
            process = stack.enter_context(
                python_process(
                    "-m", "workers.embedded", "--port", str(port), "--devices", "cpu", "--queues", "steps",
                    cwd=tmp_path, STORAGE_URL="", API_KEYS_FILE="",
                )
            )  # fmt: skip
            if wait:
                until(lambda: len(get(port, "/v1/workers").get("workers", [])) == 1, what="the stack")
            return process

        yield start


def get(port: int, path: str) -> dict[str, Any]:
    """What the API answers to a GET; {} while it does not."""
    try:
        answer = requests.get(f"http://{HOST}:{port}{path}", timeout=5)
    except requests.ConnectionError:
        return {}
    return dict(answer.json())


def submit_steps(port: int) -> str:
    job = requests.post(
        f"http://{HOST}:{port}/v1/jobs", json={"kind": "steps", "params": {}}, timeout=5
    ).json()
    return str(job["id"])


def part(stack: "subprocess.Popen[str]", word: str) -> psutil.Process:
    """The process right below the stack whose command line holds a word."""
    [found] = [child for child in psutil.Process(stack.pid).children() if word in " ".join(child.cmdline())]
    return found


def assert_all_gone(processes: list[psutil.Process]) -> None:
    until(lambda: not any(running(process) for process in processes), what="the end of every part")


def test_serve_runs_jobs_stops_whole_at_ctrl_c_and_knows_its_jobs_when_it_starts_again(serve, port):
    stack = serve()
    job_id = submit_steps(port)
    until(lambda: get(port, f"/v1/jobs/{job_id}")["status"] == "succeeded", what="the job's end")
    tree = descendants(stack.pid)

    stack.send_signal(signal.SIGINT)

    printed, _ = stack.communicate(timeout=60)
    assert stack.returncode == 0
    assert f"dreamq is ready at http://{HOST}:{port}" in printed
    assert_all_gone(tree)

    again = serve()
    assert get(port, f"/v1/jobs/{job_id}")["status"] == "succeeded"

    # The same promise for SIGTERM, sent to a stack whose Redis was killed and came back with what it knew.
    part(again, "unixsocket").kill()
    until(lambda: get(port, f"/v1/jobs/{job_id}").get("status") == "succeeded", what="Redis' return")
    tree = descendants(again.pid)
    again.send_signal(signal.SIGTERM)
    printed, _ = again.communicate(timeout=60)
    assert again.returncode == 0
    assert "redis ended (killed by SIGKILL); it is started again" in printed
    assert_all_gone(tree)


def test_a_part_that_dies_three_times_within_a_minute_takes_the_stack_down_with_its_last_words(serve):
    stack = serve(wait=False)
    killed: list[int] = []

    def kill_api() -> bool:
        with suppress(psutil.NoSuchProcess):  # a zombie counts as none
            for child in psutil.Process(stack.pid).children():
                if "api" in child.cmdline() and child.pid not in killed:
                    killed.append(child.pid)
                    child.kill()
        return len(killed) == 3

    until(kill_api, what="three deaths")
    tree = descendants(stack.pid)

    printed, _ = stack.communicate(timeout=60)
    assert stack.returncode == 1
    assert "api ended (killed by SIGKILL) for the third time" in printed
    assert "The end of" in printed
    assert_all_gone(tree)


def test_kill_9_of_the_stack_leaves_no_orphans_and_a_second_one_can_start_at_once(serve, port):
    stack = serve()
    tree = descendants(stack.pid)

    stack.kill()
    stack.wait()
    second = serve(wait=False)

    assert_all_gone(tree)
    until(lambda: second.poll() is not None or get(port, "/readyz"), what="the second stack")
    assert second.poll() is None


def test_a_second_stack_in_the_same_folder_is_refused_and_told_where_the_first_is(tmp_path):
    first = lock_folder(tmp_path, "http://127.0.0.1:8080")

    with pytest.raises(StackRuns, match=r"already serves from .* at http://127\.0\.0\.1:8080"):
        lock_folder(tmp_path, "http://127.0.0.1:8081")

    os.close(first)


def test_the_folder_stays_locked_until_the_redis_that_writes_there_is_gone(tmp_path):
    lock = lock_folder(tmp_path, "http://127.0.0.1:8080")
    redis = RedisServer(tmp_path / "redis")
    redis.start(pass_fds=[lock])
    os.close(lock)  # as when the stack is killed

    with pytest.raises(StackRuns):
        lock_folder(tmp_path, "http://127.0.0.1:8080")

    redis.stop()
    os.close(lock_folder(tmp_path, "http://127.0.0.1:8080"))


def test_a_taken_port_is_named_with_a_way_out_and_nothing_is_started(serve, port, tmp_path):
    with socket.create_server((HOST, port)):
        stack = serve(wait=False)
        printed, _ = stack.communicate(timeout=60)

    assert stack.returncode == 1
    assert f"port {port} " in printed
    assert f"make serve PORT={port + 1}" in printed
    assert not (tmp_path / "data/redis").exists()


def test_a_folder_whose_path_is_too_long_for_a_socket_serves_all_the_same(tmp_path):
    folder = tmp_path / ("deep" * 30) / "redis"
    redis = RedisServer(folder)
    redis.start()

    with Redis.from_url(redis.url) as client:
        client.set("kept", "yes")
    redis.stop()

    assert not redis.socket.parent.exists()
    again = RedisServer(folder)
    again.start()
    with Redis.from_url(again.url) as client:
        assert client.get("kept") == b"yes"
    again.stop()
