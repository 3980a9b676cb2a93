"""Use a trained variational autoencoder: sample, reconstruct, interpolate, and edit along concept vectors."""

import math

import keras
import numpy as np

from shared.errors import InvalidInput
from shared.kinds.vae_sample import VaeSampleParams
from tasks.dataset import LabelledPictures
from tasks.datasets import fit_all, fit_picture, read_archive, with_channels
from tasks.job_context import JobContext
from tasks.latent_space import latent_grid, straight_line, through
from tasks.model_file import load_arrays
from tasks.networks.vae import VaeConfig, build_vae
from tasks.picture_grids import STRIP_PX, picture_grid
from tasks.samples import pass_warnings_on, random_latents, save_array, save_way

LabelMeans = dict[str | None, np.ndarray]

_BATCH = 256
_LEAST_DIFFERENCE = 1e-6


def run(params: VaeSampleParams, job: JobContext) -> None:
    """Do what the mode says, and leave `result.png`."""
    model = TrainedVae(params.model_job, job)
    pass_warnings_on(job, params.model_job)
    modes = {
        "random": random_pictures,
        "grid": grid,
        "reconstruct": reconstruct,
        "interpolate": interpolate,
        "concept": edit_along_concept,
    }
    modes[params.mode](params, job, model)
    job.report(1, 1, "done")


class TrainedVae:
    """The network of an earlier job: our architecture with its arrays."""

    def __init__(self, job_id: str, job: JobContext) -> None:
        self.config = VaeConfig.model_validate_json(job.model_path(job_id, "model.json").read_bytes())
        vae = build_vae(self.config)
        load_arrays(vae, job.model_path(job_id, "model.keras"))
        self.encoder: keras.Model = vae.get_layer("encoder")
        self.decoder: keras.Model = vae.get_layer("decoder")
        with np.load(job.model_path(job_id, "latents.npz"), allow_pickle=False) as arrays:
            self.latents = dict(arrays)

    def prepare(self, picture: np.ndarray) -> np.ndarray:
        """A picture (height, width, 3) uint8 of any size as the network was trained on: (h, w, channels) uint8."""
        fitted = fit_picture(picture, (self.config.height, self.config.width), self.config.fit)
        return with_channels(fitted[np.newaxis], "grey" if self.config.channels == 1 else "rgb")[0]

    def encode(self, pictures: np.ndarray) -> np.ndarray:
        """Pictures (n, h, w, channels) uint8 -> the means of their latent vectors (n, d)."""
        batches = [pictures[first : first + _BATCH] for first in range(0, len(pictures), _BATCH)]
        return np.concatenate([self.encoder(batch.astype(np.float32) / 255)[0].numpy() for batch in batches])

    def decode(self, vectors: np.ndarray) -> np.ndarray:
        """Latent vectors (n, d) -> pictures (n, h, w, channels) in 0..255."""
        vectors = np.asarray(vectors, np.float32)
        batches = [vectors[first : first + _BATCH] for first in range(0, len(vectors), _BATCH)]
        return np.concatenate([self.decoder(batch).numpy() for batch in batches]) * 255


def random_pictures(params: VaeSampleParams, job: JobContext, model: TrainedVae) -> None:
    """Decode draws from the prior, which stay as `latents.npy`."""
    vectors = random_latents(params.seed or 0, params.count, model.config.latent_dim)
    save_array(job, "latents.npy", vectors)
    job.save_image("result.png", picture_grid(model.decode(vectors), math.ceil(math.sqrt(params.count))))


def grid(params: VaeSampleParams, job: JobContext, model: TrainedVae) -> None:
    """Decode a grid of Gaussian quantiles on the training's plane."""
    vectors = latent_grid(params.grid_side, model.latents["plane"])
    job.save_image("result.png", picture_grid(model.decode(vectors), params.grid_side))


def reconstruct(params: VaeSampleParams, job: JobContext, model: TrainedVae) -> None:
    """Encode and decode each picture: originals in the upper row, reconstructions below."""
    originals = load_pictures(params, job, model)
    vectors = model.encode(originals)
    reconstructed = model.decode(vectors)
    save_array(job, "latents.npy", vectors)
    for number, picture in enumerate(reconstructed, start=1):
        job.save_image(f"reconstruction-{number:02d}.png", picture)
    pairs = np.concatenate([originals.astype(np.float32), reconstructed])
    job.save_image("result.png", picture_grid(pairs, len(originals)))


def interpolate(params: VaeSampleParams, job: JobContext, model: TrainedVae) -> None:
    """Decode the straight line from each point to the next, as a strip and as an animation."""
    points = np.array(params.latents) if params.latents else model.encode(load_pictures(params, job, model))
    vectors = through(points, params.steps, straight_line)
    save_way(job, vectors, model.decode(vectors), params.steps)


