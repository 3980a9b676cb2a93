"""What becomes of a submit: checked, bound to its idempotency key, written to storage, to Redis, and published."""

import hashlib
import json
import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from shared.artifacts import job_file, key_file, read_job, refusal_file, write_job
from shared.errors import (
    DreamqError,
    IdempotencyConflict,
    InvalidInput,
    JobNotFound,
    KindNotFound,
    QueueUnavailable,
)
from shared.inputs import SubmitInputs
from shared.job import Job, JobStatus, ids_in, new_job_id
from shared.kinds import KINDS, no_such_kind
from shared.kinds.base import JobParams
from shared.placement import SMALLEST, class_for, queue_for
from shared.validation import Wishes

if TYPE_CHECKING:
    from shared.queue import Queue

log = logging.getLogger(__name__)

BEHIND_MS: dict[str, int] = {"high": 0, "normal": 10 * 60_000, "low": 60 * 60_000}
"""How much later than its submit a job counts as queued (ms). So priorities age by themselves: a job of low
priority yields to those of high priority submitted within the hour after it, and to no others."""

RESERVED_FOR_S = 3.0
"""How long the first submit under a key has to make its job before the next one makes it."""
_REMOVED_WITHIN_S = 5.0


class Key(NamedTuple):
    """An idempotency key and the body that was sent under it, as hashes."""

    hash: str
    body_hash: str


