"""What every kind's parameters have in common, and what a kind may ask at submit."""

from functools import lru_cache
from typing import Annotated, Any, ClassVar, Protocol, Self

from pydantic import BaseModel, ConfigDict, Field, ModelWrapValidatorHandler, ValidationError, model_validator

from shared.pictures import PictureInfo
from shared.settings import Settings
from shared.validation import JOB_ID_PATTERN, SHA256_PATTERN, ParamsInvalid

PictureId = Annotated[
    str, Field(pattern=SHA256_PATTERN, json_schema_extra={"format": "upload", "media": "image/*"})
]
"""A parameter that names an uploaded picture."""
TextId = Annotated[
    str, Field(pattern=SHA256_PATTERN, json_schema_extra={"format": "upload", "media": "text/plain"})
]
"""A parameter that names an uploaded text."""
FileId = Annotated[str, Field(pattern=SHA256_PATTERN, json_schema_extra={"format": "upload", "media": "*/*"})]
"""A parameter that names any other uploaded file (a data set, weights)."""
JobId = Annotated[str, Field(pattern=JOB_ID_PATTERN, json_schema_extra={"format": "job"})]
"""A parameter that names an earlier job."""


class Inputs(Protocol):
    """What a kind may look at while its parameters are checked at submit."""

    settings: Settings
    """The settings of the process that checks."""

    @property
    def largest_worker_bytes(self) -> int | None:
        """Memory of the largest registered worker's device; None while no worker is known."""

    def picture(self, upload_id: str, field: str) -> PictureInfo:
        """Check an uploaded picture whole (header, size, truncation); `InvalidInput` names `field`."""

    def is_black(self, upload_id: str, field: str) -> bool:
        """Whether an uploaded picture is black or transparent all over; `InvalidInput` names `field`."""

    def path(self, upload_id: str, field: str) -> str:
        """A local path of an upload's bytes; `InvalidInput` names `field` when there is no such upload."""

    def job(self, job_id: str, field: str) -> Any:
        """The `Job` of an earlier job; `InvalidInput` names `field` when there is none."""

    def artifact(self, job_id: str, name: str, field: str) -> bytes:
        """The bytes of a small artifact of an earlier job; `InvalidInput` names `field` when it left none."""


class JobParams(BaseModel):
    """The parameters of one kind of job: what the user chose.

    Raises:
        ParamsInvalid: on being made, naming the field.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    kind: ClassVar[str]
    task: ClassVar[str] = ""
    """The module whose `run` does the work; left out, `tasks.<kind>`."""
    imports: ClassVar[tuple[str, ...]] = ("tensorflow", "keras")
    """What a worker's process imports while it is idle, so that a job finds it ready."""
    trains: ClassVar[bool] = False
    """Whether the job trains a network (its process is then replaced after a number of jobs)."""
    stall_s: ClassVar[float] = 600
    """How long this kind may make no step before its process counts as hung (s)."""

    seed: int | None = Field(None, ge=0, lt=2**31)
    """Seed of every random number; left out, one is drawn at submit and recorded."""
    time_limit_s: int | None = Field(None, ge=1)
    """The longest the job may run, over all its attempts (s); it then ends as `timeout`, with its checkpoint kept."""

    @model_validator(mode="wrap")
    @classmethod
    def _in_our_words(cls, given: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return handler(given)
        except ValidationError as error:
            raise ParamsInvalid(error, given, cls.model_fields) from error

    @classmethod
    @lru_cache(maxsize=64)
    def job_fields(cls) -> tuple[str, ...]:
        """The names of the fields that name a job, from their schema."""
        fields: dict[str, Any] = cls.model_json_schema()["properties"]
        formats = {name: [field, *field.get("anyOf", [])] for name, field in fields.items()}
        return tuple(
            name for name, forms in formats.items() if any(form.get("format") == "job" for form in forms)
        )

    def check(self, inputs: Inputs) -> None:
        """Refuse at submit whatever can be known at submit.

        Raises:
            InvalidInput: with the field's name and the value that would work.
        """

    def forecast_bytes(self, inputs: Inputs) -> int:
        """Peak memory that the job needs on its device (bytes)."""
        return 0
