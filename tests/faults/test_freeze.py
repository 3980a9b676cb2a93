"""What comes back after a freeze must not count: workers that were stopped for longer than their lease, and Redis."""

import signal
import time
from collections.abc import Callable

from shared.artifacts import attempt_folder
from shared.job import Job, JobStatus
from shared.job_store import Claim
from tests.faults.fleet import LEASE_S, Fleet
from tests.workers.processes import until

STEPS = {"steps": 60, "step_s": 0.05, "checkpoint_every": 5, "latest": True}  # 3 s


def files_of_first_attempt(fleet: Fleet, job: Job) -> set[str]:
    """The paths of the files that it has left."""
    folder = attempt_folder(Claim(job.id, 1, fleet.queue.get(job.id).attempts[0].token, 0))
    return {f"{folder}/{name}" for name in fleet.queue.storage.names(folder)}


def test_a_worker_that_slept_past_its_lease_stops_by_itself_and_its_late_files_are_gone(fleet: Fleet):
    fleet.exactly(2)
    job = fleet.submit(**STEPS)
    running = fleet.until_step(job, 10)
    worker = fleet.runner(job)
    worker.freeze()
    taken = fleet.until(lambda now: now.attempt == 2, job)
    counted = {listed.path for listed in (*taken.artifacts, *taken.checkpoints)}

    worker.thaw()

    ended = fleet.assert_succeeded(job)
    assert [attempt.reason for attempt in ended.attempts] == ["worker_lost", "succeeded"]
    until(lambda: "lost its lease" in worker.log(), what="the old attempt's notice of its end")
    fleet.assert_files_whole(ended)
    assert ended.summary["resumed_from_step"] >= running.checkpoints[0].step
    assert files_of_first_attempt(fleet, job) <= counted
    # It is fit for the next job.
    fleet.workers[1 - fleet.workers.index(worker)].kill()
    after = fleet.assert_succeeded(fleet.submit(steps=2))
    assert after.attempts[0].worker.name == worker.name


def test_a_worker_frozen_between_its_last_file_and_the_end_of_the_record_loses_nothing(fleet: Fleet):
    fleet.exactly(2)
    job = fleet.submit(steps=20, step_s=0.05, checkpoint_every=5)
    fleet.until(lambda now: now.status == JobStatus.RUNNING, job)
    worker = fleet.runner(job)
    trap = worker.wire.lose_call(fleet.script("finish"), act=worker.freeze)
    until(trap.sprung.is_set)

    fleet.assert_succeeded(job)  # the other one has read its manifest
    worker.thaw()

    until(lambda: f"job {job.id}: succeeded" in worker.log(), what="its notice of the end")
    ended = fleet.assert_succeeded(job)
    assert [attempt.reason for attempt in ended.attempts] == ["succeeded"]


def test_a_redis_that_is_frozen_for_long_takes_no_job_away(fleet: Fleet):
    fleet.exactly(2)
    job = fleet.submit(steps=40, step_s=0.05)
    fleet.until(lambda now: now.status == JobStatus.RUNNING, job)

    fleet.redis.process.send_signal(signal.SIGSTOP)
    time.sleep(11)  # longer than a lease, longer than a worker's client waits for one answer
    fleet.redis.process.send_signal(signal.SIGCONT)

    ended = fleet.assert_succeeded(job)
    assert [attempt.reason for attempt in ended.attempts] == ["succeeded"]
    fleet.assert_succeeded(fleet.submit())


def test_a_redis_that_is_full_for_longer_than_a_lease_takes_no_job_away(fleet: Fleet):
    fleet.exactly(2)
    job = fleet.submit(steps=100, step_s=0.05)
    fleet.until(lambda now: now.status == JobStatus.RUNNING, job)

    fleet.store.redis.config_set("maxmemory", 1)
    time.sleep(1.5 * LEASE_S)
    fleet.store.redis.config_set("maxmemory", 0)

    ended = fleet.assert_succeeded(job)
    assert [attempt.reason for attempt in ended.attempts] == ["succeeded"]


def test_a_job_that_makes_no_step_is_stopped_and_counts_as_a_loss(new_fleet: Callable[..., Fleet]):
    fleet = new_fleet(stall_s=1, max_losses=0)
    fleet.start()

    ended = fleet.ended(fleet.submit(trouble="hang"))

    assert ended.error.code == "worker_lost"
    assert [attempt.reason for attempt in ended.attempts] == ["stalled"]
    fleet.assert_succeeded(fleet.submit(steps=2))
