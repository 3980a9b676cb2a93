"""One job after another through the task that Celery runs, in this process."""

import errno
import json

import pytest

from shared.errors import StorageFull
from shared.job import JobStatus
from shared.storage import Storage
from tests.faults.steps import chain
from workers.run_job import run_job


@pytest.mark.parametrize(
    ("trouble", "code"),
    [("crash", "internal"), ("diverge", "diverged"), ("memory", "out_of_memory"), ("odd", "internal")],
)
def test_a_job_that_goes_wrong_ends_with_its_code_and_the_next_one_passes(run, trouble, code):
    bad = run("steps", trouble=trouble)
    good = run("steps", steps=2)

    assert (bad.status, bad.error.code) == (JobStatus.FAILED, code)
    assert good.status == JobStatus.SUCCEEDED


def test_a_job_is_run_once_however_often_its_message_comes(queue):
    job = queue.submit("steps", {"steps": 2})
    for _ in range(3):
        run_job(job.id)

    assert queue.get(job.id).attempt == 1


def test_a_message_of_an_unknown_or_cancelled_job_does_nothing(queue):
    job = queue.submit("steps", {})
    queue.cancel(job.id)
    run_job(job.id)
    run_job("0" * 26)

    assert queue.get(job.id).attempt == 0


def test_a_claim_that_comes_to_nothing_is_given_back(queue, monkeypatch):
    job = queue.submit("steps", {"steps": 2})

    def broken(*_):
        raise RuntimeError("what nobody foresaw, between the claim and the task")

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(Storage, "exists", broken)
        run_job(job.id)
    given_back = queue.get(job.id)
    run_job(job.id)

    assert (given_back.status, given_back.losses) == (JobStatus.QUEUED, 1)
    assert queue.get(job.id).status is JobStatus.SUCCEEDED


@pytest.mark.parametrize("error", [StorageFull(), OSError(errno.ENOSPC, "no room")])
@pytest.mark.parametrize(
    ("stop", "status"),
    [("shutdown", JobStatus.QUEUED), ("", JobStatus.FAILED), ("timeout", JobStatus.FAILED)],
)
def test_a_job_that_finds_no_room_while_its_worker_shuts_down_is_given_back(
    queue, monkeypatch, error, stop, status
):
    def fill_the_disk(_params, job):
        if stop:
            queue.store.request_stop(job.claim, stop)
        raise error

    monkeypatch.setattr("tests.faults.steps.run", fill_the_disk)
    job = queue.submit("steps", {})
    run_job(job.id)

    ended = queue.get(job.id)
    assert (ended.status, ended.losses) == (status, 0)
    # No manifest, from which a recovery would end the job after all.
    assert bool(queue.storage.names(f"jobs/{job.id}/attempts")) == status.ended


def test_a_job_that_finds_no_room_as_redis_is_emptied_leaves_no_end(queue, monkeypatch):
    def fill_the_disk(_params, job):
        queue.store.redis.flushdb()
        raise StorageFull()

    monkeypatch.setattr("tests.faults.steps.run", fill_the_disk)
    job = queue.submit("steps", {})
    run_job(job.id)

    assert queue.get(job.id).status == JobStatus.QUEUED  # as the storage has it, for recovery
    assert queue.storage.names(f"jobs/{job.id}/attempts") == []


def test_the_end_is_in_the_manifest_the_record_and_the_storage(queue, run):
    job = run("steps", steps=3, seed=1)

    folder = f"jobs/{job.id}/attempts/1-{job.attempts[0].token}"
    manifest = json.loads(queue.storage.read(f"{folder}/manifest.json"))
    stored = json.loads(queue.storage.read(f"jobs/{job.id}/job.json"))
    for told in (manifest, stored, json.loads(job.model_dump_json())):
        assert told["status"] == "succeeded"
        assert [artifact["name"] for artifact in told["artifacts"]] == ["result.txt"]
        assert told["summary"] == {"steps": 3}
    assert queue.store.unwritten() == []
    assert job.provenance["params"]["seed"] == 1
    assert "numpy" in job.provenance["versions"]


def test_checkpoints_go_when_the_job_has_succeeded_and_stay_when_it_failed(queue, run):
    good = run("steps", steps=10, checkpoint_every=2)
    bad = run("steps", steps=10, checkpoint_every=2, trouble="crash")

    def checkpoints(job):
        names = queue.storage.names(f"jobs/{job.id}/attempts/1-{job.attempts[0].token}")
        return [name for name in names if name.startswith("checkpoint")]

    assert checkpoints(good) == []
    assert len(checkpoints(bad)) == 2


def test_a_full_disk_fails_the_job_as_such_and_the_next_one_passes(queue, run, monkeypatch):
    write = queue.storage.__class__.write

    def full(self, path, data):
        if "/attempts/" in path:
            raise StorageFull
        write(self, path, data)

    with monkeypatch.context() as disk:
        disk.setattr(queue.storage.__class__, "write", full)
        job = run("steps", steps=2)

    assert (job.status, job.error.code, job.artifacts) == (JobStatus.FAILED, "storage_full", [])
    assert run("steps", steps=2).status == JobStatus.SUCCEEDED


def test_a_full_disk_of_the_workers_own_is_told_too(run, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tests.faults.steps.misbehave", full)
    assert run("steps", steps=2).error.code == "storage_full"


def test_parameters_that_another_version_wrote_fail_the_job_and_not_the_worker(queue, run):
    job = queue.submit("steps", {"steps": 2})
    queue.store.redis.hset(f"dreamq:job:{job.id}", "params", json.dumps({"newer": 1}))
    run_job(job.id)

    assert queue.get(job.id).error.code == "invalid_input"
    assert run("steps", steps=1).status == JobStatus.SUCCEEDED


def test_a_job_whose_lease_is_lost_on_the_way_leaves_nothing_that_counts(queue, monkeypatch):
    job = queue.submit("steps", {"steps": 3, "seed": 2})

    def taken_away(trouble, context):
        queue.store.release(context.claim, "worker_lost", loss=True, max_losses=3)

    with monkeypatch.context() as fault:
        fault.setattr("tests.faults.steps.misbehave", taken_away)
        run_job(job.id)
    assert queue.get(job.id).status == JobStatus.QUEUED
    assert queue.storage.names(f"jobs/{job.id}/attempts") == []

    run_job(job.id)
    assert queue.open_artifact(job.id, "result.txt").read().decode() == chain(3, 2)


def test_the_same_seed_gives_the_same_bytes_after_other_jobs_ran_in_the_process(run):
    first = run("steps", steps=4, seed=9)
    run("steps", steps=2, trouble="crash")
    second = run("steps", steps=4, seed=9)

    assert first.artifacts[0].sha256 == second.artifacts[0].sha256
