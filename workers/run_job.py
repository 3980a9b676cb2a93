"""The Celery tasks, one name per kind: claim the job, run the kind's task, write how it ended."""

import errno
import importlib
import json
import logging
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from typing import Any, TypeVar

from celery import current_task

from shared import artifacts
from shared.celery_app import celery_app
from shared.errors import (
    DreamqError,
    InvalidInput,
    JobCancelled,
    JobNotFound,
    JobPreempted,
    JobTimedOut,
    LeaseLost,
    QueueUnavailable,
    StopRequested,
    StorageFull,
    StorageUnavailable,
)
from shared.job import ID_PATTERN, Failure, Job, JobStatus, Worker, new_token
from shared.job_store import Claim
from shared.kinds import KINDS
from shared.kinds.base import JobParams
from shared.queue import Queue, queue_from_environment
from tasks.job_context import JobContext
from workers import child, lease  # noqa: F401  (lease: its signals make a Celery worker one of ours)
from workers.duty import device_failed, lacks_memory, on_gpu
from workers.identity import device, this_worker

log = logging.getLogger(__name__)

T = TypeVar("T")

STORAGE_PATIENCE_S = 15.0
"""So long a worker waits for a storage that is not there, before it leaves the job to others."""


@dataclass(frozen=True)
class End:
    """How an attempt ended."""

    status: JobStatus
    error: Failure | None = None
    recycle: bool = False
    """Whether the process is no longer fit for another job."""


class DeviceFailed(Exception):
    """The GPU failed under the job, which is not the job's fault: it goes on elsewhere, or in a new process."""


def run_job(job_id: str) -> None:
    """Run one job if it is still to be had. Nothing of it is known to Celery but that it ran.

    Raises:
        SystemExit: the process must go (asked to by a signal, or no longer fit for another job).
    """
    if not re.fullmatch(ID_PATTERN, str(job_id)):
        log.error("a message with %.100r: no job has such an id", job_id)
        return
    queue = queue_from_environment()
    worker = this_worker(current_task.request.hostname if current_task else None)
    token = new_token()  # one for all tries: a claim whose reply was lost must be known again
    claim = insist(lambda: queue.store.claim(job_id, token=token, worker=worker))
    if claim is None:
        log.info("job %s: not to be had (cancelled meanwhile, or another worker has it)", job_id)
        return
    try:
        run_claimed(queue, claim, worker)
    except Exception as error:
        # Whatever it was: a job that nobody works on must not look as if it ran, until it is taken for hung.
        log.exception("job %s: could not be run", job_id)
        give_back(queue, claim, "internal", loss=True)
        if current_task:
            raise SystemExit(0) from error


def run_claimed(queue: Queue, claim: Claim, worker: Worker) -> None:
    """Run a job that is ours. Raises SystemExit as `run_job`."""
    job = insist(lambda: queue.store.get(claim.job_id))
    if not is_to_run(queue, job, claim):
        return
    job_id = job.id
    context = JobContext(queue, job, claim)
    log.info("job %s: %s, attempt %d", job_id, job.kind, claim.attempt)
    try:
        end = write_end(context, perform(job, context))
    except LeaseLost:
        log.warning("job %s: attempt %d lost its lease; its files are removed", job_id, claim.attempt)
        context.discard()
        return
    except StopRequested as stop:
        # As the worker shuts down; the others only where the storage was away when the job was to end.
        give_back(queue, claim, "shutdown" if isinstance(stop, JobPreempted) else "stopped")
        return
    except SystemExit:
        # Signalled while it could not see the flag. A cancelled job ends here, any other goes back to the queue.
        give_back(queue, claim, "shutdown")
        raise
    except DeviceFailed as failure:
        log.error("job %s: the device failed: %s", job_id, failure.__cause__)
        insist(lambda: queue.registry.note_device_failure(worker.name, job_id))
        give_back(queue, claim, "device_failed", loss=True)
        if current_task:
            raise SystemExit(0) from failure  # a process whose CUDA context broke computes no more
        return
    if end.status == JobStatus.SUCCEEDED and on_gpu(device()):
        insist(lambda: queue.registry.note_device_works(worker.name))
    log.info(
        "job %s: %s%s", job_id, end.status, f" ({end.error.code}: {end.error.message})" if end.error else ""
    )
    if current_task and (end.recycle or child.is_worn(KINDS[job.kind], queue.settings)):
        log.info("this process is replaced")
        raise SystemExit(0)


