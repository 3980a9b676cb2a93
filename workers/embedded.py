"""The all-in-one stack of `make serve` and `make demo`: Redis, a worker and the API in one process tree."""

import argparse
import fcntl
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from shared.errors import DreamqError, QueueUnavailable
from shared.redis_client import connect
from shared.settings import Settings
from shared.worker_registry import WorkerRegistry
from workers.launcher import ending
from workers.parent_death import die_with_parent
from workers.redis_server import RedisServer
from workers.stop_signals import StopSignals

HOST = "127.0.0.1"
DEFAULT_PORT = 8080
DEATHS_FOR_GOOD = 3
WITHIN_S = 60.0
"""A part that dies three times within a minute is not started again: the stack ends."""
READY_WITHIN_S = 180.0
GONE_WITHIN_S = 30.0
"""What a killed stack leaves behind is gone by then."""
API_STOPS_WITHIN_S = 5.0
"""Open event streams would hold the API for as long as their clients listen."""
LOOK_EVERY_S = 0.1
LOG_LINES_SHOWN = 20


class PortTaken(DreamqError):
    """Another program listens on this port."""

    code = "port_taken"


class StackRuns(DreamqError):
    """A stack runs in this folder already."""

    code = "stack_runs"

    def __init__(self, folder: Path, holder: Mapping[str, Any]) -> None:
        self.url = holder.get("url")
        where = f" at {self.url}" if self.url else ""
        super().__init__(
            f"dreamq already serves from {folder}{where} (process {holder.get('pid', 'unknown')}); "
            "stop that one first, or start this one in another folder"
        )


class PartFailed(DreamqError):
    """A part of the stack died for good."""

    code = "part_failed"


class Part:
    """One process of the stack, started again when it dies unless it keeps dying; what it prints goes to a file."""

    def __init__(self, name: str, start: Callable[[], "subprocess.Popen[bytes]"], log_file: Path) -> None:
        self.name = name
        self.log_file = log_file
        self._start = start
        self._deaths: list[float] = []
        self._shown = log_file.stat().st_size if log_file.exists() else 0
        self.process = start()

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def keep_alive(self) -> None:
        """Start the process again if it died; raises PartFailed when it dies too often."""
        if self.alive:
            return
        now = time.monotonic()
        self._deaths = [death for death in self._deaths if death > now - WITHIN_S] + [now]
        how = f"{self.name} ended ({ending(self.process.returncode)})"
        if len(self._deaths) >= DEATHS_FOR_GOOD:
            raise PartFailed(f"{how} for the third time within {WITHIN_S:.0f} s.\n{self.last_lines()}")
        print(f"dreamq: {how}; it is started again", file=sys.stderr, flush=True)
        self.process = self._start()

    def signal(self, number: int) -> None:
        if self.alive:
            self.process.send_signal(number)

    def last_lines(self) -> str:
        """The end of its log, for a person to see what went wrong."""
        lines = self.log_file.read_text(errors="replace").splitlines() if self.log_file.exists() else []
        return "\n".join(
            [f"The end of {self.log_file}:", *(f"  {line}" for line in lines[-LOG_LINES_SHOWN:])]
        )

    def new_lines(self) -> Iterator[str]:
        """The whole lines it printed since the last call."""
        if not self.log_file.exists():
            return
        with self.log_file.open("rb") as file:
            file.seek(self._shown)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._shown += len(line)
                yield line.decode(errors="replace").rstrip()


