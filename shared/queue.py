"""The door for Python code and for the API: submit, upload, look, cancel."""

import hashlib
import json
import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import IO, Any, Self

from pydantic import ValidationError

from shared.artifacts import STORAGE_MARK, cancel_file, job_file, key_file, read_job, refusal_file, write_job
from shared.celery_app import make_celery_app
from shared.dispatch import Dispatch
from shared.errors import (
    ArtifactNotFound,
    DreamqError,
    IdempotencyConflict,
    InvalidInput,
    JobNotFound,
    KindNotFound,
    QueueUnavailable,
    RequestInvalid,
    StorageFull,
    StorageUnavailable,
)
from shared.inputs import SubmitInputs
from shared.job import Artifact, Job, JobStatus, Priority, ids_in, new_job_id
from shared.job_store import Event, JobStore, connect
from shared.kinds import KINDS, no_such_kind
from shared.kinds.base import JobParams
from shared.placement import SMALLEST, class_for, queue_for
from shared.settings import Settings
from shared.storage import Storage, Upload
from shared.validation import Wishes, first_finding

log = logging.getLogger(__name__)

BEHIND_MS: dict[str, int] = {"high": 0, "normal": 10 * 60_000, "low": 60 * 60_000}
"""How much later than its submit a job counts as queued (ms). So priorities age by themselves: a job of low
priority yields to those of high priority submitted within the hour after it, and to no others."""

_RESERVED_FOR_S = 3.0
_REMOVED_WITHIN_S = 5.0
_LISTEN_S = 5.0


