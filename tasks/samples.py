"""What sample jobs leave, whichever model made it, and where they draw their latent vectors."""

import io

import numpy as np
from scipy.stats import norm

from tasks.job_context import JobContext
from tasks.picture_grids import FRAME_PX, STRIP_PX, animation, picture_grid

_LASTING_WARNINGS = {
    "kl_collapsed", "dimensions_collapsed", "hardly_trained", "discriminator_wins", "diversity_collapsed",
}  # fmt: skip
_DRAWS = 0xD4A35  # tells these draws apart from others of the same seed


def random_latents(seed: int, count: int, latent_dim: int, truncation: float | None = None) -> np.ndarray:
    """Draws from the standard normal prior (count, latent_dim) float32.

    With `truncation` each number that is farther from 0 is drawn again from what lies within (Brock et al., 2018,
    arXiv 1809.11096). The first draws of a seed are the same for every count.
    """
    rows = [np.random.default_rng([_DRAWS, seed, row]) for row in range(count)]
    vectors = np.stack([row.standard_normal(latent_dim, np.float32) for row in rows])
    if truncation is not None:
        for generator, vector in zip(rows, vectors, strict=True):
            beyond = np.abs(vector) > truncation
            # By the inverse of the distribution: to draw until all lie within would take for ever at 0.000001.
            shares = generator.uniform(norm.cdf(-truncation), norm.cdf(truncation), beyond.sum())
            vector[beyond] = np.clip(norm.ppf(shares), -truncation, truncation)
    return vectors


def pass_warnings_on(job: JobContext, model_job: str) -> None:
    """Warn of what the model's training has warned of, as far as it shows in what the model makes."""
    told = {warning.code for warning in job.warnings}
    for warning in job.queue.get(model_job).warnings:
        if warning.code in _LASTING_WARNINGS - told:
            job.warn(warning.code, f"The training of this model warned: {warning.message}")


def save_way(job: JobContext, vectors: np.ndarray, pictures: np.ndarray, steps: int) -> None:
    """Leave the pictures (n, h, w, channels) of a way: a row for each leg, and an animation there and back."""
    save_array(job, "latents.npy", vectors)
    # Legs share their ends; in the sheet each has both of its own.
    legs = [pictures[first : first + steps] for first in range(0, len(pictures) - 1, steps - 1)]
    job.save_image("result.png", picture_grid(np.concatenate(legs), steps, enlarged_px=STRIP_PX))
    frames = [picture_grid(picture[np.newaxis], 1, margin_px=0, enlarged_px=FRAME_PX) for picture in pictures]
    job.save_artifact("result.webp", animation([*frames, *frames[-2:0:-1]], frame_ms=100, last_ms=100))


def save_array(job: JobContext, name: str, array: np.ndarray) -> None:
    """Leave an array as a `.npy` file."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    job.save_artifact(name, buffer.getvalue())
