"""The losses of neural style transfer, as in Gatys, Ecker and Bethge (2015), arXiv 1508.06576.

All of them take and give float32 tensors, whatever precision the network computes in: a Gram matrix of
half floats overflows at 65504.
"""

from collections.abc import Callable
from typing import Any

from keras import ops

Tensor = Any

IMAGE_CHANNELS = 3


def gram_matrix(features: Tensor, mask: Tensor | None = None) -> Tensor:
    """Correlate the channels of one feature map: (height, width, channels) -> (channels, channels).

    The sum over all positions, as in the paper, not their mean: Gram matrices of the parts of a picture
    add up to the Gram matrix of the whole. Compare two pictures of different size only after
    `at_positions`.

    Args:
        mask: (height, width), 0 where a position does not count to 1 where it counts fully.
    """
    features = ops.cast(features, "float32")
    if mask is not None:
        features = features * mask[..., None]
    flat = ops.reshape(features, (-1, features.shape[-1]))  # (height * width, channels)
    return ops.matmul(ops.transpose(flat), flat)


def at_positions(gram: Tensor, positions: Tensor, wanted: Tensor) -> Tensor:
    """A Gram matrix of `positions` positions as it would be over `wanted` ones: (C, C) -> (C, C)."""
    return gram * (ops.cast(wanted, "float32") / ops.cast(positions, "float32"))


def style_loss_book(gram: Tensor, target: Tensor, *, pixels: Tensor, positions: Tensor) -> Tensor:
    """One layer's style loss in the constants of the Keras book: two (C, C) -> scalar.

    Sum of squared differences over 4 * 3^2 * pixels^2, with the picture's channels and pixels for every
    layer. Copies of the chapter's code are known that multiply the size by two instead of squaring it:
    at 400 x 400 pixels that is 80,000 times too much, and content and total variation vanish beside it.
    """
    del positions  # the paper's, not the book's
    return ops.sum(ops.square(gram - target)) / (4.0 * IMAGE_CHANNELS**2 * ops.square(_float(pixels)))


def style_loss_gatys(gram: Tensor, target: Tensor, *, pixels: Tensor, positions: Tensor) -> Tensor:
    """One layer's style loss as in the paper, equation 4: two (C, C) -> scalar.

    Sum of squared differences over 4 * N^2 * M^2, N the layer's channels and M its positions.
    """
    del pixels  # the book's, not the paper's
    channels = float(gram.shape[-1])
    return ops.sum(ops.square(gram - target)) / (4.0 * channels**2 * ops.square(_float(positions)))


def content_loss_book(features: Tensor, target: Tensor) -> Tensor:
    """Sum of squared differences of two (height, width, channels) -> scalar, as in the Keras book."""
    return ops.sum(ops.square(_float(features) - _float(target)))


def content_loss_gatys(features: Tensor, target: Tensor) -> Tensor:
    """Half the sum of squared differences of two (height, width, channels) -> scalar; equation 1."""
    return 0.5 * content_loss_book(features, target)


def total_variation_loss(picture: Tensor) -> Tensor:
    """How much neighbouring pixels differ, as in the Keras book: (height, width, 3) -> scalar.

    Sum of (down^2 + right^2)^1.25 over all pixels but the last row and column, so that it equals that of
    the transposed picture. 1.25 is half the exponent 2.5 of Mahendran and Vedaldi (2015): more than the
    first power, so that the gradient is finite where neighbours are equal.
    """
    picture = _float(picture)
    down = picture[1:, :-1] - picture[:-1, :-1]
    right = picture[:-1, 1:] - picture[:-1, :-1]
    return ops.sum(ops.power(ops.square(down) + ops.square(right), 1.25))


STYLE_LOSSES: dict[str, Callable[..., Tensor]] = {"book": style_loss_book, "gatys": style_loss_gatys}
CONTENT_LOSSES: dict[str, Callable[..., Tensor]] = {"book": content_loss_book, "gatys": content_loss_gatys}


def _float(value: Tensor) -> Tensor:
    return ops.cast(value, "float32")
