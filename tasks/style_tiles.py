"""Tiles whose features are exactly those of the whole picture.

Every tile answers for a part of the picture (`owned`) and sees more of it (`seen`), so far around that no
activation it answers for can tell where the tile was cut: what a tile computes there is what the whole
picture would give, and sums over the tiles' parts are sums over the whole.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from shared.networks import Layer

Box = tuple[slice, slice]
"""Rows and columns."""


@dataclass(frozen=True)
class Span:
    """A tile along one side of the picture (px); `owned` starts at a multiple of the network's stride, as `seen`."""

    owned: slice
    seen: slice
    length_px: int
    """The picture's side."""

    def features(self, layer: Layer) -> slice:
        """The cells of `layer`, of the whole picture, that the tile answers for."""
        cells = layer.side(self.length_px)
        ends = self.owned.stop >= self.length_px
        # Without padding a layer has fewer cells than strides fit into the side: they end before the last tile.
        stop = cells if ends else min(cells, self.owned.stop // layer.stride_px)
        return slice(min(stop, self.owned.start // layer.stride_px), stop)

    def own_features(self, layer: Layer) -> slice:
        """The same cells, counted from where the tile's view begins."""
        whole, start = self.features(layer), self.seen.start // layer.stride_px
        return slice(whole.start - start, whole.stop - start)


@dataclass(frozen=True)
class Tile:
    """One tile of a picture."""

    rows: Span
    columns: Span

    @property
    def seen(self) -> Box:
        """What it sees of the picture (px)."""
        return self.rows.seen, self.columns.seen

    def features(self, layer: Layer) -> Box:
        """The cells of `layer`, of the whole picture, that it answers for."""
        return self.rows.features(layer), self.columns.features(layer)

    def boxes(self, layers: Sequence[Layer]) -> list[list[int]]:
        """For each layer the cells that it answers for, in its own view: [top, bottom, left, right]."""
        spans = [(self.rows.own_features(layer), self.columns.own_features(layer)) for layer in layers]
        return [[rows.start, rows.stop, columns.start, columns.stop] for rows, columns in spans]


def cut(shape: tuple[int, int], *, side_px: int | None, halo_px: int) -> list[Tile]:
    """Cut a picture into tiles.

    Args:
        side_px: what a tile answers for, a multiple of the network's stride; None for one tile that is all.
        halo_px: how far around that it sees, a multiple of the stride that is at least the network's reach.
    """
    rows, columns = (list(_spans(length, side_px or length, halo_px)) for length in shape)
    return [Tile(row, column) for row in rows for column in columns]


def _spans(length: int, side_px: int, halo_px: int) -> Iterator[Span]:
    for start in range(0, length, side_px):
        stop = min(length, start + side_px)
        # A padded convolution of stride 2 lies differently on an odd side than on an even one: the tile's is
        # made as odd or even as the picture's.
        seen_stop = stop + halo_px + (stop + halo_px + length) % 2
        yield Span(slice(start, stop), slice(max(0, start - halo_px), min(length, seen_stop)), length)
