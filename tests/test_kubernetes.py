"""The Kubernetes folder: valid by Kubernetes' own schemas, and true to the code that it starts."""

import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from shared import metrics
from shared.placement import CLASSES, checked_classes
from shared.settings import Settings
from workers.__main__ import parse
from workers.lease import DRAIN_S

ROOT = Path(__file__).resolve().parent.parent
OBJECTS: list[dict[str, Any]] = [
    found
    for file in sorted((ROOT / "kubernetes").glob("*.yaml"))
    for found in yaml.safe_load_all(file.read_text())
]
SETTINGS = {name.upper() for name in Settings.model_fields}


def named(kind: str) -> dict[str, dict[str, Any]]:
    """The objects of a kind, by name."""
    return {found["metadata"]["name"]: found for found in OBJECTS if found["kind"] == kind}


DEPLOYMENTS = named("Deployment")
WORKERS = {name: found for name, found in DEPLOYMENTS.items() if name.startswith("dreamq-worker-")}
SCALED = named("ScaledObject")


def container(deployment: dict[str, Any]) -> dict[str, Any]:
    """The one container of a Deployment."""
    [found] = deployment["spec"]["template"]["spec"]["containers"]
    return dict(found)


def classes_of(deployment: dict[str, Any]) -> list[str]:
    """The memory classes that a Deployment's workers serve."""
    command = container(deployment)["command"]
    assert command[:3] == ["python", "-m", "workers"]
    return checked_classes(parse(command[3:]).classes)


@pytest.mark.parametrize("version", ["1.30", "1.37"])
@pytest.mark.parametrize(
    "found",
    [found for found in OBJECTS if not found["apiVersion"].startswith("keda.sh/")],
    ids=lambda found: f"{found['kind']} {found['metadata']['name']}",
)
def test_every_object_is_valid_by_kubernetes_own_schema(found, version):
    kubernetes_validate.validate(found, version, strict=True)


def test_everything_is_in_one_namespace():
    assert {found["metadata"].get("namespace", found["metadata"]["name"]) for found in OBJECTS} == {"dreamq"}


