"""What was never meant to be there: messages, revokes, records and files of somebody else. Each costs but itself."""

import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from shared.errors import QueueUnavailable, StorageUnavailable
from shared.job import JobStatus
from shared.queue import Queue
from shared.recovery import Recovery
from shared.storage import Storage
from tests.faults.fleet import Fleet
from tests.workers.processes import until


@pytest.mark.parametrize("argument", [None, 7, "no such job", "", ["a", "list"]])
def test_a_message_with_no_jobs_id_costs_nothing(fleet: Fleet, argument: object):
    fleet.exactly(1)

    fleet.queue.dispatch.app.send_task("tasks.steps", args=[argument], queue=fleet.queues, ignore_result=True)

    assert len(fleet.assert_succeeded(fleet.submit()).attempts) == 1


def test_a_revoke_of_what_is_no_job_stops_no_renewal(fleet: Fleet):
    fleet.exactly(1)
    job = fleet.submit(steps=100, step_s=0.05)  # 5 s, longer than a lease
    fleet.until(lambda now: now.progress.step > 0, job)

    fleet.queue.dispatch.app.control.revoke("no such job")
    fleet.queue.dispatch.app.control.revoke("00000000000000000000000000")

    assert [attempt.reason for attempt in fleet.assert_succeeded(job).attempts] == ["succeeded"]


@pytest.mark.parametrize(
    "stray",
    [
        "attempts/backup/file.txt",
        "attempts/1-x/checkpoint-final-model.npz",
        "attempts/1-x/manifest.json",
        "job.json",
    ],
)
def test_a_strange_file_in_one_jobs_folder_keeps_no_other_from_being_rebuilt(queue: Queue, stray: str):
    odd, other = (queue.submit("steps", {"steps": 1}) for _ in range(2))
    queue.storage.write(f"jobs/{odd.id}/{stray}", b"[]")
    queue.store.redis.flushall()

    Recovery(queue).turn()

    assert queue.store.get(other.id).status is JobStatus.QUEUED


def test_a_record_of_another_version_hides_no_other_and_holds_up_no_recovery(queue: Queue):
    odd, other = (queue.submit("steps", {"steps": 1}) for _ in range(2))
    queue.store.redis.hset(f"dreamq:job:{odd.id}", "priority", "urgent")  # which this version does not know

    Recovery(queue).turn()
    found, _ = queue.jobs()

    assert [job.id for job in found] == [other.id]


def test_a_job_with_thousands_of_files_is_rebuilt_too(queue: Queue):
    job = queue.submit("steps", {"steps": 1})
    files = [
        {
            "name": f"f{n}.txt",
            "path": f"p{n}",
            "bytes": 1,
            "sha256": "0",
            "media_type": "text/plain",
            "place": n,
        }
        for n in range(5000)
    ]  # twice that in arguments: more than Lua's stack of 8000 holds
    stored = json.loads(queue.storage.read(f"jobs/{job.id}/job.json"))
    queue.storage.write(f"jobs/{job.id}/job.json", json.dumps({**stored, "artifacts": files}).encode())
    queue.store.redis.flushall()

    Recovery(queue).turn()

    assert len(queue.store.get(job.id).artifacts) == 5000


def test_a_worker_without_the_shared_folder_leaves_its_jobs_to_those_that_have_it(
    new_fleet: Callable[..., Fleet], tmp_path: Path
):
    fleet = new_fleet()
    empty = tmp_path / "not-mounted"
    empty.mkdir()
    (bad,) = fleet.start(STORAGE_URL=str(empty))
    jobs = [fleet.submit(seed=seed) for seed in range(3)]
    until(lambda: "is the shared folder mounted here?" in bad.log(), what="its notice")

    fleet.start()

    assert all(fleet.assert_succeeded(job).losses == 0 for job in jobs)
    assert not list(empty.rglob("*.json")), "something was written where nobody looks"


def test_an_emptied_redis_is_not_rebuilt_from_a_folder_that_is_not_mounted(
    queue: Queue, settings, tmp_path: Path
):
    job = queue.submit("steps", {"steps": 1})
    queue.store.redis.flushall()

    Recovery(Queue.from_settings(settings.model_copy(update={"storage_url": str(tmp_path / "empty")}))).turn()
    Recovery(queue).turn()

    assert queue.store.get(job.id).status is JobStatus.QUEUED


def test_a_rebuild_during_which_the_storage_goes_away_is_begun_anew(queue: Queue, monkeypatch):
    jobs = [queue.submit("steps", {"steps": 1}) for _ in range(2)]
    queue.store.redis.flushall()

    def away(*_):
        raise StorageUnavailable()

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(Storage, "read", away)
        meanwhile.setattr(Storage, "write", away)
        with pytest.raises(StorageUnavailable):
            Recovery(queue).turn()
    Recovery(queue).turn()

    assert {queue.store.get(job.id).status for job in jobs} == {JobStatus.QUEUED}


def test_a_submit_under_a_key_that_redis_took_up_after_the_refusal_is_one_job_that_runs(new_fleet):
    fleet = new_fleet()
    fleet.submit()  # so that Redis knows the scripts
    impatient = Queue.from_settings(fleet.settings, impatient=True)
    impatient.submit("steps", {"steps": 1})
    create = impatient.store.create

    def frozen_at_create(job):
        fleet.redis.process.send_signal(signal.SIGSTOP)
        return create(job)

    impatient.store.create = frozen_at_create
    with pytest.raises(QueueUnavailable):
        impatient.submit("steps", {"seed": 1}, idempotency_key="k")
    fleet.redis.process.send_signal(signal.SIGCONT)
    impatient.store.create = create

    job = impatient.submit("steps", {"seed": 1}, idempotency_key="k")

    fleet.start()
    fleet.assert_succeeded(job)


def test_a_submit_under_a_key_that_died_before_the_record_is_made_by_the_next(queue: Queue):
    create = queue.store.create

    def died(job):
        raise KeyboardInterrupt  # the process, for all that the storage knows

    queue.store.create = died
    with pytest.raises(KeyboardInterrupt):
        queue.submit("steps", {"steps": 1}, idempotency_key="k")
    queue.store.create = create

    job = queue.submit("steps", {"steps": 1}, idempotency_key="k")

    assert queue.store.get(job.id).queue_position == 1
