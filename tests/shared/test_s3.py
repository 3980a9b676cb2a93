"""The storage on S3: a server that plays S3 on loopback, spoken to as a real one would be."""

import io
import json
import secrets
import threading
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
import s3fs
from moto.server import ThreadedMotoServer

from shared.artifacts import read_manifest
from shared.errors import StorageUnavailable, UploadTooLarge
from shared.job import JobStatus
from shared.queue import Queue
from shared.retention import DAY_MS, Retention
from shared.storage import Storage
from tests.faults.steps import chain
from workers.run_job import run_job

PART_BYTES = 5 * 2**20
"""The smallest part that S3 takes of an object in several."""


@pytest.fixture(scope="module")
def s3():
    """An S3 of our own, named with credentials in the environment; a client of its own to look with."""
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as environment:
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
        }.items():  # fmt: skip
            environment.setenv(name, value)
        yield s3fs.S3FileSystem(use_listings_cache=False, skip_instance_cache=True)
    server.stop()


class Bucket(NamedTuple):
    """A bucket, and a client that sees what is really in it."""

    name: str
    client: s3fs.S3FileSystem

    @property
    def url(self) -> str:
        return f"s3://{self.name}/prefix"

    def objects(self) -> dict[str, int]:
        """The size of every object, by its name below the prefix."""
        found = self.client.find(self.name, detail=True)
        return {name.removeprefix(f"{self.name}/prefix/"): entry["size"] for name, entry in found.items()}


@pytest.fixture
def bucket(s3):
    """A bucket of this test's own."""
    made = Bucket(f"dreams-{secrets.token_hex(4)}", s3)
    s3.mkdir(made.name)
    return made


@pytest.fixture
def storage(bucket, tmp_path):
    """A storage below a prefix of that bucket."""
    made = Storage(bucket.url)
    made.cache = tmp_path / "cache"
    return made


@pytest.fixture
def s3_queue(bucket, settings, monkeypatch, tmp_path):
    """A queue whose storage is S3."""
    monkeypatch.setenv("STORAGE_URL", bucket.url)
    found = Queue.from_settings(settings.model_copy(update={"storage_url": bucket.url}))
    found.storage.cache = tmp_path / "cache"
    return found


def test_what_is_written_is_read_listed_replaced_and_removed(storage, tmp_path):
    (tmp_path / "local").write_bytes(b"from a file")

    assert storage.names("a") == []
    storage.write("a/b.bin", b"bytes")
    storage.write("a/b.bin", b"other bytes")
    storage.write_file("a/c.bin", tmp_path / "local")

    assert storage.read("a/b.bin") == b"other bytes"
    assert storage.open("a/c.bin").read() == b"from a file"
    assert storage.names("a") == ["b.bin", "c.bin"]
    assert set(storage.modified_ms("a")) == {"b.bin", "c.bin"}
    storage.delete("a")
    storage.delete("a")
    assert storage.names("a") == []
    assert not storage.exists("a/b.bin")
    with pytest.raises(FileNotFoundError):
        storage.read("a/b.bin")
    with pytest.raises(FileNotFoundError):
        storage.open("a/b.bin").read()


def test_what_another_machine_writes_or_removes_is_seen_at_once(storage, bucket):
    assert not storage.exists("a/b")
    bucket.client.pipe_file(f"{bucket.name}/prefix/a/b", b"from elsewhere")

    assert storage.exists("a/b")
    assert (storage.names("a"), storage.read("a/b")) == (["b"], b"from elsewhere")
    bucket.client.rm_file(f"{bucket.name}/prefix/a/b")
    assert not storage.exists("a/b")
    assert storage.names("a") == []


def test_an_upload_is_stored_under_its_hash_and_a_local_copy_serves_the_tasks(storage, bucket):
    upload = storage.store_upload(io.BytesIO(b"\x89PNG\r\n\x1a\n..."), limit_bytes=100)

    assert list(bucket.objects()) == [f"uploads/{upload.id}"]
    assert storage.upload_path(upload.id).read_bytes() == b"\x89PNG\r\n\x1a\n..."
    assert list(storage.cache.iterdir()) == [storage.upload_path(upload.id)]
    with pytest.raises(UploadTooLarge):
        storage.store_upload(io.BytesIO(b"x" * 101), limit_bytes=100)
    assert list(bucket.objects()) == [f"uploads/{upload.id}"]


@pytest.fixture
def large_file(tmp_path) -> Path:
    """A file that goes to S3 in several parts, each a request of its own."""
    path = tmp_path / "large.bin"
    path.write_bytes(bytes(2 * PART_BYTES) + b"end")
    return path


@pytest.fixture
def in_parts(storage, monkeypatch):
    """Smaller parts than s3fs' own of 50 MiB, so that a test need not send hundreds; the calls of S3 that are made."""
    calls = []
    call_s3 = storage.fs._call_s3

    async def noted(method, *args, **kwargs):
        calls.append(method)
        return await call_s3(method, *args, **kwargs)

    monkeypatch.setattr(storage.fs, "_call_s3", noted)
    for name in ("put_file", "pipe_file"):
        monkeypatch.setattr(storage.fs, name, partial(getattr(storage.fs, name), chunksize=PART_BYTES))
    return calls


