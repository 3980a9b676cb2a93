"""The web pages: whole, of our own making only, and with nothing in them that the policy would stop."""

import re
from pathlib import Path

import pytest

import api

HERE = Path(api.__file__).parent
TEMPLATES = sorted((HERE / "templates").glob("*.html"))
SCRIPTS = sorted((HERE / "static").glob("*.js"))
ALL = [*TEMPLATES, *SCRIPTS, *sorted((HERE / "static").glob("*.css"))]


def read(path):
    """The text of a file of the pages."""
    return path.read_text()


@pytest.mark.parametrize("path", ["/", f"/jobs/{'0' * 26}"])
def test_a_page_and_all_that_it_names_is_served(client, path):
    page = client.get(path)

    assert page.status_code == 200
    assert page.content_type == "text/html; charset=utf-8"
    named = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert any(name.endswith(".js") for name in named)
    for name in named:
        answer = client.get(name)
        assert answer.status_code == 200, name
        answer.close()


def test_scripts_are_served_as_scripts_since_browsers_may_not_guess(client):
    for script in SCRIPTS:
        answer = client.get(f"/static/{script.name}")
        assert answer.content_type.startswith("text/javascript"), script.name
        answer.close()


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_every_import_of_a_script_is_there(path):
    for imported, source in re.findall(r'import \{([^}]+)\} from "\./([^"]+)"', read(path)):
        exported = read(path.parent / source)
        for name in imported.split(","):
            assert re.search(rf"export (?:async )?(?:const|class|function\*?) {name.strip()}\b", exported), (
                name
            )


def test_every_element_that_a_script_looks_for_is_on_its_page():
    for script, template in (("index.js", "index.html"), ("job.js", "job.html"), ("api.js", "base.html")):
        page = read(HERE / "templates" / template)
        wanted = re.findall(r'(?:byId|getElementById)\("([\w-]+)"\)', read(HERE / "static" / script))
        assert wanted
        for name in wanted:
            assert f'id="{name}"' in page, f"{script} looks for #{name}"


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.name)
def test_nothing_is_fetched_from_elsewhere(path):
    addresses = set(re.findall(r"https?://[^\s\"'`)]+", read(path)))

    assert addresses <= {"http://www.w3.org/2000/svg"}  # the name of a language, fetched by nobody


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_no_page_holds_a_script_or_a_style_of_its_own(path):
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=|javascript:", read(path))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_what_comes_from_jobs_is_never_taken_for_markup(path):
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", read(path)
    )
