"""The environment, read once into one frozen, checked object."""

import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from shared.errors import SettingsInvalid
from shared.validation import first_finding


class Settings(BaseModel):
    """Every setting of dreamq; each is read from the environment variable of its name in capitals."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    redis_url: str = "redis://127.0.0.1:6379/0"
    """The Redis (6.2 or newer) that holds queue and job records: `redis://`, `rediss://` or `unix://`."""
    storage_url: str = "./data"
    """Where uploads, checkpoints and results live: a path, or any fsspec URL (`s3://bucket/prefix`)."""
    weights_dir: Path = Path("./weights")
    """Where pretrained weights are looked for and, after a download, kept."""
    api_keys_file: Path | None = None
    """File of API key hashes, made by `dreamq admin keys`. Without it the API binds to loopback only."""
    api_hosts: str = ""
    """More names, separated by commas, by which clients may call this API (the Host header)."""
    lease_s: Annotated[float, Field(ge=1, le=3600)] = 30
    """How long a worker may go unheard before its job is taken from it (s)."""
    max_losses: Annotated[int, Field(ge=0, le=100)] = 3
    """How many workers a job may lose since its last new checkpoint; one more ends it as `worker_lost`."""
    stall_s: Annotated[float, Field(gt=0)] | None = None
    """How long a job may make no step before its process is killed (s); without it each kind has its own."""
    checkpoint_s: Annotated[float, Field(gt=0, le=600)] = 30
    """The longest time between two checkpoints of a running job (s)."""
    visibility_timeout_s: Annotated[int, Field(ge=5)] = 600
    """After how long the broker offers a fetched but never started message again (s)."""
    max_upload_mb: Annotated[int, Field(ge=1)] = 2048
    """The largest upload (MiB)."""
    max_image_pixels: Annotated[int, Field(ge=1)] = 100_000_000
    """The largest picture (width x height), judged from its header."""
    deterministic: bool = False
    """Bit-for-bit repeatable operations on a GPU too, which are slower."""
    max_child_memory_mb: Annotated[int, Field(ge=256)] | None = None
    """A pool process that holds more than this after a job is replaced (MiB); default half the machine."""
    max_trainings_per_child: Annotated[int, Field(ge=1)] = 20
    """A pool process is replaced after this many training jobs, since frameworks leak."""
    retention_days: Annotated[int, Field(ge=1)] | None = None
    """Jobs that ended so many days ago are removed, with their files; without it they are kept for ever."""

    largest_device_gb: Annotated[float, Field(gt=0)] | None = None
    """Memory of the largest device that a worker may have (GiB), where workers come when there is work for them.
    Without it a job that no registered worker can hold is refused."""

    extra_kinds: str = ""
    """Kinds of your own: importable modules, separated by commas, each with a `PARAMS` class and a `run`."""

    @field_validator("redis_url")
    @classmethod
    def _known_scheme(cls, value: str) -> str:
        if not value.startswith(("redis://", "rediss://", "unix://", "redis+socket://")):
            raise ValueError("must start with redis://, rediss:// or unix://")
        return value

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Self:
        """Read the settings from `environment` (default: the process').

        Raises:
            SettingsInvalid: a value cannot be used; the message names the variable.
        """
        environment = os.environ if environment is None else environment
        given = {
            name: environment[name.upper()]
            for name in cls.model_fields
            if environment.get(name.upper(), "") != ""
        }
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            first = first_finding(error, given)
            name = first.field.upper()
            # A URL may hold a password, and messages end up in logs.
            shown = "" if name.endswith("_URL") else f"={given[name.lower()]!r}"
            raise SettingsInvalid(f"{name}{shown}: {first.message}", field=name) from None

    def environment(self) -> dict[str, str]:
        """The same settings as environment variables, for a process that we start."""
        return {
            name.upper(): str(int(value) if isinstance(value, bool) else value)
            for name, value in self.model_dump().items()
            if value is not None
        }

    @cached_property
    def renew_every_s(self) -> float:
        """How often a lease is renewed: a third of it, so that two renewals may fail."""
        return self.lease_s / 3

    @cached_property
    def recovery_every_s(self) -> float:
        """How often recovery takes a turn: a few seconds, less where leases are short."""
        return min(5.0, self.lease_s / 6)

    @cached_property
    def max_upload_bytes(self) -> int:
        return self.max_upload_mb * 2**20