class Stack:
    """Redis, `python -m workers` and `python -m api`; whatever ends this process ends them too."""

    def __init__(self, folder: Path, *, port: int, worker: Sequence[str] = (), verbose: bool = False) -> None:
        """A stack in `folder`, not yet started; `worker`: more arguments for `python -m workers`."""
        self.folder = folder.resolve()
        self.url = f"http://{HOST}:{port}"
        self.verbose = verbose
        self.stop_signals = StopSignals()
        self._port = port
        self._worker_arguments = worker
        self._parts: dict[str, Part] = {}
        self._redis = RedisServer(self.folder / "redis")

    @property
    def redis_url(self) -> str:
        return self._redis.url

    @contextmanager
    def running(self) -> Iterator[None]:
        """The stack, up and answering, taken down again however the block ends.

        Raises:
            StackRuns: another one runs in this folder.
            PortTaken: something else listens on our port.
            PartFailed: a part does not come up.
        """
        lock = lock_folder(self.folder, self.url)
        try:
            check_port(self._port)
            self._start(lock)
            self._wait_until_ready()
            yield
        finally:
            self._stop()
            os.close(lock)

    def step(self) -> None:
        """Look after the parts once, and wait a moment. Raises PartFailed when one died for good."""
        for part in self._parts.values():
            part.keep_alive()
            if self.verbose:
                for line in part.new_lines():
                    print(f"{part.name:>6} | {line}", flush=True)
        time.sleep(LOOK_EVERY_S)

    def _start(self, lock: int) -> None:
        def start_redis() -> "subprocess.Popen[bytes]":
            self._redis.start(pass_fds=[lock])
            assert self._redis.process is not None
            return self._redis.process

        logs = self.folder / "logs"
        logs.mkdir(exist_ok=True)
        worker = [sys.executable, "-m", "workers", *self._worker_arguments]
        api = [sys.executable, "-m", "api", "--host", HOST, "--port", str(self._port)]
        self._parts["redis"] = Part("redis", start_redis, self._redis.log_file)
        self._parts["worker"] = self._python_part("worker", worker, logs, lock)
        self._parts["api"] = self._python_part("api", api, logs, lock)

    def _python_part(self, name: str, command: list[str], logs: Path, lock: int) -> Part:
        log_file = logs / f"{name}.log"
        log_file.write_bytes(b"")
        environment = self.environment()

        def start() -> "subprocess.Popen[bytes]":
            with log_file.open("ab") as output:
                return subprocess.Popen(
                    command,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    pass_fds=[lock],
                    start_new_session=True,  # a Ctrl-C in the terminal is ours to pass on, in the right order
                    preexec_fn=die_with_parent(signal.SIGKILL),
                )

        return Part(name, start, log_file)

    def environment(self) -> dict[str, str]:
        """The environment of the parts: ours, with our Redis, and storage in our folder unless it says otherwise."""
        storage_url = os.environ.get("STORAGE_URL") or str(self.folder)
        return {
            **os.environ,
            "REDIS_URL": self.redis_url,
            "STORAGE_URL": storage_url,
            "PYTHONUNBUFFERED": "1",
        }

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + READY_WITHIN_S
        while not self.stop_signals.requested and not (self._api_answers() and self._worker_is_known()):
            self.step()
            if time.monotonic() > deadline:
                lines = "\n".join(self._parts[name].last_lines() for name in ("worker", "api"))
                raise PartFailed(
                    f"the worker or the API does not answer after {READY_WITHIN_S:.0f} s.\n{lines}"
                )

    def _api_answers(self) -> bool:
        connection = http.client.HTTPConnection(HOST, self._port, timeout=2)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _worker_is_known(self) -> bool:
        with suppress(QueueUnavailable), connect(self.redis_url) as redis:
            return bool(WorkerRegistry(redis).all())
        return False

    def _stop(self) -> None:
        """Workers first, so that their jobs are checkpointed while Redis and storage are there; Redis last."""
        if worker := self._parts.get("worker"):
            worker.signal(signal.SIGTERM)
            while worker.alive and not self.stop_signals.hurried:
                time.sleep(LOOK_EVERY_S)
            worker.signal(signal.SIGKILL)  # the Celery workers die with it
        if api := self._parts.get("api"):
            api.signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                api.process.wait(timeout=API_STOPS_WITHIN_S)
            with suppress(ProcessLookupError):
                os.killpg(api.process.pid, signal.SIGKILL)
        for part in self._parts.values():
            if part.name != "redis":
                part.process.wait()
        self._redis.stop()


def lock_folder(folder: Path, url: str) -> int:
    """Take a folder for one stack; its lock, held until we and every part that we hand it to have closed it.

    Raises:
        StackRuns: another stack has it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + GONE_WITHIN_S
    while not locked(lock):
        holder = json.loads(os.pread(lock, 4096, 0) or b"{}")
        # A stack that was killed leaves parts that are about to end: Redis still writes its file.
        if lives(holder) or time.monotonic() > deadline:
            os.close(lock)
            raise StackRuns(folder, holder)
        time.sleep(LOOK_EVERY_S)
    os.truncate(lock, 0)
    os.pwrite(lock, json.dumps({"pid": os.getpid(), "url": url}).encode(), 0)
    return lock


def locked(file: int) -> bool:
    """Whether we have the lock of an open file now."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def lives(holder: Mapping[str, Any]) -> bool:
    """Whether the process that wrote itself into a lock is there."""
    return "pid" in holder and psutil.pid_exists(holder["pid"])


def check_port(port: int) -> None:
    """Raise PortTaken when the API could not listen on this port."""
    with socket.socket() as probe:
        # As the server itself will: connections of an earlier run that still linger do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise PortTaken(
                f"port {port} of {HOST} is not to be had ({error.strerror}); choose another: make serve PORT={port + 1}"
            ) from error


def banner(stack: Stack) -> str:
    """What one needs to know to use the stack."""
    storage_url = stack.environment()["STORAGE_URL"]
    return f"""
dreamq is ready at {stack.url} (open it in a browser, or use one of these)

  dreamq   .venv/bin/dreamq --url {stack.url} submit deepdream --image photo.jpg --network squeezenet --watch
  Python   export REDIS_URL='{stack.redis_url}' STORAGE_URL='{storage_url}'
  logs     {stack.folder / "logs"}

Ctrl-C stops it. Running jobs are checkpointed and go on at the next start.
"""


def serve(options: argparse.Namespace) -> None:
    """Keep the stack running until a signal stops it or a part dies for good."""
    worker = ["--devices", options.devices, *(["--queues", options.queues] if options.queues else [])]
    stack = Stack(Path("data"), port=options.port, worker=worker, verbose=options.verbose)
    print("dreamq: starting Redis, a worker and the API ...", flush=True)
    with stack.running():
        if not stack.stop_signals.requested:
            print(banner(stack), flush=True)
        while not stack.stop_signals.requested:
            stack.step()
        print(
            "\ndreamq: stopping; running jobs are checkpointed first (Ctrl-C twice more to hurry)", flush=True
        )
    print("dreamq: stopped", flush=True)


def main(arguments: list[str] | None = None) -> int:
    """make serve; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m workers.embedded", description=__doc__)
    parser.add_argument("--port", type=int, default=DEFAULT_PORT)
    parser.add_argument("--devices", default="all", help="as for python -m workers")
    parser.add_argument("--queues", help="as for python -m workers")
    parser.add_argument("--verbose", action="store_true", help="show what the parts log")
    options = parser.parse_args(arguments)
    try:
        Settings.from_environment()
        serve(options)
    except DreamqError as error:
        print(f"dreamq: {error.message}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
