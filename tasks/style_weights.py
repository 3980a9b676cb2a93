"""How much each term of the style loss counts at one size of the picture.

A job's weights are those for a picture of 400 x 600 px, the book's. The style loss doesn't depend on the size of the
picture, while content and variation are sums over it: these two are weighted by the ratio of pixels. What departs from
the book:

- Each network has factors of its own for content and style (`STYLE_DEFAULTS`), the VGG networks too.
- At the coarser scales the content counts as many times more as the result has more pixels: there the layout is
  decided, and the style alone would make another one.
"""

from dataclasses import dataclass

from shared.kinds.style_sizes import Shape
from shared.kinds.style_transfer import STYLE_DEFAULTS, StyleTransferParams

BOOK_PIXELS = 400 * 600
"""The size of picture at which the weights are the book's."""


@dataclass(frozen=True, kw_only=True)
class Weights:
    """The weights of the loss's terms at one size of the picture."""

    content: float
    style: float
    variation: float
    layers: tuple[float, ...]
    """Each style layer's, in the order of the network."""
    shares: tuple[float, ...]
    """Each style image's; they add up to 1."""


def scale_weights(params: StyleTransferParams, shape: Shape, result: Shape) -> Weights:
    """The weights for a picture of this size, on the way to one of the size `result`."""
    own = STYLE_DEFAULTS[params.network]
    pixels = shape[0] * shape[1]
    per_pixel = BOOK_PIXELS / pixels
    coarseness = result[0] * result[1] / pixels
    of_pooling = own.average_pooling_factor if params.pooling == "average" else 1.0
    layers = params.used_style_layers
    return Weights(
        content=params.content_weight * own.content_factor * of_pooling * per_pixel * coarseness,
        style=params.style_weight * own.style_factor[params.normalisation] / len(layers),
        variation=params.tv_weight * per_pixel,
        layers=tuple(params.style_layers[name] for name in layers),
        shares=tuple(params.style_shares),
    )
