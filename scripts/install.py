"""Fill .venv with requirement lists; at once when that was done before. `make` calls it through setup.sh."""

import fcntl
import hashlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMPS = VENV / "installed"  # one file per requirement list, holding its fingerprint
UNFINISHED = VENV / "unfinished"  # there while pip writes: found at a start, the install was cut off


def main(lists: list[str]) -> None:
    if VENV.is_symlink():  # an environment that someone keeps elsewhere: used as it is, never changed
        if not version_in_venv():
            sys.exit(f"{VENV} links to no Python environment; remove the link, and .venv is made here")
        return
    # Two calls of make at once: the second waits. The lock is the folder's, so that no file is left.
    fcntl.flock(os.open(ROOT, os.O_RDONLY), fcntl.LOCK_EX)
    wanted = {name: fingerprint(name) for name in lists}
    if not UNFINISHED.exists() and all(stamp(name) == print_ for name, print_ in wanted.items()):
        return
    create_venv()
    install(lists)
    STAMPS.mkdir(exist_ok=True)
    for name in lists:
        for installed in [name, *included(name)]:
            (STAMPS / installed).write_text(fingerprint(installed))


def included(name: str) -> list[str]:
    """The lists that a list includes by `-r`."""
    lines = (ROOT / name).read_text().splitlines()
    return [line.split()[1] for line in lines if line.startswith("-r ")]


def fingerprint(name: str) -> str:
    """Changes with the list, what it includes, pyproject.toml and the version of Python."""
    files = [name, *included(name), "pyproject.toml"]
    text = "\n".join([str(sys.version_info[:2]), *((ROOT / file).read_text() for file in files)])
    return hashlib.sha256(text.encode()).hexdigest()


def stamp(name: str) -> str:
    file = STAMPS / name
    return file.read_text() if file.exists() else ""


def create_venv() -> None:
    """Make .venv, or make it anew when it is broken, half filled or of another Python."""
    if not UNFINISHED.exists() and version_in_venv() == sys.version_info[:2]:
        return
    missing = [name for name in ("venv", "ensurepip") if importlib.util.find_spec(name) is None]
    if missing:
        package = f"python{sys.version_info.major}.{sys.version_info.minor}-venv"
        sys.exit(
            f"{sys.executable} comes without its module {' and '.join(missing)}, which makes .venv.\n"
            f"Debian, Ubuntu: apt-get install {package}. Or choose another Python: make ... PYTHON=/path/to/python"
        )
    print(f"Making .venv with Python {sys.version.split()[0]} ...", flush=True)
    if run([sys.executable, "-m", "venv", "--clear", str(VENV)]) != 0:
        sys.exit("Python could not make .venv; its reason stands above.")


def version_in_venv() -> tuple[int, ...]:
    """The version of the Python in .venv; () where none runs, or none with pip."""
    code = "import pip, sys; print(*sys.version_info[:2])"
    try:
        printed = subprocess.run(
            [VENV / "bin/python", "-c", code], capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return ()
    return tuple(map(int, printed.split()))


def install(lists: list[str]) -> None:
    """Install the lists and this folder itself, so that `dreamq` is a command."""
    print(f"Installing {' and '.join(lists)}: once, a few minutes ...", flush=True)
    UNFINISHED.touch()
    requirements = [argument for name in lists for argument in ("-r", str(ROOT / name))]
    pip = [str(VENV / "bin/python"), "-m", "pip", "--disable-pip-version-check", "install"]
    status = run([*pip, *requirements, "--editable", str(ROOT)])
    # A pip that ended by itself has left no package half installed; one that a signal ended may have.
    if status >= 0:
        UNFINISHED.unlink()
    if status != 0:
        sys.exit(
            "pip could not install the requirements; its reason stands above. The next call tries again."
        )


def run(command: list[str]) -> int:
    """Run a command in sight of the user; its exit status, negative when a signal ended it."""
    return subprocess.run(command, cwd=ROOT).returncode


if __name__ == "__main__":
    main(sys.argv[1:])
