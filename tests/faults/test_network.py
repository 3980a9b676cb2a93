"""What a bad line between a worker and Redis costs: cut connections, lost replies, a host that is cut off."""

import time
from collections.abc import Callable

import pytest

from shared.job import JobStatus
from tests.faults.fleet import Fleet
from tests.workers.processes import until


def test_a_host_that_is_cut_off_loses_its_job_and_stops_by_itself_when_it_is_back(
    fleet: Fleet, measured: Callable[[str, float], None]
):
    fleet.exactly(2)
    job = fleet.submit(steps=80, step_s=0.05, checkpoint_every=5)  # 4 s, longer than the cut
    before = fleet.until_step(job, 10)
    worker = fleet.runner(job)

    worker.wire.silence()
    silenced = time.monotonic()
    fleet.until(lambda now: now.attempt == 2, job)
    measured("from a host's cut to the next attempt elsewhere", time.monotonic() - silenced)
    worker.wire.mend()

    until(
        lambda: f"job {job.id}: attempt 1 lost its lease" in worker.log(), what="its notice of the lost lease"
    )
    ended = fleet.assert_succeeded(job)
    assert [attempt.reason for attempt in ended.attempts] == ["worker_lost", "succeeded"]
    assert ended.attempts[1].worker.name != worker.name
    assert ended.summary["resumed_from_step"] >= before.checkpoints[0].step


def test_connections_that_are_cut_in_mid_job_cost_nothing(fleet: Fleet):
    fleet.exactly(1)
    job = fleet.submit(steps=30, step_s=0.05, checkpoint_every=5)
    for step in (5, 10, 20):
        fleet.until_step(job, step)
        fleet.runner(job).wire.cut()

    ended = fleet.assert_succeeded(job)
    assert [attempt.reason for attempt in ended.attempts] == ["succeeded"]


@pytest.mark.parametrize("script", ["claim", "write", "renew", "finish"])
def test_a_reply_that_is_lost_on_its_way_changes_nothing(fleet: Fleet, script: str):
    (worker,) = fleet.exactly(1)
    trap = worker.wire.lose_reply(fleet.script(script))

    job = fleet.submit(steps=20, step_s=0.05, checkpoint_every=5)

    ended = fleet.assert_succeeded(job)
    assert trap.sprung.is_set()
    assert [attempt.reason for attempt in ended.attempts] == ["succeeded"]


def test_a_drain_whose_reply_is_lost_gives_the_job_back(fleet: Fleet):
    (worker,) = fleet.exactly(1)
    job = fleet.submit(steps=40, step_s=0.05, checkpoint_every=5)
    fleet.until_step(job, 5)

    trap = worker.wire.lose_reply(fleet.script("release"))
    worker.terminate()

    assert worker.drained() == 0
    assert trap.sprung.is_set()
    assert fleet.queue.get(job.id).status == JobStatus.QUEUED
    fleet.exactly(1)
    ended = fleet.assert_succeeded(job)
    assert [attempt.reason for attempt in ended.attempts] == ["shutdown", "succeeded"]
