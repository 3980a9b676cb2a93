"""The objective of style transfer at one size of the picture: loss and gradient, in one piece or exactly in tiles.

    loss = content_weight * content + style_weight / layers * sum over layers of style + tv_weight * variation

What does not change while a picture is painted (the style images' Gram matrices, the content's features) is
computed once. The compiled functions take it as arguments, so that they are kept for the next job.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from shared.kinds.style_transfer import Shape
from shared.networks import NETWORKS, Layer
from tasks.networks.pretrained import PretrainedNetwork
from tasks.style_losses import (
    CONTENT_LOSSES,
    STYLE_LOSSES,
    at_positions,
    gram_matrix,
    total_variation_loss,
)
from tasks.style_tiles import Tile, cut

Tensor = Any


class Losses(NamedTuple):
    """The three terms of the loss, each times its weight."""

    content: float
    style: float
    variation: float

    @property
    def total(self) -> float:
        return self.content + self.style + self.variation


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


class Fixed(NamedTuple):
    """What does not change while one picture is painted, as tensors. S styles; K = S with masks, else 1."""

    style_grams: list[Tensor]
    """Per style layer (S, C, C): the style images' Gram matrices."""
    style_positions: Tensor
    """(style layers, S): the style images' positions."""
    content: Tensor
    """(height, width, C): the content image's features."""
    masks: list[Tensor]
    """Per style layer (S, height, width); empty without masks."""
    positions: Tensor
    """(style layers,): the painting's positions."""
    counted: Tensor
    """(style layers, K): how many of them each mask counts."""
    style_weights: Tensor
    """(style layers, S): layer weight * share * the part of the picture that the mask leaves."""
    weights: Tensor
    """(3,): of content, style and variation."""
    pixels: Tensor


@dataclass(frozen=True, eq=False)
class Objective:
    """Loss and gradient of a painting of one size."""

    functions: "Functions"
    fixed: Fixed
    tiles: list[Tile]
    jit: bool

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
            more, _ = functions.grams(picture[tile.seen], self._boxes(tile), self._masks(tile))
            grams = more if grams is None else [gram + part for gram, part in zip(grams, more, strict=True)]
        style, gram_gradients = functions.style(grams, fixed)
        variation, gradient = functions.variation(picture, fixed.weights)
        gradient, content = gradient.numpy(), 0.0
        for tile in self.tiles:
            target = fixed.content[tile.features(functions.content)]
            part, tile_gradient = functions.tile(
                picture[tile.seen],
                self._boxes(tile),
                self._masks(tile),
                gram_gradients,
                target,
                fixed.weights,
            )
            content += part
            gradient[tile.seen] += tile_gradient.numpy()
        return (content, style, variation), gradient

    def _boxes(self, tile: Tile) -> Tensor:
        return self.functions.boxes(tile)

    def _masks(self, tile: Tile) -> list[Tensor]:
        layers = self.functions.style_layers
        return [mask[:, *tile.features(layer)] for layer, mask in zip(layers, self.fixed.masks, strict=False)]


