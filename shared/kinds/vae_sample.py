"""Make, rebuild, blend and edit pictures with a trained variational autoencoder."""

from typing import ClassVar, Literal

from pydantic import Field

from shared.datasets import inspect_dataset
from shared.errors import InvalidInput
from shared.job import Job
from shared.kinds.base import FileId, Inputs, JobId, JobParams, PictureId
from shared.kinds.sampling import LatentNumber, LatentVector, check_latents, check_model_job, refuse_unused

_CONCEPT_SOURCES = ("positive_labels", "positive_set", "concept_job")
_FIELDS_OF = {
    "random": ("count",),
    "grid": ("grid_side",),
    "reconstruct": ("pictures",),
    "interpolate": ("pictures", "latents", "steps"),
    "concept": ("pictures", "strengths", "negative_labels", "negative_set", *_CONCEPT_SOURCES),
}


class VaeSampleParams(JobParams):
    """Use a trained VAE: random pictures, its latent grid, reconstructions, blends, or edits along a concept."""

    kind: ClassVar[str] = "vae_sample"

    model_job: JobId
    """The `vae_train` job whose model is used."""
    mode: Literal["random", "grid", "reconstruct", "interpolate", "concept"] = "random"
    """`random` draws from the prior, `grid` covers it, `reconstruct` encodes and decodes pictures, `interpolate` goes
    from one to the next, `concept` adds a concept vector to pictures."""
    count: int = Field(16, ge=1, le=1024)
    """`random`: how many pictures."""
    grid_side: int = Field(15, ge=1, le=64)
    """`grid`: pictures across, and down if the latent space has more than one dimension."""
    pictures: list[PictureId] = Field([], max_length=64)
    """`reconstruct`, `interpolate`, `concept`: uploaded pictures."""
    latents: list[LatentVector] = Field([], max_length=64)
    """`interpolate`: latent vectors to pass through, instead of pictures."""
    steps: int = Field(8, ge=2, le=256)
    """`interpolate`: pictures from each one to the next, both included."""
    strengths: list[LatentNumber] = Field([-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0], min_length=1, max_length=32)
    """`concept`: how many times the vector is added, one picture each; 0 is the plain reconstruction."""
    positive_labels: list[str] = Field([], max_length=1000)
    """`concept`: labels of the training data that have it; each counts the same."""
    negative_labels: list[str] = Field([], max_length=1000)
    """`concept`: labels that have it not; empty takes all others."""
    positive_set: FileId | None = None
    """`concept`: an archive of pictures that have it, instead of labels. Folders that both archives have are compared
    with each other, each counting the same."""
    negative_set: FileId | None = None
    """`concept`: an archive of pictures that have it not."""
    concept_job: JobId | None = None
    """`concept`: an earlier `vae_sample` job whose concept vector is used again."""

    def check(self, inputs: Inputs) -> None:
        """Refuse what the mode lacks or would pass over, and what does not fit the model."""
        model_job = check_model_job(inputs, self.model_job, "vae_train")
        refuse_unused(self, self.mode, _FIELDS_OF)
        for picture in self.pictures:
            inputs.picture(picture, "pictures")
        check_latents(self.latents, model_job.params["latent_dim"])
        if self.mode in ("reconstruct", "concept") and not self.pictures:
            raise InvalidInput(f"The mode {self.mode} needs at least one picture.", field="pictures")
        if self.mode == "interpolate":
            self._check_ends()
        if self.mode == "concept":
            self._check_concept(inputs, model_job)

    def _check_ends(self) -> None:
        if self.pictures and self.latents:
            raise InvalidInput("Give either pictures or latents to go between, not both.", field="latents")
        if len(self.pictures) + len(self.latents) < 2:
            raise InvalidInput("The mode interpolate needs two pictures, or two latents.", field="pictures")

    def _check_concept(self, inputs: Inputs, model_job: Job) -> None:
        given = [name for name in _CONCEPT_SOURCES if getattr(self, name)]
        if len(given) != 1:
            raise InvalidInput(
                "A concept comes from positive_labels, from positive_set and negative_set, or from concept_job: "
                f"give one of the three, not {' and '.join(given) or 'none'}.",
                field=given[1] if given else "positive_labels",
            )
        if self.concept_job:
            self._check_concept_job(inputs)
        elif self.positive_set:
            self._check_sets(inputs)
        else:
            self._check_labels(model_job)
        if self.negative_labels and not self.positive_labels:
            raise InvalidInput("negative_labels go with positive_labels.", field="negative_labels")
        if self.negative_set and not self.positive_set:
            raise InvalidInput("negative_set goes with positive_set.", field="negative_set")

    def _check_concept_job(self, inputs: Inputs) -> None:
        job = check_model_job(inputs, str(self.concept_job), "vae_sample", "concept_job", "concept.npy")
        if job.params["model_job"] != self.model_job:
            raise InvalidInput(
                f"That concept belongs to the model of job {job.params['model_job']}, whose latent space is another.",
                field="concept_job",
            )

    def _check_sets(self, inputs: Inputs) -> None:
        if self.negative_set is None:
            raise InvalidInput("positive_set needs a negative_set to differ from.", field="negative_set")
        if self.positive_set == self.negative_set:
            raise InvalidInput(
                "positive_set and negative_set are the same file: they differ in nothing.",
                field="negative_set",
            )
        for name in ("positive_set", "negative_set"):
            try:
                inspect_dataset(
                    inputs.path(getattr(self, name), name), max_pixels=inputs.settings.max_image_pixels
                )
            except InvalidInput as error:
                raise InvalidInput(error.message, field=name) from error

    def _check_labels(self, model_job: Job) -> None:
        if both := sorted(set(self.positive_labels) & set(self.negative_labels)):
            raise InvalidInput(
                f"{', '.join(map(repr, both))} cannot be on both sides.", field="negative_labels"
            )
        if model_job.status.ended:
            known = tuple(model_job.provenance.get("network", {}).get("label_names", ()))
            self.check_labels(known)

    def check_labels(self, known: tuple[str, ...]) -> None:
        """Refuse labels that the training data have not, and a positive side that leaves nothing for the other.

        Raises:
            InvalidInput: naming them, and those that there are.
        """
        for name in ("positive_labels", "negative_labels"):
            if missing := sorted(set(getattr(self, name)) - set(known)):
                there = ", ".join(known[:20]) or "no labels at all"
                raise InvalidInput(
                    f"The training data have no {', '.join(map(repr, missing))}, but {there}.", field=name
                )
        if not self.negative_labels and set(self.positive_labels) >= set(known):
            raise InvalidInput(
                "All labels are on the positive side: nothing is left to differ from.",
                field="positive_labels",
            )