def is_to_run(queue: Queue, job: Job, claim: Claim) -> bool:
    """Whether a claimed job was accepted, and its storage is here. What is not to be run here leaves this worker."""
    deadline = time.monotonic() + STORAGE_PATIENCE_S
    while True:
        try:
            if queue.storage.exists(artifacts.refusal_file(job.id)):
                forget_refused(queue, job)
                return False
            if queue.storage.exists(artifacts.STORAGE_MARK):
                return True
            trouble = (
                f"{queue.settings.storage_url} is no storage of dreamq: is the shared folder mounted here?"
            )
        except StorageUnavailable as error:
            trouble = error.message
        if time.monotonic() > deadline:
            log.error("job %s: goes back to the queue: %s", job.id, trouble)
            give_back(queue, claim, "storage_unavailable")
            return False
        log.warning("job %s: waits for the storage (%s)", job.id, trouble)
        time.sleep(1)


def forget_refused(queue: Queue, job: Job) -> None:
    """Redis took it up after its client had been told that nothing was queued."""
    log.warning("job %s: was not accepted; its record is removed", job.id)
    insist(lambda: queue.store.forget(job))


def perform(job: Job, context: JobContext) -> End:
    """Run the kind's task and say how it ended.

    Raises:
        LeaseLost, JobPreempted, DeviceFailed, SystemExit: it has not ended, another attempt will go on.
    """
    try:
        params = checked_params(job)
        context.provenance |= provenance(job)
        task = importlib.import_module(params.task or f"tasks.{job.kind}")
        child.seed(params.seed or 0)
        task.run(params, context)
    except JobCancelled:
        return End(JobStatus.CANCELLED)
    except JobTimedOut:
        return failed("timeout", "the job reached its time_limit_s; its checkpoint and files are kept")
    except MemoryError:
        return failed(
            "out_of_memory",
            "the job needs more memory than this worker has: choose a smaller size",
            recycle=True,
        )
    except DreamqError as error:
        if isinstance(error.__context__, JobCancelled):
            return End(JobStatus.CANCELLED)  # what it made so far could not be kept
        return failed(error.code, error.message)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return failed(StorageFull.code, "this machine's disk has no room left")
        return crashed(job, error)
    except (Exception, KeyboardInterrupt, GeneratorExit) as error:
        if lacks_memory(error):
            code = "gpu_out_of_memory" if on_gpu(device()) else "out_of_memory"
            return failed(
                code, "the job needs more memory than its device has: choose a smaller size", recycle=True
            )
        if on_gpu(device()) and device_failed(error):
            raise DeviceFailed from error
        return crashed(job, error)
    return End(JobStatus.SUCCEEDED)


def checked_params(job: Job) -> JobParams:
    """The job's parameters, checked again: the record may come from another version of dreamq."""
    try:
        return KINDS[job.kind].model_validate(job.params)
    except KeyError as error:
        raise InvalidInput(f"this worker knows no kind {job.kind!r}") from error


def failed(code: str, message: str, *, recycle: bool = False) -> End:
    """The job cannot be done, for a reason that has a name."""
    return End(JobStatus.FAILED, Failure(code=code, message=message), recycle=recycle)


def crashed(job: Job, error: BaseException) -> End:
    """The job cannot be done, for a reason that is a fault of ours: the whole story goes to the log."""
    log.exception("job %s: %s failed", job.id, job.kind)
    message = f"{type(error).__name__}: {error}"[:500]
    # A process in which something unforeseen happened may hold anything.
    return failed("internal", message, recycle=True)


