"""docs/systemd: units and settings that are valid, and true to the code that they start."""

import re
import shlex
import shutil
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import click
import pytest

from api import cli, events
from api.__main__ import main as api_main
from shared.settings import Settings
from workers.__main__ import parse
from workers.lease import DRAIN_S

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs/systemd"
UNITS = {path.name: path for path in sorted(FOLDER.glob("*.service"))}
NGINX = (FOLDER / "nginx.conf").read_text()
DEPLOYMENT = (ROOT / "docs/deployment.md").read_text()
PYTHON = "/opt/dreamq/.venv/bin/python"


def settings_file() -> dict[str, str]:
    """The variables of settings.env."""
    return dict(re.findall(r"^(\w+)=(.*)$", (FOLDER / "settings.env").read_text(), re.MULTILINE))


def unit(name: str) -> ConfigParser:
    """A unit's sections; a key that stands twice is an error."""
    parsed = ConfigParser(interpolation=None, delimiters=("=",), comment_prefixes=("#",))
    parsed.optionxform = str
    parsed.read(UNITS[name])
    return parsed


def command(name: str) -> list[str]:
    """What a unit starts."""
    return shlex.split(unit(name)["Service"]["ExecStart"])


@pytest.mark.parametrize("name", UNITS)
def test_a_unit_has_its_sections_and_systemd_has_nothing_to_say_of_it(name, tmp_path):
    """Where systemd is installed it is asked; the sections are looked at everywhere."""
    assert set(unit(name)) - {"DEFAULT"} == {"Unit", "Service", "Install"}
    if shutil.which("systemd-analyze"):
        # A template is judged as one of its instances, with a program that is there.
        copy = tmp_path / name.replace("@.", "@0.")
        copy.write_text(UNITS[name].read_text().replace(PYTHON, sys.executable))
        verified = subprocess.run(
            ["systemd-analyze", "verify", copy], capture_output=True, text=True, timeout=30
        )
        assert (verified.stdout + verified.stderr, verified.returncode) == ("", 0)


@pytest.mark.parametrize("instance", ["0", "GPU-1f2e3d4c-0000-0000-0000-000000000000", "cpu"])
def test_the_worker_unit_starts_one_worker_on_the_device_of_its_instance(instance):
    python, *module, devices, given = command("dreamq-worker@.service")

    assert (python, module) == (PYTHON, ["-m", "workers"])
    assert parse([devices, given.replace("%i", instance)]).devices == instance


def test_the_api_unit_listens_where_nginx_looks_for_it():
    python, *module, host, address, port, number = command("dreamq-api.service")

    assert (python, module) == (PYTHON, ["-m", "api"])
    given = api_main.make_context("api", [host, address, port, number]).params
    assert set(re.findall(r"proxy_pass (\S+);", NGINX)) == {f"http://{given['host']}:{given['port']}"}


def test_the_worker_unit_lets_a_worker_drain_and_outlive_a_job_that_the_kernel_kills():
    service = unit("dreamq-worker@.service")["Service"]

    assert int(service["TimeoutStopSec"]) >= DRAIN_S
    assert service["KillMode"] == "mixed"  # SIGTERM to the main process, which passes it on
    assert service["OOMPolicy"] == "continue"
    assert service["Restart"] == "on-failure"  # a drained worker ends with 0 and stays away


def test_the_units_read_settings_that_exist_and_wait_for_the_storage_that_they_name():
    given = settings_file()

    assert {name.upper() for name in Settings.model_fields} >= set(given)
    assert Settings.from_environment(given).storage_url == given["STORAGE_URL"]
    for name in UNITS:
        assert unit(name)["Service"]["EnvironmentFile"] == "/etc/dreamq/settings.env"
        assert unit(name)["Unit"]["RequiresMountsFor"] == given["STORAGE_URL"]


def test_the_proxy_lets_uploads_and_silent_streams_through_under_a_name_that_the_api_knows():
    given = settings_file()
    [largest_mb] = re.findall(r"client_max_body_size (\d+)m;", NGINX)
    [patience_s] = re.findall(r"proxy_read_timeout (\d+)s;", NGINX)
    [name] = re.findall(r"server_name (\S+);", NGINX)

    assert int(largest_mb) == Settings().max_upload_mb
    assert int(patience_s) >= 2 * events._KEEP_ALIVE_S
    assert name in given["API_HOSTS"].split(",")
    assert given["API_KEYS_FILE"]  # what comes from the proxy comes from loopback
    assert "proxy_buffering off;" in NGINX


def test_every_command_of_the_deployment_page_exists():
    told = re.findall(
        r"\bdreamq ((?:admin )?[a-z]+)(?![a-z.-])", "\n".join(re.findall(r"`([^`\n]+)`", DEPLOYMENT))
    )

    assert told
    for words in told:
        found: click.Command = cli.main
        for word in words.split():
            assert isinstance(found, click.Group)
            assert word in found.commands, words
            found = found.commands[word]


def test_every_file_of_the_folder_is_told_of_and_no_other():
    assert set(re.findall(r"\(systemd/([\w@.-]+)\)", DEPLOYMENT)) == {path.name for path in FOLDER.iterdir()}
