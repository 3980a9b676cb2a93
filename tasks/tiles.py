"""Overlapping tiles over a picture that is too large for one piece, and the blending of what each of them gives."""

from collections.abc import Callable

import numpy as np

Box = tuple[slice, slice]
"""Rows and columns of a tile."""


class Tiles:
    """Tiles of one shape that cover a picture; their places are drawn anew for each step.

    Neighbours overlap by at least an eighth, across which the one fades into the other. With the places drawn anew,
    what little differs from one piece at such a border does not add up over the steps.
    """

    def __init__(self, shape: tuple[int, int], tile: tuple[int, int], random: np.random.Generator) -> None:
        self.shape = shape
        self._rows = [slice(start, start + tile[0]) for start in starts(shape[0], tile[0], random)]
        self._columns = [slice(start, start + tile[1]) for start in starts(shape[1], tile[1], random)]
        self.boxes: list[Box] = [(rows, columns) for rows in self._rows for columns in self._columns]

    def blend(self, of_tile: Callable[[Box], np.ndarray]) -> np.ndarray:
        """The mean of what the tiles give, (height, width, channels), each counting less towards its borders."""
        if len(self.boxes) == 1:
            return of_tile(self.boxes[0])
        height, width = self.shape
        total = np.zeros((height, width, 3), np.float32)
        for rows, columns in self.boxes:
            total[rows, columns] += (
                of_tile((rows, columns)) * (fade(rows)[:, None] * fade(columns))[..., None]
            )
        # All rows of tiles have the same columns, so that the weights' sum is a product too.
        total /= _sums(self._rows, height)[:, None, None]
        total /= _sums(self._columns, width)[:, None]
        return total


def starts(length: int, tile: int, random: np.random.Generator) -> list[int]:
    """Where tiles along a side begin: the first at 0, the last at its end, those between shifted at random."""
    stride = max(1, tile - tile // 8)
    count = -(-(length - tile) // stride) + 1
    if count == 1:
        return [0]
    if (count - 1) * stride - (length - tile) < stride // 2:
        count += 1  # else there would be hardly any room to shift them
    shift = int(random.integers(0, (count - 1) * stride - (length - tile), endpoint=True))
    places = [min(max(0, number * stride - shift), length - tile) for number in range(1, count)]
    return [0, *dict.fromkeys(place for place in places if place > 0)]


def fade(span: slice) -> np.ndarray:
    """Weights along a tile: 1 inside, falling to almost 0 over an eighth at either end."""
    length = span.stop - span.start
    ramp = max(1, length // 8)
    distance = np.minimum(np.arange(length), np.arange(length)[::-1])
    return np.minimum(1.0, (distance + 1) / (ramp + 1)).astype(np.float32)


def _sums(spans: list[slice], length: int) -> np.ndarray:
    sums = np.zeros(length, np.float32)
    for span in spans:
        sums[span] += fade(span)
    return sums
