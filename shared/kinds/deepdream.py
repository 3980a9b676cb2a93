"""The parameters of DeepDream, and what can be known of a job before it runs."""

import math
from collections.abc import Mapping
from itertools import count
from typing import Annotated, Any, ClassVar, get_args

from pydantic import Field, ValidationInfo, WithJsonSchema, field_validator

from shared.errors import InvalidInput
from shared.kinds.base import Inputs, JobParams, PictureId
from shared.networks import NETWORKS, RUNTIME_BYTES, Network, NetworkName, Preset

CROP_CELLS = 2
"""Cells at each border of a layer that don't count, since the padding shows in them."""
LEAST_CELLS = 2 * CROP_CELLS + 1
"""Cells along a side of a layer, of which the crop leaves one."""
GUIDE_SIDE_PX = 400
"""A larger guide picture is shrunk to this: what counts is which features it has, and each costs a comparison."""
TILE_BYTES = 2**30
"""What a gradient may need in one piece (bytes); a picture that needs more is worked on in tiles."""
PICTURE_BYTES_PER_PIXEL = 6 * 3 * 4
"""A picture, its gradient, and what lies between two octaves: six of (height, width, 3) float32."""

Shape = tuple[int, int]
"""Height and width (px)."""

Coefficient = Annotated[float, Field(ge=0, le=1e6)]
_LAYERS_SCHEMA = {
    "anyOf": [
        {"type": "string", "enum": list(get_args(Preset))},
        {"type": "object", "additionalProperties": {"type": "number", "minimum": 0}, "minProperties": 1},
    ]
}


def _own(name: str) -> Any:
    """A field whose default is the chosen network's own."""

    def default(data: Mapping[str, Any]) -> Any:
        # A network that was refused is not in `data`; that refusal is what the client is told.
        return getattr(NETWORKS[data.get("network", "inception_v3")].dream, name)

    return default


def _own_max_loss(data: Mapping[str, Any]) -> float | None:
    # Towards a guide, the loss is a product of two pictures' features and has another scale.
    return None if data.get("guide_image") else _own("max_loss")(data)


