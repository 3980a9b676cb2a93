"""docs/reliability.md names tests, error codes, settings and commands that exist."""

import re
from pathlib import Path

from scripts.write_docs import ROOT
from shared import errors
from shared.settings import Settings
from tests.faults import chaos

PAGE = (ROOT / "docs" / "reliability.md").read_text()
NAMED = set(re.findall(r"`([^`\n]+)`", PAGE))


def functions(folder: Path) -> set[str]:
    """The names of the tests in a folder and below it."""
    return {
        name for path in folder.rglob("test_*.py") for name in re.findall(r"def (test_\w+)", path.read_text())
    }


def test_every_test_that_the_page_names_exists():
    named = {name for name in NAMED if name.startswith("test_")}

    assert len(named) > 20
    assert named - functions(ROOT / "tests") == set()


def test_every_setting_and_error_code_that_the_page_names_exists():
    codes = {error.code for error in vars(errors).values() if hasattr(error, "code")}
    settings = {name.partition("=")[0] for name in NAMED if name.isupper() or "=" in name}
    words = {name for name in NAMED if re.fullmatch(r"[a-z]+_[a-z_]+", name) and not name.startswith("test_")}

    assert {name.lower() for name in settings} - set(Settings.model_fields) == set()
    # A loss is counted in the record, by a script of the store, and is raised by nobody.
    assert words - codes == {"worker_lost"}


def test_the_checkers_command_is_one_that_it_understands():
    (command,) = re.findall(r"`python -m tests\.faults\.chaos ([^`]*)`", PAGE)

    options = chaos.parse(command.split())
    assert (options.minutes, options.seed) == (20, 7)
