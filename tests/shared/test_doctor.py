"""What the doctor finds, each trouble made in a real Redis or a real folder."""

import time

import pytest

from shared.doctor import examine, memory_policy_warning
from shared.job import Worker
from shared.queue import Queue
from shared.redis_client import server_facts

READY = {"name": "w@h", "host": "h", "device": "cpu", "queues": ["steps"], "state": "ready"}


@pytest.fixture
def found(queue):
    """The findings, as {subject: [(level, told)]}."""

    def look() -> dict[str, list[tuple[str, str]]]:
        findings: dict[str, list[tuple[str, str]]] = {}
        for finding in examine(queue):
            assert finding.advice or finding.level == "ok", "a trouble comes with what to do next"
            findings.setdefault(finding.subject, []).append((finding.level, finding.told))
        return findings

    return look


@pytest.fixture
def policy(queue):
    """Set Redis' memory policy; back to `noeviction` at the end."""
    yield lambda value: queue.store.redis.config_set("maxmemory-policy", value)
    queue.store.redis.config_set("maxmemory-policy", "noeviction")


def test_all_is_well_where_all_is_well(queue, found):
    queue.registry.announce("w@h", READY, ttl_ms=60_000)
    queue.settings.weights_dir.mkdir()

    assert {level for findings in found().values() for level, _ in findings} == {"ok"}


def test_a_redis_that_may_drop_jobs_is_a_failure_and_a_warning_at_every_start(queue, found, policy):
    policy("allkeys-lru")

    assert found()["Redis memory"][0][0] == "fail"
    assert "allkeys-lru" in memory_policy_warning(queue.store.redis)
    policy("noeviction")
    assert memory_policy_warning(queue.store.redis) == ""


@pytest.mark.parametrize(
    ("facts", "subject", "level"),
    [
        ({"version": "6.0.16"}, "Redis", "fail"),
        ({"append_only": False}, "Redis file", "warn"),
        ({"append_only_ok": False}, "Redis file", "fail"),
        ({"used_bytes": 90, "limit_bytes": 100}, "Redis memory", "warn"),
    ],
)
def test_a_redis_that_is_old_forgetful_or_nearly_full_is_told(
    queue, found, monkeypatch, facts, subject, level
):
    well = server_facts(queue.store.redis)
    monkeypatch.setattr("shared.doctor.server_facts", lambda redis: well._replace(**facts))

    assert found()[subject][0][0] == level


def test_clocks_that_differ_are_told(queue, found, monkeypatch):
    now = time.time()
    monkeypatch.setattr("shared.doctor.time.time", lambda: now + 120)

    assert found()["clocks"][0][0] == "warn"


def test_a_storage_that_cannot_be_written_is_told_and_the_other_checks_go_on(queue, found, tmp_path):
    (tmp_path / "storage").write_text("a file where the folder should be")

    findings = found()

    assert findings["storage"][0][0] == "fail"
    assert "retention" in findings


def test_nothing_of_the_probe_stays_in_the_storage(queue, found, tmp_path):
    found()

    assert list((tmp_path / "storage").iterdir()) == []


def test_without_redis_what_can_be_checked_is_checked(settings, tmp_path):
    away = Queue.from_settings(
        settings.model_copy(update={"redis_url": f"unix://{tmp_path}/none"}), impatient=True
    )

    assert [(finding.level, finding.subject) for finding in examine(away)] == [
        ("fail", "Redis"),
        ("ok", "storage"),
        ("ok", "weights"),
    ]


def test_workers_that_take_no_jobs_and_queues_that_nobody_serves_are_told(queue, found):
    assert found()["workers"] == [("warn", "none takes jobs")]

    queue.registry.announce("w@h", {**READY, "queues": ["other"]}, ttl_ms=60_000)
    queue.registry.announce("q@h", {**READY, "name": "q@h", "state": "quarantined"}, ttl_ms=60_000)
    queue.registry.drain("elsewhere")
    queue.submit("steps", {})

    findings = found()
    assert [level for level, _ in findings["workers"]] == ["ok", "fail", "warn"]
    assert findings["queues"] == [("warn", "1 jobs wait in steps, which no worker serves")]


def test_a_running_job_without_its_worker_is_told(queue, found):
    job = queue.submit("steps", {})
    queue.store.claim(job.id, token="t", worker=Worker(name="gone@h", host="h", device="cpu", pid=1))

    assert found()["running jobs"][0][0] == "warn"


def test_a_lock_that_never_ends_is_told(queue, found):
    queue.store.redis.set("dreamq:recovery", "x")
    assert found()["recovery lock"][0][0] == "fail"

    queue.store.redis.set("dreamq:recovery", "x", px=5000)
    assert found()["recovery lock"][0][0] == "ok"
