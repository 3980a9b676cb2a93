"""What the broker does with messages must not matter: late, doubled, foreign, or no message at all."""

import json
import time
from collections.abc import Callable

import psutil
import pytest

from shared.job import JobStatus
from tests.faults.conftest import Deaf
from tests.faults.fleet import Fleet, Launched
from tests.workers.processes import until


@pytest.fixture(scope="module", autouse=True)
def _start_early(deaf: Deaf) -> None:
    """The half minute that those jobs take passes while the tests of other files run."""


def test_a_job_three_times_as_long_as_the_visibility_timeout_runs_once_and_holds_nothing_up(
    new_fleet: Callable[..., Fleet],
):
    fleet = new_fleet(visibility_timeout_s=5)
    fleet.start(2)
    # One burst: the long one first, the short ones behind it.
    long = fleet.submit(steps=150, step_s=0.1)  # 15 s
    short = [fleet.submit(steps=2, seed=seed) for seed in range(5)]

    for job in short:
        fleet.assert_succeeded(job)
    assert fleet.queue.get(long.id).status == JobStatus.RUNNING
    assert fleet.store.redis.hlen("unacked") == 0  # nothing that a visibility timeout could apply to

    assert len(fleet.assert_succeeded(long).attempts) == 1


def test_a_message_that_comes_twice_runs_its_job_once(fleet: Fleet):
    fleet.exactly(2)
    job = fleet.submit(steps=20, step_s=0.05)
    for _ in range(3):
        fleet.queue.dispatch.publish(job.id, "steps", "steps")
    other = fleet.submit()

    assert len(fleet.assert_succeeded(other).attempts) == 1
    assert len(fleet.assert_succeeded(job).attempts) == 1


def test_a_message_for_a_job_that_never_was_harms_nobody(fleet: Fleet):
    (worker,) = fleet.exactly(1)
    fleet.queue.dispatch.publish("00000000000000000000000000", "steps", "steps")

    fleet.assert_succeeded(fleet.submit())
    assert worker.alive


@pytest.mark.parametrize(
    "message", ["no JSON at all", json.dumps({"body": "e30=", "headers": {}, "properties": {}})]
)
def test_a_message_that_is_none_ends_no_service(new_fleet: Callable[..., Fleet], message: str):
    fleet = new_fleet()
    with Launched(fleet) as launched:
        fleet.store.redis.lpush("steps", message)
        until(lambda: fleet.store.redis.llen("steps") == 0, what="the message's end")
        time.sleep(0.5)

        fleet.assert_succeeded(fleet.submit())
        assert launched.process.poll() is None


def test_a_task_that_nobody_knows_is_dropped(fleet: Fleet):
    (worker,) = fleet.exactly(1)
    fleet.queue.dispatch.app.send_task("tasks.unheard_of", args=["x"], queue="steps")

    fleet.assert_succeeded(fleet.submit())
    assert worker.alive
    assert psutil.pid_exists(worker.process.pid)
