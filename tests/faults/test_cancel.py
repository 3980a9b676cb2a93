"""What a cancel stops, and how soon."""

import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from shared.celery_app import make_celery_app
from shared.job import Job, JobStatus
from tests.faults.fleet import Fleet
from tests.workers.processes import until

DEAF_ENDS_WITHIN_S = 60


class Deaf(NamedTuple):
    """A job that never reports again, on a worker of its own, cancelled as it fell silent."""

    fleet: Fleet
    job: Job
    cancelled: float


@pytest.fixture(scope="module", autouse=True)
def deaf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Deaf]]:
    """Jobs that only signals end. They take 15 and 30 s, so they are started before the other tests of this file."""
    with Fleet(tmp_path_factory.mktemp("deaf")) as fleet:
        fleet.start(2)
        jobs = {}
        for trouble in ("deaf", "stubborn"):
            job = fleet.submit(steps=20, trouble=trouble)
            fleet.until(lambda now: now.progress.step > 0, job)
            fleet.queue.cancel(job.id)
            jobs[trouble] = Deaf(fleet, job, time.monotonic())
        yield jobs


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


@pytest.mark.parametrize("trouble", ["deaf", "stubborn"])
def test_a_job_that_sees_no_flag_is_ended_by_signals(
    deaf: dict[str, Deaf], trouble: str, measured: Callable[[str, float], None]
):
    fleet, job, cancelled = deaf[trouble]
    name = "SIGTERM" if trouble == "deaf" else "SIGKILL"

    ended = fleet.ended(job, within_s=DEAF_ENDS_WITHIN_S)

    measured(
        f"at most, from a cancel to the end of a job that only {name} ends", time.monotonic() - cancelled
    )
    assert ended.status == JobStatus.CANCELLED
    assert len(ended.attempts) == 1
    took_ms = ended.finished_ms - ended.attempts[0].started_ms
    measured(f"from the start of a job to its end by {name}, cancelled at once", took_ms / 1000)


def test_workers_whose_processes_were_ended_by_signals_take_the_next_job(deaf: dict[str, Deaf]):
    fleet = deaf["deaf"].fleet
    for each in deaf.values():
        fleet.ended(each.job, within_s=DEAF_ENDS_WITHIN_S)

    jobs = [fleet.submit(steps=10, step_s=0.1, seed=seed) for seed in range(2)]

    ran = {fleet.assert_succeeded(job).attempts[0].worker.name for job in jobs}
    assert ran == {worker.name for worker in fleet.workers}
