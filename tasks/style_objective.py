"""The objective of style transfer at one size of the picture: loss and gradient, in one piece or exactly in tiles.

What does not change while a picture is painted (the style images' Gram matrices, the content's features) is
computed once.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from shared.kinds.style_sizes import Shape
from tasks.images import nearest
from tasks.style_functions import Fixed, Functions, Tensor
from tasks.style_tiles import Tile, cut
from tasks.style_weights import Weights


class Losses(NamedTuple):
    """The three terms of the loss, each times its weight."""

    content: float
    style: float
    variation: float

    @property
    def total(self) -> float:
        return self.content + self.style + self.variation


@dataclass(frozen=True, eq=False)
class Objective:
    """Loss and gradient of a painting of one size."""

    functions: "Functions"
    fixed: Fixed
    tiles: list[Tile]
    jit: bool
    on_tile: Callable[[], None]
    """Called after each tile: what is to be done once in a while, though an evaluation may take minutes."""

    def __call__(self, picture: np.ndarray) -> tuple[Losses, np.ndarray]:
        """(height, width, 3) in 0..255 -> losses, gradient (height, width, 3) float32."""
        if len(self.tiles) == 1:
            whole = self.functions.whole_xla if self.jit else self.functions.whole
            losses, gradient = whole(picture, self.fixed)
        else:
            losses, gradient = self._tiled(picture)
        return Losses(*(float(loss) for loss in losses)), np.asarray(gradient)

    def _tiled(self, picture: np.ndarray) -> tuple[Tensor, Tensor]:
        """Two passes: the Gram matrices of all tiles are summed, then each tile is told what to change for them."""
        functions, fixed = self.functions, self.fixed
        grams: list[Tensor] | None = None
        for tile in self.tiles:
            more, _ = functions.grams(picture[tile.seen], functions.boxes(tile), self._masks(tile))
            self.on_tile()
            grams = more if grams is None else [gram + part for gram, part in zip(grams, more, strict=True)]
        style, gram_gradients = functions.style(grams, fixed)
        variation, gradient = functions.variation(picture, fixed.weights)
        gradient, content = gradient.numpy(), 0.0
        for tile in self.tiles:
            target = fixed.content[tile.features(functions.content)]
            part, tile_gradient = functions.tile(
                picture[tile.seen],
                functions.boxes(tile),
                self._masks(tile),
                gram_gradients,
                target,
                fixed.weights,
            )
            content += part
            gradient[tile.seen] += tile_gradient.numpy()
            self.on_tile()
        return (content, style, variation), gradient

    def _masks(self, tile: Tile) -> list[Tensor]:
        masks = self.fixed.masks
        layers = self.functions.style_layers[: len(masks)]  # without masks there are none
        return [mask[:, *tile.features(layer)] for layer, mask in zip(layers, masks, strict=True)]


def build_objective(
    functions: Functions,
    *,
    content: np.ndarray,
    styles: Sequence[np.ndarray],
    masks: Sequence[np.ndarray] | None,
    weights: Weights,
    tile_px: Callable[[Shape], int | None],
    halo_px: int,
    jit: bool,
    on_tile: Callable[[], None] = lambda: None,
) -> Objective:
    """The objective for a painting of the content's size.

    Args:
        content: (height, width, 3) in 0..255.
        styles: such pictures, of any size.
        masks: (height, width) in 0..1 each, or None.
        tile_px: the tiles' side for a picture of some shape, or None for one piece.
        on_tile: called after each tile, here and in each evaluation; what it raises passes through.
    """
    height, width = _shape(content)
    side_px = tile_px((height, width))
    look = _Look(functions, halo_px, on_tile)
    per_style = [look.grams(style, tile_px(_shape(style))) for style in styles]
    layer_masks = [
        np.stack([nearest(mask, (layer.side(height), layer.side(width))) for mask in masks or []])
        for layer in (functions.style_layers if masks else [])
    ]
    positions = functions.positions((height, width))
    # A mask weighs features, so that it enters a Gram matrix twice.
    counted = (
        np.array([np.square(mask).sum(axis=(1, 2)) for mask in layer_masks]) if masks else positions[:, None]
    )
    covered = counted / positions[:, None]
    style_weights = np.array(weights.layers)[:, None] * np.array(weights.shares)[None] * covered
    fixed = Fixed(
        style_grams=[tf.stack(layer) for layer in zip(*per_style, strict=True)],
        style_positions=_constant(
            np.stack([functions.positions(style.shape[:2]) for style in styles], axis=1)
        ),
        content=look.features(content, side_px),
        masks=[_constant(mask) for mask in layer_masks],
        positions=_constant(positions),
        counted=_constant(np.maximum(counted, 1e-6)),  # a mask may leave nothing of a small layer
        style_weights=_constant(style_weights),
        weights=_constant([weights.content, weights.style, weights.variation]),
        pixels=_constant(height * width),
    )
    return Objective(functions, fixed, cut((height, width), side_px=side_px, halo_px=halo_px), jit, on_tile)


@dataclass(frozen=True)
class _Look:
    """What is seen once of the pictures that stay as they are, tile by tile where they are large."""

    functions: Functions
    halo_px: int
    on_tile: Callable[[], None]

    def grams(self, style: np.ndarray, tile_px: int | None) -> list[Tensor]:
        """A style image's Gram matrix of each style layer: (C, C)."""
        total: list[Tensor] | None = None
        for _, grams, _ in self._tiles(style, tile_px):
            total = grams if total is None else [gram + more for gram, more in zip(total, grams, strict=True)]
        return [gram[0] for gram in total or []]

    def features(self, content: np.ndarray, tile_px: int | None) -> Tensor:
        """The content image's features."""
        height, width = content.shape[:2]
        layer = self.functions.content
        features = np.empty((layer.side(height), layer.side(width), layer.channels), np.float32)
        for tile, _, part in self._tiles(content, tile_px):
            features[tile.features(layer)] = part
        return tf.constant(features)

    def _tiles(self, image: np.ndarray, tile_px: int | None) -> Iterator[tuple[Tile, list[Tensor], Tensor]]:
        for tile in cut(_shape(image), side_px=tile_px, halo_px=self.halo_px):
            grams, features = self.functions.features(
                tf.constant(image[tile.seen]), self.functions.boxes(tile), []
            )
            yield tile, grams, features
            self.on_tile()


def _shape(image: np.ndarray) -> Shape:
    return image.shape[0], image.shape[1]


def _constant(value: Any) -> Tensor:
    with np.errstate(over="ignore"):  # a weight beyond float32 is infinite, and the loss with it
        return tf.constant(np.asarray(value, np.float32))
