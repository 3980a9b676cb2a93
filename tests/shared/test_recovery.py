"""What recovery does with what it finds. The faults themselves are in tests/faults."""

import pytest

from shared.artifacts import write_job, write_manifest
from shared.errors import QueueUnavailable
from shared.job import JobStatus, Worker, new_job_id
from shared.recovery import Leases, Recovery
from tests.faults.steps import chain
from tests.workers.processes import until

WORKER = Worker(name="gone@h", host="h", device="cpu", pid=1)


class Clock:
    """A monotonic clock that a test turns."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def leases(clock):
    return Leases(30, clock)


def watch(leases, clock, seconds, value="1:0"):
    """Look every 5 s for a while at one job whose lease shows `value`; what ran out at the last look."""
    lost = []
    for _ in range(0, seconds, 5):
        clock.now += 5
        lost = leases.look(lambda: {"job": value})
    return lost


def test_a_lease_runs_out_after_a_whole_lease_without_renewal(leases, clock):
    assert watch(leases, clock, 30) == []  # first seen at 5 s: 25 s by now
    assert watch(leases, clock, 5) == ["job"]


def test_a_renewal_or_a_new_attempt_starts_the_count_again(leases, clock):
    watch(leases, clock, 30, "1:7")

    assert watch(leases, clock, 30, "1:8") == []
    assert watch(leases, clock, 30, "2:8") == []


def test_a_gap_in_the_watch_starts_the_count_again(leases, clock):
    watch(leases, clock, 30)
    clock.now += 1000  # this process was frozen, or Redis was

    assert watch(leases, clock, 30) == []
    assert watch(leases, clock, 5) == ["job"]


def test_a_slow_or_absent_redis_starts_the_count_again(leases, clock):
    def slow() -> dict[str, str]:
        clock.now += 11  # over a third of the lease
        return {"job": "1:0"}

    def absent() -> dict[str, str]:
        raise QueueUnavailable

    watch(leases, clock, 30)
    assert leases.look(slow) == []
    assert watch(leases, clock, 25) == []
    with pytest.raises(QueueUnavailable):
        leases.look(absent)
    assert watch(leases, clock, 30) == []


@pytest.fixture
def recovery(queue):
    found = Recovery(queue)
    found.turn()
    return found


def claimed(queue, **params):
    job = queue.submit("steps", params)
    return queue.store.claim(job.id, token="token", worker=WORKER)


def test_a_job_whose_worker_is_gone_goes_back_to_the_queue_and_is_published(queue, recovery):
    claim = claimed(queue)
    recovery.take_back(claim.job_id)

    job = queue.get(claim.job_id)
    assert (job.status, job.losses, job.attempts[0].reason) == (JobStatus.QUEUED, 1, "worker_lost")
    recovery.turn()
    assert claim.job_id in queue.store.broker_holds("steps")[-1]


def test_an_end_that_reached_only_its_manifest_is_completed(queue, recovery):
    claim = claimed(queue)
    artifact = {"name": "result.txt", "media_type": "text/plain", "bytes": 1, "sha256": "s", "path": "p"}
    end = {
        "status": "succeeded",
        "error": None,
        "summary": {"a": 1},
        "provenance": {},
        "warnings": [],
        "artifacts": [artifact],
    }
    write_manifest(queue.storage, claim, end)
    recovery.take_back(claim.job_id)

    job = queue.get(claim.job_id)
    assert (job.status, job.summary, [a.name for a in job.artifacts]) == (
        JobStatus.SUCCEEDED,
        {"a": 1},
        ["result.txt"],
    )
    assert b'"succeeded"' in queue.storage.read(f"jobs/{job.id}/job.json")


def test_an_end_that_reached_only_the_record_is_written_to_storage(queue, recovery):
    claim = claimed(queue)
    queue.store.finish(claim, JobStatus.FAILED, {})
    recovery.turn()

    assert b'"failed"' in queue.storage.read(f"jobs/{claim.job_id}/job.json")
    assert queue.store.unwritten() == []


def test_a_lost_message_is_published_again_and_a_waiting_one_is_not(queue, recovery, monkeypatch):
    lost = queue.submit("steps", {})
    queue.store.redis.delete("steps")
    waiting = queue.submit("steps", {})
    later = queue.store.now_ms() + 10_000  # over the lease of 3 s
    monkeypatch.setattr(queue.store, "now_ms", lambda: later)
    recovery.publish_again()
    recovery.publish_again()  # again at once: too early for the next time

    out = queue.store.broker_holds("steps")
    assert [sum(job.id in message for message in out) for job in (lost, waiting)] == [1, 1]


def test_every_unfinished_job_comes_back_into_an_empty_redis(queue, recovery, run):
    ended = run("steps", steps=2, seed=1)
    queued = queue.submit("steps", {"steps": 2}, idempotency_key="k", labels={"a": "b"})
    waiting = queue.submit("steps", {}, depends_on=[queued.id])
    cancelled = queue.submit("steps", {})
    queue.cancel(cancelled.id)
    queue.store.redis.flushall()
    recovery.turn()

    statuses = [queue.store.get(job.id).status for job in (ended, queued, waiting, cancelled)]
    assert statuses == ["succeeded", "queued", "waiting", "cancelled"]
    assert queue.submit("steps", {"steps": 2}, idempotency_key="k", labels={"a": "b"}).id == queued.id
    assert queued.id in "".join(queue.store.broker_holds("steps"))


def test_a_job_goes_on_from_its_checkpoint_though_redis_forgot_it(queue, recovery, monkeypatch):
    from workers.run_job import run_job

    job = queue.submit("steps", {"steps": 20, "seed": 5, "checkpoint_every": 5, "trouble": "odd"})
    with monkeypatch.context() as dying:
        dying.setattr("workers.run_job.write_end", lambda context, end: end)  # died before its end
        run_job(job.id)
    queue.store.redis.flushall()
    write_job(queue.storage, job.model_copy(update={"params": job.params | {"trouble": ""}}))
    recovery.turn()
    run_job(job.id)

    ended = queue.get(job.id)
    assert (ended.status, ended.attempt, ended.summary["resumed_from_step"]) == (JobStatus.SUCCEEDED, 2, 10)
    assert [artifact.name for artifact in ended.artifacts][:2] == ["preview-0005.txt", "preview-0010.txt"]
    assert queue.open_artifact(job.id, "result.txt").read().decode() == chain(20, 5)


def test_a_record_that_redis_took_back_to_before_its_end_is_brought_up_to_it(queue, recovery, run):
    job = run("steps", steps=2)
    queue.store.forget(job)
    queue.store.create(job.model_copy(update={"status": JobStatus.QUEUED, "artifacts": []}))
    queue.store.set_rebuilt_for("another run of the server")
    recovery.turn()

    restored = queue.store.get(job.id)
    assert (restored.status, len(restored.artifacts)) == (JobStatus.SUCCEEDED, 1)


def test_a_damaged_record_in_storage_does_not_stop_the_others(queue, recovery):
    broken, whole = new_job_id(), queue.submit("steps", {})
    queue.storage.write(f"jobs/{broken}/job.json", b"{")
    queue.store.redis.flushall()
    recovery.turn()

    assert queue.store.get(whole.id).status == JobStatus.QUEUED


def test_one_process_at_a_time_takes_a_turn(queue, recovery):
    with (
        queue.store.recovery_lock(ttl_ms=10_000) as first,
        queue.store.recovery_lock(ttl_ms=10_000) as second,
    ):
        assert (first, second) == (True, False)
    with queue.store.recovery_lock(ttl_ms=10_000) as third:
        assert third


def test_few_processes_watch_and_others_follow_when_they_are_gone(queue):
    first = [queue.store.watch(f"p{number}", most=5, ttl_ms=500) for number in range(7)]
    again = [queue.store.watch(f"p{number}", most=5, ttl_ms=500) for number in range(7)]
    until(lambda: queue.store.watch("p6", most=5, ttl_ms=500), what="a place on the watch")

    assert first == again == [True] * 5 + [False] * 2


def test_a_redis_that_is_away_starts_the_count_again_for_those_on_watch_too(queue, recovery, monkeypatch):
    recovery.leases.look(lambda: {"job": "1:0"})

    def away(*_, **__):
        raise QueueUnavailable

    monkeypatch.setattr(queue.store, "watch", away)
    with pytest.raises(QueueUnavailable):
        recovery.take_turn("me")

    assert recovery.leases._seen == {}
