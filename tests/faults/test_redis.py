"""What a Redis that goes away, comes back, or comes back empty leaves of the jobs."""

import time
from collections.abc import Callable

import pytest

from shared.job import JobStatus
from shared.queue import Queue
from tests.faults.fleet import Fleet
from tests.workers.processes import until


def test_a_redis_that_dies_and_comes_back_with_its_file_runs_every_job_once(
    new_fleet: Callable[..., Fleet], measured: Callable[[str, float], None]
):
    fleet = new_fleet()
    fleet.start(2)
    running = fleet.submit(steps=40, step_s=0.05)
    fleet.until(lambda now: now.status == JobStatus.RUNNING, running)
    queued = [fleet.submit(steps=2, seed=seed) for seed in range(20)]

    fleet.redis.process.kill()
    fleet.redis.process.wait()
    time.sleep(1)
    fleet.redis.start()
    back = time.monotonic()

    ended = [fleet.assert_succeeded(job) for job in (running, *queued)]
    measured("from a Redis that is back to the end of 21 jobs", time.monotonic() - back)
    assert {len(job.attempts) for job in ended} == {1}


def test_a_job_goes_on_though_redis_was_emptied_under_it(new_fleet: Callable[..., Fleet]):
    fleet = new_fleet()
    fleet.start(2)
    job = fleet.submit(steps=60, step_s=0.05, checkpoint_every=5)
    fleet.until_step(job, 10)
    waiting = [fleet.submit(steps=2, seed=seed) for seed in range(3)]
    done = fleet.assert_succeeded(fleet.submit(steps=1))

    fleet.store.redis.flushall()

    assert fleet.queue.get(job.id).id == job.id  # from storage, until recovery has been there
    ended = fleet.assert_succeeded(job)
    assert ended.attempts[-1].attempt == 2
    assert ended.summary["resumed_from_step"] >= 10
    for other in waiting:
        fleet.assert_succeeded(other)
    assert fleet.assert_succeeded(done).finished_ms == done.finished_ms
    listed, _ = fleet.queue.jobs(limit=50)
    assert {found.id for found in listed} == {job.id, done.id, *(other.id for other in waiting)}


def test_a_redis_that_is_emptied_as_a_job_ends_still_has_its_end(new_fleet: Callable[..., Fleet]):
    fleet = new_fleet()
    (worker,) = fleet.start()
    job = fleet.submit(steps=20, step_s=0.05, checkpoint_every=5)

    # The manifest is in storage, the record's end is on its way.
    trap = worker.wire.lose_call(fleet.script("finish"), act=fleet.store.redis.flushall)
    until(trap.sprung.is_set)

    fleet.assert_succeeded(job)


@pytest.mark.parametrize("lost", ["steps", "unacked", "_kombu.binding.steps"])
def test_messages_that_the_broker_lost_are_sent_again(fleet: Fleet, lost: str):
    fleet.exactly(1)
    jobs = [fleet.submit(steps=10, step_s=0.05, seed=seed) for seed in range(3)]
    fleet.until(lambda now: now.status == JobStatus.RUNNING, jobs[0])

    fleet.store.redis.delete(lost)

    for job in jobs:
        assert len(fleet.assert_succeeded(job).attempts) == 1


def test_a_cancelled_job_stays_cancelled_though_redis_was_emptied(new_fleet: Callable[..., Fleet]):
    fleet = new_fleet()
    (worker,) = fleet.start()
    running = fleet.submit(steps=200, step_s=0.05)
    fleet.until(lambda now: now.status == JobStatus.RUNNING, running)
    queued = fleet.submit()
    # Redis forgets before the running job has seen that it is to stop.
    worker.freeze()
    assert fleet.queue.cancel(queued.id).status == JobStatus.CANCELLED
    fleet.queue.cancel(running.id)

    fleet.store.redis.flushall()
    worker.thaw()

    for job in (queued, running):
        assert fleet.ended(job).status == JobStatus.CANCELLED
    fleet.assert_succeeded(fleet.submit())


def test_a_submit_is_accepted_though_redis_is_emptied_under_it(new_fleet: Callable[..., Fleet]):
    fleet = new_fleet()
    wire = fleet.new_wire("client")
    client = Queue.from_settings(fleet.settings.model_copy(update={"redis_url": wire.url}))

    # Its record is there, its message is not.
    trap = wire.lose_call(fleet.script("dispatch"), act=fleet.store.redis.flushall)
    job = client.submit("steps", {"seed": 1})
    client.store.redis.close()
    client.dispatch.app.close()
    wire.close()

    assert trap.sprung.is_set()
    fleet.start()
    fleet.assert_succeeded(job)


def test_an_idempotency_key_outlives_an_emptied_redis(new_fleet: Callable[..., Fleet]):
    fleet = new_fleet()
    params = {"steps": 2, "seed": 1}
    job = fleet.queue.submit("steps", params, idempotency_key="order 7")

    fleet.store.redis.flushall()

    # Asked again before recovery has filled Redis, and after it.
    assert fleet.queue.submit("steps", params, idempotency_key="order 7").id == job.id
    with fleet.recovery_elsewhere():
        until(lambda: fleet.store.exists(job.id))
    assert fleet.queue.submit("steps", params, idempotency_key="order 7").id == job.id
    fleet.start()
    fleet.assert_succeeded(job)
    assert len(fleet.queue.jobs()[0]) == 1
