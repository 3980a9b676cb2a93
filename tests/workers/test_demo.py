"""make demo: the real thing, from the first process to the picture."""

import os
import socket
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.workers.processes import python_process
from workers.demo import DemoFailed, Server, free_port, jobs
from workers.embedded import HOST, lock_folder

NOTHING_SET = {"STORAGE_URL": "", "API_KEYS_FILE": "", "EXTRA_KINDS": ""}


@pytest.mark.timeout(600)  # other test files run beside it
def test_the_demo_dreams_on_a_cat_and_says_where_the_pictures_are(tmp_path: Path, chelsea: Path):
    with python_process("-m", "workers.demo", cwd=tmp_path, **NOTHING_SET) as demo:
        printed, _ = demo.communicate(timeout=590)

    assert demo.returncode == 0, printed
    shown = [Path(line.split()[1]) for line in printed.splitlines() if line.startswith("  result ")]
    assert [path.name for path in shown] == [job.shows for job in jobs()]
    assert all(f"/{path.parent.name}/artifacts/{path.name}" in printed for path in shown)
    for path in shown:
        Image.open(path).verify()
    result = shown[0]
    assert "step 60 of 60" in printed  # plain lines, since there is no terminal here
    with Image.open(result) as dream, Image.open(chelsea) as photo:
        assert dream.size == photo.size == (451, 300)
        change = np.abs(np.asarray(dream, np.float32) - np.asarray(photo, np.float32))
    # What one can see: a tenth of the values have moved by more than 10 of 255, which is well above what the eye
    # tells apart in a flat area, and the picture is still the cat (the mean moves by less than a quarter of the range).
    assert np.quantile(change, 0.9) > 10
    assert change.mean() < 64


def test_the_demo_takes_the_server_that_runs_in_its_folder_and_fails_when_that_does_not_answer(
    tmp_path: Path,
):
    nobody = f"http://{HOST}:{unused_port()}"
    lock = lock_folder(tmp_path / "data", nobody)
    try:
        with python_process("-m", "workers.demo", cwd=tmp_path, **NOTHING_SET) as demo:
            printed, _ = demo.communicate(timeout=60)
    finally:
        os.close(lock)

    assert demo.returncode == 1
    assert f"taking the server that runs here already, {nobody}" in printed
    assert "`dreamq submit` failed" in printed


def test_a_command_that_fails_fails_the_demo():
    with pytest.raises(DemoFailed, match="exit status 3"):
        Server(f"http://{HOST}:{unused_port()}").dreamq("list")


def test_the_demo_takes_another_port_where_its_own_is_taken(monkeypatch: pytest.MonkeyPatch):
    port = unused_port()
    monkeypatch.setattr("workers.demo.DEFAULT_PORT", port)

    assert free_port() == port
    with socket.create_server((HOST, port)):
        assert free_port() != port


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