class Queue:
    """dreamq as seen by a program: its settings, the job records, the storage."""

    def __init__(
        self, settings: Settings, store: JobStore, storage: Storage, *, impatient: bool = False
    ) -> None:
        self.settings = settings
        self.store = store
        self.storage = storage
        self.impatient = impatient
        self._marked = False
        self.dispatch = Dispatch(store, make_celery_app(settings, impatient=impatient))
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
        if not isinstance(params, JobParams):
            params = _named_values(params)
        if wishes.idempotency_key is None:
            return self._create(self._job(new_job_id(), kind, params, wishes))
        return self._submit_once(wishes.idempotency_key, kind, params, wishes)

    def _submit_once(self, key: str, kind: str, params: JobParams | Mapping[str, Any], wishes: Wishes) -> Job:
        """Submit under an idempotency key: of many equal requests, however parallel, one makes the job."""
        body = [kind, dict(params), wishes.priority, wishes.depends_on, wishes.labels]
        key_hash = hashlib.sha256(key.encode()).hexdigest()
        try:
            written = json.dumps(body, sort_keys=True, default=str)
        except (TypeError, ValueError, RecursionError) as error:
            self._checked(kind, params, wishes.depends_on)  # says which parameter it is
            raise InvalidInput(f"params: cannot be written as JSON ({error})", field="params") from error
        body_hash = hashlib.sha256(written.encode()).hexdigest()
        job, bound = None, self._bound(key_hash)
        if bound is None:
            # Checked before the key is bound, so that a refused request leaves the key free for a corrected one.
            job = self._job(new_job_id(), kind, params, wishes)
            bound = self.store.reserve(key_hash, job.id, body_hash)
        bound_id, bound_body = bound
        if bound_body != body_hash:
            raise IdempotencyConflict()
        deadline = time.monotonic() + _RESERVED_FOR_S
        while job is None or bound_id != job.id:
            with suppress(JobNotFound):
                return self.store.get(bound_id)
            stored = read_job(self.storage, bound_id)
            if stored is not None and stored.status.ended:
                return stored
            if time.monotonic() > deadline:
                # Whoever bound the key did not get as far as the record: the same body makes the same job.
                job = stored or self._job(bound_id, kind, params, wishes)
                break
            time.sleep(0.1)
        self.storage.write(key_file(key_hash), f"{bound_id} {body_hash}".encode())
        return self._create(job.model_copy(update={"idempotency": f"{key_hash} {body_hash}"}))

    def _bound(self, key_hash: str) -> tuple[str, str] | None:
        """The job id and the body that a key was used for, by Redis or, if that has forgotten it, by the storage."""
        bound = self.store.reserved(key_hash)
        if bound is None:
            with suppress(FileNotFoundError):
                job_id, body_hash = self.storage.read(key_file(key_hash)).decode().split(" ")
                return self.store.reserve(key_hash, job_id, body_hash)
        return bound

    def _job(self, job_id: str, kind: str, params: JobParams | Mapping[str, Any], wishes: Wishes) -> Job:
        """The record of a new job, its parameters checked."""
        depends_on = wishes.depends_on
        checked, forecast = self._checked(kind, params, depends_on)
        if checked.seed is None:
            # Drawn from the id, which is random, so that one id always means one job.
            drawn = int.from_bytes(hashlib.sha256(job_id.encode()).digest()[:4]) >> 1
            checked = checked.model_copy(update={"seed": drawn})
        upstream = [self._upstream(upstream_id) for upstream_id in dict.fromkeys(depends_on)]
        upstream += [job for job in self._named(checked) if job.id not in depends_on]
        now = self.store.now_ms()
        waits = any(job.status != JobStatus.SUCCEEDED for job in upstream)
        return Job(
            id=job_id,
            kind=kind,
            params=checked.model_dump(mode="json"),
            priority=wishes.priority,
            labels=wishes.labels,
            depends_on=[job.id for job in upstream],
            queue=queue_for(kind, forecast, self._workers_for(forecast)),
            created_ms=now,
            score=now + BEHIND_MS[wishes.priority],
            forecast_bytes=forecast,
            status=JobStatus.WAITING if waits else JobStatus.QUEUED,
        )

    def _workers_for(self, forecast_bytes: int) -> list[dict[str, Any]]:
        """The workers that a job's place depends on: none for one that fits every device, as most do."""
        return [] if class_for(forecast_bytes) == SMALLEST else self.store.workers()

    def _checked(
        self, kind: str, params: JobParams | Mapping[str, Any], depends_on: Sequence[str]
    ) -> tuple[JobParams, int]:
        """The parameters, valid in themselves and together with what they name, and the memory they need."""
        if not isinstance(kind, str) or kind not in KINDS:
            raise KindNotFound(no_such_kind(kind), field="kind")
        if isinstance(params, JobParams):
            if not isinstance(params, KINDS[kind]):
                raise InvalidInput(f"these are no parameters of {kind}", field="params")
            checked = params
        else:
            try:
                checked = KINDS[kind].model_validate(params)
            except ValidationError as error:
                raise invalid_input(error, params, KINDS[kind].model_fields) from error
        self._hold(ids_in([checked.model_dump(mode="json"), list(depends_on)]))
        inputs = SubmitInputs(self)
        checked.check(inputs)
        return checked, checked.forecast_bytes(inputs)

    def _hold(self, names: set[str]) -> None:
        """Keep what a job names from being pruned from now on; what is being pruned just now is first let go."""
        deadline = time.monotonic() + _REMOVED_WITHIN_S
        while names and not self.store.hold(names):
            if time.monotonic() > deadline:
                raise InvalidInput(
                    "a job or an upload that these parameters name is being removed: make or upload it anew",
                    field="params",
                )
            time.sleep(0.05)

    def _named(self, params: JobParams) -> list[Job]:
        """The unfinished jobs that parameters name: whoever names a model waits for it, said or not."""
        ids = (getattr(params, field) for field in params.job_fields())
        named = [self.get(job_id) for job_id in dict.fromkeys(ids) if job_id is not None]
        return [job for job in named if not job.status.ended]

    def _upstream(self, job_id: str) -> Job:
        """A job to depend on; one that already ended badly can't be waited for."""
        try:
            job = self.get(job_id)
        except JobNotFound as error:
            raise InvalidInput(f"there is no job {job_id}", field="depends_on") from error
        if job.status in (JobStatus.FAILED, JobStatus.CANCELLED):
            raise InvalidInput(f"job {job_id} has {job.status}: nothing can depend on it", field="depends_on")
        return job

    def _create(self, job: Job) -> Job:
        """Storage first, so that a Redis which forgets can be told again; then the record; then the message."""
        self._mark_storage()
        write_job(self.storage, job)
        try:
            self.store.create(job)
        except QueueUnavailable:
            # Redis may yet take it up. Under a key that is as well: whoever sends the request again gets this job.
            if not job.idempotency:
                self._refuse(job)
            raise
        if job.depends_on:
            with suppress(QueueUnavailable):
                # An upstream job may have ended since it was looked at.
                self.store.settle(job)
        try:
            self.dispatch.step(job.queue)
            return self.get(job.id)  # from storage, should Redis have been emptied just now
        except QueueUnavailable as error:
            log.warning("job %s: accepted, but not dispatched (%s); recovery will", job.id, error)
            return job

    def _refuse(self, job: Job) -> None:
        """The client is told that nothing was queued: recovery must not find the job, and no worker run it."""
        with suppress(DreamqError):
            self.storage.write(refusal_file(job.id), b"{}")
            self.storage.delete(job_file(job.id))

    def _mark_storage(self) -> None:
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
        return self.store.workers()

    def check_ready(self) -> None:
        """Raise QueueUnavailable or StorageUnavailable unless both answer."""
        self.store.now_ms()
        self.storage.check()