class Submission:
    """One request for a job, on its way."""

    def __init__(
        self, queue: "Queue", kind: str, params: JobParams | Mapping[str, Any], wishes: Wishes
    ) -> None:
        self.queue = queue
        self.store = queue.store
        self.storage = queue.storage
        self.kind = kind
        if isinstance(params, JobParams):
            # Checked again: pydantic lets them be copied with other values, or made without any check.
            self.params, self.params_kind = params.model_dump(warnings=False), params.kind
        else:
            self.params, self.params_kind = named_values(params), kind
        self.wishes = wishes

    def make(self) -> Job:
        """The job that was asked for, queued; raises as `Queue.submit`."""
        if self.wishes.idempotency_key is None:
            return self.create(self.job(new_job_id()))
        return self.make_once(self.key(self.wishes.idempotency_key))

    # Under a key

    def key(self, text: str) -> Key:
        """The key under which this was sent, with its body."""
        wishes = self.wishes
        body = [self.kind, self.params, wishes.priority, wishes.depends_on, wishes.labels]
        try:
            written = json.dumps(body, sort_keys=True, default=str)
        except (TypeError, ValueError, RecursionError) as error:
            self.checked()  # says which parameter it is
            raise InvalidInput(f"params: cannot be written as JSON ({error})", field="params") from error
        return Key(sha256(text), sha256(written))

    def make_once(self, key: Key) -> Job:
        """Of many equal requests, however parallel, one makes the job."""
        job, bound = None, self.bound(key)
        if bound is None:
            # Checked before the key is bound, so that a refused request leaves the key free for a corrected one.
            job = self.job(new_job_id())
            bound = self.store.reserve(key.hash, job.id, key.body_hash)
        bound_id, bound_body = bound
        if bound_body != key.body_hash:
            raise IdempotencyConflict()
        deadline = time.monotonic() + RESERVED_FOR_S
        while job is None or bound_id != job.id:
            with suppress(JobNotFound):
                return self.store.get(bound_id)
            stored = read_job(self.storage, bound_id)
            if stored is not None and stored.status.ended:
                return stored
            if time.monotonic() > deadline:
                # Whoever bound the key did not get as far as the record: the same body makes the same job.
                job = stored or self.job(bound_id)
                break
            time.sleep(0.1)
        self.storage.write(key_file(key.hash), f"{bound_id} {key.body_hash}".encode())
        return self.create(job.model_copy(update={"idempotency": f"{key.hash} {key.body_hash}"}))

    def bound(self, key: Key) -> tuple[str, str] | None:
        """The job id and the body that a key was used for, by Redis or, if that has forgotten it, by the storage."""
        bound = self.store.reserved(key.hash)
        if bound is None:
            with suppress(FileNotFoundError):
                job_id, body_hash = self.storage.read(key_file(key.hash)).decode().split(" ")
                return self.store.reserve(key.hash, job_id, body_hash)
        return bound

    # The record

    def job(self, job_id: str) -> Job:
        """The record of the new job, its parameters checked."""
        params, forecast = self.checked()
        if params.seed is None:
            # Drawn from the id, which is random, so that one id always means one job.
            drawn = int.from_bytes(hashlib.sha256(job_id.encode()).digest()[:4]) >> 1
            params = params.model_copy(update={"seed": drawn})
        upstream = self.upstream(params)
        now = self.store.now_ms()
        waits = any(job.status != JobStatus.SUCCEEDED for job in upstream)
        # The workers matter to the place of a job only that does not fit every device, as most do.
        workers = [] if class_for(forecast) == SMALLEST else self.queue.workers()
        return Job(
            id=job_id,
            kind=self.kind,
            params=params.model_dump(mode="json"),
            priority=self.wishes.priority,
            labels=self.wishes.labels,
            depends_on=[job.id for job in upstream],
            queue=queue_for(self.kind, forecast, workers),
            created_ms=now,
            score=now + BEHIND_MS[self.wishes.priority],
            forecast_bytes=forecast,
            status=JobStatus.WAITING if waits else JobStatus.QUEUED,
        )

    def checked(self) -> tuple[JobParams, int]:
        """The parameters, valid in themselves and together with what they name, and the memory they need (bytes)."""
        if not isinstance(self.kind, str) or self.kind not in KINDS:
            raise KindNotFound(no_such_kind(self.kind), field="kind")
        if self.params_kind != self.kind:
            raise InvalidInput(f"these are no parameters of {self.kind}", field="params")
        params = KINDS[self.kind].model_validate(self.params)
        hold(self.queue, ids_in([params.model_dump(mode="json"), self.wishes.depends_on]))
        inputs = SubmitInputs(self.queue)
        params.check(inputs)
        return params, params.forecast_bytes(inputs)

    def upstream(self, params: JobParams) -> list[Job]:
        """The jobs to wait for: those that were said, and the unfinished ones that the parameters name."""
        said = [self.dependable(job_id) for job_id in dict.fromkeys(self.wishes.depends_on)]
        ids = (getattr(params, field) for field in params.job_fields())
        named = [self.queue.get(job_id) for job_id in dict.fromkeys(ids) if job_id is not None]
        return said + [job for job in named if not job.status.ended and job.id not in self.wishes.depends_on]

    def dependable(self, job_id: str) -> Job:
        """A job to depend on; one that already ended badly can't be waited for."""
        try:
            job = self.queue.get(job_id)
        except JobNotFound as error:
            raise InvalidInput(f"there is no job {job_id}", field="depends_on") from error
        if job.status in (JobStatus.FAILED, JobStatus.CANCELLED):
            raise InvalidInput(f"job {job_id} has {job.status}: nothing can depend on it", field="depends_on")
        return job

    def create(self, job: Job) -> Job:
        """Storage first, so that a Redis which forgets can be told again; then the record; then the message."""
        self.queue.mark_storage()
        write_job(self.storage, job)
        try:
            self.store.create(job)
        except QueueUnavailable:
            # Redis may yet take it up. Under a key that is as well: whoever sends the request again gets this job.
            if not job.idempotency:
                refuse(self.queue, job)
            raise
        if job.depends_on:
            with suppress(QueueUnavailable):
                # An upstream job may have ended since it was looked at.
                self.store.settle(job)
        try:
            self.queue.dispatch.step(job.queue)
            return self.queue.get(job.id)  # from storage, should Redis have been emptied just now
        except QueueUnavailable as error:
            log.warning("job %s: accepted, but not dispatched (%s); recovery will", job.id, error)
            return job


def named_values(params: Any) -> dict[str, Any]:
    """Parameters that are no model yet, as one takes them; raises InvalidInput when they are something else."""
    if not isinstance(params, Mapping) or not all(isinstance(name, str) for name in params):
        raise InvalidInput(
            "params: must be an object: the parameters' names, each with a value", field="params"
        )
    return dict(params)


def hold(queue: "Queue", names: Sequence[str] | set[str]) -> None:
    """Keep what a job names from being pruned from now on; what is being pruned just now is first let go."""
    deadline = time.monotonic() + _REMOVED_WITHIN_S
    while names and not queue.store.hold(names):
        if time.monotonic() > deadline:
            raise InvalidInput(
                "a job or an upload that these parameters name is being removed: make or upload it anew",
                field="params",
            )
        time.sleep(0.05)


def refuse(queue: "Queue", job: Job) -> None:
    """The client is told that nothing was queued: recovery must not find the job, and no worker run it."""
    with suppress(DreamqError):
        queue.storage.write(refusal_file(job.id), b"{}")
        queue.storage.delete(job_file(job.id))


def sha256(text: str) -> str:
    """The hash of a text, in hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()
