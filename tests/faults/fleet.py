"""A Redis, a storage and real workers, each a process tree of its own that can be killed, frozen and cut off."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Self

import psutil

from shared.job import Job, JobStatus
from shared.queue import Queue
from shared.recovery import RecoveryThread
from shared.settings import Settings
from tests.faults.steps import chain
from tests.faults.wire import Wire
from tests.workers.processes import ROOT, descendants, running, until
from workers.launcher import celery_command
from workers.parent_death import die_with_parent
from workers.redis_server import RedisServer

LEASE_S = 3


@dataclass(frozen=True)
class Place:
    """Where a worker runs, if not right here."""

    command: tuple[str, ...] = ()
    """What goes before the worker's own command, and in the end becomes it."""
    host: str = field(default_factory=socket.gethostname)
    environment: Mapping[str, str] = field(default_factory=dict)


HERE = Place()


class Worker:
    """One Celery worker: its main process and all below it."""

    def __init__(
        self,
        node: str,
        wire: Wire,
        log_file: Path,
        environment: dict[str, str],
        queues: str,
        place: Place = HERE,
    ) -> None:
        self.name = f"{node}@{place.host}"
        self.wire = wire
        self.log_file = log_file
        with log_file.open("wb") as log:
            self.process = subprocess.Popen(
                [*place.command, *celery_command(node, queues=queues)],
                cwd=ROOT,
                env={
                    **os.environ,
                    "PYTHONPATH": str(ROOT),
                    **environment,
                    "REDIS_URL": wire.url,
                    **place.environment,
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=die_with_parent(signal.SIGKILL),
            )

    def __repr__(self) -> str:
        return f"<{self.name}>"

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def tree(self) -> list[psutil.Process]:
        """The main process and all below it."""
        return [psutil.Process(self.process.pid), *descendants(self.process.pid)]

    def freeze(self) -> None:
        """Stop the whole tree where it stands."""
        self._signal_all(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let the whole tree go on."""
        self._signal_all(signal.SIGCONT)

    def kill(self) -> None:
        """End the whole tree at once, as a machine does that loses its power."""
        self._signal_all(signal.SIGSTOP)  # so that none sees another die
        self._signal_all(signal.SIGKILL)
        self.process.wait(timeout=10)

    def kill_main(self) -> list[psutil.Process]:
        """Kill the main process alone; those that were below it."""
        below = descendants(self.process.pid)
        self.process.kill()
        self.process.wait(timeout=10)
        return below

    def terminate(self) -> None:
        """Ask it to drain."""
        self.process.send_signal(signal.SIGTERM)

    def drained(self, within_s: float = 40) -> int:
        """Wait for its end; the exit status."""
        return self.process.wait(timeout=within_s)

    def end(self) -> None:
        """Kill whatever is left of it."""
        if self.alive:
            self.kill()
        self.wire.close()

    def log(self) -> str:
        """What it has written."""
        return self.log_file.read_text(errors="replace")

    def _signal_all(self, number: int) -> None:
        with suppress(psutil.NoSuchProcess):
            for process in self.tree() if self.alive else []:
                with suppress(psutil.NoSuchProcess):
                    process.send_signal(number)


class Fleet:
    """Everything that dreamq runs on but the API, with short leases; all of it is gone when the block ends."""

    def __init__(
        self, folder: Path, *, storage_url: str = "", queues: str = "steps", **settings: Any
    ) -> None:
        self.queues = queues
        self.folder = folder
        self.sockets = Path(tempfile.mkdtemp(prefix="dq-"))  # a socket's path must be short
        self.redis = RedisServer(folder / "redis")
        self.redis.start()
        self.settings = Settings(
            **{
                "redis_url": self.redis.url,
                "storage_url": storage_url or str(folder / "storage"),
                "weights_dir": folder / "weights",
                "lease_s": LEASE_S,
                "extra_kinds": "tests.faults.steps",
                **settings,
            }
        )
        self.queue = Queue.from_settings(self.settings)
        self.store = self.queue.store
        self.workers: list[Worker] = []
        self._past: list[Worker] = []
        self._started = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.workers:
            worker.end()
        self.store.redis.close()
        self.queue.dispatch.app.close()
        if self.redis.process is not None:
            self.redis.process.send_signal(signal.SIGCONT)
        self.redis.stop()
        shutil.rmtree(self.sockets)

    # Workers

    def start(
        self, count: int = 1, *, wait: bool = True, place: Place = HERE, **environment: str
    ) -> list[Worker]:
        """Start workers, and wait until they have registered."""
        started = []
        for _ in range(count):
            self._started += 1
            node = f"w{self._started}"
            log_file = self.folder / f"{node}.log"
            started.append(
                Worker(
                    node,
                    self.new_wire(node),
                    log_file,
                    {**self.settings.environment(), **environment},
                    self.queues,
                    place,
                )
            )
        self.workers += started
        if wait:
            until(lambda: all(map(self.registered, started)), what="the workers' registration")
        return started

    def exactly(self, count: int) -> list[Worker]:
        """So many workers that live and are well: new ones for the dead, none beyond."""
        for worker in [
            worker for worker in self.workers if not worker.alive or self.workers.index(worker) >= count
        ]:
            worker.end()
            self.workers.remove(worker)
            self._past.append(worker)
        if len(self.workers) < count:
            self.start(count - len(self.workers))
        return self.workers

    def registered(self, worker: Worker) -> bool:
        """Whether it has said that it is there."""
        assert worker.alive, f"{worker} ended as it started:\n{worker.log()}"
        return worker.name in {known["name"] for known in self.queue.workers()}

    def runner(self, job: Job) -> Worker:
        """The worker that runs a job."""
        running_job = self.queue.get(job.id)
        assert running_job.worker is not None, running_job
        return next(worker for worker in self.workers if worker.name == running_job.worker.name)

    def logs(self) -> list[tuple[str, str]]:
        """What each worker has written."""
        return [(worker.name, worker.log()) for worker in self._past + self.workers]

    def new_wire(self, name: str) -> Wire:
        """A line to Redis of its own for a process."""
        return Wire(self.sockets / name, self.redis.socket)

    def script(self, name: str) -> bytes:
        """The mark by which the calls of one of the store's scripts are known on a wire."""
        sha: str = self.store._scripts[name].sha
        return sha.encode()

    @contextmanager
    def recovery_elsewhere(self) -> Iterator[None]:
        """Recovery's turns in this process, as an API takes them."""
        thread = RecoveryThread(self.queue)
        thread.start()
        try:
            yield
        finally:
            thread.stop()
            thread.join()

    # Jobs

    def submit(self, **params: Any) -> Job:
        """Queue a job of the tests' kind; its seed is 1 unless it is given."""
        return self.queue.submit("steps", {"seed": 1, **params})

    def until(self, condition: Callable[[Job], Any], job: Job, *, within_s: float = 60) -> Job:
        """Wait for something to be true of a job; the job as it was then."""

        def seen() -> Job | None:
            now = self.queue.get(job.id)
            return now if condition(now) else None

        try:
            return until(seen, within_s=within_s)
        except AssertionError as error:
            raise AssertionError(f"waited in vain: {self.queue.get(job.id).view()}") from error

    def until_step(self, job: Job, step: int) -> Job:
        """Wait until a running job has a checkpoint at `step` or after it."""
        return self.until(
            lambda now: (
                now.status == JobStatus.RUNNING and now.checkpoints and now.checkpoints[0].step >= step
            ),
            job,
        )

    def ended(self, job: Job, *, within_s: float = 60) -> Job:
        """Wait for a job's end, and for its end in storage."""
        ended = self.until(lambda now: now.status.ended, job, within_s=within_s)
        until(lambda: job.id not in self.store.unwritten(), what="the job's end in storage")
        return ended

    def assert_succeeded(self, job: Job, *, within_s: float = 60) -> Job:
        """Wait for a job's end: done, with the result of an unbroken run, each file whole and in its place."""
        ended = self.ended(job, within_s=within_s)
        assert ended.status == JobStatus.SUCCEEDED, ended.view()
        self.assert_files_whole(ended)
        result = self.queue.open_artifact(job.id, "result.txt").read().decode()
        assert result == chain(ended.params["steps"], ended.params["seed"])
        return ended

    def assert_files_whole(self, job: Job) -> None:
        """Each artifact that the record lists is in storage, with the bytes that it says."""
        for artifact in job.artifacts:
            data = self.queue.storage.read(artifact.path)
            assert (len(data), sha256(data).hexdigest()) == (artifact.bytes, artifact.sha256), artifact


def until_gone(processes: list[psutil.Process]) -> None:
    """Wait until none of these processes runs."""
    until(lambda: not any(running(process) for process in processes), within_s=10, what="the processes' end")


def seconds_since(moment: float) -> float:
    """Seconds since a `time.monotonic()`, to be told."""
    return time.monotonic() - moment


class Launched:
    """`python -m workers` on a fleet's Redis and storage, with a worker that it restarts when it dies."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.log_file = fleet.folder / "launcher.log"

    def __enter__(self) -> Self:
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "workers", "--devices", "cpu", "--queues", "steps"],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT), **self.fleet.settings.environment()},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=die_with_parent(signal.SIGTERM),
            )
        until(self.fleet.queue.workers, what="the worker's registration")
        return self

    def __exit__(self, *_: object) -> None:
        tree = [psutil.Process(self.process.pid), *descendants(self.process.pid)]
        for process in tree:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait(timeout=10)
        until_gone(tree)