def provenance(job: Job) -> dict[str, Any]:
    """What the result comes from, as far as it is the same for every kind."""
    names = ["tensorflow", "keras", "numpy", "scipy", "pillow"]
    loaded = [name for name in names if {"pillow": "PIL"}.get(name, name) in sys.modules]
    return {
        "versions": {"python": sys.version.split()[0]} | {name: metadata.version(name) for name in loaded},
        "device": device()["name"],
        "params": job.params,
    }


def write_end(context: JobContext, end: End) -> End:
    """The attempt's manifest, then the record's end, then `job.json`; recovery completes what a crash left between.

    Returns:
        How it ended in the end: a result that found no room is none.

    Raises:
        StopRequested: another attempt owns the job, or its result has no storage, and the job was stopped.
    """
    error = end.error
    hand_back_if_shut_down(context, error)
    told = {
        "status": str(end.status),
        "error": error.model_dump() if error else None,
        "summary": context.summary,
        "provenance": context.provenance,
        "warnings": [warning.model_dump() for warning in context.warnings],
        "artifacts": [artifact.model_dump() for artifact in context.artifacts.values()],
    }
    queue, claim = context.queue, context.claim
    try:
        if end.status == JobStatus.SUCCEEDED:
            context.patiently(lambda: artifacts.write_manifest(queue.storage, claim, told))
        else:
            artifacts.write_manifest(queue.storage, claim, told)
    except DreamqError as trouble:
        log.warning("job %s: no manifest (%s)", claim.job_id, trouble)
        if end.status == JobStatus.SUCCEEDED:
            error = Failure(code=trouble.code, message=trouble.message)
            hand_back_if_shut_down(context, error)
            end = End(JobStatus.FAILED, error, recycle=end.recycle)
    fields = {"summary": json.dumps(told["summary"]), "provenance": json.dumps(told["provenance"])}
    if error:
        fields["error"] = error.model_dump_json()
    if not insist(lambda: queue.store.finish(claim, end.status, fields)):
        raise LeaseLost()
    if end.status == JobStatus.SUCCEEDED:
        context.delete_checkpoints()
    queue.settle_end(insist(lambda: queue.store.get(claim.job_id)))
    return end


def hand_back_if_shut_down(context: JobContext, error: Failure | None) -> None:
    """A job that found no room while its worker was asked to end is not the worse for it: another one may have room.

    Raises:
        JobPreempted: it is to go back to the queue.
        LeaseLost: Redis has been emptied; recovery takes the job up anew from the storage.
    """
    if error is None or error.code != StorageFull.code:
        return
    try:
        job = insist(lambda: context.queue.store.get(context.claim.job_id))
    except JobNotFound as emptied:
        raise LeaseLost() from emptied
    if job.stop == "shutdown":
        raise JobPreempted()


def give_back(queue: Queue, claim: Claim, reason: str, *, loss: bool = False) -> None:
    """Return an unfinished job: to the queue, or to its end if a user cancelled it."""
    status = insist(
        lambda: queue.store.release(claim, reason, loss=loss, max_losses=queue.settings.max_losses)
    )
    log.info(
        "job %s: attempt %d stopped (%s); the job is %s",
        claim.job_id,
        claim.attempt,
        reason,
        status or "another's",
    )
    if status in ("cancelled", "failed"):
        queue.settle_end(insist(lambda: queue.store.get(claim.job_id)))
    elif status:
        queue.dispatch.step()


def insist(call: Callable[[], T]) -> T:
    """Try until Redis is back: what a job has come to must not be lost with a connection."""
    wait_s = 0.1
    while True:
        try:
            return call()
        except QueueUnavailable as error:
            log.warning("waiting for Redis (%s)", error)
            time.sleep(wait_s)
            wait_s = min(5.0, wait_s * 2)


for _kind in KINDS:
    # One name per kind, so that Flower, `inspect` and routes speak of kinds. Not `register_task`: a spawned child
    # would not see it.
    celery_app.task(name=f"tasks.{_kind}")(run_job)
