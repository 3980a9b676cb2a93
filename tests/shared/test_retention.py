"""What prune takes away, in which order, and what it never touches."""

import io
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from shared.artifacts import write_job
from shared.errors import JobNotFound, StorageUnavailable
from shared.job import JobStatus, Worker
from shared.retention import DAY_MS, Retention, RetentionThread
from shared.submission import hold, refuse
from workers.run_job import run_job

DAYS = 7


@pytest.fixture
def prune(queue, monkeypatch):
    """Prune as if it were so many days later."""

    def later(days: float, **options):
        queue.store.redis.delete("dreamq:held")  # which is kept for a day
        with monkeypatch.context() as clock:
            then = queue.store.now_ms() + int(days * DAY_MS)
            clock.setattr(queue.store, "now_ms", lambda: then)
            return Retention(queue, DAYS, **options).prune()

    return later


def files(queue, job) -> list[str]:
    """The names of all files of a job's attempts."""
    attempts = queue.storage.names(f"jobs/{job.id}/attempts")
    return [name for attempt in attempts for name in queue.storage.names(f"jobs/{job.id}/attempts/{attempt}")]


def test_checkpoints_of_ended_jobs_go_after_a_day_and_the_rest_stays(queue, run, prune):
    job = run("steps", steps=10, checkpoint_every=2, trouble="crash")

    assert prune(0.5).checkpoints == []
    pruned = prune(2)

    assert (len(pruned.checkpoints), pruned.jobs) == (2, [])
    assert files(queue, job) == ["manifest.json", "preview-0002.txt", "preview-0004.txt"]
    assert queue.open_artifact(job.id, "preview-0004.txt").read()


def test_old_jobs_go_with_all_that_belongs_to_them(queue, run, prune):
    job = queue.submit("steps", {"steps": 1}, labels={"a": "b"}, idempotency_key="k")
    run("steps", steps=1)
    queue.cancel(job.id)
    before = set(queue.store.redis.keys())

    assert prune(DAYS - 0.1).jobs == []
    assert len(prune(DAYS + 0.1).jobs) == 2

    with pytest.raises(JobNotFound):
        queue.get(job.id)
    assert queue.storage.names("jobs") == []
    assert queue.jobs() == ([], None)
    left = {key for key in queue.store.redis.scan_iter() if key in before}
    assert left <= {"dreamq:queues", "dreamq:counters", "dreamq:served", "steps", "_kombu.binding.steps"}


def test_what_an_unfinished_job_names_stays_however_old(queue, run, prune):
    model, upstream = run("steps", steps=1), run("steps", steps=1)
    waiting = queue.submit("steps", {}, depends_on=[upstream.id])
    # As a sampling job names its model.
    queue.store.redis.hset(
        f"dreamq:job:{waiting.id}", "params", f'{{"nested": [{{"model_job": "{model.id}"}}]}}'
    )

    assert prune(1000).jobs == []

    queue.cancel(waiting.id)
    assert sorted(prune(1000).jobs) == sorted([model.id, upstream.id, waiting.id])


@pytest.mark.parametrize("status", [JobStatus.QUEUED, JobStatus.RUNNING])
def test_nothing_of_a_job_that_has_not_ended_is_touched(queue, prune, status):
    job = queue.submit("steps", {})
    if status == JobStatus.RUNNING:
        queue.store.claim(job.id, token="t", worker=Worker(name="w", host="h", device="cpu", pid=1))
    queue.storage.write(f"jobs/{job.id}/attempts/1-t/checkpoint-00000001-ab.npz", b"x")

    pruned = prune(1000)

    assert (pruned.checkpoints, pruned.jobs) == ([], [])
    assert files(queue, job) == ["checkpoint-00000001-ab.npz"]


def test_uploads_go_when_they_are_old_and_no_job_names_them(queue, run, chelsea, prune):
    named, lonely = queue.upload(chelsea), queue.upload(b"nobody names it")
    job = run("steps", steps=1, image=named.id)

    assert prune(DAYS - 0.1).uploads == []
    queue.store.redis.hset(f"dreamq:job:{job.id}", "finished_ms", queue.store.now_ms() + 1000 * DAY_MS)
    assert prune(DAYS + 0.1).uploads == [lonely.id]
    queue.store.redis.hset(f"dreamq:job:{job.id}", "finished_ms", queue.store.now_ms())
    assert prune(DAYS + 0.1).uploads == [named.id]  # the job that named it is old now, and goes too
    assert queue.storage.names("uploads") == []


