"""What a death costs: a pool process', a main process', a whole worker's, all workers'."""

import time
from collections.abc import Callable

import psutil
import pytest

from shared.job import Job, JobStatus
from tests.faults.fleet import Fleet, until_gone
from tests.workers.processes import until

STEPS = {"steps": 40, "step_s": 0.05, "checkpoint_every": 5}  # 2 s


def assert_went_on(fleet: Fleet, job: Job, killed_at: Job) -> Job:
    """The job has gone on from its checkpoint, not from the start, and was lost once."""
    ended = fleet.assert_succeeded(job)
    assert [attempt.reason for attempt in ended.attempts] == ["worker_lost", "succeeded"]
    assert ended.summary["resumed_from_step"] >= killed_at.checkpoints[0].step
    return ended


def test_a_job_whose_process_is_killed_goes_on_from_its_checkpoint(
    fleet: Fleet, measured: Callable[[str, float], None]
):
    (worker,) = fleet.exactly(1)
    job = fleet.submit(**STEPS)
    running = fleet.until_step(job, 10)

    psutil.Process(running.worker.pid).kill()
    killed = time.monotonic()
    fleet.until(lambda now: now.attempt == 2, job)
    measured("from the death of a pool process to the next attempt", time.monotonic() - killed)

    ended = assert_went_on(fleet, job, running)
    assert worker.alive
    assert {attempt.worker.name for attempt in ended.attempts} == {worker.name}


def test_a_pool_process_dies_with_its_main_process_and_another_worker_goes_on(fleet: Fleet):
    fleet.exactly(2)
    job = fleet.submit(**STEPS)
    running = fleet.until_step(job, 10)

    worker = fleet.runner(job)
    until_gone(worker.kill_main())

    ended = assert_went_on(fleet, job, running)
    assert ended.attempts[1].worker.name != worker.name


def test_a_worker_that_loses_its_power_costs_the_work_since_the_checkpoint(
    fleet: Fleet, measured: Callable[[str, float], None]
):
    fleet.exactly(2)
    job = fleet.submit(**STEPS)
    running = fleet.until_step(job, 10)

    worker = fleet.runner(job)
    worker.kill()
    killed = time.monotonic()
    fleet.until(lambda now: now.attempt == 2, job)
    measured(
        f"from the death of a worker to the next attempt, LEASE_S={fleet.settings.lease_s:g}",
        time.monotonic() - killed,
    )

    ended = assert_went_on(fleet, job, running)
    assert ended.attempts[1].worker.name != worker.name


def test_with_all_workers_dead_a_job_is_queued_and_the_next_worker_takes_it(fleet: Fleet):
    (worker,) = fleet.exactly(1)
    job = fleet.submit(**STEPS)
    running = fleet.until_step(job, 10)

    worker.kill()
    with fleet.recovery_elsewhere():
        fleet.until(lambda now: now.status == JobStatus.QUEUED, job)
        fleet.exactly(1)
        assert_went_on(fleet, job, running)


@pytest.mark.parametrize("lost", ["call", "reply"])
def test_a_worker_that_dies_at_the_very_end_has_done_the_job(fleet: Fleet, lost: str):
    fleet.exactly(2)
    job = fleet.submit(steps=20, step_s=0.05)
    fleet.until(lambda now: now.status == JobStatus.RUNNING, job)
    worker = fleet.runner(job)

    # Its manifest is in storage; Redis has not heard of the end, or has, and `job.json` is missing.
    trap = getattr(worker.wire, f"lose_{lost}")(fleet.script("finish"), act=worker.kill)
    until(trap.sprung.is_set)

    ended = fleet.assert_succeeded(job)
    assert [attempt.reason for attempt in ended.attempts] == ["succeeded"]