def test_an_object_is_never_seen_in_part(storage, bucket, large_file, in_parts):
    seen, done = set(), threading.Event()

    def look() -> None:
        while not done.is_set():
            seen.update(bucket.objects().values())

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        storage.write_file("model.keras", large_file)
        storage.write("other.keras", large_file.read_bytes())
    finally:
        done.set()
        watcher.join()

    assert in_parts.count("upload_part") == 6
    assert seen <= {2 * PART_BYTES + 3}
    assert storage.read("model.keras") == storage.read("other.keras") == large_file.read_bytes()


@pytest.mark.parametrize("breaks_at", ["create_multipart_upload", "upload_part", "complete_multipart_upload"])
def test_a_write_that_breaks_off_leaves_nothing_under_a_new_name_and_an_older_object_as_it_was(
    storage, bucket, large_file, in_parts, monkeypatch, breaks_at
):
    storage.write("model.keras", b"older")
    call_s3 = storage.fs._call_s3

    async def cut_off(method, *args, **kwargs):
        if method == breaks_at:
            raise OSError(5, "the connection is gone")
        return await call_s3(method, *args, **kwargs)

    monkeypatch.setattr(storage.fs, "_call_s3", cut_off)
    for name in ("model.keras", "new.keras"):
        with pytest.raises(StorageUnavailable):
            storage.write_file(name, large_file)
        with pytest.raises(StorageUnavailable):
            storage.write(name, large_file.read_bytes())

    assert bucket.objects() == {"model.keras": 5}


def test_a_storage_that_is_away_or_refuses_is_told_apart_from_a_file_that_is_not_there(bucket, monkeypatch):
    with pytest.raises(StorageUnavailable):
        Storage("s3://no-such-bucket/prefix").write("a", b"x")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    away = Storage(f"{bucket.url}/elsewhere")
    away.fs = s3fs.S3FileSystem(skip_instance_cache=True, config_kwargs={"retries": {"max_attempts": 0}})
    for use in (away.read, away.names, away.exists, away.delete, away.local_path):
        with pytest.raises(StorageUnavailable):
            use("a")


def test_a_whole_job_runs_on_s3_from_upload_to_manifest(s3_queue, bucket, chelsea):
    photo = s3_queue.upload(chelsea)
    job = s3_queue.submit("steps", {"steps": 10, "seed": 3, "checkpoint_every": 2, "image": photo.id})
    run_job(job.id)

    ended = s3_queue.get(job.id)
    assert ended.status is JobStatus.SUCCEEDED
    assert s3_queue.open_artifact(job.id, "result.txt").read().decode() == chain(10, 3)
    folder = f"jobs/{job.id}/attempts/1-{ended.attempts[0].token}"
    manifest = read_manifest(s3_queue.storage, folder)
    for artifact in manifest["artifacts"]:
        assert bucket.objects()[artifact["path"]] == artifact["bytes"]
    assert sorted(bucket.objects()) == sorted(
        ["dreamq.json", f"jobs/{job.id}/job.json", f"uploads/{photo.id}", f"{folder}/manifest.json"]
        + [artifact["path"] for artifact in manifest["artifacts"]]  # its checkpoints are gone
    )
    assert json.loads(s3_queue.storage.read(f"jobs/{job.id}/job.json"))["status"] == "succeeded"


def test_a_job_goes_on_from_its_checkpoint_on_s3(s3_queue, monkeypatch):
    job = s3_queue.submit("steps", {"steps": 20, "seed": 5, "checkpoint_every": 5})

    def taken_away(trouble, context):
        s3_queue.store.release(context.claim, "worker_lost", loss=True, max_losses=3)
        raise KeyboardInterrupt  # and its process dies

    with monkeypatch.context() as fault:
        fault.setattr("tests.faults.steps.misbehave", taken_away)
        fault.setattr("workers.run_job.write_end", lambda context, end: end)
        run_job(job.id)
    run_job(job.id)

    ended = s3_queue.get(job.id)
    assert (ended.status, ended.attempt, ended.summary["resumed_from_step"]) == (JobStatus.SUCCEEDED, 2, 10)
    assert s3_queue.open_artifact(job.id, "result.txt").read().decode() == chain(20, 5)


def test_old_jobs_and_uploads_are_pruned_on_s3_too(s3_queue, bucket, monkeypatch):
    s3_queue.upload(b"nobody names it")
    job = s3_queue.submit("steps", {"steps": 1})
    run_job(job.id)
    then = s3_queue.store.now_ms() + 8 * DAY_MS
    monkeypatch.setattr(s3_queue.store, "now_ms", lambda: then)

    Retention(s3_queue, days=7).prune()

    assert list(bucket.objects()) == ["dreamq.json"]
