"""Use a trained generator: random pictures, blends of four, ways from one to the next, given latent vectors."""

import math

import keras
import numpy as np

from shared.kinds.gan_sample import GanSampleParams
from tasks.job_context import JobContext
from tasks.latent_space import great_circle, through
from tasks.model_file import load_arrays
from tasks.networks.gan import GanConfig, build_generator, generate
from tasks.picture_grids import picture_grid
from tasks.samples import pass_warnings_on, random_latents, save_array, save_way


def run(params: GanSampleParams, job: JobContext) -> None:
    """Do what the mode says, and leave `result.png` and the latent vectors."""
    config = GanConfig.model_validate_json(job.model_path(params.model_job, "model.json").read_bytes())
    generator = build_generator(config)
    load_arrays(generator, job.model_path(params.model_job, params.artifact))
    job.provenance["network"] = config.model_dump()
    pass_warnings_on(job, params.model_job)
    if params.mode == "interpolate":
        interpolate(params, job, generator)
    else:
        show(params, job, generator)
    job.report(1, 1, "done")


def show(params: GanSampleParams, job: JobContext, generator: keras.Model) -> None:
    """Leave the pictures of single latent vectors side by side."""
    latent_dim = generator.input_shape[1]
    if params.mode == "grid":
        vectors = blend_of_four(
            random_latents(params.seed or 0, 4, latent_dim, params.truncation), params.grid_side
        )
    elif params.mode == "latents":
        vectors = np.array(params.latents, np.float32)
    else:
        vectors = random_latents(params.seed or 0, params.count, latent_dim, params.truncation)
    save_array(job, "latents.npy", vectors)
    columns = params.grid_side if params.mode == "grid" else math.ceil(math.sqrt(len(vectors)))
    job.save_image("result.png", picture_grid(generate(generator, vectors), columns))


def interpolate(params: GanSampleParams, job: JobContext, generator: keras.Model) -> None:
    """Leave the pictures along the great circles from each latent vector to the next."""
    draws = random_latents(params.seed or 0, params.count, generator.input_shape[1], params.truncation)
    points = np.array(params.latents, np.float32) if params.latents else draws
    vectors = through(points, params.steps, great_circle)
    save_way(job, vectors, generate(generator, vectors), params.steps)


def blend_of_four(corners: np.ndarray, side: int) -> np.ndarray:
    """Latent vectors (side * side, d) with the four given ones (4, d) in the corners and arcs between them."""
    left, right = great_circle(corners[0], corners[2], side), great_circle(corners[1], corners[3], side)
    return np.concatenate([great_circle(start, end, side) for start, end in zip(left, right, strict=True)])
