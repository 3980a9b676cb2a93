"""The documentation says what the code does: what is generated is current, what is shown works."""

import re
import shlex
from pathlib import Path

import pytest

from scripts.write_docs import ROOT, documents
from shared.kinds import KINDS
from shared.settings import Settings

README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("path", documents(), ids=lambda path: path.name)
def test_what_is_generated_is_current(path: Path):
    assert path.read_text() == documents()[path], "run `make docs` and commit what it writes"


def test_every_setting_is_explained():
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_every_parameter_of_every_kind_is_explained():
    unexplained = [
        f"{kind}.{name}"
        for kind, params in KINDS.items()
        for name, field in params.model_fields.items()
        if not field.description
    ]

    assert unexplained == []


def test_every_make_target_that_the_readme_names_exists():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))

    assert set(re.findall(r"(?:`|^    )make ([a-z]+)", README, flags=re.MULTILINE)) - targets == set()


def test_every_link_to_a_file_leads_to_one():
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    links = [(page, link) for page in pages for link in re.findall(r"\]\(([^)#:]+)", page.read_text())]

    assert [link for page, link in links if not (page.parent / link).exists()] == []


def test_the_python_examples_are_code_that_compiles():
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for example in re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL):
            compile(example, page.name, "exec")


def test_every_submit_that_is_shown_has_parameters_of_its_kind():
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    text = "\n".join(page.read_text() for page in pages).replace("\\\n", " ")
    submits = [shlex.split(line, comments=True) for line in re.findall(r"dreamq submit ([a-z_]+ --.*)", text)]
    assert submits

    for kind, *arguments in submits:
        options = {word.partition("=")[0] for word in arguments if word.startswith("--")} - {"--watch"}
        known = {f"--{name.replace('_', '-')}" for name in KINDS[kind].model_fields}
        assert options - known == set(), kind