class DeepDreamParams(JobParams):
    """Amplify the patterns that an ImageNet network sees in one picture."""

    kind: ClassVar[str] = "deepdream"

    image: PictureId
    """The picture to dream on."""
    network: NetworkName = "inception_v3"
    """The network that dreams. `squeezenet` is always there; the weights of the others are downloaded once."""
    layers: Annotated[dict[str, Coefficient], WithJsonSchema(_LAYERS_SCHEMA)] = Field(
        default_factory=_own("layers"), validate_default=True
    )
    """How much each layer counts, as `{"mixed4": 2.0}` or `mixed4=2,mixed5=1`; or `geometric` (lower layers: patterns)
    or `creatures` (upper layers: eyes, animals). Left out: the network's own."""
    octaves: int = Field(3, ge=1, le=8)
    """Number of scales, smallest first."""
    octave_scale: float = Field(1.4, gt=1.0, le=2.0)
    """Size of each octave relative to the one before (ratio, above 1)."""
    iterations: int = Field(20, ge=1, le=1000)
    """Steps of gradient ascent per octave."""
    step: float = Field(0.01, gt=0, le=1)
    """How far a step goes, as the mean over all values of the picture; in units of a [-1, 1] range."""
    guide_image: PictureId | None = None
    """Dream towards the features of this picture, instead of those that are strongest already."""
    max_loss: float | None = Field(default_factory=_own_max_loss, gt=0)
    """An octave ends before the first step at which the loss is above this; null: never. Left out: 10 for
    `inception_v3` without a guide image, else null."""
    jitter_px: int = Field(default_factory=_own("jitter_px"), ge=0, le=512)
    """The picture is shifted by up to this before each step, and back after it (px). Left out: the network's own."""
    tile_px: int = Field(0, ge=0, le=8192)
    """Side of the tiles that a large picture is worked on in (px); 0: decided from the size."""
    max_side_px: int | None = Field(None, ge=32, le=65_535)
    """A picture with a longer side is shrunk to this first (px)."""

    @field_validator("layers", mode="before")
    @classmethod
    def _spelled_out(cls, given: Any, info: ValidationInfo) -> Any:
        """A preset, null, or `name=coefficient,...` as typed at a terminal becomes the map that it stands for."""
        if not isinstance(given, str | None) or "network" not in info.data:
            return given
        dream = NETWORKS[info.data["network"]].dream
        presets = dream.presets
        if given is None:
            return dict(dream.layers)
        if given in get_args(Preset):
            return dict(presets[given])  # type: ignore[index]  # a str that is one of the preset's names
        if "=" not in given:
            raise ValueError(f"there is no preset {given!r}; there are {', '.join(presets)}")
        return {name.strip(): value for name, _, value in (pair.partition("=") for pair in given.split(","))}

    @field_validator("layers")
    @classmethod
    def _known_layers(cls, layers: dict[str, float], info: ValidationInfo) -> dict[str, float]:
        if "network" not in info.data:
            return layers
        network = NETWORKS[info.data["network"]]
        for name in layers:
            if name not in network.layers:
                raise ValueError(f"{network.name} has no layer {name!r}; it has {', '.join(network.layers)}")
        if not any(layers.values()):
            raise ValueError("at least one layer needs a coefficient above 0")
        return layers

    @property
    def dreaming_layers(self) -> tuple[str, ...]:
        """The layers that count, in the network's order."""
        return NETWORKS[self.network].in_order(name for name, value in self.layers.items() if value)

    def check(self, inputs: Inputs) -> None:
        """Refuse pictures and tiles that are too small for these layers and octaves, and jobs too large for any worker.

        Raises:
            InvalidInput: with the field's name and the value that would work.
        """
        shape = self._output_shape(inputs)
        self._check_octaves(shape)
        self._check_guide(inputs)
        if self.tile_px and self.tile_px < self._least_side_px:
            raise InvalidInput(
                f"tile_px: {self._deepest} needs at least {self._least_side_px} px (given: {self.tile_px})",
                field="tile_px",
            )
        self._check_memory(shape, inputs)

    def forecast_bytes(self, inputs: Inputs) -> int:
        """Peak memory that the job needs on its device (bytes)."""
        return self._forecast_bytes(self._output_shape(inputs), self.tile_px)

    def _output_shape(self, inputs: Inputs) -> Shape:
        picture = inputs.picture(self.image, "image")
        return fitted((picture.height, picture.width), self.max_side_px)

    @property
    def _network(self) -> Network:
        return NETWORKS[self.network]

    @property
    def _deepest(self) -> str:
        """The layer that needs the largest picture."""
        return max(
            self.dreaming_layers, key=lambda name: self._network.layers[name].least_side_px(LEAST_CELLS)
        )

    @property
    def _least_side_px(self) -> int:
        return self._network.least_side_px(self.dreaming_layers, LEAST_CELLS)

    def _check_octaves(self, shape: Shape) -> None:
        side_px, least_px = min(shape), self._least_side_px
        if octave_side(side_px, self.octaves - 1, self.octave_scale) >= least_px:
            return
        needed_px = least_side_px(least_px, self.octaves, self.octave_scale)
        fewer = [
            n for n in range(1, self.octaves) if octave_side(side_px, n - 1, self.octave_scale) >= least_px
        ]
        remedy = f"take {fewer[-1]} octave{'s' if fewer[-1] > 1 else ''}" if fewer else "name lower layers"
        field, larger = "image", "use a larger picture"
        if self.max_side_px == max(shape):  # which has made it so small
            field, larger = "max_side_px", f"raise max_side_px ({self.max_side_px})"
        raise InvalidInput(
            f"{field}: the picture's shorter side is {side_px} px, but {self.octaves} octaves at {self.octave_scale:g} "
            f"down to {self._deepest} need {needed_px} px; {larger}, or {remedy}",
            field=field,
        )

    def _check_guide(self, inputs: Inputs) -> None:
        if self.guide_image is None:
            return
        guide = inputs.picture(self.guide_image, "guide_image")
        least_px = self._network.least_side_px(self.dreaming_layers)
        if min(fitted((guide.height, guide.width), GUIDE_SIDE_PX)) < least_px:
            raise InvalidInput(
                f"guide_image: {self._deepest} needs {least_px} px along the shorter side "
                f"when the longer one is {GUIDE_SIDE_PX} px (given: {guide.width}x{guide.height})",
                field="guide_image",
            )

    def _check_memory(self, shape: Shape, inputs: Inputs) -> None:
        available = inputs.largest_worker_bytes
        needed = self._forecast_bytes(shape, self.tile_px)
        if available is None or needed <= available:
            return
        told = f"this job needs {gibibytes(needed)}, the largest worker has {gibibytes(available)}"
        for tile_px in range(1024, self._least_side_px - 1, -32):
            if self._forecast_bytes(shape, tile_px) <= available:
                raise InvalidInput(f"tile_px: {told}; tile_px {tile_px} would fit", field="tile_px")
        for side_px in range(max(shape) // 32 * 32, 31, -32):
            if self._forecast_bytes(fitted(shape, side_px), 0) <= available:
                raise InvalidInput(f"image: {told}; max_side_px {side_px} would fit", field="image")
        raise InvalidInput(f"image: {told}", field="image")

    def _forecast_bytes(self, shape: Shape, tile_px: int) -> int:
        tile = tile_shape(shape, tile_px or self.auto_tile_px(shape))
        gradient = self._network.gradient_bytes(self.dreaming_layers, tile[0] * tile[1])
        pictures = PICTURE_BYTES_PER_PIXEL * shape[0] * shape[1]
        return int(RUNTIME_BYTES + self._network.weights_bytes + gradient + pictures)

    def auto_tile_px(self, shape: Shape) -> int:
        """The tile's side for a picture of this shape: all of it if its gradient needs at most TILE_BYTES.

        It does not depend on the machine, so that a job gives the same picture on each.
        """
        pixels = int(TILE_BYTES / self._network.gradient_bytes(self.dreaming_layers, 1))
        return max(shape) if shape[0] * shape[1] <= pixels else math.isqrt(pixels) // 32 * 32


def fitted(shape: Shape, max_side_px: int | None) -> Shape:
    """This shape shrunk so that its longer side is at most `max_side_px`; never enlarged."""
    ratio = min(1.0, (max_side_px or max(shape)) / max(shape))
    return max(1, round(shape[0] * ratio)), max(1, round(shape[1] * ratio))


def octave_side(side_px: int, smaller: int, octave_scale: float) -> int:
    """A side's length so many octaves below the full size; cut off, not rounded, as in the book."""
    return int(side_px / octave_scale**smaller)


def octave_shapes(shape: Shape, octaves: int, octave_scale: float) -> list[Shape]:
    """The shape of each octave, smallest first; the last is `shape`."""
    height, width = shape
    return [
        (octave_side(height, smaller, octave_scale), octave_side(width, smaller, octave_scale))
        for smaller in reversed(range(octaves))
    ]


def least_side_px(smallest_px: int, octaves: int, octave_scale: float) -> int:
    """The shortest side whose smallest octave has at least `smallest_px`."""
    return next(
        side for side in count(smallest_px) if octave_side(side, octaves - 1, octave_scale) >= smallest_px
    )


def tile_shape(shape: Shape, tile_px: int) -> Shape:
    """A tile is square, but no longer than the picture."""
    return min(shape[0], tile_px), min(shape[1], tile_px)


def gibibytes(count_bytes: int) -> str:
    """A number of bytes as people read it."""
    return f"{count_bytes / 2**30:.1f} GiB"