def edit_along_concept(params: VaeSampleParams, job: JobContext, model: TrainedVae) -> None:
    """Add a concept vector to each picture's latent mean, once for every strength: a strip for each picture."""
    vector = concept_vector(params, job, model)
    save_array(job, "concept.npy", vector)
    means = model.encode(load_pictures(params, job, model))
    edited = means[:, np.newaxis] + np.array(params.strengths)[:, np.newaxis] * vector
    pictures = model.decode(edited.reshape(-1, edited.shape[-1]))
    strips = pictures.reshape(*edited.shape[:2], *pictures.shape[1:])
    for number, strip in enumerate(strips, start=1):
        image = picture_grid(strip, len(params.strengths), enlarged_px=STRIP_PX)
        job.save_image(f"strip-{number:02d}.png", image)
        job.report(number, len(strips), f"picture {number} of {len(strips)}")
    job.save_image("result.png", picture_grid(pictures, len(params.strengths), enlarged_px=STRIP_PX))
    job.summary |= {"concept_length": float(np.linalg.norm(vector)), "strengths": params.strengths}


def concept_vector(params: VaeSampleParams, job: JobContext, model: TrainedVae) -> np.ndarray:
    """The vector (d,) from pictures that lack something to pictures that have it, on the encoder's means.

    Raises:
        InvalidInput: the two sides do not differ.
    """
    if params.concept_job:
        vector = np.load(job.model_path(params.concept_job, "concept.npy"), allow_pickle=False)
    elif params.positive_set and params.negative_set:
        positive, negative = (
            label_means(model, *read_set(upload_id, field, job, model))
            for upload_id, field in (
                (params.positive_set, "positive_set"),
                (params.negative_set, "negative_set"),
            )
        )
        vector = balanced_difference(positive, negative)
    else:
        vector = difference_of_labels(params, model)
    if np.linalg.norm(vector) < _LEAST_DIFFERENCE:
        raise InvalidInput("To the model the two sides are the same: there is no concept between them.")
    return vector


def difference_of_labels(params: VaeSampleParams, model: TrainedVae) -> np.ndarray:
    """Mean of the positive labels' means minus that of the negative labels', whatever number of pictures each has."""
    names = model.config.label_names
    params.check_labels(names)
    negative = params.negative_labels or [name for name in names if name not in params.positive_labels]
    if empty := [
        name
        for name in (*params.positive_labels, *negative)
        if not model.latents["label_counts"][names.index(name)]
    ]:
        raise InvalidInput(
            f"The model has seen no picture of {', '.join(map(repr, empty))}.", field="positive_labels"
        )
    means = model.latents["label_means"]
    sides = [
        means[[names.index(name) for name in side]].mean(axis=0)
        for side in (params.positive_labels, negative)
    ]
    return sides[0] - sides[1]


def balanced_difference(positive: LabelMeans, negative: LabelMeans) -> np.ndarray:
    """Difference of two sides' means, taken label by label where both have the same ones.

    So a set of smiling women and men and one of serious men alone differ in the smile, not in the women (White, 2016,
    arXiv 1609.04468).
    """
    shared = (positive.keys() & negative.keys()) - {None}
    pairs = [(positive[name], negative[name]) for name in sorted(shared) or [None]]
    return np.mean([have - lack for have, lack in pairs], axis=0)


def label_means(model: TrainedVae, pictures: LabelledPictures, names: tuple[str, ...]) -> LabelMeans:
    """The latent mean of all pictures, under None, and of each label."""
    means = model.encode(pictures.pictures)
    found: LabelMeans = {None: means.mean(axis=0)}
    if pictures.labels is not None:
        found |= {name: means[pictures.labels == index].mean(axis=0) for index, name in enumerate(names)}
    return found


def read_set(
    upload_id: str, field: str, job: JobContext, model: TrainedVae
) -> tuple[LabelledPictures, tuple[str, ...]]:
    """The pictures of an uploaded archive as the network was trained on, and the names of their labels."""
    size = (model.config.height, model.config.width)
    dataset = read_archive(upload_id, field, job, size=size, fit=model.config.fit)
    fitted = fit_all(dataset.train.pictures, size, model.config.fit)
    pictures = with_channels(fitted, "grey" if model.config.channels == 1 else "rgb")
    return LabelledPictures(pictures=pictures, labels=dataset.train.labels), dataset.label_names


def load_pictures(params: VaeSampleParams, job: JobContext, model: TrainedVae) -> np.ndarray:
    """The uploaded pictures as the network was trained on: (n, h, w, channels) uint8."""
    return np.stack([model.prepare(job.load_image(picture)) for picture in params.pictures])
