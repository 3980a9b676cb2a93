"""The parameters of DeepDream."""

from typing import Annotated, Any, ClassVar

from pydantic import Discriminator, Field, Tag, ValidationInfo, field_validator, model_validator

from shared.errors import InvalidInput
from shared.kinds.base import Inputs, JobParams, PictureId
from shared.networks import NETWORKS, RUNTIME_BYTES, DreamDefaults, Network, NetworkName, Preset

CROP_CELLS = 2
"""Cells at each border of a layer that don't count, since padding shows there."""
WHOLE_PIXELS = 1024 * 1024
"""A picture up to this size is dreamt on in one piece, unless `tile_px` says otherwise."""
AUTO_TILE_PX = 640
GUIDE_SIDE_PX = 400
"""A larger guide picture is shrunk to this: what counts is which features it has, and each costs a comparison."""
_BACKWARD = 2.5
"""Memory of a gradient in units of the activations it passes (measured: 1.9 to 2.4 on a CPU)."""

Coefficient = Annotated[float, Field(ge=0, le=1e6)]
Layers = Annotated[
    Annotated[Preset, Tag("preset")] | Annotated[dict[str, Coefficient], Tag("map")],
    Discriminator(lambda given: "preset" if isinstance(given, str) else "map"),
]


class DeepDreamParams(JobParams):
    """Amplify the patterns that an ImageNet network sees in one picture."""

    kind: ClassVar[str] = "deepdream"

    image: PictureId
    """The picture to dream on."""
    network: NetworkName = "inception_v3"
    """The network that dreams. `squeezenet` is always there; the others' weights are downloaded once."""
    layers: Layers | None = None
    """How much each layer counts, as `{"mixed4": 2.0}`, or `geometric` (lower layers: patterns) or `creatures`
    (upper ones: eyes, animals). Left out: the network's own."""
    octaves: int = Field(3, ge=1, le=8)
    """Number of scales, smallest first."""
    octave_scale: float = Field(1.4, gt=1.0, le=2.0)
    """Size of each octave relative to the one before (ratio, above 1)."""
    iterations: int = Field(20, ge=1, le=1000)
    """Steps of gradient ascent per octave."""
    step: float = Field(0.01, gt=0, le=1)
    """How far a step goes, as the mean over all values of the picture, in units of a [-1, 1] range."""
    max_loss: float | None = Field(None, gt=0)
    """An octave ends before the step at which the loss would be above this; null: never.
    Left out: 10 for `inception_v3`, null for the others and with a guide image."""
    jitter_px: int | None = Field(None, ge=0, le=512)
    """The picture is shifted by up to this before each step, and back after it (px). Left out: the network's own."""
    tile_px: int = Field(0, ge=0, le=4096)
    """Side of the squares that a large picture is worked on in (px); 0: decided from the size."""
    guide_image: PictureId | None = None
    """Dream towards the features of this picture instead of those that are strongest already."""
    max_side_px: int | None = Field(None, ge=32, le=20_000)
    """A picture with a longer side is shrunk to this first (px)."""