def _named_values(params: Any) -> dict[str, Any]:
    """Parameters that are no model yet, as one takes them; raises InvalidInput when they are something else."""
    if not isinstance(params, Mapping) or not all(isinstance(name, str) for name in params):
        raise InvalidInput(
            "params: must be an object: the parameters' names, each with a value", field="params"
        )
    return dict(params)


def ended_status(job: Job) -> dict[str, Any]:
    """The data of a `status` event, made from the record of an ended job."""
    error = job.error.model_dump() if job.error else None
    return {
        "status": str(job.status),
        "attempt": job.attempt,
        "cancel_requested": job.stop == "user",
        "error": error,
    }


def invalid_input(error: ValidationError, given: object, known: Iterable[str]) -> InvalidInput:
    """The trouble that the parameters' model found, in our words, with the field's name.

    Args:
        given: the parameters as they came.
        known: those that the kind has.
    """
    first = first_finding(error, given)
    field = first.field or "params"
    if first.type == "extra_forbidden":
        return InvalidInput(f"there is no parameter {field!r}; there are {', '.join(known)}", field=field)
    if first.type == "missing":
        return InvalidInput(f"{field} is required", field=field)
    return InvalidInput(f"{field}: {first.message} (given: {_shown(first.input)})", field=field)


def _shown(value: object) -> str:
    """The beginning of a value as Python writes it."""
    try:
        return f"{value!r:.80}"
    except (
        Exception
    ):  # whatever a caller's own class raises; and Python writes no number of more than 4300 digits
        return f"what cannot be shown, of type {type(value).__name__}"


# For Python programs: `from shared.queue import submit, upload`


class JobHandle:
    """A submitted job, as a Python program holds it."""

    def __init__(self, queue: Queue, job_id: str) -> None:
        self._queue = queue
        self.id = job_id

    def __repr__(self) -> str:
        return f"<job {self.id}>"

    def status(self) -> dict[str, Any]:
        """The whole job as the API would show it (its `status` among the rest)."""
        return self._queue.get(self.id).view()

    def wait(self, timeout_s: float | None = None) -> dict[str, Any]:
        """Wait for the job's end and return the job.

        Raises:
            TimeoutError: it had not ended after `timeout_s`; it goes on all the same.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        for _ in self._queue.events(self.id, block_s=1):
            if deadline is not None and time.monotonic() > deadline:
                if self._queue.get(self.id).status.ended:
                    break
                raise TimeoutError(f"job {self.id} has not ended after {timeout_s} s")
        return self.status()

    def cancel(self) -> None:
        """Ask for the job's cancel."""
        self._queue.cancel(self.id)

    def events(self, after: str = "0") -> Iterator[Event]:
        """What happens to the job, until it ends."""
        return (event for event in self._queue.events(self.id, after=after) if event is not None)

    def artifacts(self) -> list[dict[str, Any]]:
        """The files it has left so far."""
        return list(self.status()["artifacts"])

    def download(self, folder: str | Path) -> list[Path]:
        """Copy its files into `folder`; the paths written."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        written = []
        for artifact in self._queue.get(self.id).artifacts:
            target = folder / artifact.name
            target.write_bytes(self._queue.storage.read(artifact.path))
            written.append(target)
        return written


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
