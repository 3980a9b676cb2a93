"""What `make` does before anything else: a fitting Python, .venv, the requirements, once."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# A build backend in the folder itself, so that no package index is needed to install the folder.
BACKEND = """
import zipfile

def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    with zipfile.ZipFile(f"{wheel_directory}/tiny-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny_is_installed.py", "")
        wheel.writestr("tiny-1.dist-info/METADATA", "Metadata-Version: 2.1\\nName: tiny\\nVersion: 1\\n")
        wheel.writestr("tiny-1.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr("tiny-1.dist-info/RECORD", "")
    return "tiny-1-py3-none-any.whl"
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with our set-up scripts and a tiny package to install."""
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    (tmp_path / "backend.py").write_text(BACKEND)
    (tmp_path / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        '[project]\nname = "tiny"\nversion = "1"\n'
    )
    (tmp_path / "requirements.txt").write_text("# nothing\n")
    (tmp_path / "requirements-dev.txt").write_text("-r requirements.txt\n")
    return tmp_path


def set_up(project: Path, *lists: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["sh", "scripts/setup.sh", *(lists or ["requirements.txt"])],
        cwd=project,
        env={**os.environ, "PYTHON": sys.executable, **environment},
        capture_output=True,
        text=True,
        timeout=110,
    )


def fake_python(folder: Path, version: str) -> str:
    """A `python` that only tells its version."""
    program = folder / f"python-{version}"
    program.write_text(f'#!/bin/sh\n[ "$1" = --version ] && echo Python {version} || exit 1\n')
    program.chmod(0o755)
    return str(program)


def test_the_first_call_installs_the_next_does_nothing_and_what_changed_or_was_cut_off_is_installed(project):
    first = set_up(project, "requirements-dev.txt")
    assert first.returncode == 0, first.stderr
    python = project / ".venv/bin/python"
    subprocess.run([python, "-c", "import tiny_is_installed"], check=True)

    # The longer list holds the shorter one, so neither has anything left to do.
    assert [set_up(project, name).stdout for name in ("requirements-dev.txt", "requirements.txt")] == ["", ""]

    (project / "requirements.txt").write_text("# nothing new\n")
    assert "Installing requirements-dev.txt" in set_up(project, "requirements-dev.txt").stdout

    # As a kill of pip leaves it: some files there, some not, and pip would take them for whole.
    (project / ".venv/unfinished").touch()
    python.unlink()
    repaired = set_up(project, "requirements-dev.txt")
    assert "Making .venv" in repaired.stdout
    subprocess.run([python, "-c", "import tiny_is_installed"], check=True)


def test_an_install_that_fails_says_so_and_the_next_call_tries_again(project):
    backend = (project / "backend.py").read_text()
    (project / "backend.py").write_text("raise SystemExit('no')")

    failed = set_up(project)
    (project / "backend.py").write_text(backend)
    tried_again = set_up(project)

    assert failed.returncode == 1
    assert "The next call tries again" in failed.stderr
    assert tried_again.returncode == 0
    assert "Making .venv" not in tried_again.stdout


def test_a_python_that_does_not_fit_is_named_with_those_that_do(project, tmp_path):
    refused = set_up(project, PYTHON=fake_python(tmp_path, "3.10.4"))

    assert refused.returncode == 1
    assert "needs Python 3.11, 3.12 or 3.13" in refused.stderr
    assert "Python 3.10.4" in refused.stderr
    assert "PYTHON=" in refused.stderr
    assert not (project / ".venv").exists()


def test_a_python_without_ensurepip_is_told_which_package_brings_it(project, tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['ensurepip'] = None\n")

    refused = set_up(project, PYTHONPATH=str(tmp_path))

    assert refused.returncode == 1
    package = f"python{sys.version_info.major}.{sys.version_info.minor}-venv"
    assert f"apt-get install {package}" in refused.stderr
    assert len(refused.stderr.splitlines()) == 2


def test_an_environment_that_venv_links_to_is_used_and_never_changed(project):
    (project / ".venv").symlink_to(sys.prefix)

    assert set_up(project).returncode == 0
    assert importlib.util.find_spec("tiny_is_installed") is None


def test_a_link_that_leads_to_no_environment_is_told(project, tmp_path):
    (project / ".venv").symlink_to(tmp_path / "gone")

    refused = set_up(project)

    assert refused.returncode == 1
    assert "remove the link" in refused.stderr
