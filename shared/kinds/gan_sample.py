"""Make pictures with a trained generative adversarial network."""

from typing import ClassVar, Literal

from pydantic import Field

from shared.errors import InvalidInput
from shared.kinds.base import Inputs, JobId, JobParams
from shared.kinds.sampling import LatentVector, check_latents, check_model_job, refuse_unused

_FIELDS_OF = {
    "random": ("count", "truncation"),
    "grid": ("grid_side", "truncation"),
    "interpolate": ("count", "latents", "steps", "truncation"),
    "latents": ("latents",),
}


class GanSampleParams(JobParams):
    """Use a trained GAN: random pictures, a grid of blends, ways from one to the next, or given latent vectors."""

    kind: ClassVar[str] = "gan_sample"

    model_job: JobId
    """The `gan_train` job whose generator is used."""
    step: int | Literal["last", "best"] = "last"
    """Which generator: the last, the one with the best KID, or that of a step in the training's `kept_steps`."""
    mode: Literal["random", "grid", "interpolate", "latents"] = "random"
    """`random` draws pictures, `grid` blends four of them over a square, `interpolate` goes from one to the next along
    arcs, `latents` shows given vectors."""
    count: int = Field(16, ge=1, le=1024)
    """`random`: how many pictures; `interpolate`: how many to pass through, where no latents are given."""
    grid_side: int = Field(8, ge=2, le=32)
    """`grid`: pictures across and down."""
    latents: list[LatentVector] = Field([], max_length=1024)
    """`latents`: the vectors to show; `interpolate`: those to pass through."""
    steps: int = Field(8, ge=2, le=256)
    """`interpolate`: pictures from each one to the next, both included."""
    truncation: float | None = Field(None, gt=0, le=10)
    """Numbers farther from 0 than this are drawn anew: below 1 the pictures are more alike."""

    def check(self, inputs: Inputs) -> None:
        """Refuse what the mode lacks or would pass over, and what does not fit the model."""
        model_job = check_model_job(inputs, self.model_job, "gan_train")
        if model_job.status.ended and model_job.artifact(self.artifact) is None:
            kept = model_job.summary.get("kept_steps", [])
            raise InvalidInput(
                f"The training kept no {self.artifact}; it kept the steps {kept}.", field="step"
            )
        refuse_unused(self, self.mode, _FIELDS_OF)
        check_latents(self.latents, model_job.params["latent_dim"])
        if self.mode == "latents" and not self.latents:
            raise InvalidInput("The mode latents needs at least one latent vector.", field="latents")
        if self.mode == "interpolate" and (len(self.latents) == 1 or (not self.latents and self.count < 2)):
            raise InvalidInput(
                "To go from one to the next takes at least two.", field="latents" if self.latents else "count"
            )
        if self.latents and self.truncation is not None:
            raise InvalidInput(
                "Given latents are used as they are; truncation is for draws.", field="truncation"
            )

    @property
    def artifact(self) -> str:
        """The training's file with the generator that is asked for."""
        if isinstance(self.step, int):
            return f"generator-step-{self.step:08d}.keras"
        return {"last": "model.keras", "best": "best.keras"}[self.step]
