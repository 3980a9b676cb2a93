"""What a task is given: reports, artifacts and checkpoints, each behind the fence."""

import numpy as np
import pytest

from shared.errors import (
    InvalidInput,
    JobCancelled,
    JobPreempted,
    JobTimedOut,
    LeaseLost,
    QueueUnavailable,
    StorageFull,
)
from shared.job import Worker
from tasks.job_context import JobContext

WORKER = Worker(name="w@h", host="h", device="cpu", pid=1)


@pytest.fixture
def begin(queue):
    """Claim a job (a new one, or one that was given back) and begin an attempt."""

    def begin_attempt(job_id=None):
        job_id = job_id or queue.submit("steps", {}).id
        claim = queue.store.claim(job_id, token=f"token{queue.get(job_id).attempt}", worker=WORKER)
        return JobContext(queue, queue.get(job_id), claim)

    return begin_attempt


@pytest.fixture
def job(begin):
    return begin()


def state_of(value):
    return {"value": np.array([value])}


def take_away(queue, job):
    queue.store.release(job.claim, "worker_lost", loss=True, max_losses=3)


def test_progress_goes_to_redis_at_most_twice_a_second_and_always_at_the_end(queue, job):
    for step in range(1, 101):
        job.report(step, 100, metrics={"loss": float("nan"), "rate": 2})

    told = [event.data["step"] for event in queue.store.events_after(job.id, "0") if event.type == "progress"]
    assert told == [1, 100]  # a hundred reports take well under half a second
    assert queue.get(job.id).progress.metrics == {"loss": None, "rate": 2.0}


@pytest.mark.parametrize(("reason", "raised"), [("shutdown", JobPreempted), ("timeout", JobTimedOut)])
def test_a_job_to_go_on_later_is_checkpointed_before_it_stops(queue, begin, job, reason, raised):
    queue.store.request_stop(job.claim, reason)

    with pytest.raises(raised):
        job.report(3, 10, checkpoint=lambda: state_of(33))

    assert queue.get(job.id).checkpoints[0].step == 3
    assert JobContext(queue, queue.get(job.id), job.claim).resume()["value"] == [33]


def test_a_cancelled_job_stops_at_its_next_report_without_a_checkpoint(queue, job):
    queue.cancel(job.id)

    with pytest.raises(JobCancelled):
        job.report(3, 10, checkpoint=lambda: state_of(33))

    assert queue.get(job.id).checkpoints == []


@pytest.mark.parametrize(
    ("reason", "raised"),
    [("shutdown", JobPreempted), ("timeout", JobTimedOut), ("user", JobCancelled), ("", SystemExit)],
)
def test_a_signal_that_comes_first_stops_the_job_as_a_report_would(queue, job, reason, raised):
    """After 15 s in one call of a network; the last is a signal that nobody sent for the job's sake."""
    if reason:
        queue.store.request_stop(job.claim, reason)

    with pytest.raises(raised), job.heeding_signals():
        raise SystemExit

    assert queue.get(job.id).checkpoints == []  # of whatever was half done


def test_a_checkpoint_is_saved_when_the_last_one_is_old_enough(settings, queue, job, monkeypatch):
    monkeypatch.setattr(job, "settings", settings.model_copy(update={"checkpoint_s": 1e-9}))

    job.report(1, 10, checkpoint=lambda: state_of(1))

    assert queue.get(job.id).checkpoints[0].step == 1


def test_a_checkpoint_for_which_there_is_no_room_is_passed_over_with_one_warning(settings, job, monkeypatch):
    """It may be many times the result, which then still finds room."""

    def full_disk(step, state):
        raise StorageFull

    monkeypatch.setattr(job, "settings", settings.model_copy(update={"checkpoint_s": 1e-9}))
    with monkeypatch.context() as full:
        full.setattr(job, "save_checkpoint", full_disk)
        job.report(1, 10, checkpoint=dict)
        job.report(2, 10, checkpoint=dict)
    job.report(3, 10, checkpoint=dict)
    job.save_artifact("result.txt", b"result")

    assert [warning.code for warning in job.warnings] == ["checkpoint_skipped"]
    assert [known.step for known in job._checkpoints] == [3]


