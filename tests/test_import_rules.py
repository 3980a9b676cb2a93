"""Which side loads what, by really loading it; import-linter (make check) reads the same rules off the source."""

import ast
import os
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
OURS = ("api", "shared", "tasks", "workers")


def modules_of(*packages: str) -> list[str]:
    """The names of every module below some packages."""
    return [
        module.name
        for package in packages
        for module in pkgutil.walk_packages([str(ROOT / package)], f"{package}.")
    ]


def loaded_by(*modules: str) -> set[str]:
    """The top-level packages that a fresh Python has loaded after importing some modules."""
    code = (
        f"import importlib, sys\nfor name in {modules!r}: importlib.import_module(name)\nprint(*sys.modules)"
    )
    # Without the tests' own kinds, which a server does not have.
    environment = {**os.environ, "EXTRA_KINDS": ""}
    told = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=110
    )
    assert told.returncode == 0, told.stderr
    return {name.partition(".")[0] for name in told.stdout.split()}


@pytest.mark.parametrize(
    ("modules", "forbidden"),
    [
        (modules_of("shared"), {"tensorflow", "keras", "flask", "api", "tasks", "workers"}),
        (modules_of("api"), {"tensorflow", "keras", "tasks", "workers"}),
        (modules_of("tasks"), {"flask", "celery", "api", "workers"}),
        # The main process of a worker must stay free of TensorFlow: it renews leases while a job computes.
        (modules_of("workers"), {"tensorflow", "keras", "flask", "api"}),
        # A program that only submits jobs.
        (["shared.queue"], {"tensorflow", "keras", "flask", "api", "tasks", "workers"}),
    ],
    ids=["shared", "api", "tasks", "workers", "submit from Python"],
)
def test_importing_one_side_never_loads_the_other(modules, forbidden):
    assert loaded_by(*modules) & forbidden == set()


def imports_in(*packages: str) -> Iterator[tuple[str, str]]:
    """Each import in the source of some packages: the file, and the top-level name that it imports."""
    for package in packages:
        for file in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Import):
                    yield from ((str(file), name.name.partition(".")[0]) for name in node.names)
                elif isinstance(node, ast.ImportFrom):
                    yield str(file), (node.module or "").partition(".")[0] if node.level == 0 else "."


def test_imports_are_absolute():
    assert [file for file, name in imports_in(*OURS, "tests", "scripts") if name == "."] == []


def test_nobody_imports_the_api():
    assert [file for file, name in imports_in("shared", "tasks", "workers") if name == "api"] == []