def test_every_variable_is_a_setting():
    given = set(named("ConfigMap")["dreamq-settings"]["data"])
    given |= {variable["name"] for found in DEPLOYMENTS.values() for variable in container(found)["env"]}

    assert given <= SETTINGS
    values = {**named("ConfigMap")["dreamq-settings"]["data"], "REDIS_URL": "redis://host"}
    assert Settings.from_environment(values).api_keys_file is not None


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_nothing_runs_as_root_or_may_become_it(name):
    pod = DEPLOYMENTS[name]["spec"]["template"]["spec"]

    assert pod["securityContext"]["runAsNonRoot"]
    assert container(DEPLOYMENTS[name])["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_every_volume_that_is_mounted_is_there(name):
    pod = DEPLOYMENTS[name]["spec"]["template"]["spec"]
    claims = {
        volume["persistentVolumeClaim"]["claimName"]
        for volume in pod["volumes"]
        if "persistentVolumeClaim" in volume
    }

    assert {mount["name"] for mount in container(DEPLOYMENTS[name])["volumeMounts"]} == {
        volume["name"] for volume in pod["volumes"]
    }
    assert claims <= set(named("PersistentVolumeClaim"))
    assert {mount["mountPath"] for mount in container(DEPLOYMENTS[name])["volumeMounts"]} >= {"/data"}


def test_the_shared_folder_can_be_written_by_many_at_once():
    assert all(
        claim["spec"]["accessModes"] == ["ReadWriteMany"] for claim in named("PersistentVolumeClaim").values()
    )


@pytest.mark.parametrize("name", WORKERS)
def test_a_worker_drains_before_it_ends_and_has_the_time_for_it(name):
    pod = WORKERS[name]["spec"]["template"]["spec"]
    [*shell, script] = container(WORKERS[name])["lifecycle"]["preStop"]["exec"]["command"]

    assert shell == ["sh", "-c"]
    assert script == "kill -TERM 1; while kill -0 1; do sleep 1; done"  # process 1 is `python -m workers`
    # The time of preStop counts too.
    assert pod["terminationGracePeriodSeconds"] >= DRAIN_S


@pytest.mark.parametrize("name", WORKERS)
def test_a_workers_health_is_a_matter_of_its_host_alone(name):
    for probe in ("startupProbe", "livenessProbe"):
        assert container(WORKERS[name])[probe]["exec"]["command"] == ["python", "-m", "workers.alive"]


def test_every_memory_class_has_its_workers():
    served = {memory_class for found in WORKERS.values() for memory_class in classes_of(found)}

    assert served == set(CLASSES)


def test_gpu_workers_ask_for_one_gpu_and_the_others_for_none():
    asked = {
        name: container(found)["resources"]["limits"].get("nvidia.com/gpu", 0)
        for name, found in WORKERS.items()
    }

    assert asked == {name: int(not name.endswith("-cpu")) for name in WORKERS}


def test_the_service_leads_to_the_api_where_it_listens():
    service, api = named("Service")["dreamq-api"], DEPLOYMENTS["dreamq-api"]
    [port] = container(api)["ports"]

    assert service["spec"]["selector"].items() <= api["spec"]["template"]["metadata"]["labels"].items()
    assert (service["spec"]["ports"][0]["targetPort"], port["containerPort"]) == (port["name"], 8080)


def test_the_probes_of_the_api_ask_by_a_name_that_it_answers_to(settings, queue):
    from api.app import create_app

    client = create_app(settings, bound_host="0.0.0.0").test_client()
    for probe in ("livenessProbe", "readinessProbe"):
        call = container(DEPLOYMENTS["dreamq-api"])[probe]["httpGet"]
        headers = {header["name"]: header["value"] for header in call["httpHeaders"]}
        assert client.get(call["path"], headers=headers).status_code == 200


# KEDA's objects, of which Kubernetes has no schema


def test_each_kind_of_worker_is_scaled_by_an_object_of_its_own():
    assert {found["spec"]["scaleTargetRef"]["name"] for found in SCALED.values()} == set(WORKERS)


@pytest.mark.parametrize("name", SCALED)
def test_a_scaled_object_has_the_fields_that_keda_knows_and_sensible_limits(name):
    spec = SCALED[name]["spec"]

    assert set(spec) <= {
        "scaleTargetRef", "pollingInterval", "cooldownPeriod", "initialCooldownPeriod", "idleReplicaCount",
        "minReplicaCount", "maxReplicaCount", "fallback", "advanced", "triggers",
    }  # fmt: skip
    assert 0 <= spec["minReplicaCount"] <= spec["maxReplicaCount"]


@pytest.mark.parametrize("name", SCALED)
def test_workers_are_scaled_by_the_jobs_of_classes_that_they_serve(name):
    served = classes_of(WORKERS[SCALED[name]["spec"]["scaleTargetRef"]["name"]])

    for trigger in SCALED[name]["spec"]["triggers"]:
        located = re.fullmatch(r'(\w+)\{class="(\w+)"\}', trigger["metadata"]["valueLocation"])
        assert located[2] in served


@pytest.mark.parametrize("name", SCALED)
def test_the_autoscaler_reads_a_metric_that_is_always_there_with_a_key_that_it_has(name, queue):
    told = metrics.exposition(queue)
    service = named("Service")["dreamq-api"]["spec"]["ports"][0]["port"]
    hosts = named("ConfigMap")["dreamq-settings"]["data"]["API_HOSTS"].split(",")

    for trigger in SCALED[name]["spec"]["triggers"]:
        metadata = trigger["metadata"]
        host, port = re.fullmatch(r"http://([\w.-]+):(\d+)/metrics", metadata["url"]).groups()
        assert (host in hosts, int(port)) == (True, service)
        assert f"\n{metadata['valueLocation']} 0\n" in told
        assert (trigger["type"], metadata["format"], metadata["authMode"]) == (
            "metrics-api",
            "prometheus",
            "bearer",
        )
        # KEDA reads all of its metadata as text.
        assert all(isinstance(value, str) for value in metadata.values())
        assert trigger["authenticationRef"]["name"] in named("TriggerAuthentication")


def test_the_autoscalers_key_comes_from_the_secret_that_the_folder_names():
    [authentication] = named("TriggerAuthentication").values()

    assert authentication["spec"]["secretTargetRef"] == [
        {"parameter": "token", "name": "dreamq-secrets", "key": "metrics-key"}
    ]
    assert "--from-literal=metrics-key=" in (ROOT / "kubernetes/settings.yaml").read_text()
