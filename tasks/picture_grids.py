"""Pictures of pictures: generated ones side by side, large enough to be seen."""

from collections.abc import Sequence
from io import BytesIO

import numpy as np
from PIL import Image

from tasks.images import contact_sheet, to_uint8

STRIP_PX, FRAME_PX = 64, 128
"""To how many pixels small pictures are enlarged in strips, where each is looked at, and when shown alone."""


def picture_grid(
    pictures: np.ndarray, columns: int, *, margin_px: int = 2, enlarged_px: int = 32
) -> np.ndarray:
    """Lay pictures (n, height, width, 1 or 3) in 0..255 out in rows; small ones are enlarged by whole pixels."""
    factor = max(1, enlarged_px // min(pictures.shape[1:3]))
    enlarged = pictures.repeat(factor, axis=1).repeat(factor, axis=2)
    return contact_sheet(to_uint8(enlarged), columns, margin_px=margin_px)


def animation(frames: Sequence[np.ndarray], *, frame_ms: int = 250, last_ms: int = 2000) -> bytes:
    """Play images (height, width[, 1 or 3]) uint8 of one size one after another, for ever, as a lossless WebP."""
    shown = [
        Image.fromarray(frame[..., 0] if frame.shape[2:] == (1,) else frame).convert("RGB")
        for frame in frames
    ]
    file = BytesIO()
    durations = [frame_ms] * (len(shown) - 1) + [last_ms]
    shown[0].save(
        file,
        "WEBP",
        save_all=True,
        append_images=shown[1:],
        duration=durations,
        loop=0,
        lossless=True,
        method=4,
    )
    return file.getvalue()
