"""A job's record as the fields of a Redis hash, and back."""

import json
from collections.abc import Mapping
from typing import Any

from shared.job import Attempt, Job

_PLAIN = ("id", "kind", "priority", "queue", "idempotency", "status", "token", "stop")
_NUMBERS = ("created_ms", "score", "attempt", "losses", "started_ms", "finished_ms", "forecast_bytes")
_JSON = (
    "params",
    "labels",
    "depends_on",
    "progress",
    "worker",
    "error",
    "summary",
    "provenance",
    "checkpoints",
)


def hash_from_job(job: Job) -> dict[str, str | int]:
    """A record as the fields of a Redis hash; what grows one by one has a field for each."""
    kept = job.model_dump(mode="json", exclude_none=True)
    fields: dict[str, str | int] = {name: kept[name] for name in (*_PLAIN, *_NUMBERS) if name in kept}
    fields |= {name: json.dumps(kept[name]) for name in _JSON if name in kept}
    for attempt in job.attempts:
        fields[f"attempt.{attempt.attempt}"] = attempt.model_dump_json(exclude={"ended_ms", "reason"})
        if attempt.ended_ms is not None:
            fields[f"attempt_end.{attempt.attempt}"] = attempt.model_dump_json(include={"ended_ms", "reason"})
    for number, warning in enumerate(job.warnings):
        fields[f"warning.{number:04d}"] = warning.model_dump_json()
    for number, artifact in enumerate(job.artifacts):
        fields[f"artifact.{artifact.name}"] = json.dumps({**artifact.model_dump(), "place": number})
    return fields


def job_from_hash(fields: Mapping[str, str], *, queue_position: int | None = None) -> Job:
    """The record that a Redis hash holds."""
    values: dict[str, Any] = {name: fields[name] for name in (*_PLAIN, *_NUMBERS) if fields.get(name)}
    values |= {name: json.loads(fields[name]) for name in _JSON if fields.get(name)}
    values["attempts"] = sorted(
        (
            Attempt(**json.loads(value), **json.loads(fields.get(f"attempt_end.{name[8:]}", "{}")))
            for name, value in fields.items()
            if name.startswith("attempt.")
        ),
        key=lambda attempt: attempt.attempt,
    )
    values["warnings"] = [json.loads(fields[name]) for name in sorted(fields) if name.startswith("warning.")]
    artifacts = (json.loads(value) for name, value in fields.items() if name.startswith("artifact."))
    values["artifacts"] = sorted(artifacts, key=lambda artifact: artifact["place"])
    return Job(**values, queue_position=queue_position)
