"""What a cancel stops, and how soon."""

import time
from collections.abc import Callable

import pytest

from shared.celery_app import make_celery_app
from shared.job import JobStatus
from tests.faults.fleet import Fleet
from tests.workers.processes import until


def test_a_queued_job_that_is_cancelled_while_no_worker_runs_never_starts(fleet: Fleet):
    fleet.exactly(0)
    job, other = fleet.submit(), fleet.submit()

    assert fleet.queue.cancel(job.id).status == JobStatus.CANCELLED

    fleet.exactly(1)
    fleet.assert_succeeded(other)
    assert fleet.ended(job).attempts == []


def test_a_running_job_is_cancelled_and_keeps_what_it_made(
    fleet: Fleet, measured: Callable[[str, float], None]
):
    fleet.exactly(1)
    job = fleet.submit(steps=400, step_s=0.05, checkpoint_every=5)
    queued = fleet.submit()
    fleet.until_step(job, 10)

    asked = time.monotonic()
    fleet.queue.cancel(job.id)
    ended = fleet.ended(job)
    measured("from a cancel to the end of a job that reports", time.monotonic() - asked)

    assert (ended.status, ended.error) == (JobStatus.CANCELLED, None)
    assert {"preview-0005.txt", "preview-0010.txt", "partial.txt"} <= {kept.name for kept in ended.artifacts}
    fleet.assert_files_whole(ended)
    after = fleet.assert_succeeded(queued)
    assert after.worker is None
    assert after.attempts[0].worker.pid == ended.attempts[0].worker.pid  # the same warm process


def test_cancelling_one_job_leaves_the_running_one_alone(fleet: Fleet):
    fleet.exactly(1)
    running, queued = fleet.submit(steps=20, step_s=0.05), fleet.submit()
    fleet.until(lambda now: now.status == JobStatus.RUNNING, running)

    fleet.queue.cancel(queued.id)

    assert len(fleet.assert_succeeded(running).attempts) == 1
    assert fleet.ended(queued).attempts == []


def test_a_cancel_that_races_with_the_end_leaves_one_end(fleet: Fleet):
    (worker,) = fleet.exactly(1)
    for when in ("before", "after"):
        job = fleet.submit(steps=2, step_s=0.05)
        lose = worker.wire.lose_call if when == "before" else worker.wire.lose_reply
        trap = lose(fleet.script("finish"), act=lambda job=job: fleet.queue.cancel(job.id))
        until(trap.sprung.is_set)

        # Its work was done when the cancel came: it is not thrown away.
        fleet.assert_succeeded(job)
        events = [event for event in fleet.store.events_after(job.id, "0") if event.type == "status"]
        assert [
            event.data["status"] for event in events if event.data["status"] in ("cancelled", "succeeded")
        ] == ["succeeded"]


def test_a_cancel_reaches_a_job_whose_worker_is_dead(fleet: Fleet):
    (worker,) = fleet.exactly(1)
    job = fleet.submit(steps=400, step_s=0.05)
    fleet.until(lambda now: now.status == JobStatus.RUNNING, job)
    worker.kill()

    fleet.queue.cancel(job.id)

    with fleet.recovery_elsewhere():
        assert fleet.ended(job).status == JobStatus.CANCELLED
    fleet.exactly(1)
    fleet.assert_succeeded(fleet.submit())
    assert len(fleet.queue.get(job.id).attempts) == 1


@pytest.mark.parametrize("terminate", [False, True], ids=["revoke", "revoke with terminate"])
def test_a_revoke_in_celerys_own_words_is_a_cancel(fleet: Fleet, terminate: bool):
    fleet.exactly(1)
    running, queued = fleet.submit(steps=400, step_s=0.05), fleet.submit()
    fleet.until(lambda now: now.status == JobStatus.RUNNING, running)

    app = make_celery_app(fleet.settings)
    for job in (queued, running):
        app.control.revoke(job.id, terminate=terminate)
    app.close()

    assert fleet.ended(running).status == JobStatus.CANCELLED
    assert fleet.ended(queued).status == JobStatus.CANCELLED
    assert fleet.queue.get(queued.id).attempts == []
    fleet.assert_succeeded(fleet.submit())
