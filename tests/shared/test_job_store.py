"""The record's scripts: what may follow what, and the fence."""

import json

import pytest

from shared.errors import JobNotFound, LeaseLost, RequestInvalid
from shared.job import Job, JobStatus, Worker, new_job_id
from shared.job_hash import hash_from_job, job_from_hash
from shared.job_store import Claim

WORKER = Worker(name="w@h", host="h", device="cpu", pid=1)


@pytest.fixture
def store(queue):
    return queue.store


@pytest.fixture
def new_job(store):
    def make(**given) -> Job:
        now = store.now_ms()
        fields = {"queue": "steps", "created_ms": now, "score": now, **given}
        job = Job(id=new_job_id(), kind="steps", params={}, **fields)
        assert store.create(job)
        return job

    return make


def claim(store, job: Job, token: str = "t") -> Claim | None:
    return store.claim(job.id, token=token, worker=WORKER)


def test_a_record_comes_back_as_it_was_written(store, new_job):
    job = new_job(labels={"a": "b"}, depends_on=[], warnings=[{"code": "c", "message": "m"}])

    assert store.get(job.id).model_copy(update={"queue_position": None}) == job
    assert job_from_hash({name: str(value) for name, value in hash_from_job(job).items()}) == job


def test_a_record_is_created_once(store, new_job):
    job = new_job()

    assert not store.create(job.model_copy(update={"params": {"other": 1}}))
    assert store.get(job.id).params == {}


def test_an_unknown_id_is_an_error_and_never_pending(store):
    with pytest.raises(JobNotFound):
        store.get(new_job_id())
    with pytest.raises(JobNotFound):
        store.cancel(new_job_id())


def test_a_job_is_claimed_once(store, new_job):
    job = new_job()

    first, second = claim(store, job, "first"), claim(store, job, "second")

    assert first == Claim(job.id, 1, "first", 1)
    assert second is None


def test_a_cancelled_job_is_not_to_be_had(store, new_job):
    job = new_job()
    store.cancel(job.id)

    assert claim(store, job) is None
    assert store.get(job.id).status == JobStatus.CANCELLED


@pytest.mark.parametrize(
    "late",
    [
        lambda store, old: store.renew(old),
        lambda store, old: store.write(old, {"progress": "{}"}),
        lambda store, old: store.write(old, {"artifact.x": "{}"}, event="artifact", data="{}"),
    ],
)
def test_whatever_an_old_attempt_writes_is_refused(store, new_job, late):
    job = new_job()
    old = claim(store, job, "old")
    store.release(old, "worker_lost", loss=True, max_losses=3)
    claim(store, job, "new")
    before = store.get(job.id)

    with pytest.raises(LeaseLost):
        late(store, old)

    assert store.get(job.id) == before


@pytest.mark.parametrize(
    ("checkpoints", "step"),
    [([], None), ([{"path": "b", "sha256": "d", "step": 40}, {"path": "a", "sha256": "c", "step": 20}], 40)],
)
def test_who_follows_a_job_is_told_why_it_is_queued_again_and_where_it_goes_on(
    store, new_job, checkpoints, step
):
    job = new_job()
    held = claim(store, job)
    store.write(held, {"checkpoints": json.dumps(checkpoints)})
    store.release(held, "worker_lost", loss=True, max_losses=3)

    *_, told = store.events_after(job.id, "0")

    assert (told.type, told.data["status"]) == ("status", "queued")
    assert (told.data["reason"], told.data["goes_on_from_step"]) == ("worker_lost", step)


def test_an_old_attempt_cannot_end_the_job(store, new_job):
    job = new_job()
    old = claim(store, job, "old")
    store.release(old, "worker_lost", loss=True, max_losses=3)
    new = claim(store, job, "new")

    assert not store.finish(old, JobStatus.FAILED, {})
    assert store.release(old, "worker_lost", loss=True, max_losses=0) == ""
    assert not store.request_stop(old, "shutdown")
    assert store.finish(new, JobStatus.SUCCEEDED, {})
    assert store.get(job.id).status == JobStatus.SUCCEEDED


@pytest.mark.parametrize("status", [JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED])
def test_an_ended_job_never_changes_again(store, new_job, status):
    job = new_job()
    held = claim(store, job)
    store.finish(held, status, {})
    ended = store.get(job.id)

    store.cancel(job.id)
    assert claim(store, job) is None
    other = JobStatus.FAILED if status != JobStatus.FAILED else JobStatus.SUCCEEDED
    assert not store.finish(held, other, {})
    # Told once more, because the answer was lost on its way: it is so, and stays as it was.
    assert store.finish(held, status, {"summary": '{"told": "twice"}'})
    assert store.release(held, "worker_lost", loss=True, max_losses=3) == ""
    assert store.settle(ended) == status
    assert store.get(job.id) == ended


