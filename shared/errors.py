"""Every error that dreamq raises on purpose: one class, one sentence, one stable code.

The docstring is the default message, so that no error can be without one.
"""

from typing import ClassVar


class DreamqError(Exception):
    """Something went wrong that dreamq has a name for."""

    code: ClassVar[str] = "internal"

    def __init__(self, message: str = "", *, field: str | None = None) -> None:
        self.message = message or (type(self).__doc__ or "").strip().splitlines()[0]
        self.field = field
        super().__init__(self.message)


class SettingsInvalid(DreamqError):
    """An environment variable holds a value that cannot be used."""

    code = "settings_invalid"


class RequestInvalid(DreamqError):
    """The request is not what this call takes."""

    code = "invalid_request"


class InvalidInput(DreamqError):
    """A parameter or an input file cannot be used; `field` names it."""

    code = "invalid_input"


class JobNotFound(DreamqError):
    """No job has this id. It may have been removed, or never existed."""

    code = "job_not_found"


class UploadNotFound(DreamqError):
    """No upload has this id. Upload the file first, then name the id that was answered."""

    code = "upload_not_found"


class ArtifactNotFound(DreamqError):
    """The job has no artifact of this name (yet)."""

    code = "artifact_not_found"


class KindNotFound(DreamqError):
    """There is no such kind of job."""

    code = "kind_not_found"


class IdempotencyConflict(DreamqError):
    """This Idempotency-Key was used before with another body."""

    code = "idempotency_conflict"


class UploadTooLarge(DreamqError):
    """The body is larger than this server takes."""

    code = "too_large"


class QueueUnavailable(DreamqError):
    """Redis cannot be reached; try again in a few seconds."""

    code = "queue_unavailable"


class StorageUnavailable(DreamqError):
    """The storage cannot be reached; try again in a few seconds."""

    code = "storage_unavailable"


class JobFailure(DreamqError):
    """The job cannot go on; it ends as failed with this error's code."""


class WeightsUnavailable(JobFailure):
    """The pretrained weights are neither here nor to be had."""

    code = "weights_unavailable"


class DataUnavailable(JobFailure):
    """The data set is neither here nor to be had."""

    code = "data_unavailable"


class OutOfMemory(JobFailure):
    """The job needs more memory than this machine has."""

    code = "out_of_memory"


class GpuOutOfMemory(JobFailure):
    """The job needs more memory than this GPU has."""

    code = "gpu_out_of_memory"


class Diverged(JobFailure):
    """The computation left the finite numbers (NaN or Inf)."""

    code = "diverged"


class StorageFull(JobFailure):
    """The storage has no room left."""

    code = "storage_full"


class StopRequested(BaseException):
    """A job is asked to stop; raised where it reports progress, caught by `run_job` alone."""

    # Not an Exception, so that no `except Exception` of a task can swallow it.


class JobCancelled(StopRequested):
    """The user cancelled the job."""


class JobPreempted(StopRequested):
    """The worker shuts down: the job is checkpointed and goes back to the queue."""


class JobTimedOut(StopRequested):
    """The job reached its `time_limit_s`."""


class LeaseLost(StopRequested):
    """Another attempt owns the job now: whatever this one still does must not count."""
