"""The sizes of a style transfer: of its result, of the coarser scales before it, of the style images beside it."""

import math
from bisect import bisect_left
from dataclasses import dataclass

from shared.errors import InvalidInput
from shared.networks import Layer

DEFAULT_SIZE_PX = 512
"""A larger content image is shrunk to this unless `size_px` says otherwise."""
SHORTEST_PX, LONGEST_PX = 32, 20_000
"""What the longer side of a result may be (px); no style image is enlarged beyond it either."""
ENOUGH_POSITIONS = 25
"""So many positions of the deepest layer are enough to tell a style by, whatever the size of the painting."""
COARSEST_PX = 64
"""The automatic scales end before the result's longer side is shorter than this."""

Shape = tuple[int, int]
"""Height and width (px)."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What a job says of sizes, and what its layers need."""

    size_px: int | None
    """The result's longer side; None: the content's own, up to `DEFAULT_SIZE_PX`."""
    scales: int
    """At how many sizes the picture is painted; 0: decided from the result's."""
    style_scale: float
    least_side_px: int
    """The shortest side that leaves a cell at every layer (px)."""
    layer: Layer
    """The deepest of the layers, which decides that."""

    def result_shape(self, content: Shape) -> Shape:
        """The result's shape: the content's aspect ratio at `size_px`."""
        return with_longer_side(content, self.size_px or min(max(content), DEFAULT_SIZE_PX))

    def scale_shapes(self, result: Shape) -> list[Shape]:
        """The picture's shape at each scale, coarsest first; the last is `result`."""
        scales = self.scales
        if not scales:
            fitting = min(max(result) / COARSEST_PX, min(result) / self.least_side_px)
            scales = 1 + int(math.log2(max(1.0, fitting)))
        return [halved(result, times) for times in reversed(range(scales))]

    def style_shape(self, style: Shape, painted: Shape) -> Shape:
        """The shape of a style image beside a picture of shape `painted`; never too small for the network.

        A Gram matrix of a few positions says next to nothing of a style, and what is painted after it is glaring: the
        deepest layer has at least half as many of the style image as of the painting, or `ENOUGH_POSITIONS`.
        """
        least_px = math.ceil(self.least_side_px * max(style) / min(style))
        size_px = max(round(max(painted) * self.style_scale), least_px)
        enough = min(ENOUGH_POSITIONS, self._positions(painted) // 2)
        larger = range(size_px, LONGEST_PX)
        further = bisect_left(larger, enough, key=lambda px: self._positions(with_longer_side(style, px)))
        return with_longer_side(style, size_px + further)

    def _positions(self, shape: Shape) -> int:
        return self.layer.side(shape[0]) * self.layer.side(shape[1])

    def fit_network(self, result: Shape) -> bool:
        """Whether the network sees something in a picture of this shape, at every scale."""
        return min(self.scale_shapes(result)[0]) >= self.least_side_px

    def check_scales(self, content: Shape) -> None:
        """Refuse a result of which the network sees nothing at one of the scales.

        Raises:
            InvalidInput: with the scales or the size that would do.
        """
        result = self.result_shape(content)
        if self.fit_network(result):
            return
        coarsest = self.scale_shapes(result)[0]
        fewer = [n for n in range(1, self.scales) if min(halved(result, n - 1)) >= self.least_side_px]
        if fewer:
            raise InvalidInput(
                f"scales: at {self.scales} scales the coarsest picture is {coarsest[1]}x{coarsest[0]} px, but "
                f"{self.layer.name} needs {self.least_side_px} px along each side; take at most {fewer[-1]}",
                field="scales",
            )
        told = (
            f"the result would be {result[1]}x{result[0]} px, but {self.layer.name} needs {self.least_side_px} px "
            "along each side"
        )
        at_scales = f", and at {self.scales} scales also of the coarsest" if self.scales > 1 else ""
        size_px = self._least_size_px(content)
        if size_px is None:
            ratio = LONGEST_PX // (self.least_side_px * 2 ** max(0, self.scales - 1))
            raise InvalidInput(
                f"content_image: {told}{at_scales}, which a picture so narrow does not reach at any size_px; crop it "
                f"to at most {ratio} times as long as it is wide",
                field="content_image",
            )
        raise InvalidInput(f"size_px: {told}{at_scales}; take at least size_px {size_px}", field="size_px")

    def _least_size_px(self, content: Shape) -> int | None:
        """The shortest longer side at which the network sees something at every scale (px); None where none does."""
        times = 2 ** max(0, self.scales - 1)
        # Rounding may leave a pixel less or more than the ratio says.
        about = math.floor((self.least_side_px - 1) * times * max(content) / min(content))
        sizes = range(max(SHORTEST_PX, about), LONGEST_PX + 1)
        return next((px for px in sizes if self.fit_network(with_longer_side(content, px))), None)

    def check_styles(self, content: Shape, styles: list[Shape]) -> None:
        """Refuse style images that would have to be enlarged without bounds.

        Raises:
            InvalidInput: with the scale that would do, or how to crop the picture.
        """
        painted = self.result_shape(content)
        for number, style in enumerate(styles, 1):
            if max(self.style_shape(style, painted)) <= LONGEST_PX:
                continue
            if max(painted) * self.style_scale > LONGEST_PX:
                raise InvalidInput(
                    f"style_scale: the style images would be {max(painted) * self.style_scale:,.0f} px long, more than "
                    f"{LONGEST_PX:,}; take at most {math.floor(100 * LONGEST_PX / max(painted)) / 100:g}",
                    field="style_scale",
                )
            raise InvalidInput(
                f"style_images: number {number} is {style[1]}x{style[0]} px, but {self.layer.name} needs "
                f"{self.least_side_px} px along each side, and a picture so narrow would be enlarged to more than "
                f"{LONGEST_PX:,} px; crop it to at most {LONGEST_PX // self.least_side_px} times as long as it is wide",
                field="style_images",
            )


def with_longer_side(shape: Shape, side_px: int) -> Shape:
    """This shape's aspect ratio, its longer side so long."""
    ratio = side_px / max(shape)
    return max(1, round(shape[0] * ratio)), max(1, round(shape[1] * ratio))


def halved(shape: Shape, times: int) -> Shape:
    """This shape at half its size, so many times."""
    return max(1, round(shape[0] / 2**times)), max(1, round(shape[1] / 2**times))
