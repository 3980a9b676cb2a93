"""python -m workers.alive: exit status 0 while this host's workers look after their jobs; for health checks.

Each worker's lease thread touches a file of its own every few seconds, whether Redis answers or not: an outage of
Redis is no reason to restart a worker. A worker that died is the launcher's to start again.
"""

import os
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil

SILENT_FOR_S = 180
"""Longer than a turn that waits for a Redis which accepts connections and says nothing."""


def folder() -> Path:
    """Where the files are: this user's own, on this host."""
    return Path(tempfile.gettempdir()) / f"dreamq-alive-{os.getuid()}"


def touch() -> None:
    """Say that this process' lease thread is at work."""
    with suppress(OSError):  # a full disk must not keep the thread from renewing leases
        folder().mkdir(mode=0o700, exist_ok=True)
        (folder() / str(os.getpid())).touch()


def main() -> int:
    """The exit status: 0 when at least one worker lives and none has gone silent."""
    ages_s = {}
    for file in folder().glob("*"):
        if psutil.pid_exists(int(file.name)):
            ages_s[file.name] = time.time() - file.stat().st_mtime
        else:
            file.unlink(missing_ok=True)
    silent = [pid for pid, age_s in ages_s.items() if age_s > SILENT_FOR_S]
    if ages_s and not silent:
        return 0
    print(f"no word from {', '.join(silent) or 'any worker'}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
