"""What a shutdown costs: nothing, as long as the worker is asked."""

import signal
import time
from collections.abc import Callable

from shared.job import JobStatus
from tests.faults.fleet import Fleet
from tests.workers.processes import until

STEPS = {"steps": 50, "step_s": 0.05}  # 2.5 s; its checkpoints are those that a stop asks for


def running_job(fleet: Fleet, **params: object):
    """A job of which some steps are done."""
    job = fleet.submit(**{**STEPS, **params})
    fleet.until(lambda now: now.status == JobStatus.RUNNING and now.progress.step >= 5, job)
    return job


def assert_given_back(fleet: Fleet, job) -> None:
    """The job waits with its checkpoint, and nothing is held against it."""
    given_back = fleet.queue.get(job.id)
    assert given_back.status == JobStatus.QUEUED
    assert given_back.checkpoints[0].step >= 5
    assert (given_back.losses, given_back.stop) == (0, None)
    assert [attempt.reason for attempt in given_back.attempts] == ["shutdown"]


def assert_goes_on(fleet: Fleet, job) -> None:
    """The next worker takes it from where it stopped."""
    stopped_at = fleet.queue.get(job.id).checkpoints[0].step
    fleet.exactly(1)
    ended = fleet.assert_succeeded(job)
    assert ended.summary["resumed_from_step"] == stopped_at


def test_a_worker_that_is_asked_to_end_gives_its_job_back_with_a_checkpoint(
    fleet: Fleet, measured: Callable[[str, float], None]
):
    (worker,) = fleet.exactly(1)
    job = running_job(fleet)

    worker.terminate()
    asked = time.monotonic()

    assert worker.drained() == 0
    measured("from SIGTERM to the end of a worker that runs a job", time.monotonic() - asked)
    assert_given_back(fleet, job)
    assert worker.name not in {known["name"] for known in fleet.queue.workers()}
    assert_goes_on(fleet, job)


def test_a_worker_that_is_asked_three_times_does_no_less(fleet: Fleet):
    (worker,) = fleet.exactly(1)
    job = running_job(fleet)

    for _ in range(3):
        worker.terminate()
        time.sleep(0.2)

    assert worker.drained() == 0
    assert_given_back(fleet, job)
    assert_goes_on(fleet, job)


def test_a_drain_waits_for_a_checkpoint_that_is_being_written(fleet: Fleet):
    (worker,) = fleet.exactly(1)
    job = running_job(fleet, checkpoint_takes_s=1.5)

    worker.terminate()
    fleet.until(lambda now: now.stop == "shutdown", job)
    time.sleep(0.7)  # its state is being gathered now
    worker.terminate()

    assert worker.drained() == 0
    assert_given_back(fleet, job)


def test_a_signal_to_every_process_at_once_loses_nothing(fleet: Fleet):
    (worker,) = fleet.exactly(1)
    job = fleet.submit(**STEPS, checkpoint_every=5)
    fleet.until_step(job, 10)

    # As systemd does by default, and a terminal at Ctrl-C.
    for process in worker.tree():
        process.send_signal(signal.SIGTERM)

    assert worker.drained() == 0
    given_back = fleet.queue.get(job.id)
    assert (given_back.status, given_back.losses) == (JobStatus.QUEUED, 0)
    assert given_back.checkpoints[0].step >= 10
    assert_goes_on(fleet, job)


def test_an_idle_worker_ends_when_it_is_asked(fleet: Fleet):
    (worker,) = fleet.exactly(1)

    worker.terminate()

    assert worker.drained() == 0
    until(lambda: worker.name not in {known["name"] for known in fleet.queue.workers()})
