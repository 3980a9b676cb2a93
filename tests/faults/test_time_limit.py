"""`time_limit_s` on real workers: a checkpoint and the end for a job that listens, a kill for one that does not."""

import pytest

from shared.job import JobStatus
from tests.faults.fleet import Fleet


@pytest.fixture(scope="module", autouse=True)
def deaf(tmp_path_factory):
    """A job that only a signal ends. That takes 15 s, so it is started before the other tests of this file."""
    with Fleet(tmp_path_factory.mktemp("deaf")) as fleet:
        fleet.start()
        yield fleet, fleet.submit(trouble="deaf", time_limit_s=1)


@pytest.fixture
def worker(fleet):
    """One worker that lives."""
    return fleet.exactly(1)[0]


def assert_timed_out(ended) -> None:
    """It failed as `timeout`, and that was no loss of a worker."""
    assert (ended.status, ended.error.code, ended.losses) == (JobStatus.FAILED, "timeout", 0)


def test_a_job_whose_time_is_up_ends_as_timeout_with_its_checkpoint_and_files_kept(fleet, worker):
    job = fleet.submit(steps=10_000, step_s=0.02, checkpoint_every=20, time_limit_s=2)

    ended = fleet.ended(job)

    assert_timed_out(ended)
    assert 0 < ended.checkpoints[0].step < 10_000
    assert fleet.queue.storage.read(ended.checkpoints[0].path)
    fleet.assert_files_whole(ended)
    assert ended.artifacts
    assert fleet.assert_succeeded(fleet.submit(steps=2)).attempts[0].worker.name == worker.name


def test_a_job_that_ends_in_time_is_not_touched(fleet, worker):
    assert fleet.assert_succeeded(fleet.submit(steps=5, time_limit_s=60)).attempt == 1


def test_the_time_counts_over_all_attempts(fleet, worker):
    job = fleet.submit(steps=10_000, step_s=0.02, checkpoint_every=20, time_limit_s=6)
    fleet.until_step(job, 140)  # after 3 s or so
    worker.terminate()
    assert worker.drained() == 0
    fleet.exactly(1)

    ended = fleet.ended(job)

    assert_timed_out(ended)
    ran_ms = [attempt.ended_ms - attempt.started_ms for attempt in ended.attempts]
    assert len(ran_ms) >= 2
    # Had the second attempt started anew, it alone would have run as long as the limit allows.
    assert ran_ms[-1] < 6000 <= sum(ran_ms)


def test_a_job_that_does_not_listen_is_ended_by_a_signal_and_as_timeout_all_the_same(deaf):
    fleet, job = deaf

    ended = fleet.ended(job)

    assert_timed_out(ended)
    assert len(ended.attempts) == 1
    fleet.assert_succeeded(fleet.submit(steps=2))