def test_the_newest_two_checkpoints_are_kept(queue, job):
    for step in range(1, 5):
        job.save_checkpoint(step, state_of(step))

    assert [known.step for known in queue.get(job.id).checkpoints] == [4, 3]
    folder = f"jobs/{job.id}/attempts/1-token0"
    assert [name.split("-")[1] for name in queue.storage.names(folder)] == ["00000003", "00000004"]


@pytest.mark.parametrize("damage", [b"", b"rubbish", None])
def test_a_damaged_checkpoint_falls_back_to_the_one_before_and_says_so(queue, begin, job, damage):
    job.save_checkpoint(1, state_of(1))
    job.save_checkpoint(2, state_of(2))
    newest = queue.get(job.id).checkpoints[0].path
    if damage is None:
        queue.storage.delete(newest)
    else:
        queue.storage.write(newest, damage)
    take_away(queue, job)
    second = begin(job.id)

    assert second.resume()["value"] == [1]
    assert second.resumed_from_step == 1
    assert [warning.code for warning in queue.get(job.id).warnings] == ["checkpoint_damaged"]


def test_a_job_without_a_checkpoint_starts_anew(job):
    assert job.resume() is None
    assert "resumed_from_step" not in job.summary


def test_an_old_attempt_can_neither_report_nor_add_files_nor_checkpoints(queue, begin, job):
    take_away(queue, job)
    second = begin(job.id)
    second.save_artifact("result.txt", b"second")

    for late in (
        lambda: job.report(10, 10),
        lambda: job.save_artifact("result.txt", b"first"),
        lambda: job.save_checkpoint(9, state_of(9)),
        lambda: job.warn("late", "too late"),
        lambda: job.text("late"),
    ):
        with pytest.raises(LeaseLost):
            late()

    assert queue.open_artifact(job.id, "result.txt").read() == b"second"
    assert queue.get(job.id).checkpoints == []


def test_an_attempt_discards_only_what_is_its_own(queue, begin, job):
    job.save_artifact("preview.txt", b"first")
    take_away(queue, job)
    second = begin(job.id)
    second.save_artifact("result.txt", b"second")
    second.discard()

    assert queue.open_artifact(job.id, "preview.txt").read() == b"first"


def test_an_artifact_of_the_same_name_is_replaced_in_its_place(queue, job):
    for name in ("a.txt", "b.txt", "a.txt"):
        job.save_artifact(name, name.encode() * (1 + len(job.artifacts)))

    assert [(artifact.name, artifact.bytes) for artifact in queue.get(job.id).artifacts] == [
        ("a.txt", 15),
        ("b.txt", 10),
    ]


@pytest.mark.parametrize("name", ["../result.png", "a/b.png", "", ".x", "manifest json"])
def test_an_artifact_has_a_plain_name(job, name):
    with pytest.raises(InvalidInput):
        job.save_artifact(name, b"x")


def test_a_report_passes_over_an_absent_redis_and_a_file_waits_for_it(queue, job, monkeypatch):
    calls = []
    write = queue.store.write

    def flaky(*args, **kwargs):
        calls.append(args)
        if len(calls) in (1, 2):
            raise QueueUnavailable
        return write(*args, **kwargs)

    monkeypatch.setattr(queue.store, "write", flaky)
    job.report(1, 10)
    job.save_artifact("a.txt", b"a")

    assert len(calls) == 3
    assert [artifact.name for artifact in queue.get(job.id).artifacts] == ["a.txt"]


def test_a_model_is_read_from_an_earlier_job_only_when_it_is_whole(queue, job, run):
    earlier = run("steps", steps=2)

    assert job.model_path(earlier.id, "result.txt").is_file()
    assert f"{earlier.id}/result.txt" in job.provenance["artifacts"]
    with pytest.raises(InvalidInput, match="has left no"):
        job.model_path(earlier.id, "model.keras")
    queue.storage.write(queue.artifact(earlier.id, "result.txt").path, b"other")
    with pytest.raises(InvalidInput, match="damaged"):
        job.model_path(earlier.id, "result.txt")


def test_a_picture_is_loaded_and_saved(queue, job, chelsea):
    upload = queue.upload(chelsea)

    image = job.load_image(upload.id)
    job.save_image("result.png", image.astype(float) + 0.2)

    assert image.shape == (300, 451, 3)
    saved = queue.upload(queue.open_artifact(job.id, "result.png"))
    np.testing.assert_array_equal(job.load_image(saved.id), image)
