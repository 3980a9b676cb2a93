"""Jobs that wait for others: started once, after success; ended, after anything else; whoever dies meanwhile."""

from collections.abc import Callable

import pytest

from shared.job import JobStatus
from tests.faults.fleet import Fleet
from tests.workers.processes import until


def after(fleet: Fleet, *upstream, **params: object):
    """A job that waits for others."""
    return fleet.queue.submit("steps", {"seed": 2, **params}, depends_on=[job.id for job in upstream])


def test_a_job_starts_once_and_only_after_all_that_it_depends_on(fleet: Fleet):
    fleet.exactly(2)
    first, second = fleet.submit(steps=20, step_s=0.05), fleet.submit(steps=10, step_s=0.05)
    job = after(fleet, first, second)
    assert job.status == JobStatus.WAITING

    ended = fleet.assert_succeeded(job)

    assert len(ended.attempts) == 1
    done_ms = [fleet.assert_succeeded(upstream).finished_ms for upstream in (first, second)]
    assert ended.started_ms >= max(done_ms)


@pytest.mark.parametrize("end", ["failed", "cancelled", "worker_lost"])
def test_a_job_ends_with_what_it_depends_on_and_so_does_what_depends_on_it(fleet: Fleet, end: str):
    fleet.exactly(1)
    trouble = {"failed": "crash", "cancelled": "", "worker_lost": "die"}[end]
    upstream = fleet.submit(steps=4, step_s=0.2, trouble=trouble)
    job = after(fleet, upstream)
    last = after(fleet, job)

    if end == "cancelled":
        fleet.queue.cancel(upstream.id)

    for waited in (job, last):
        ended = fleet.ended(waited)
        assert (ended.status, ended.error.code, ended.attempts) == (JobStatus.FAILED, "upstream_failed", [])


def test_a_machine_that_dies_between_one_job_and_the_next_loses_neither(fleet: Fleet):
    fleet.exactly(2)
    upstream = fleet.submit(steps=20, step_s=0.05)
    job = after(fleet, upstream)
    fleet.until(lambda now: now.status == JobStatus.RUNNING, upstream)

    # Redis has the end of the first; who was to move the second on is dead.
    worker = fleet.runner(upstream)
    trap = worker.wire.lose_reply(fleet.script("finish"), act=worker.kill)
    until(trap.sprung.is_set)

    fleet.assert_succeeded(upstream)
    assert len(fleet.assert_succeeded(job).attempts) == 1


def test_a_waiting_job_moves_on_though_redis_was_emptied(new_fleet: Callable[..., Fleet]):
    fleet = new_fleet()
    fleet.start()
    upstream = fleet.submit(steps=30, step_s=0.05, checkpoint_every=5)
    job = after(fleet, upstream)
    fleet.until_step(upstream, 5)

    fleet.store.redis.flushall()

    fleet.assert_succeeded(upstream)
    assert len(fleet.assert_succeeded(job).attempts) == 1
