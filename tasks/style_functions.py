"""What style transfer compiles: loss and gradient of a picture of any size, in one piece or tile by tile.

    loss = content_weight * content + style_weight / layers * sum over layers of style + tv_weight * variation

What does not change while a picture is painted is an argument, so that the functions are kept for the next job.
"""

from collections.abc import Sequence
from functools import cached_property, lru_cache, partial
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from shared.networks import NETWORKS, Layer
from tasks.networks.pretrained import PretrainedNetwork
from tasks.style_losses import (
    CONTENT_LOSSES,
    STYLE_LOSSES,
    at_positions,
    gram_matrix,
    total_variation_loss,
)
from tasks.style_tiles import Tile

Tensor = Any


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


functions_for = lru_cache(maxsize=8)(Functions)
"""The functions for a choice, compiled once in a process."""


def _spec(*shape: int | None) -> tf.TensorSpec:
    return tf.TensorSpec(shape, tf.float32)
