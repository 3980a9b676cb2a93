"""docker-compose.yml and the Dockerfiles: valid, and true to the code that they start."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from shared import metrics
from shared.placement import CLASSES, GIB, LARGEST, SMALLEST
from shared.settings import Settings
from workers.lease import DRAIN_S

ROOT = Path(__file__).resolve().parent.parent
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}
WORKERS = {name: service for name, service in SERVICES.items() if name.startswith("worker")}
DOCKERFILES = sorted((ROOT / "docker").glob("*.Dockerfile"))
DEPLOYMENT, SCALING = ((ROOT / "docs" / name).read_text() for name in ("deployment.md", "scaling.md"))
SETTINGS = {name.upper() for name in Settings.model_fields}


def tool(name: str, *arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    """Run a checker that was installed beside this Python."""
    program = Path(sys.executable).with_name(name)
    return subprocess.run([program, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60)


def seconds(duration: str) -> int:
    """A duration of the compose file (`90s`, `2m`) in seconds."""
    number, unit = re.fullmatch(r"(\d+)([sm])", duration).groups()
    return int(number) * {"s": 1, "m": 60}[unit]


def test_the_compose_file_fits_the_schema_of_compose_files():
    checked = tool("check-jsonschema", "--builtin-schema", "vendor.compose-spec", "docker-compose.yml")

    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_the_linter_has_nothing_to_say_of_a_dockerfile(dockerfile):
    linted = tool("hadolint", "--no-color", dockerfile)

    assert linted.stdout == ""
    assert linted.returncode == 0


@pytest.mark.parametrize("name", OURS)
def test_a_service_of_ours_is_built_from_files_that_exist(name):
    build = OURS[name]["build"]
    text = (ROOT / build["dockerfile"]).read_text()
    arguments = build.get("args", {})

    assert set(arguments) <= set(re.findall(r"^ARG (\w+)", text, re.MULTILINE))
    assert f" AS {build['target']}\n" in text if "target" in build else True
    if "REQUIREMENTS" in arguments:
        assert (ROOT / arguments["REQUIREMENTS"]).is_file()


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_what_a_dockerfile_copies_exists_and_reaches_the_build(dockerfile):
    copied = re.findall(r"^COPY (.+) \S+$", dockerfile.read_text(), re.MULTILINE)
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"}

    for path in " ".join(copied).split():
        assert (ROOT / path).exists()
        assert any(Path(path).match(pattern) for pattern in allowed), path


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_no_image_runs_as_root(dockerfile):
    users = re.findall(r"^USER (\d+)$", dockerfile.read_text(), re.MULTILINE)

    assert users[-1] != "0"


@pytest.mark.parametrize("name", OURS)
def test_every_variable_that_a_service_sets_is_a_setting(name):
    assert set(OURS[name]["environment"]) <= SETTINGS


def test_every_variable_that_the_compose_file_reads_is_in_the_example_or_a_setting():
    read = set(re.findall(r"\$\{(\w+)", (ROOT / "docker-compose.yml").read_text()))
    read |= {secret["environment"] for secret in COMPOSE["secrets"].values()}
    example = (ROOT / "docker/env.example").read_text()
    given = set(re.findall(r"^(\w+)=", example, re.MULTILINE))

    assert read - given <= SETTINGS
    assert given <= read


def test_redis_keeps_its_data_refuses_rather_than_drops_wants_a_password_and_has_no_open_port():
    redis = SERVICES["redis"]
    options = dict(zip(redis["command"][1::2], redis["command"][2::2], strict=True))

    assert options["--appendonly"] == "yes"
    assert options["--maxmemory-policy"] == "noeviction"
    assert options["--requirepass"].startswith("${REDIS_PASSWORD:?")
    assert "ports" not in redis
    assert redis["networks"] == ["inside"]
    assert COMPOSE["networks"]["inside"]["internal"]


@pytest.mark.parametrize("name", OURS)
def test_every_part_finds_redis_by_its_name_and_password(name):
    assert re.fullmatch(
        r"redis://:\$\{REDIS_PASSWORD:\?[^}]+\}@redis:6379/0", OURS[name]["environment"]["REDIS_URL"]
    )
    assert OURS[name]["depends_on"]["redis"]["condition"] == "service_healthy"


def test_the_api_which_other_machines_reach_wants_keys():
    api = SERVICES["api"]

    assert api["environment"]["API_KEYS_FILE"] == "/keys/api-keys"
    assert "keys:/keys" in api["volumes"]
    assert "healthcheck" in api


def test_the_api_listens_where_the_compose_file_looks_for_it():
    dockerfile = (ROOT / "docker/api.Dockerfile").read_text()

    assert 'CMD ["python", "-m", "api", "--host", "0.0.0.0", "--port", "8080"]' in dockerfile
    assert SERVICES["api"]["ports"] == ["${API_PORT:-8080}:8080"]
    assert "127.0.0.1:8080/readyz" in SERVICES["api"]["healthcheck"]["test"][-1]
    assert "api:8080" in (ROOT / "docker/prometheus.yml").read_text()
    assert SERVICES["api"]["environment"]["API_HOSTS"].split(",")[0] == "api"


@pytest.mark.parametrize("name", WORKERS)
def test_a_worker_has_time_to_drain_and_shares_the_storage_with_the_api(name):
    worker = WORKERS[name]

    assert seconds(worker["stop_grace_period"]) >= DRAIN_S
    assert "data:/data" in worker["volumes"]
    assert "data:/data" in SERVICES["api"]["volumes"]
    assert worker["environment"]["STORAGE_URL"] == SERVICES["api"]["environment"]["STORAGE_URL"]
    assert worker["healthcheck"]["test"] == ["CMD", "python", "-m", "workers.alive"]


def test_gpu_workers_reserve_gpus_and_are_a_profile_as_is_the_cpu_worker():
    [device] = SERVICES["worker-gpu"]["deploy"]["resources"]["reservations"]["devices"]

    assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])
    assert SERVICES["worker-gpu"]["profiles"] == ["gpu"]
    assert SERVICES["worker-cpu"]["profiles"] == ["cpu"]


@pytest.mark.parametrize("name", ["flower", "prometheus"])
def test_what_watches_is_a_profile_and_listens_on_loopback_alone(name):
    assert SERVICES[name]["profiles"] == [name]
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name]["ports"])


def test_flower_can_only_look():
    assert '"--read-only"' in (ROOT / "docker/api.Dockerfile").read_text()


def test_the_version_of_s3fs_that_is_recommended_is_the_one_that_is_tested():
    [pin] = re.findall(r"^s3fs==(\S+)$", (ROOT / "requirements-dev.txt").read_text(), re.MULTILINE)
    told = [
        version
        for path in [
            *DOCKERFILES,
            *(ROOT / "docs").glob("*.md"),
            ROOT / "README.md",
            ROOT / "docker/env.example",
        ]
        for version in re.findall(r"s3fs==([\w.]+\d)", path.read_text())
    ]

    assert len(told) >= 4
    assert set(told) == {pin}


def test_every_metric_and_no_other_is_explained(queue):
    told = set(re.findall(r"^# TYPE (\w+)", metrics.exposition(queue), re.MULTILINE))
    rows = re.findall(r"^\| (`dreamq_.*?) \|", DEPLOYMENT, re.MULTILINE)

    assert {name for row in rows for name in re.findall(r"dreamq_\w+", row)} == told


def test_the_table_of_memory_classes_is_that_of_the_code():
    rows = re.findall(r"^\| `(\w+)` \| `[\w.]+` \| (\d+|beyond).* \| (\d+|any)", SCALING, re.MULTILINE)

    assert [row[0] for row in rows] == list(CLASSES)
    for (name, most, least), size in zip(rows, CLASSES.values(), strict=True):
        assert most == ("beyond" if name == LARGEST else str(size // GIB))
        assert least == ("any" if name == SMALLEST else str(size // GIB))
