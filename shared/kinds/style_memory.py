"""The memory of a style transfer: what it will need, and what is done in pieces so that it needs no more."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from shared.errors import InvalidInput
from shared.kinds.style_sizes import SHORTEST_PX, Shape, Sizes
from shared.networks import RUNTIME_BYTES, Network

if TYPE_CHECKING:
    from shared.kinds.style_transfer import StyleTransferParams

WHOLE_BYTES = 4 * 2**30
"""What a gradient may need in one piece (bytes); a picture that needs more is worked on in tiles."""
CORRECTIONS = (5, 20)
"""The fewest and the most pairs of steps that L-BFGS remembers; the most for all but very large pictures."""
OPTIMISER_BYTES = 2**30
"""What the memory of L-BFGS may take (bytes) before it remembers fewer pairs."""
TRACE_BYTES = 2**28
"""What the gradients since L-BFGS started its memory may take in a checkpoint (bytes); then it starts it anew."""
LEAST_TRACE = 60
"""Where not even so many gradients find room in that (above 704 x 529 px), none are kept: to start anew every few
iterations costs more than to do so after an interruption. (Of SqueezeNet's loss at 96 px 13% every 14 and 42% every 5;
to a loss of VGG16's at 96 px, 175 evaluations every 60 and 146 without.)"""
TRACE_COPIES = 4
"""They lie in memory one by one and, as a checkpoint is written, as one array and twice as a file's bytes."""
RESTART_ITERATIONS = 10
"""How many more iterations a size gets for each interruption that cost L-BFGS its memory: with SqueezeNet and two pairs
of pictures of 128 px five brought the loss within 0.6% of the unbroken one's, wherever in 60 iterations that was."""
COMPILER_BYTES = 350 * 2**20
"""What XLA takes while it compiles the gradient (SqueezeNet and VGG16 on a CPU; measured at two sizes)."""
MASKED_COPIES = 2
"""A style layer's features times a mask, and their gradient."""
PICTURE_BYTES_PER_PIXEL = 60 * 3 * 4
"""Content, masks and the optimiser's vectors beside its memory, as so many (height, width, 3) float32."""
STYLE_BYTES_PER_PIXEL = 2 * 3 * 4
"""A style image at the size at which it is looked at, and the tensor made of it."""
UPLOAD_BYTES_PER_PIXEL = 4
"""A picture as it was uploaded: (height, width, 3) uint8, or a mask as (height, width) float32."""
RESIZING_BYTES_PER_PIXEL = 4 * 4
"""What an upload needs more while it is resized: (height, width, 3) float32 and one channel of it."""


class Uploads(NamedTuple):
    """What the memory forecast asks of the uploaded pictures: their sizes."""

    content: Shape
    styles: list[Shape]
    others: list[Shape]
    """Masks and `init_image`."""

    @property
    def bytes(self) -> int:
        """What they take while the largest of them is resized (bytes)."""
        pixels = [height * width for height, width in (self.content, *self.styles, *self.others)]
        return UPLOAD_BYTES_PER_PIXEL * sum(pixels) + RESIZING_BYTES_PER_PIXEL * max(pixels)


@dataclass(frozen=True, kw_only=True)
class Memory:
    """What decides how much memory a job needs, beside its sizes."""

    network: Network
    layers: tuple[str, ...]
    """All that count, in the network's order."""
    style_layers: tuple[str, ...]
    content_layer: str
    masks: int
    """How many there are; 0: none."""
    tile_px: int
    """Side of the tiles as it was asked for (px); 0: decided from the size."""

    @property
    def halo_px(self) -> int:
        """How far around a tile the network must see (px)."""
        return self.network.reach_px(self.layers)

    def tile_side_px(self, shape: Shape) -> int | None:
        """Side of the tiles for a picture of this shape (px), a multiple of the network's stride; None: in one piece.

        Left to itself it does not depend on the machine, so that a job gives the same picture on each.
        """
        stride_px = max(self.network.layers[name].stride_px for name in self.layers)
        side_px = self.tile_px
        if not side_px:
            pixels = WHOLE_BYTES / self._gradient_bytes(1)
            if shape[0] * shape[1] <= pixels:
                return None
            side_px = math.isqrt(int(pixels)) - 2 * self.halo_px
        side_px = max(stride_px, side_px // stride_px * stride_px)
        return None if side_px >= max(shape) else side_px

    def corrections(self, shape: Shape) -> int:
        """How many pairs L-BFGS remembers for a picture of this shape."""
        fewest, most = CORRECTIONS
        pair_bytes = 2 * 3 * 8 * shape[0] * shape[1]
        return min(most, max(fewest, OPTIMISER_BYTES // pair_bytes))

    def run_iterations(self, shape: Shape, planned: int) -> int:
        """After how many iterations L-BFGS starts its memory anew, of so many that are planned."""
        return min(planned, TRACE_BYTES // gradient_bytes(shape)) if self.keeps_trace(shape) else planned

    def keeps_trace(self, shape: Shape) -> bool:
        """Whether a checkpoint has all gradients since L-BFGS started its memory, with which a resumed job equals an
        unbroken one. Of a larger picture it starts its memory anew only where a job was interrupted."""
        return LEAST_TRACE * gradient_bytes(shape) <= TRACE_BYTES

    def forecast_bytes(self, uploads: Uploads, sizes: Sizes, iterations: Callable[[int], list[int]]) -> int:
        """Peak memory that the job needs on its device (bytes).

        Args:
            iterations: how many each of so many scales gets.
        """
        result = sizes.result_shape(uploads.content)
        styles = [sizes.style_shape(style, result) for style in uploads.styles]
        # A style image needs no gradient, and so less than this.
        gradient = max(self._piece_bytes(shape) for shape in (result, *styles))
        content_layer = self.network.layers[self.content_layer]
        scales = sizes.scale_shapes(result)
        traces = [
            self.run_iterations(shape, planned) * gradient_bytes(shape)
            for shape, planned in zip(scales, iterations(len(scales)), strict=True)
            if self.keeps_trace(shape)
        ]
        trace = TRACE_COPIES * max(traces, default=0)
        # Per pixel of the whole picture: the content's features, the optimiser's memory, and the pictures.
        per_pixel = (
            4 * content_layer.channels / content_layer.stride_px**2
            + 2 * 3 * 8 * self.corrections(result)
            + PICTURE_BYTES_PER_PIXEL
        )
        pictures = uploads.bytes + STYLE_BYTES_PER_PIXEL * sum(height * width for height, width in styles)
        fixed = RUNTIME_BYTES + COMPILER_BYTES + self.network.weights_bytes + pictures + trace
        return int(fixed + gradient + per_pixel * result[0] * result[1])

    def _piece_bytes(self, shape: Shape) -> float:
        """Peak memory of the network for a picture of this shape, whole or tile by tile (bytes)."""
        height, width = shape
        tile_px = self.tile_side_px(shape)
        if tile_px is not None:
            seen_px = tile_px + 2 * self.halo_px
            height, width = min(height, seen_px), min(width, seen_px)
        return self._gradient_bytes(height * width)

    def _gradient_bytes(self, pixels: int) -> float:
        """Peak memory of the gradient of a picture of so many pixels (bytes)."""
        layers = [self.network.layers[name] for name in self.style_layers]
        masked = sum(4 * layer.channels / layer.stride_px**2 for layer in layers) * pixels
        return self.network.gradient_bytes(self.layers, pixels) + MASKED_COPIES * self.masks * masked


def check_memory(params: "StyleTransferParams", uploads: Uploads, available: int | None) -> None:
    """Refuse a job that needs more memory than any worker has.

    Args:
        available: what the largest worker has (bytes); None: not known.

    Raises:
        InvalidInput: with the tiles or the size that would fit.
    """

    def needed(**changed: int) -> int:
        changed_params = params.model_copy(update=changed)
        return changed_params.forecast_of(uploads)

    if available is None or needed() <= available:
        return
    told = f"this job needs {_gibibytes(needed())}, the largest worker has {_gibibytes(available)}"
    for tile_px in range(1024, 127, -64):
        if needed(tile_px=tile_px) <= available:
            raise InvalidInput(f"tile_px: {told}; tile_px {tile_px} would fit", field="tile_px")
    longer_px = max(params.sizes.result_shape(uploads.content))
    for size_px in range(longer_px // 16 * 16, SHORTEST_PX - 1, -16):
        sizes = params.model_copy(update={"size_px": size_px}).sizes
        if sizes.fit_network(sizes.result_shape(uploads.content)) and needed(size_px=size_px) <= available:
            raise InvalidInput(f"size_px: {told}; size_px {size_px} would fit", field="size_px")
    raise InvalidInput(
        f"size_px: {told}, and no size of the result fits; upload smaller pictures, or fewer", field="size_px"
    )


def gradient_bytes(shape: Shape) -> int:
    """A picture's gradient as float32 (bytes)."""
    return 3 * 4 * shape[0] * shape[1]


def _gibibytes(size_bytes: float) -> str:
    return f"{size_bytes / 2**30:.1f} GiB"
