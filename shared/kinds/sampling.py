"""What the kinds that use a trained model check alike."""

from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import Field

from shared.errors import InvalidInput
from shared.job import Job
from shared.kinds.base import Inputs, JobParams

LatentNumber = Annotated[float, Field(ge=-1000, le=1000)]
"""A coordinate in a latent space, whose prior is a standard normal; so bounded that networks stay finite."""
LatentVector = Annotated[list[LatentNumber], Field(min_length=1, max_length=1024)]
"""A point in a model's latent space."""


def check_model_job(
    inputs: Inputs, job_id: str, kind: str, field: str = "model_job", artifact: str = "model.keras"
) -> Job:
    """The job that trained the model; one that still runs may be named together with `depends_on`.

    Raises:
        InvalidInput: the job is of another kind, or has ended without the file.
    """
    job: Job = inputs.job(job_id, field)
    if job.kind != kind:
        raise InvalidInput(f"Job {job_id} is a {job.kind}; name a {kind} job.", field=field)
    if job.status.ended and job.artifact(artifact) is None:
        there = ", ".join(known.name for known in job.artifacts) or "nothing"
        raise InvalidInput(
            f"Job {job_id} has {job.status} and left no {artifact}; it left: {there}.", field=field
        )
    return job


def refuse_unused(params: JobParams, mode: str, fields_of: Mapping[str, Sequence[str]]) -> None:
    """Refuse a parameter that the chosen mode would pass over.

    Raises:
        InvalidInput: naming the parameter and the modes that use it.
    """
    for name in sorted({name for names in fields_of.values() for name in names} - set(fields_of[mode])):
        if getattr(params, name) != type(params).model_fields[name].get_default(call_default_factory=True):
            users = " and ".join(other for other, names in fields_of.items() if name in names)
            raise InvalidInput(f"The mode {mode} makes no use of {name}; {users} does.", field=name)


def check_latents(latents: Sequence[Sequence[float]], latent_dim: int, field: str = "latents") -> None:
    """Refuse latent vectors of another length than the model's.

    Raises:
        InvalidInput: naming the first that does not fit.
    """
    for index, vector in enumerate(latents):
        if len(vector) != latent_dim:
            raise InvalidInput(
                f"Latent vector {index + 1} has {len(vector)} numbers; the model's have {latent_dim}.",
                field=field,
            )
