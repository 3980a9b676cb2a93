"""Brightness and colour apart from each other, as JPEG and television part them (ITU-R BT.601)."""

import numpy as np

from tasks.images import resize

LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)
"""The share of red, green and blue in a colour's luminance (ITU-R BT.601); they add up to 1."""


def luminance(image: np.ndarray) -> np.ndarray:
    """The luminance of an RGB image: (height, width, 3) -> (height, width), float32 in the image's units."""
    return np.asarray(image, np.float32) @ LUMINANCE


def keep_colors(result: np.ndarray, content: np.ndarray) -> np.ndarray:
    """Give an image the colours of another and keep its own luminance: (height, width, 3) float32 in 0..255.

    `content` is resized to the size of `result`. The chroma of a colour is what is left of it without its
    luminance (Cb and Cr say the same in two numbers, YCbCr being linear), so a grey content gives a grey image.
    Where luminance and chroma together would leave 0..255, the chroma is scaled down until they fit:
    clipping would change the luminance, and the hue with it.
    """
    brightness = np.clip(luminance(result), 0, 255)[..., np.newaxis]
    content = resize(content, result.shape[:2])
    chroma = content - luminance(content)[..., np.newaxis]
    room = np.where(chroma > 0, 255 - brightness, brightness)
    with np.errstate(divide="ignore", invalid="ignore"):
        fitting = np.where(chroma == 0, np.inf, room / np.abs(chroma)).min(axis=-1, keepdims=True)
    return brightness + np.minimum(fitting, 1) * chroma
