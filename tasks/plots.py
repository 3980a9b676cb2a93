"""Line plots as pictures, drawn with Pillow: axes with round numbers, labels, a legend."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

WIDTH_PX, HEIGHT_PX = 900, 540
_SCALE = 2  # drawn twice as large and made smaller: smooth lines
_LEFT, _RIGHT, _TOP, _BOTTOM = 78, 24, 56, 62
_INK, _PALE, _GRID = (40, 44, 52), (110, 116, 126), (228, 231, 235)
_COLOURS = [(31, 99, 178), (214, 98, 33), (44, 138, 82), (160, 60, 140), (120, 110, 30), (90, 90, 90)]

Points = Sequence[tuple[float, float | None]]
"""x and y; where y is None, NaN or Inf the line is broken."""


class _Axes(NamedTuple):
    """Where the numbers of a plot lie on its picture."""

    x: tuple[float, float]
    y: tuple[float, float]

    def place(self, x: float, y: float) -> tuple[float, float]:
        """The pixel of a point, on the enlarged picture."""
        wide, high = WIDTH_PX - _LEFT - _RIGHT, HEIGHT_PX - _TOP - _BOTTOM
        right = _LEFT + wide * (x - self.x[0]) / (self.x[1] - self.x[0])
        down = _TOP + high * (1 - (y - self.y[0]) / (self.y[1] - self.y[0]))
        return right * _SCALE, down * _SCALE


def line_plot(lines: Mapping[str, Points], *, title: str, x_label: str, y_label: str) -> np.ndarray:
    """Lines by name, in one picture: (540, 900, 3) uint8."""
    image = Image.new("RGB", (WIDTH_PX * _SCALE, HEIGHT_PX * _SCALE), "white")
    draw = ImageDraw.Draw(image)
    drawn = {name: _pieces(points) for name, points in lines.items()}
    numbers = [point for pieces in drawn.values() for piece in pieces for point in piece] or [(0.0, 0.0)]
    x_ticks = ticks([x for x, _ in numbers], whole=all(float(x).is_integer() for x, _ in numbers))
    y_ticks = ticks([y for _, y in numbers])
    axes = _Axes((x_ticks[0], x_ticks[-1]), (y_ticks[0], y_ticks[-1]))
    _draw_axes(draw, axes, x_ticks, y_ticks)
    for pieces, colour in zip(drawn.values(), _COLOURS * len(drawn), strict=False):
        _draw_line(draw, axes, pieces, colour)
    _write(draw, (_LEFT, 22), title, 18, _INK, "lm")
    _write(draw, ((_LEFT + WIDTH_PX - _RIGHT) / 2, HEIGHT_PX - 18), x_label, 14, _PALE, "mm")
    _write_upwards(image, (22, (_TOP + HEIGHT_PX - _BOTTOM) / 2), y_label)
    _draw_legend(draw, list(lines))
    return np.asarray(image.resize((WIDTH_PX, HEIGHT_PX), Image.Resampling.LANCZOS))


def ticks(numbers: Sequence[float], *, whole: bool = False) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) from below the least to above the greatest: 2 to 9."""
    least, greatest = min(numbers), max(numbers)
    if greatest - least <= abs(greatest) * 1e-9:
        least, greatest = least - 0.5, greatest + 0.5
    rough = (greatest - least) / 7
    power = 10.0 ** math.floor(math.log10(rough))
    apart = next(round_one * power for round_one in (1, 2, 5, 10) if round_one * power >= rough)
    apart = max(1.0, apart) if whole else apart
    first, last = math.floor(least / apart + 1e-9), math.ceil(greatest / apart - 1e-9)
    return [number * apart for number in range(first, max(last, first + 1) + 1)]


def _pieces(points: Points) -> list[list[tuple[float, float]]]:
    """The unbroken pieces of a line."""
    pieces: list[list[tuple[float, float]]] = [[]]
    for x, y in points:
        if y is None or not math.isfinite(y):
            pieces.append([])
        else:
            pieces[-1].append((x, y))
    return [piece for piece in pieces if piece]


def _draw_axes(draw: ImageDraw.ImageDraw, axes: _Axes, x_ticks: list[float], y_ticks: list[float]) -> None:
    for y in y_ticks:
        draw.line([axes.place(axes.x[0], y), axes.place(axes.x[1], y)], _GRID, _SCALE)
        right, down = axes.place(axes.x[0], y)
        _write(draw, (right / _SCALE - 10, down / _SCALE), f"{y:g}", 13, _PALE, "rm")
    for x in x_ticks:
        right, down = axes.place(x, axes.y[0])
        draw.line([(right, down), (right, down + 5 * _SCALE)], _PALE, _SCALE)
        _write(draw, (right / _SCALE, down / _SCALE + 16), f"{x:g}", 13, _PALE, "mm")
    draw.line([axes.place(axes.x[0], axes.y[0]), axes.place(axes.x[1], axes.y[0])], _PALE, _SCALE)


def _draw_line(
    draw: ImageDraw.ImageDraw,
    axes: _Axes,
    pieces: list[list[tuple[float, float]]],
    colour: tuple[int, int, int],
) -> None:
    count = sum(map(len, pieces))
    for piece in pieces:
        places = [axes.place(x, y) for x, y in piece]
        if len(places) > 1:
            draw.line(places, colour, 2 * _SCALE, joint="curve")
        if count <= 60 or len(places) == 1:
            for place in places:
                draw.circle(place, 3 * _SCALE, colour)


def _draw_legend(draw: ImageDraw.ImageDraw, names: list[str]) -> None:
    """Names with a piece of their line, at the top right."""
    right = WIDTH_PX - _RIGHT
    for index in reversed(range(len(names))):
        wide = draw.textlength(names[index], font=_font(14)) / _SCALE
        right -= wide
        _write(draw, (right, 22), names[index], 14, _INK, "lm")
        line = [((right - 30) * _SCALE, 22 * _SCALE), ((right - 8) * _SCALE, 22 * _SCALE)]
        draw.line(line, _COLOURS[index % len(_COLOURS)], 3 * _SCALE)
        right -= 48


def _font(size_px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size_px * _SCALE)


def _write(
    draw: ImageDraw.ImageDraw,
    place: tuple[float, float],
    text: str,
    size_px: int,
    colour: tuple[int, int, int],
    anchor: str,
) -> None:
    draw.text((place[0] * _SCALE, place[1] * _SCALE), text, font=_font(size_px), fill=colour, anchor=anchor)


def _write_upwards(image: Image.Image, middle: tuple[float, float], text: str) -> None:
    """Text turned by a quarter, for the y axis."""
    left, top, right, bottom = (
        int(edge) for edge in ImageDraw.Draw(image).textbbox((0, 0), text, font=_font(14))
    )
    strip = Image.new("RGB", (right - left, bottom - top), "white")
    ImageDraw.Draw(strip).text((-left, -top), text, font=_font(14), fill=_PALE)
    turned = strip.rotate(90, expand=True)
    place = (int(middle[0] * _SCALE - turned.width / 2), int(middle[1] * _SCALE - turned.height / 2))
    image.paste(turned, place)
