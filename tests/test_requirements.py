"""The lists of requirements agree with each other, with the code that imports and with the README."""

import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.test_import_rules import OURS, imports_in

ROOT = Path(__file__).resolve().parent.parent
RUNTIME, API, GPU, DEV = (
    "requirements.txt",
    "requirements-api.txt",
    "requirements-gpu.txt",
    "requirements-dev.txt",
)
BENCH = "requirements-bench.txt"
"""What a benchmark is compared with where it is installed, and left out with a word where it is not."""


def listed(name: str) -> dict[str, Requirement]:
    """The requirements that a list holds itself, by canonical name."""
    lines = [line.partition("#")[0].strip() for line in (ROOT / name).read_text().splitlines()]
    found = [Requirement(line) for line in lines if line and not line.startswith("-r")]
    return {canonicalize_name(requirement.name): requirement for requirement in found}


def everything() -> dict[str, Requirement]:
    return listed(RUNTIME) | listed(DEV) | listed(BENCH)


@pytest.mark.parametrize("name", [RUNTIME, API, GPU, DEV, BENCH])
def test_every_requirement_is_pinned_to_one_version(name):
    loose = [
        str(found) for found in listed(name).values() if not re.fullmatch(r"==[\w.]+", str(found.specifier))
    ]

    assert loose == []


@pytest.mark.parametrize("name", [API, GPU])
def test_what_two_lists_name_has_the_same_version_in_both(name):
    runtime = listed(RUNTIME)

    assert {found: str(pin.specifier) for found, pin in listed(name).items()} == {
        found: str(runtime[found].specifier) for found in listed(name)
    }


@pytest.mark.parametrize("name", [GPU, DEV])
def test_the_longer_lists_hold_all_of_the_runtime(name):
    assert f"-r {RUNTIME}" in (ROOT / name).read_text().splitlines()


def test_an_api_host_needs_no_tensorflow():
    assert not {"tensorflow", "keras"} & set(listed(API))


@pytest.mark.parametrize(
    ("packages", "lists"),
    [(("shared", "api"), [API]), (OURS, [RUNTIME]), (("tests", "scripts"), [RUNTIME, DEV])],
    ids=["API host", "worker", "tests"],
)
def test_what_the_code_imports_is_required_by_name(packages, lists):
    """Nothing is used that is only there because another package happens to need it."""
    distributions = packages_distributions()
    required = {found for name in lists for found in listed(name)}
    missing = {
        (module, file)
        for file, module in imports_in(*packages)
        # A benchmark does without what is not installed.
        if module not in (*OURS, "tests", "scripts", *listed(BENCH), *sys.stdlib_module_names)
        and not {canonicalize_name(name) for name in distributions.get(module, [])} & required
    }

    assert missing == set()


def test_the_package_accepts_the_versions_that_are_tested():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    ranges = {canonicalize_name(found.name): found for found in map(Requirement, project["dependencies"])}
    pins = {name: str(found.specifier).removeprefix("==") for name, found in listed(API).items()}

    assert [name for name, found in ranges.items() if not found.specifier.contains(pins[name])] == []


def test_the_readme_gives_a_reason_for_each_requirement_and_names_no_other():
    rows = re.findall(r"^\| (`.+`) \| \S.* \|$", section("Dependencies"), flags=re.MULTILINE)
    named = [canonicalize_name(Requirement(name.strip("`")).name) for row in rows for name in row.split(", ")]

    assert sorted(named) == sorted(everything())


def section(title: str) -> str:
    """The text of one section of the README."""
    found = re.search(
        rf"^##+ {title}\n(.*?)(?=^## |\Z)", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE
    )
    assert found, f"README.md has no section {title!r}"
    return found[1]