def test_what_a_killed_writer_left_goes_after_a_day_and_what_is_being_written_stays(queue, run, prune):
    """An upload's spool and the temporary files of all writers are called like this."""
    job = run("steps", steps=1)
    upload = queue.upload(b"whole")
    attempt = queue.storage.names(f"jobs/{job.id}/attempts")[0]
    half = [
        Path(queue.storage.root, folder, f".{number:032x}.tmp")
        for number, folder in enumerate(("", "uploads", "keys", f"jobs/{job.id}/attempts/{attempt}"))
    ]
    for path in half:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"half")
    whole = files(queue, job)

    assert prune(0.9).leftovers == []
    assert sorted(prune(1.1, dry_run=True).leftovers) == sorted(map(str, half))
    assert sorted(prune(1.1).leftovers) == sorted(map(str, half))

    assert not any(path.exists() for path in half)
    assert files(queue, job) == whole
    assert queue.storage.exists(f"uploads/{upload.id}")


def test_an_idempotency_key_goes_with_its_job_and_one_without_a_job_when_it_is_old(queue, prune):
    waiting = queue.submit("steps", {}, idempotency_key="of a job that waits")
    cancelled = queue.submit("steps", {}, idempotency_key="of a job that ended")
    queue.cancel(cancelled.id)
    queue.storage.write("keys/of-a-submit-that-died", f"{'0' * 26} abc".encode())
    queue.storage.write("keys/damaged", b"\xff")

    assert prune(DAYS - 0.1).leftovers == []
    assert sorted(prune(DAYS + 0.1).leftovers) == ["keys/damaged", "keys/of-a-submit-that-died"]

    assert queue.storage.names("keys") == [waiting.idempotency.partition(" ")[0]]
    assert queue.submit("steps", {}, idempotency_key="of a job that waits").id == waiting.id


def submit_under_key(queue):
    return queue.submit("steps", {"seed": 1}, idempotency_key="K")


def test_a_prune_that_dies_on_the_way_frees_no_key_that_another_job_has(queue, prune, monkeypatch):
    old = submit_under_key(queue)
    queue.cancel(old.id)
    delete = queue.storage.delete

    def die(path: str) -> None:
        if path == f"jobs/{old.id}":
            raise StorageUnavailable("killed here")
        delete(path)

    with monkeypatch.context() as dying:
        dying.setattr(queue.storage, "delete", die)
        with pytest.raises(StorageUnavailable):
            prune(DAYS + 1)

    assert submit_under_key(queue).id == old.id  # it is still there
    queue.store.redis.delete("dreamq:removing")  # as after ten minutes
    assert prune(DAYS + 1).jobs == [old.id]
    assert (queue.storage.names("keys"), list(queue.store.redis.scan_iter("dreamq:idempotency:*"))) == (
        [],
        [],
    )
    new = submit_under_key(queue)
    assert new.id != old.id
    assert submit_under_key(queue).id == new.id


def test_of_two_prunes_at_once_the_later_frees_no_key_that_another_job_has(queue, prune):
    old = submit_under_key(queue)
    seen = queue.cancel(old.id)
    assert prune(DAYS + 1).jobs == [old.id]
    new = submit_under_key(queue)

    Retention(queue, DAYS).remove_job(seen)

    key = new.idempotency.partition(" ")[0]
    assert queue.store.reserved(key)[0] == new.id
    assert queue.storage.read(f"keys/{key}").decode() == new.idempotency.replace(key, new.id)
    assert submit_under_key(queue).id == new.id


def test_of_a_refused_job_nothing_is_left_in_the_end(queue, prune):
    job = queue.submit("steps", {})
    refuse(queue, job)
    queue.store.forget(job)

    assert prune(DAYS - 0.1).leftovers == []
    assert prune(DAYS + 0.1).leftovers == [f"jobs/{job.id}"]
    assert queue.storage.names("jobs") == []


