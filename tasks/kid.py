"""How far two sets of pictures are apart: kernel inception distance (Binkowski et al., 2018, arXiv 1801.01401)."""

from pathlib import Path

import numpy as np
import tensorflow as tf

from tasks.images import resize
from tasks.networks import pretrained

FEATURES = {"squeezenet": ("fire9", 64), "inception_v3": ("mixed10", 75)}
"""The layer whose channel means are a picture's features, and the least side that the network sees (px)."""
_BATCH = 50


class KidReference:
    """Real pictures' features, with which generated ones are compared.

    The features are scaled so that the real ones have a mean square of 1: the KID of other networks and
    sets is another number, that of one training compares from step to step.
    """

    def __init__(self, network: str, real: np.ndarray, *, weights_dir: Path) -> None:
        """Take the features of real pictures (n, height, width, 1 or 3) uint8.

        Raises:
            WeightsUnavailable: the network's weights are not to be had.
        """
        self.layer, self.least_side = FEATURES[network]
        self.network = pretrained.load(network, [self.layer], weights_dir=weights_dir)
        self.weights_sha256 = self.network.weights_sha256
        self.scale = 1.0
        unscaled = self.features(real)
        self.scale = 1 / max(float(np.sqrt(np.mean(unscaled**2))), 1e-12)
        self.real = unscaled * self.scale

    def features(self, pictures: np.ndarray) -> np.ndarray:
        """The features (n, channels) of pictures (n, height, width, 1 or 3) in 0..255, small ones enlarged."""
        batches = [pictures[first : first + _BATCH] for first in range(0, len(pictures), _BATCH)]
        return np.concatenate([self._features(batch) for batch in batches]) * self.scale

    def _features(self, pictures: np.ndarray) -> np.ndarray:
        side = max(self.least_side, pictures.shape[1])
        enlarged = np.stack([resize(picture, (side, side)) for picture in pictures])
        enlarged = np.broadcast_to(enlarged, (*enlarged.shape[:3], 3))
        activations = self.network.activations(tf.constant(enlarged))[self.layer]
        return tf.reduce_mean(activations, axis=(1, 2)).numpy().astype(np.float64)

    def distance(self, pictures: np.ndarray) -> float:
        """The KID of pictures (n, height, width, 1 or 3) in 0..255 from the real ones."""
        return kernel_distance(self.real, self.features(pictures))


def kernel_distance(first: np.ndarray, second: np.ndarray) -> float:
    """The unbiased squared maximum mean discrepancy of features (n, d) and (m, d), kernel (x.y / d + 1)^3.

    Unbiased for any number of pictures from two on, so that it may fall a little below 0.
    """
    within = [_mean_of_pairs(features) for features in (first, second)]
    return float(sum(within) - 2 * _kernel(first, second).mean())


def _mean_of_pairs(features: np.ndarray) -> float:
    kernel = _kernel(features, features)
    count = len(features)
    return float((kernel.sum() - np.trace(kernel)) / (count * (count - 1)))


def _kernel(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return (first @ second.T / first.shape[1] + 1) ** 3


def mean_pairwise_distance(pictures: np.ndarray) -> float:
    """How much pictures (n, ...) in 0..255 differ: the root mean square difference of two, averaged over all pairs."""
    flat = pictures.reshape(len(pictures), -1).astype(np.float64)
    squares = (flat**2).sum(axis=1)
    distances = np.maximum(squares[:, np.newaxis] + squares - 2 * flat @ flat.T, 0) / flat.shape[1]
    return float(np.sqrt(distances).sum() / (len(flat) * (len(flat) - 1)))
