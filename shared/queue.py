"""The door for Python code and for the API: submit, upload, look, cancel."""

import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import IO, Any, Self

from shared.artifacts import STORAGE_MARK, cancel_file, read_job, write_job
from shared.celery_app import make_celery_app
from shared.dispatch import Dispatch
from shared.errors import (
    ArtifactNotFound,
    DreamqError,
    InvalidInput,
    JobNotFound,
    RequestInvalid,
    StorageFull,
    StorageUnavailable,
)
from shared.job import Artifact, Job, JobStatus, Priority
from shared.job_handle import JobHandle
from shared.job_store import Event, JobStore
from shared.kinds.base import JobParams
from shared.redis_client import connect
from shared.settings import Settings
from shared.storage import Storage, Upload
from shared.submission import Submission
from shared.validation import Wishes
from shared.worker_registry import WorkerRegistry

log = logging.getLogger(__name__)

_LISTEN_S = 5.0


class Queue:
    """dreamq as seen by a program: its settings, the job records, the storage."""

    def __init__(
        self, settings: Settings, store: JobStore, storage: Storage, *, impatient: bool = False
    ) -> None:
        self.settings = settings
        self.store = store
        self.storage = storage
        self.registry = WorkerRegistry(store.redis)
        self.impatient = impatient
        self._marked = False
        self.dispatch = Dispatch(store, self.registry, make_celery_app(settings, impatient=impatient))
        # A stream of events waits in Redis, which an impatient client would take for a dead server.
        self._listener = JobStore(connect(settings.redis_url)) if impatient else store

    @classmethod
    def from_settings(cls, settings: Settings, *, impatient: bool = False) -> Self:
        """A queue on these settings; `impatient` for a process whose own clients wait for it."""
        store = JobStore(connect(settings.redis_url, impatient=impatient))
        return cls(settings, store, Storage(settings.storage_url), impatient=impatient)

    def upload(self, source: IO[bytes] | bytes | Path, *, limit_bytes: int | None = None) -> Upload:
        """Store a file that jobs may name; the same bytes are stored once.

        Raises:
            UploadTooLarge: it is larger than `limit_bytes` (default: the setting MAX_UPLOAD_MB).
            InvalidInput: it is empty, or a folder.
        """
        limit = self.settings.max_upload_bytes if limit_bytes is None else limit_bytes
        if isinstance(source, Path):
            if source.is_dir():
                raise InvalidInput(f"{source} is a folder: name a file, such as a zip of it", field="file")
            with source.open("rb") as opened:
                return self.storage.store_upload(opened, limit_bytes=limit)
        stream = BytesIO(source) if isinstance(source, bytes) else source
        return self.storage.store_upload(stream, limit_bytes=limit)

    def submit(
        self,
        kind: str,
        params: JobParams | Mapping[str, Any],
        *,
        priority: Priority = "normal",
        depends_on: Sequence[str] = (),
        labels: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
    ) -> Job:
        """Check a job and queue it: `job.json`, then the record, then the message.

        Raises:
            KindNotFound, InvalidInput (naming the field), UploadNotFound: the job cannot be run as it is.
            RequestInvalid (naming the field): the priority, a label, an id to depend on or the key is none.
            IdempotencyConflict: the key was used with another body.
            QueueUnavailable, StorageUnavailable, StorageFull: nothing was queued; try again.
        """
        wishes = Wishes.checked(
            priority=priority,
            depends_on=depends_on,
            labels={} if labels is None else labels,
            idempotency_key=idempotency_key,
        )
        return Submission(self, kind, params, wishes).make()

    def mark_storage(self) -> None:
        """Make sure that jobs are put where those before them are.

        Raises:
            StorageUnavailable: Redis has jobs, and this is not the storage in which they were submitted.
        """
        if self._marked:
            return
        if not self.storage.exists(STORAGE_MARK):
            self.check_storage()
            self.storage.write(STORAGE_MARK, b"{}")
        self._marked = True

    def check_storage(self) -> None:
        """Raise StorageUnavailable when Redis has jobs that were submitted in another storage than this."""
        if self.store.any_job() and not self.storage.exists(STORAGE_MARK):
            raise StorageUnavailable(
                f"STORAGE_URL ({self.settings.storage_url}) is not where the jobs of this Redis are: set it as the API "
                "and the workers have it, and see that the shared folder is mounted"
            )

    def get(self, job_id: str) -> Job:
        """A job, from Redis or, when Redis forgot it, from storage.

        Raises:
            JobNotFound: neither knows the id.
        """
        try:
            return self.store.get(job_id)
        except JobNotFound:
            job = read_job(self.storage, job_id)
            if job is None:
                raise
            return job

    def jobs(
        self,
        *,
        status: str | None = None,
        kind: str | None = None,
        label: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> tuple[list[Job], str | None]:
        """Jobs that fit all filters, newest first, and the next page's cursor; `label` is `name` or `name=value`."""
        if status is not None and status not in set(JobStatus):
            raise RequestInvalid(f"status: one of {', '.join(JobStatus)}", field="status")
        return self.store.find(status=status, kind=kind, label=label, limit=limit, cursor=cursor)

    def cancel(self, job_id: str) -> Job:
        """Ask for a job's cancel: one that waits ends at once, a running one at its next step.

        Raises:
            JobNotFound: there is no such job.
        """
        job = self.get(job_id)
        if job.status.ended:
            return job
        try:
            self.storage.write(cancel_file(job_id), b"{}")
        except (StorageFull, StorageUnavailable) as error:
            # A job that fills the disk must be stoppable. Only a Redis that is emptied now would forget it.
            log.warning("job %s: its cancel is not in storage (%s)", job_id, error)
        with suppress(JobNotFound):  # Redis has just forgotten it; recovery reads the file
            self.store.cancel(job_id)
        job = self.get(job_id)
        if job.status.ended:
            self.settle_end(job)
        return job

    def settle_end(self, job: Job) -> None:
        """What follows from a job's end: its record in storage, the jobs that wait for it, room for the next.

        Whatever of it fails here is done by recovery.
        """
        ended = [job]  # a chain of them may be longer than Python's stack is deep
        while ended:
            job = ended.pop()
            try:
                write_job(self.storage, job)
                self.store.written(job.id)
                for waiting in self.store.dependents(job.id):
                    if waiting.status == JobStatus.WAITING and self.store.settle(waiting) == JobStatus.FAILED:
                        ended.append(self.store.get(waiting.id))
            except DreamqError as error:
                log.warning("job %s has %s; what follows is left to recovery (%s)", job.id, job.status, error)
        try:
            self.dispatch.step()
        except DreamqError as error:
            log.warning("the next jobs are left to recovery to publish (%s)", error)

    def events(self, job_id: str, *, after: str = "0", block_s: float = 15) -> Iterator[Event | None]:
        """What happens to a job, from the event after `after` on; None whenever nothing came for `block_s`.

        Ends when the job has ended and all is told.

        Raises:
            JobNotFound: there is no such job.
        """
        self.get(job_id)
        while True:
            # Read before the events: if it has ended by now, all its events are there to be read.
            job = self.get(job_id)
            events = self._next_events(job, after, block_s)
            for event in events:
                yield event
                after = event.id
            if not events:
                if job.status.ended:
                    if after != self._listener.last_event_id(job.id):
                        # The events are gone, a day after the end, or `after` was none of them: the end is told still.
                        yield Event(f"{job.finished_ms or 0}-1", "status", ended_status(job))
                    return
                yield None

    def _next_events(self, job: Job, after: str, block_s: float) -> list[Event]:
        """The events after `after`; for a job that has not ended, waiting up to `block_s` for the first."""
        if job.status.ended:
            return self._listener.events_after(job.id, after)
        deadline = time.monotonic() + block_s
        while (left_s := deadline - time.monotonic()) > 0:
            # Shorter than the client's patience, which would take a long silence for a dead server.
            block_ms = int(min(left_s, _LISTEN_S) * 1000) + 1
            if events := self._listener.events_after(job.id, after, block_ms=block_ms):
                return events
        return []

    def artifact(self, job_id: str, name: str) -> Artifact:
        """One of a job's artifacts.

        Raises:
            JobNotFound, ArtifactNotFound
        """
        found = self.get(job_id).artifact(name)
        if found is None:
            raise ArtifactNotFound(f"job {job_id} has no artifact {name!r} (yet)")
        return found

    def open_artifact(self, job_id: str, name: str) -> IO[bytes]:
        """An artifact's bytes; raises as `artifact`."""
        try:
            return self.storage.open(self.artifact(job_id, name).path)
        except FileNotFoundError as error:
            raise ArtifactNotFound(f"the file of {name!r} is gone from the storage") from error

    def workers(self) -> list[dict[str, Any]]:
        """The workers heard of lately: name, host, device, queues, what runs, since when."""
        return self.registry.all()

    def check_ready(self) -> None:
        """Raise QueueUnavailable or StorageUnavailable unless both answer."""
        self.store.now_ms()
        self.storage.check()


def ended_status(job: Job) -> dict[str, Any]:
    """The data of a `status` event, made from the record of an ended job."""
    error = job.error.model_dump() if job.error else None
    return {
        "status": str(job.status),
        "attempt": job.attempt,
        "cancel_requested": job.stop == "user",
        "error": error,
    }


# For Python programs: `from shared.queue import submit, upload`


@lru_cache(maxsize=8)
def _queue_for(settings: Settings) -> Queue:
    return Queue.from_settings(settings)


def queue_from_environment() -> Queue:
    """The queue that the environment's settings describe, one per process."""
    return _queue_for(Settings.from_environment())


def upload(source: str | Path | bytes | IO[bytes]) -> str:
    """Store a file that jobs may name; its id. Raises as `Queue.upload`."""
    return queue_from_environment().upload(Path(source) if isinstance(source, str) else source).id


def submit(
    params: JobParams,
    *,
    priority: Priority = "normal",
    labels: Mapping[str, str] | None = None,
    depends_on: Sequence["str | JobHandle"] = (),
    idempotency_key: str | None = None,
) -> JobHandle:
    """Queue a job from Python; needs Redis and storage only, and never loads TensorFlow. Raises as `Queue.submit`."""
    if not isinstance(params, JobParams):
        raise InvalidInput(
            "params: give a kind's parameters, such as DeepDreamParams(image=...)", field="params"
        )
    queue = queue_from_environment()
    upstream: Any = depends_on
    if isinstance(depends_on, Iterable) and not isinstance(depends_on, str):
        upstream = [job.id if isinstance(job, JobHandle) else job for job in depends_on]
    job = queue.submit(
        params.kind,
        params,
        priority=priority,
        labels=labels,
        depends_on=upstream,
        idempotency_key=idempotency_key,
    )
    return JobHandle(queue, job.id)
