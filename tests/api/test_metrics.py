"""/metrics: read by a parser of its own, compared with jobs that were made to end in known ways."""

import re

import pytest

from api import keys
from api.app import create_app
from shared.job import Worker

LINE = re.compile(r'([a-z_]+)(?:\{((?:[a-z]+="(?:[^"\\]|\\.)*",?)*)\})? (-?[0-9.e+]+)')
WORKER = Worker(name="w@h", host="h", device="cpu", pid=1)


@pytest.fixture
def scrape(client):
    """The metrics as {(name, labels): value}."""

    def read() -> dict[tuple[str, str], float]:
        answer = client.get("/metrics")
        assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        found, typed = {}, set()
        for line in answer.text.splitlines():
            if line.startswith("# TYPE "):
                typed.add(line.split()[2])
            elif not line.startswith("#"):
                name, labels, value = LINE.fullmatch(line).groups()
                assert name in typed
                found[name, labels or ""] = float(value)
        return found

    return read


def test_what_waits_and_what_runs_is_counted_by_queue_and_class(queue, scrape):
    first, _, _ = (queue.submit("steps", {}) for _ in range(3))
    queue.store.claim(first.id, token="t", worker=WORKER)

    found = scrape()

    assert found["dreamq_jobs", 'status="queued"'] == 2
    assert found["dreamq_jobs", 'status="running"'] == 1
    assert found["dreamq_queue_jobs", 'queue="steps"'] == 2
    assert found["dreamq_class_jobs", 'class="small"'] == 3
    assert found["dreamq_class_jobs", 'class="80g"'] == 0


def test_the_age_of_a_queue_is_that_of_its_next_job(queue, scrape):
    job = queue.submit("steps", {})
    queue.store.redis.hset(f"dreamq:job:{job.id}", "created_ms", queue.store.now_ms() - 90_000)

    assert 90 <= scrape()["dreamq_queue_age_seconds", 'queue="steps"'] < 150
    queue.cancel(job.id)
    assert scrape()["dreamq_queue_age_seconds", 'queue="steps"'] == 0


def test_ends_are_counted_by_kind_status_and_code(queue, run, scrape):
    run("steps", steps=1)
    run("steps", steps=1)
    run("steps", trouble="diverge")
    queue.cancel(queue.submit("steps", {}).id)

    found = scrape()

    ended = {labels: value for (name, labels), value in found.items() if name == "dreamq_jobs_ended_total"}
    assert ended == {
        'kind="steps",status="succeeded",code=""': 2,
        'kind="steps",status="failed",code="diverged"': 1,
        'kind="steps",status="cancelled",code=""': 1,
    }


def test_a_job_that_went_back_to_the_queue_is_a_recovery_and_one_that_ended_by_it_is_not(queue, scrape):
    job = queue.submit("steps", {})
    for token in ("a", "b"):
        claim = queue.store.claim(job.id, token=token, worker=WORKER)
        queue.store.release(claim, "worker_lost", loss=True, max_losses=1)

    found = scrape()

    assert found["dreamq_recoveries_total", 'reason="worker_lost"'] == 1
    assert found["dreamq_jobs_ended_total", 'kind="steps",status="failed",code="worker_lost"'] == 1


def test_workers_are_counted_by_what_they_do(queue, scrape):
    for name, state in (("a@h", "ready"), ("w@h", "ready"), ("c@h", "quarantined")):
        queue.registry.announce(name, {"name": name, "queues": ["steps"], "state": state}, ttl_ms=10_000)
    lost = {"name": "l@h", "queues": ["steps"], "state": "ready", "lease_ms": 30_000}
    queue.registry.announce("l@h", lost, ttl_ms=90_000)
    queue.store.redis.zadd("dreamq:workers", {"l@h": queue.store.now_ms() - 31_000})
    queue.store.claim(queue.submit("steps", {}).id, token="t", worker=WORKER)

    found = scrape()

    assert queue.registry.served(fresh=True) == [(["steps"], 2)]  # a@h and w@h
    states = {labels: value for (name, labels), value in found.items() if name == "dreamq_workers"}
    assert states == {
        'state="busy"': 1, 'state="idle"': 1, 'state="draining"': 0, 'state="drained"': 0, 'state="quarantined"': 1,
        'state="lost"': 1,
    }  # fmt: skip


def test_metrics_want_a_key_where_keys_are_set(settings, tmp_path):
    key = keys.add(tmp_path / "keys", "prometheus")
    client = create_app(settings.model_copy(update={"api_keys_file": tmp_path / "keys"})).test_client()

    assert client.get("/metrics").status_code == 401
    assert client.get("/metrics", headers={"Authorization": f"Bearer {key}"}).status_code == 200
