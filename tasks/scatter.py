"""A scatter plot of points by label, as an image."""

import colorsys
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_SIDE_PX, _MARGIN_PX, _LEGEND_PX, _DOT_PX = 720, 48, 150, 2
_MAX_NAMES = 30


def scatter(points: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Draw points (n, 2), each in its label's colour, with both axes in the same scale: an image (height, width, 3).

    Grey lines mark whole numbers; the labels' names stand to the right.
    """
    image = Image.new("RGB", (_SIDE_PX + _LEGEND_PX, _SIDE_PX), "white")
    draw = ImageDraw.Draw(image)
    reach = max(1.0, float(np.quantile(np.abs(points), 0.999)) * 1.05) if points.size else 1.0
    to_px = _SIDE_PX / 2 + points * [1, -1] * (_SIDE_PX / 2 - _MARGIN_PX) / reach
    _draw_axes(draw, reach)
    colors = label_colors(len(names))
    for (x, y), label in zip(to_px, labels, strict=True):
        if 0 <= x < _SIDE_PX and 0 <= y < _SIDE_PX:
            draw.ellipse((x - _DOT_PX, y - _DOT_PX, x + _DOT_PX, y + _DOT_PX), fill=colors[label])
    _draw_legend(draw, names, colors)
    return np.asarray(image)


def label_colors(count: int) -> list[tuple[int, int, int]]:
    """So many colours, evenly around the circle of hues, neighbours of different brightness."""
    hues = [(index / max(count, 1), 0.75, (0.9, 0.6)[index % 2]) for index in range(count)]
    return [tuple(round(255 * part) for part in colorsys.hsv_to_rgb(*hue)) for hue in hues]


def _draw_axes(draw: ImageDraw.ImageDraw, reach: float) -> None:
    scale = (_SIDE_PX / 2 - _MARGIN_PX) / reach
    spacing = max(1, round(reach / 5))
    font = ImageFont.load_default(14)
    for number in range(-int(reach) // spacing * spacing, int(reach) + 1, spacing):
        at = _SIDE_PX / 2 + number * scale
        shade = "#b0b0b0" if number == 0 else "#e4e4e4"
        draw.line((at, _MARGIN_PX, at, _SIDE_PX - _MARGIN_PX), fill=shade)
        draw.line((_MARGIN_PX, at, _SIDE_PX - _MARGIN_PX, at), fill=shade)
        draw.text((at, _SIDE_PX - _MARGIN_PX / 2), str(number), "black", font, "mm")
        draw.text((_MARGIN_PX / 2, _SIDE_PX - at), str(number), "black", font, "mm")


def _draw_legend(
    draw: ImageDraw.ImageDraw, names: Sequence[str], colors: Sequence[tuple[int, int, int]]
) -> None:
    font = ImageFont.load_default(15)
    for index, name in enumerate(names[:_MAX_NAMES]):
        top = _MARGIN_PX + index * 22
        draw.rectangle((_SIDE_PX, top, _SIDE_PX + 14, top + 14), fill=colors[index])
        draw.text((_SIDE_PX + 20, top), name if len(name) <= 16 else f"{name[:15]}...", "black", font)
