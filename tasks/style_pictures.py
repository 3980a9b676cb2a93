"""The pictures that a style transfer is given, and how they are brought to the size that is painted."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from shared.errors import InvalidInput
from shared.kinds.style_sizes import Shape, with_longer_side
from shared.kinds.style_transfer import StyleTransferParams
from shared.networks import Layer
from tasks.colors import luminance
from tasks.images import nearest, resize
from tasks.job_context import JobContext


@dataclass(frozen=True, kw_only=True)
class StylePictures:
    """The uploaded pictures, in their own sizes."""

    params: StyleTransferParams
    content: np.ndarray
    styles: list[np.ndarray]
    masks: list[np.ndarray] | None
    init: np.ndarray | None
    """What the painting starts from; None for noise."""

    @classmethod
    def load(cls, params: StyleTransferParams, job: JobContext) -> "StylePictures":
        content = job.load_image(params.content_image)
        styles = [job.load_image(upload) for upload in params.style_images]
        starts = {"content": lambda: content, "style": lambda: styles[0], "random": lambda: None}
        return cls(
            params=params,
            content=content,
            styles=styles,
            masks=[_mask(job, upload) for upload in params.masks] if params.masks else None,
            init=job.load_image(params.init_image) if params.init_image else starts[params.init](),
        )

    def start(self, shape: Shape) -> np.ndarray:
        """What the painting starts from, at this size: (height, width, 3) float32."""
        if self.init is None:
            noise = np.random.default_rng(self.params.seed).normal(127.5, 25, (*shape, 3))
            return noise.astype(np.float32)
        return resize(_same_aspect(self.init, shape), shape)

    def check_masks(self, result: Shape, layers: Sequence[Layer]) -> None:
        """Refuse a mask that leaves nothing to paint, as it is seen at the result's size by the style layers.

        Raises:
            InvalidInput: with the mask's number.
        """
        cells = [(layer.side(result[0]), layer.side(result[1])) for layer in layers]
        for number, mask in enumerate(self.masks or [], 1):
            painted = nearest(mask, result)
            if not any(nearest(painted, shape).any() for shape in cells):
                raise InvalidInput(
                    f"masks: number {number} leaves nothing to paint at {result[1]}x{result[0]} px: it is black or "
                    "transparent all over, or its regions are too small; draw them larger, or take a larger size_px",
                    field="masks",
                )


def _mask(job: JobContext, upload: str) -> np.ndarray:
    """A region picture as (height, width) float32 in 0..1; what is transparent is not painted, as if black."""
    return luminance(job.load_image(upload, ground=0)) / 255


def _same_aspect(image: np.ndarray, shape: Shape) -> np.ndarray:
    """The middle of an image, as much of it as has the aspect ratio of `shape`; all of it if only rounding differs."""
    alike = with_longer_side((image.shape[0], image.shape[1]), max(shape))
    if max(abs(alike[0] - shape[0]), abs(alike[1] - shape[1])) <= 1:
        return image
    ratio = min(image.shape[0] / shape[0], image.shape[1] / shape[1])
    height, width = max(1, round(shape[0] * ratio)), max(1, round(shape[1] * ratio))
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return image[top : top + height, left : left + width]