def test_losses_beyond_the_limit_end_the_job_and_drains_do_not_count(store, new_job):
    job = new_job()
    for _ in range(5):
        store.release(claim(store, job), "shutdown", loss=False, max_losses=1)
    assert store.release(claim(store, job), "worker_lost", loss=True, max_losses=1) == "queued"

    assert store.release(claim(store, job), "worker_lost", loss=True, max_losses=1) == "failed"

    ended = store.get(job.id)
    assert (ended.error.code, ended.attempt) == ("worker_lost", 7)
    assert [attempt.reason for attempt in ended.attempts] == ["shutdown"] * 5 + ["worker_lost"] * 2


def test_a_new_checkpoint_forgives_the_losses_before_it(store, new_job):
    job = new_job()
    store.release(claim(store, job), "worker_lost", loss=True, max_losses=1)
    held = claim(store, job)
    store.write(held, {"checkpoints": json.dumps([{"path": "p", "sha256": "s", "step": 1}])})

    assert store.release(held, "worker_lost", loss=True, max_losses=1) == "queued"


@pytest.mark.parametrize(
    ("stop", "status"), [("user", "cancelled"), ("timeout", "failed"), ("shutdown", "queued")]
)
def test_a_job_asked_to_stop_ends_as_asked_when_its_worker_dies(store, new_job, stop, status):
    job = new_job()
    held = claim(store, job)
    if stop == "user":
        store.cancel(job.id)
    else:
        store.request_stop(held, stop)

    assert store.release(held, "worker_lost", loss=True, max_losses=3) == status


def test_a_users_cancel_outranks_every_other_reason_to_stop(store, new_job):
    job = new_job()
    held = claim(store, job)
    store.request_stop(held, "shutdown")
    store.cancel(job.id)
    store.request_stop(held, "timeout")

    assert store.write(held, {}) == "user"


def test_the_queue_goes_by_priority_and_age(store, new_job):
    low, high, normal = (new_job(score=score) for score in (30, 10, 20))

    positions = [store.get(job.id).queue_position for job in (high, normal, low)]
    chosen = [job_id for job_id, _, _ in store.take_next(2, {"steps": 2})]

    assert positions == [1, 2, 3]
    assert chosen == [high.id, normal.id]


def test_no_more_messages_are_out_than_the_window_holds(store, new_job):
    jobs = [new_job(score=score) for score in range(10)]

    first = list(store.take_next(4, {"steps": 4}))
    again = list(store.take_next(4, {"steps": 4}))
    claim(store, jobs[0])
    after_a_claim = [job_id for job_id, _, _ in store.take_next(4, {"steps": 4})]

    assert (len(first), again, after_a_claim) == (4, [], [jobs[4].id])


def test_listing_pages_through_every_job_once_newest_first(store, new_job):
    # Several share one millisecond, where only the id decides.
    jobs = [new_job(created_ms=1000 + number // 3) for number in range(10)]
    expected = [job.id for job in sorted(jobs, key=lambda job: (job.created_ms, job.id), reverse=True)]

    seen, cursor = [], None
    while True:
        page, cursor = store.find(limit=3, cursor=cursor)
        seen += [job.id for job in page]
        if cursor is None:
            break

    assert seen == expected


def test_listing_filters_by_status_kind_and_label_together(store, new_job):
    wanted = new_job(labels={"user": "ann"})
    new_job(labels={"user": "bob"})
    ended = new_job(labels={"user": "ann"})
    store.cancel(ended.id)

    assert [job.id for job in store.find(status="queued", kind="steps", label="user=ann")[0]] == [wanted.id]
    assert {job.id for job in store.find(label="user=ann")[0]} == {wanted.id, ended.id}
    assert len(store.find(label="user")[0]) == 3
    assert store.find(kind="deepdream") == ([], None)


def test_a_cursor_of_nobodys_is_refused(store):
    with pytest.raises(RequestInvalid) as caught:
        store.find(cursor="yesterday")

    assert caught.value.field == "cursor"


@pytest.mark.parametrize(
    ("ends", "status"),
    [(["succeeded", "succeeded"], "queued"), (["succeeded", None], "waiting"), (["failed", None], "failed"),
     (["succeeded", "cancelled"], "failed")],
)  # fmt: skip
def test_a_waiting_job_moves_on_as_its_upstream_jobs_end(store, new_job, ends, status):
    upstream = [new_job() for _ in ends]
    waiting = new_job(status=JobStatus.WAITING, depends_on=[job.id for job in upstream])
    for job, end in zip(upstream, ends, strict=True):
        if end:
            store.finish(claim(store, job), JobStatus(end), {})

    assert store.settle(waiting) == status
    assert store.get(waiting.id).status == status
    if status == "failed":
        assert store.get(waiting.id).error.code == "upstream_failed"
