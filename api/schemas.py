"""What the calls take and answer, as models: the source of /openapi.json and of the checks on what comes in."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from shared.job import JobStatus, Priority
from shared.validation import CURSOR_PATTERN, SHA256_PATTERN, DependsOn, JobId, Labels


class Schema(BaseModel):
    """A closed set of fields; an unknown one is refused by name."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


# What comes in


class SubmitRequest(Schema):
    """A job to queue."""

    kind: str
    """Which kind of job; /v1/kinds lists them."""
    params: dict[str, Any] = {}
    """The kind's parameters; pictures and other files are named by their upload's id."""
    priority: Priority = "normal"
    """Whether others wait for it, or it for others; waiting jobs of low priority move up with time."""
    depends_on: DependsOn = []
    """Jobs that must have succeeded before this one runs."""
    labels: Labels = {}
    """Names and values of your own, to find the job by."""


class Nothing(Schema):
    """A body that has nothing to say: none at all, or `{}`."""


class ListQuery(Schema):
    """Which jobs to list."""

    status: JobStatus | None = None
    """Jobs in this status only."""
    kind: str | None = None
    """Jobs of this kind only."""
    label: Annotated[str, Field(max_length=320)] | None = None
    """Jobs with this label only: `name`, or `name=value`."""
    limit: Annotated[int, Field(ge=1, le=500)] = 50
    """How many at most."""
    cursor: Annotated[str, Field(pattern=CURSOR_PATTERN)] | None = None
    """Where an earlier answer ended: its `next_cursor`."""


# What goes out


class UploadAnswer(Schema):
    """A stored file."""

    id: Annotated[str, Field(pattern=SHA256_PATTERN)]
    """The sha256 of its bytes: parameters name the file by it."""
    bytes: int
    media_type: str
    """Judged from its first bytes."""


class AttemptAnswer(Schema):
    """One worker's attempt at the job."""

    attempt: int
    worker: str
    started_at: str
    ended_at: str | None
    reason: str | None
    """Why it ended: `succeeded`, `failed`, `cancelled`, `shutdown`, `worker_lost`, ..."""


class ProgressAnswer(Schema):
    """How far the job is."""

    step: int
    total: int
    """0 while it is not known."""
    message: str
    metrics: dict[str, float | None]
    """What the kind measures as it runs; a number that is none (NaN) is null."""


class WorkerAnswer(Schema):
    """The process that runs a job."""

    name: str
    host: str
    device: str
    pid: int


class FailureAnswer(Schema):
    """Why the job failed."""

    code: str
    """Stable, for programs: `out_of_memory`, `worker_lost`, `diverged`, ..."""
    message: str


class WarningAnswer(Schema):
    """Trouble that did not end the job."""

    code: str
    message: str
    detail: Any


class ArtifactAnswer(Schema):
    """A file that the job left."""

    name: str
    media_type: str
    bytes: int
    sha256: str
    url: str


class JobAnswer(Schema):
    """One run of a kind, with its parameters. Times are ISO 8601 in UTC."""

    id: JobId
    kind: str
    status: JobStatus
    params: dict[str, Any]
    """With all defaults and the seed that was drawn."""
    priority: Priority
    labels: dict[str, str]
    depends_on: list[JobId]
    created_at: str
    started_at: str | None
    finished_at: str | None
    attempt: int
    """How many workers have tried; 0 before the first."""
    attempts: list[AttemptAnswer]
    cancel_requested: bool
    progress: ProgressAnswer
    queue_position: int | None
    """1 = next in its queue; null once it has started."""
    worker: WorkerAnswer | None
    error: FailureAnswer | None
    warnings: list[WarningAnswer]
    summary: dict[str, Any]
    """What the kind has to say at the end."""
    provenance: dict[str, Any]
    """What the results came from: versions, device, hashes of weights and inputs."""
    artifacts: list[ArtifactAnswer]
    """Grows as the job runs."""


class JobsAnswer(Schema):
    """A page of jobs, newest first."""

    jobs: list[JobAnswer]
    next_cursor: str | None
    """Give it as `cursor` to get the next page; null on the last."""


class KindAnswer(Schema):
    """A kind of job."""

    kind: str
    description: str
    json_schema: dict[str, Any] = Field(alias="schema")
    """JSON Schema of its parameters; `format: upload` marks those that name an upload, `format: job` a job."""


class KindsAnswer(Schema):
    """All kinds of job."""

    kinds: list[KindAnswer]


class WorkersAnswer(Schema):
    """The workers heard of lately: name, host, device, what runs, since when."""

    workers: list[dict[str, Any]]


class StateAnswer(Schema):
    """How the server is."""

    status: Literal["alive", "ready"]


class ErrorBody(Schema):
    """What is wrong."""

    code: str
    """Stable, for programs."""
    message: str
    """One sentence, for people."""
    field: str = ""
    """Which field is meant, when it is one."""


class ErrorAnswer(Schema):
    """Every error looks like this."""

    error: ErrorBody
