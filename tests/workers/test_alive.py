"""The health check of a worker host, on files as workers leave them."""

import os
import subprocess
import sys
import time

import pytest

from workers import alive


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A folder for this test alone."""
    monkeypatch.setattr(alive, "folder", lambda: tmp_path / "alive")


def test_a_host_is_well_while_its_workers_speak():
    alive.touch()

    assert alive.main() == 0


def test_a_host_without_any_worker_is_not_well():
    assert alive.main() == 1


def test_a_worker_that_lives_and_is_silent_makes_its_host_unwell():
    alive.touch()
    long_ago = time.time() - alive.SILENT_FOR_S - 1
    os.utime(alive.folder() / str(os.getpid()), (long_ago, long_ago))

    assert alive.main() == 1


def test_a_worker_that_is_gone_does_not_count():
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    alive.touch()
    (alive.folder() / str(ended.pid)).touch()

    assert alive.main() == 0
    assert [file.name for file in alive.folder().iterdir()] == [str(os.getpid())]