class Functions:
    """The compiled functions for one network, choice of layers and normalisation; any size of picture.

    Style layers are in the network's order, so that the same choice gives the same sums.
    """

    def __init__(
        self,
        network: PretrainedNetwork,
        content_layer: str,
        style_layers: tuple[str, ...],
        normalisation: str,
        styles: int,
        masked: bool,
    ) -> None:
        known = NETWORKS[network.name].layers
        self.network = network
        self.content: Layer = known[content_layer]
        self.style_layers: list[Layer] = [known[name] for name in style_layers]
        self.content_loss = CONTENT_LOSSES[normalisation]
        self.style_loss = STYLE_LOSSES[normalisation]
        self.masked = masked
        # One trace for all sizes; XLA compiles each size anew.
        channels = [layer.channels for layer in self.style_layers]
        counted = styles if masked else 1
        self._picture = _spec(None, None, 3)
        self._masks = [_spec(styles, None, None) for _ in channels] if masked else []
        self._grams = [_spec(counted, count, count) for count in channels]
        self._boxes = tf.TensorSpec([len(channels) + 1, 4], tf.int32)
        self._content = _spec(None, None, self.content.channels)
        self._fixed = Fixed(
            style_grams=[_spec(styles, count, count) for count in channels],
            style_positions=_spec(len(channels), styles),
            content=self._content,
            masks=self._masks,
            positions=_spec(len(channels)),
            counted=_spec(len(channels), counted),
            style_weights=_spec(len(channels), styles),
            weights=_spec(3),
            pixels=_spec(),
        )

    def positions(self, shape: tuple[int, int]) -> np.ndarray:
        """How many positions each style layer has in a picture of this shape."""
        return np.array([layer.side(shape[0]) * layer.side(shape[1]) for layer in self.style_layers])

    def boxes(self, tile: Tile) -> Tensor:
        """The cells that a tile answers for: (style layers + 1, 4) int32, the content layer last."""
        return tf.constant(tile.boxes([*self.style_layers, self.content]), tf.int32)

    @cached_property
    def whole(self) -> Any:
        """Loss and gradient of a picture in one piece: picture, Fixed -> (3,), (height, width, 3)."""
        return tf.function(self._whole, input_signature=[self._picture, self._fixed])

    @cached_property
    def whole_xla(self) -> Any:
        """The same through XLA: about a fifth faster, but seconds of compilation for each size."""
        whole = partial(self._whole, network=self.network.written_for_xla)
        return tf.function(whole, input_signature=[self._picture, self._fixed], jit_compile=True)

    @cached_property
    def features(self) -> Any:
        """The content layer's features of the cells in the boxes, and their Gram matrices without masks."""
        return tf.function(self._features, input_signature=[self._picture, self._boxes, []])

    @cached_property
    def grams(self) -> Any:
        """The same with the painting's masks."""
        return tf.function(self._features, input_signature=[self._picture, self._boxes, self._masks])

    @cached_property
    def style(self) -> Any:
        """The weighted style loss from the whole picture's Gram matrices, and its gradient by them."""
        return tf.function(self._style_and_gradients, input_signature=[self._grams, self._fixed])

    @cached_property
    def tile(self) -> Any:
        """A tile's part of the content loss, and of the gradient of content and style."""
        signature = [self._picture, self._boxes, self._masks, self._grams, self._content, _spec(3)]
        return tf.function(self._tile, input_signature=signature)

    @cached_property
    def variation(self) -> Any:
        """The weighted total variation loss, and its gradient."""
        return tf.function(self._variation, input_signature=[self._picture, _spec(3)])

    def _whole(
        self, picture: Tensor, fixed: Fixed, network: PretrainedNetwork | None = None
    ) -> tuple[Tensor, Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(picture)
            seen = self._seen(picture, network)
            grams = self._gram_matrices([seen[layer.name] for layer in self.style_layers], fixed.masks)
            content = fixed.weights[0] * self.content_loss(seen[self.content.name], fixed.content)
            variation = fixed.weights[2] * total_variation_loss(picture)
            losses = tf.stack([content, self._style(grams, fixed), variation])
            loss = tf.reduce_sum(losses)
        return losses, tape.gradient(loss, picture)

    def _seen(self, picture: Tensor, network: PretrainedNetwork | None = None) -> dict[str, Tensor]:
        """Each layer's features: (height, width, channels)."""
        activations = (network or self.network).activations(tf.cast(picture, tf.float32)[None])
        return {name: features[0] for name, features in activations.items()}

    def _gram_matrices(self, features: Sequence[Tensor], masks: Sequence[Tensor]) -> list[Tensor]:
        """Per layer (K, C, C)."""
        if not masks:
            return [gram_matrix(layer)[None] for layer in features]
        return [
            tf.stack([gram_matrix(layer, mask) for mask in tf.unstack(of_layer)])
            for layer, of_layer in zip(features, masks, strict=True)
        ]

    def _style(self, grams: Sequence[Tensor], fixed: Fixed) -> Tensor:
        """Each Gram matrix is brought to the painting's number of positions, so that all sizes compare."""
        loss = tf.constant(0.0)
        for layer, (gram, targets) in enumerate(zip(grams, fixed.style_grams, strict=True)):
            positions = fixed.positions[layer]
            for style, target in enumerate(tf.unstack(targets)):
                of_style = style if self.masked else 0
                painted = at_positions(gram[of_style], fixed.counted[layer, of_style], positions)
                wanted = at_positions(target, fixed.style_positions[layer, style], positions)
                term = self.style_loss(painted, wanted, pixels=fixed.pixels, positions=positions)
                loss += fixed.style_weights[layer, style] * term
        return fixed.weights[1] * loss

    def _features(self, picture: Tensor, boxes: Tensor, masks: list[Tensor]) -> tuple[list[Tensor], Tensor]:
        *style, content = self._cut(picture, boxes)
        return self._gram_matrices(style, masks), content

    def _cut(self, picture: Tensor, boxes: Tensor) -> list[Tensor]:
        seen, cut_out = self._seen(picture), []
        for number, layer in enumerate([*self.style_layers, self.content]):
            top, bottom, left, right = tf.unstack(boxes[number])
            cut_out.append(seen[layer.name][top:bottom, left:right])
        return cut_out

    def _style_and_gradients(self, grams: list[Tensor], fixed: Fixed) -> tuple[Tensor, list[Tensor]]:
        with tf.GradientTape() as tape:
            tape.watch(grams)
            loss = self._style(grams, fixed)
        return loss, tape.gradient(loss, grams)

    def _tile(
        self,
        picture: Tensor,
        boxes: Tensor,
        masks: list[Tensor],
        gram_gradients: list[Tensor],
        target: Tensor,
        weights: Tensor,
    ) -> tuple[Tensor, Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(picture)
            *style, features = self._cut(picture, boxes)
            content = weights[0] * self.content_loss(features, target)
            # By the chain rule this has the gradient of the style loss: the Gram matrices of the whole picture
            # are sums over tiles, and the loss's gradient by them is known from the first pass.
            grams = self._gram_matrices(style, masks)
            pulled = sum(
                tf.reduce_sum(gradient * gram) for gradient, gram in zip(gram_gradients, grams, strict=True)
            )
            loss = content + pulled
        return content, tape.gradient(loss, picture)

    def _variation(self, picture: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(picture)
            loss = weights[2] * total_variation_loss(picture)
        return loss, tape.gradient(loss, picture)


@lru_cache(maxsize=8)
def functions_for(
    network: PretrainedNetwork,
    content_layer: str,
    style_layers: tuple[str, ...],
    normalisation: str,
    styles: int,
    masked: bool,
) -> Functions:
    """The functions for this choice, compiled once in a process."""
    return Functions(network, content_layer, style_layers, normalisation, styles, masked)


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
) -> Objective:
    """The objective for a painting of the content's size.

    Args:
        content: (height, width, 3) in 0..255.
        styles: such pictures, of any size.
        masks: (height, width) in 0..1 each, or None.
        tile_px: the tiles' side for a picture of some shape, or None for one piece.
    """
    height, width = _shape(content)
    side_px = tile_px((height, width))
    per_style = [_style_grams(functions, style, tile_px(_shape(style)), halo_px) for style in styles]
    layer_masks = [
        np.stack([_nearest(mask, (layer.side(height), layer.side(width))) for mask in masks or []])
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
        content=_content_features(functions, content, side_px, halo_px),
        masks=[_constant(mask) for mask in layer_masks],
        positions=_constant(positions),
        counted=_constant(np.maximum(counted, 1e-6)),  # a mask may leave nothing of a small layer
        style_weights=_constant(style_weights),
        weights=_constant([weights.content, weights.style, weights.variation]),
        pixels=_constant(height * width),
    )
    return Objective(functions, fixed, cut((height, width), side_px=side_px, halo_px=halo_px), jit)


def _style_grams(functions: Functions, style: np.ndarray, tile_px: int | None, halo_px: int) -> list[Tensor]:
    """A style image's Gram matrix of each style layer: (C, C)."""
    total: list[Tensor] | None = None
    for tile in cut(style.shape[:2], side_px=tile_px, halo_px=halo_px):
        grams, _ = functions.features(tf.constant(style[tile.seen]), functions.boxes(tile), [])
        total = grams if total is None else [gram + more for gram, more in zip(total, grams, strict=True)]
    return [gram[0] for gram in total or []]


def _content_features(functions: Functions, content: np.ndarray, tile_px: int | None, halo_px: int) -> Tensor:
    height, width = content.shape[:2]
    layer = functions.content
    features = np.empty((layer.side(height), layer.side(width), layer.channels), np.float32)
    for tile in cut((height, width), side_px=tile_px, halo_px=halo_px):
        _, part = functions.features(tf.constant(content[tile.seen]), functions.boxes(tile), [])
        features[tile.features(layer)] = part
    return tf.constant(features)


def _shape(image: np.ndarray) -> Shape:
    return image.shape[0], image.shape[1]


def _nearest(mask: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A mask at a layer's shape, by the nearest pixel: (height, width) -> `shape`."""
    rows, columns = (
        np.minimum((np.arange(cells) + 0.5) * side / cells, side - 1).astype(int)
        for cells, side in zip(shape, mask.shape, strict=True)
    )
    return mask[np.ix_(rows, columns)]


def _spec(*shape: int | None) -> tf.TensorSpec:
    return tf.TensorSpec(shape, tf.float32)


def _constant(value: Any) -> Tensor:
    with np.errstate(over="ignore"):  # a weight beyond float32 is infinite, and the loss with it
        return tf.constant(np.asarray(value, np.float32))
