"""The job record: what dreamq knows of one job, and the statuses it passes through."""

import re
import secrets
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Priority = Literal["low", "normal", "high"]
StopReason = Literal["user", "shutdown", "timeout"]


class JobStatus(StrEnum):
    """Where a job stands."""

    WAITING = "waiting"
    """An upstream job that it depends on has not ended yet."""
    QUEUED = "queued"
    """It may run as soon as a worker is free; also again, after a worker vanished or shut down."""
    RUNNING = "running"
    """A worker has claimed it and renews the lease."""
    SUCCEEDED = "succeeded"
    """It did what was asked; the results are complete."""
    FAILED = "failed"
    """It cannot be done; `error` says why, with a stable code."""
    CANCELLED = "cancelled"
    """A user stopped it; what it had made is kept."""

    @property
    def ended(self) -> bool:
        """Whether the job will never change again."""
        return self in ENDED


ENDED = frozenset({JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED})

FOLLOWS: dict[JobStatus, frozenset[JobStatus]] = {
    JobStatus.WAITING: frozenset({JobStatus.QUEUED, JobStatus.FAILED, JobStatus.CANCELLED}),
    JobStatus.QUEUED: frozenset({JobStatus.RUNNING, JobStatus.CANCELLED}),
    JobStatus.RUNNING: frozenset({JobStatus.QUEUED, *ENDED}),
    **{status: frozenset() for status in ENDED},
}
"""Which status may follow which; the scripts in `shared/lua` keep to it."""


class Record(BaseModel):
    """A part of the job record, frozen; what it is made from may come from a newer version, with more fields."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Worker(Record):
    """The process that runs a job."""

    name: str
    host: str
    device: str
    pid: int


class Attempt(Record):
    """One claim of the job by one worker."""

    attempt: int
    token: str
    """Random; attempt and token together are the fence that an older attempt cannot pass."""
    worker: Worker
    started_ms: int
    ended_ms: int | None = None
    reason: str | None = None
    """Why it ended: `succeeded`, `failed`, `cancelled`, `shutdown`, `worker_lost`, ..."""


class Progress(Record):
    """How far the job is."""

    step: int = 0
    total: int = 0
    message: str = ""
    metrics: dict[str, float | None] = {}


class Failure(Record):
    """Why a job failed."""

    code: str
    message: str


class Warning_(Record):
    """Trouble that does not end the job."""

    code: str
    message: str
    detail: Any = None


class Artifact(Record):
    """A file that the job left."""

    name: str
    media_type: str
    bytes: int
    sha256: str
    path: str
    """Where it lies below the storage root: in the folder of the attempt that wrote it."""


class CheckpointFile(Record):
    """A file from which the job can be resumed."""

    path: str
    sha256: str
    step: int


class Job(Record):
    """One run of a kind, with its parameters. Times are milliseconds since 1970 of Redis' clock."""

    id: str
    kind: str
    params: dict[str, Any]
    priority: Priority = "normal"
    labels: dict[str, str] = {}
    depends_on: list[str] = []
    queue: str
    created_ms: int
    score: int
    """Its place in the queue: the lowest runs first."""
    idempotency: str | None = None
    """`<hash of the key> <hash of the body>`, for a job that was submitted with an Idempotency-Key."""
    forecast_bytes: int = 0

    status: JobStatus = JobStatus.QUEUED
    attempt: int = 0
    token: str = ""
    losses: int = 0
    """Workers lost since the last new checkpoint."""
    stop: StopReason | None = None
    """Asked to stop, and why."""
    started_ms: int | None = None
    finished_ms: int | None = None
    attempts: list[Attempt] = []
    progress: Progress = Progress()
    worker: Worker | None = None
    error: Failure | None = None
    warnings: list[Warning_] = []
    summary: dict[str, Any] = {}
    provenance: dict[str, Any] = {}
    artifacts: list[Artifact] = []
    checkpoints: list[CheckpointFile] = []
    """The newest two, newest first."""
    queue_position: int | None = Field(default=None, exclude=True)

    def artifact(self, name: str) -> Artifact | None:
        """The artifact of this name, if the job has it."""
        return next((artifact for artifact in self.artifacts if artifact.name == name), None)

    def names(self) -> set[str]:
        """The ids of all uploads and jobs that it names, however deep in its parameters, and of what it depends on."""
        return ids_in([self.params, self.depends_on])

    def view(self) -> dict[str, Any]:
        """The job as every door shows it (the JSON of the contract)."""
        return {
            "id": self.id,
            "kind": self.kind,
            "status": str(self.status),
            "params": self.params,
            "priority": self.priority,
            "labels": self.labels,
            "depends_on": self.depends_on,
            "created_at": iso(self.created_ms),
            "started_at": iso(self.started_ms),
            "finished_at": iso(self.finished_ms),
            "attempt": self.attempt,
            "attempts": [
                {
                    "attempt": attempt.attempt,
                    "worker": attempt.worker.name,
                    "started_at": iso(attempt.started_ms),
                    "ended_at": iso(attempt.ended_ms),
                    "reason": attempt.reason,
                }
                for attempt in self.attempts
            ],
            "cancel_requested": self.stop == "user",
            "progress": self.progress.model_dump(),
            "queue_position": self.queue_position,
            "worker": self.worker.model_dump() if self.worker else None,
            "error": self.error.model_dump() if self.error else None,
            "warnings": [warning.model_dump() for warning in self.warnings],
            "summary": self.summary,
            "provenance": self.provenance,
            "artifacts": [artifact_view(self.id, artifact) for artifact in self.artifacts],
        }


def artifact_view(job_id: str, artifact: Artifact) -> dict[str, Any]:
    """An artifact as every door shows it."""
    shown = artifact.model_dump(exclude={"path"})
    return {**shown, "url": f"/v1/jobs/{job_id}/artifacts/{artifact.name}"}


def iso(time_ms: int | None) -> str | None:
    """Milliseconds since 1970 as ISO 8601 in UTC."""
    if time_ms is None:
        return None
    return (
        datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    )


def ids_in(value: Any) -> set[str]:
    """All texts in a JSON value that may be the id of an upload or a job."""
    if isinstance(value, str):
        return {value} if _MAY_BE_AN_ID.fullmatch(value) else set()
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list):
        return set()
    return set().union(*map(ids_in, value))


_MAY_BE_AN_ID = re.compile(r"[0-9a-z]{20,64}")
ID_PATTERN = r"^[0-9a-z]{26}$"
_DIGITS = "0123456789abcdefghjkmnpqrstvwxyz"


def new_job_id() -> str:
    """A random id: 26 characters, 130 bits, safe in paths, URLs and Redis keys."""
    return "".join(secrets.choice(_DIGITS) for _ in range(26))


def new_token() -> str:
    """A random token for one claim."""
    return secrets.token_hex(8)