class OvertakenRetention(Retention):
    """One during whose work, after it has looked at all jobs, somebody submits another."""

    submit = None

    def jobs(self):
        yield from super().jobs()
        if self.submit and self.old_uploads(self.store.now_ms()):
            self.submit()


@pytest.mark.parametrize("what", ["an upload", "a job"])
def test_what_a_submit_names_while_prune_is_at_work_stays(queue, run, chelsea, what):
    upload, upstream = queue.upload(chelsea), run("steps", steps=1)
    os.utime(queue.storage.upload_path(upload.id), (1, 1))
    submitted = []

    def submit():
        named = {"image": upload.id} if what == "an upload" else {}
        depends_on = [upstream.id] if what == "a job" else []
        submitted.append(queue.submit("steps", {"steps": 1, "seed": 1, **named}, depends_on=depends_on))

    retention = OvertakenRetention(queue, days=0)
    retention.submit = submit
    pruned = retention.prune()

    assert submitted
    assert upload.id not in pruned.uploads if what == "an upload" else upstream.id not in pruned.jobs
    run_job(submitted[0].id)
    assert queue.get(submitted[0].id).status is JobStatus.SUCCEEDED


def test_of_a_submit_and_a_removal_at_once_one_is_first_and_the_other_sees_it(queue):
    """With `hold` and `remove` as atomic as they are, no job is made whose upload goes away under it."""
    outcomes = set()
    for turn in range(20):
        upload = queue.upload(b"%d" % turn)
        os.utime(queue.storage.upload_path(upload.id), (1, 1))
        retention = Retention(queue, days=0)
        with ThreadPoolExecutor(2) as pool:
            removal = pool.submit(retention.remove_upload, upload.id)
            held = pool.submit(held_and_found, queue, upload.id)
            removal.result()
        removed = bool(retention.pruned.uploads)
        assert held.result() != removed
        outcomes.add(removed)
    assert outcomes


def held_and_found(queue, upload_id: str) -> bool:
    """What a submit does with what it names: whether it finds it."""
    hold(queue, {upload_id})
    return queue.storage.exists(f"uploads/{upload_id}")


def test_a_prune_that_died_at_work_holds_nobody_up_for_long(queue, monkeypatch):
    upload = queue.upload(b"named")
    assert queue.store.begin_removal(upload.id, unless_held_for_ms=0)
    assert not queue.store.hold([upload.id])

    # 600 s, REMOVAL_TAKES_MS of the scripts, later:
    queue.store.redis.zincrby("dreamq:removing", -600_001, upload.id)

    assert queue.store.hold([upload.id])


def test_an_upload_that_comes_again_is_new_again(queue, tmp_path):
    upload = queue.upload(b"again")
    path = queue.storage.upload_path(upload.id)
    os.utime(path, (1, 1))
    assert queue.storage.modified_ms("uploads") == {upload.id: 1000}

    queue.storage.store_upload(io.BytesIO(b"again"), limit_bytes=10)

    assert queue.storage.modified_ms("uploads")[upload.id] > 1_000_000


def test_a_dry_run_says_the_same_and_removes_nothing(queue, run, prune):
    job = run("steps", steps=10, checkpoint_every=2, trouble="crash")

    assert prune(DAYS + 1, dry_run=True).jobs == [job.id]
    assert prune(2, dry_run=True).checkpoints == prune(2).checkpoints != []
    assert queue.get(job.id)


def test_a_job_that_only_the_storage_knows_is_pruned_too(queue, run, prune):
    job = run("steps", steps=1)
    queue.store.redis.flushall()
    write_job(queue.storage, job)

    assert prune(DAYS + 1).jobs == [job.id]


def test_of_many_processes_one_prunes_in_an_hour(queue, run):
    job = run("steps", steps=1)
    queue.store.redis.hset(f"dreamq:job:{job.id}", "finished_ms", 1)

    RetentionThread(queue, DAYS).turn()
    assert queue.store.status_counts()["succeeded"] == 0

    second = run("steps", steps=1)
    queue.store.redis.hset(f"dreamq:job:{second.id}", "finished_ms", 1)
    RetentionThread(queue, DAYS).turn()
    assert queue.store.status_counts()["succeeded"] == 1
