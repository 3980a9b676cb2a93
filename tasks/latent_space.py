"""Ways through a latent space with a standard normal prior: grids, lines, arcs, planes."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
from scipy.stats import norm

Way = Callable[[np.ndarray, np.ndarray, int], np.ndarray]
"""From one latent vector (d,) to another in so many steps (steps, d)."""

LEAST_VARIANCE = 0.1
"""A direction in which latent means vary less than this, the prior varying by 1, is not used."""


def gaussian_quantiles(count: int) -> np.ndarray:
    """Points of a standard normal with equal probability between neighbours, from its 5% to its 95% quantile."""
    return norm.ppf(np.linspace(0.05, 0.95, count)) if count > 1 else np.zeros(1)


def latent_grid(side: int, plane: np.ndarray) -> np.ndarray:
    """Latent vectors that cover the prior's mass, row by row as they are shown.

    For one dimension a strip of `side` vectors, growing to the right. For more, `side` x `side` vectors on the
    plane through 0 that two orthonormal vectors span (2, d): the first one's coordinate grows to the right, the second
    one's upwards.
    """
    quantiles = gaussian_quantiles(side)
    if plane.shape == (1, 1):
        return quantiles[:, np.newaxis]
    across, up = np.meshgrid(quantiles, quantiles[::-1])
    return np.stack([across.ravel(), up.ravel()], axis=1) @ plane


def principal_plane(means: np.ndarray) -> np.ndarray:
    """The plane in which latent means (n, d) differ most, as two orthonormal vectors (2, d).

    Two dimensions are the plane already, and stay as they are; one gives (1, 1). The prior looks the same in every
    direction, so that quantiles of the normal cover this plane as they cover the axes. Each vector's largest part is
    positive, so that the plane does not flip from epoch to epoch.
    """
    dimensions = means.shape[1]
    if dimensions <= 2:
        return np.eye(dimensions)
    centred = means - means.mean(axis=0)
    _, directions = np.linalg.eigh(centred.T.astype(np.float64) @ centred)
    plane = directions[:, [-1, -2]].T
    return plane * np.sign(plane[[0, 1], np.abs(plane).argmax(axis=1)])[:, np.newaxis]


def used_dimensions(means: np.ndarray) -> int:
    """In how many directions latent means (n, d) vary by at least a tenth of the prior's variance, which is 1.

    A dimension whose mean hardly varies is not used (Burda et al., 2015, arXiv 1509.00519). Taken along the principal
    directions rather than the axes, so that two dimensions that say the same count once.
    """
    variances = np.linalg.eigvalsh(np.cov(means, rowvar=False, bias=True).reshape(means.shape[1], -1))
    return int((variances > LEAST_VARIANCE).sum())


def straight_line(start: np.ndarray, end: np.ndarray, steps: int) -> np.ndarray:
    """`steps` vectors from `start` to `end`, both ends among them: (d,) twice -> (steps, d)."""
    share = np.linspace(0, 1, steps)[:, np.newaxis]
    return (1 - share) * start + share * end


def great_circle(start: np.ndarray, end: np.ndarray, steps: int) -> np.ndarray:
    """`steps` vectors from `start` to `end` along an arc (slerp; White, 2016, arXiv 1609.04468).

    Between two draws from a high-dimensional normal a straight line passes through vectors far shorter than any draw.
    """
    cosine = start @ end / max(np.linalg.norm(start) * np.linalg.norm(end), 1e-12)
    angle = np.arccos(np.clip(cosine, -1, 1))
    if np.sin(angle) < 1e-4:  # the same direction, or opposite ones, between which there is no one arc
        return straight_line(start, end, steps)
    share = np.linspace(0, 1, steps)[:, np.newaxis]
    return (np.sin((1 - share) * angle) * start + np.sin(share * angle) * end) / np.sin(angle)


def through(points: Sequence[np.ndarray], steps: int, way: Way) -> np.ndarray:
    """Join a way's vectors between each point and the next; a point between two ways counts once."""
    legs = [way(start, end, steps) for start, end in pairwise(points)]
    return np.concatenate([legs[0], *(leg[1:] for leg in legs[1:])])
