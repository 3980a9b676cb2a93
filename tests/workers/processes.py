"""Real processes for tests: started with our environment, ended with the test, waited for by condition."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import psutil

T = TypeVar("T")
ROOT = Path(__file__).resolve().parents[2]


def until(condition: Callable[[], T], *, within_s: float = 60, what: str = "") -> T:
    """Wait for a condition to hold; what it gave. The time limit only keeps a failing test from hanging."""
    deadline = time.monotonic() + within_s
    while not (got := condition()):
        assert time.monotonic() < deadline, f"{what or condition} did not come about within {within_s:.0f} s"
        time.sleep(0.05)
    return got


@contextmanager
def python_process(
    *arguments: str, cwd: Path = ROOT, **environment: str
) -> Iterator["subprocess.Popen[str]"]:
    """`python ARGUMENTS` with its output in a pipe; it and all below it are gone when the block ends."""
    process = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        tree = descendants(process.pid)
        process.kill()
        process.communicate()
        for child in tree:
            with suppress(psutil.NoSuchProcess):
                child.kill()


def descendants(pid: int) -> list[psutil.Process]:
    """Every process below this one."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def running(process: psutil.Process) -> bool:
    """Whether it still runs (a zombie does not)."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
