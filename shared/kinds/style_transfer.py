"""The parameters of neural style transfer, and what can be known of a job before it runs."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import Field, ValidationInfo, field_validator, model_validator

from shared.errors import InvalidInput
from shared.kinds.base import Inputs, JobParams, PictureId
from shared.networks import NETWORKS, RUNTIME_BYTES, Network

DEFAULT_SIZE_PX = 512
"""A larger content image is shrunk to this unless `size_px` says otherwise."""
SHORTEST_PX, LONGEST_PX = 32, 20_000
"""What the longer side of a result may be (px); no style image is enlarged beyond it either."""
COARSEST_PX = 64
"""The automatic scales end before the result's longer side is shorter than this."""
COARSER_ITERATIONS = 2
"""A coarser scale gets so many times the iterations of the next finer one; each costs a quarter."""
WHOLE_BYTES = 4 * 2**30
"""What a gradient may need in one piece (bytes); a picture that needs more is worked on in tiles."""
CORRECTIONS = (5, 20)
"""The fewest and the most pairs of steps that L-BFGS remembers; the most for all but very large pictures."""
OPTIMISER_BYTES = 2**30
"""What the memory of L-BFGS may take (bytes) before it remembers fewer pairs."""
MEMORY_ITERATIONS = (5, 60)
"""The fewest and the most iterations after which L-BFGS starts its memory anew; the most for all but large pictures."""
TRACE_BYTES = 2**27
"""What the gradients since then may take (bytes); they go into each checkpoint."""
PICTURE_BYTES_PER_PIXEL = 60 * 3 * 4
"""Content, masks and the optimiser's vectors beside its memory, as so many (height, width, 3) float32."""
STYLE_BYTES_PER_PIXEL = 2 * 3 * 4
"""A style image at the size at which it is looked at, and the tensor made of it."""
UPLOAD_BYTES_PER_PIXEL = 4
"""A picture as it was uploaded: (height, width, 3) uint8, or a mask as (height, width) float32."""
RESIZING_BYTES_PER_PIXEL = 4 * 4
"""What an upload needs more while it is resized: (height, width, 3) float32 and one channel of it."""

Shape = tuple[int, int]
"""Height and width (px)."""

Weight = Annotated[float, Field(ge=0)]


BLACK_MASK = "masks: number {number} is black or transparent all over: nothing would be painted"


class Uploads(NamedTuple):
    """What the memory forecast asks of the uploaded pictures: their sizes."""

    content: Shape
    styles: list[Shape]
    others: list[Shape]
    """Masks and `init_image`."""

    @property
    def bytes(self) -> int:
        """What they take while the largest of them is resized (bytes)."""
        pixels = [height * width for height, width in (self.content, *self.styles, *self.others)]
        return UPLOAD_BYTES_PER_PIXEL * sum(pixels) + RESIZING_BYTES_PER_PIXEL * max(pixels)


@dataclass(frozen=True, kw_only=True)
class StyleDefaults:
    """What a network takes where a job leaves it open, and what makes the same weights look alike with each."""

    content_layer: str
    style_layers: Mapping[str, float]
    """Name -> weight."""
    content_factor: float = 1.0
    style_factor: Mapping[str, float] = field(default_factory=lambda: {"book": 1.0, "gatys": 1.0})


_VGG = StyleDefaults(
    content_layer="block5_conv2",
    style_layers={f"block{block}_conv1": 1.0 for block in range(1, 6)},
    # With the book's weights alone the photo is gone once the loss is as low as an unbroken run of L-BFGS gets it
    # (the cat becomes a dahlia); the book's restarts never came there.
    content_factor=50.0,
)
STYLE_DEFAULTS: Mapping[str, StyleDefaults] = {
    "vgg19": _VGG,
    "vgg16": _VGG,
    "squeezenet": StyleDefaults(
        content_layer="fire5",
        # All alike, the lower two decide, and little but colours is taken: the cat loses an eye in the dark, and has
        # no petals.
        style_layers={"conv1": 0.3, "fire2": 0.3, "fire4": 3.0, "fire6": 3.0},
        content_factor=8.0,  # as above: with 1.6 the cat is all petals
        style_factor={"book": 3000.0, "gatys": 1500.0},
    ),
}


def _own(default: Callable[[StyleDefaults], Any]) -> Any:
    """A field whose default is the chosen network's own."""

    def of_network(data: Mapping[str, Any]) -> Any:
        # A network that was refused is not in `data`; that refusal is what the client is told.
        return default(STYLE_DEFAULTS[data.get("network", "vgg19")])

    return of_network


class StyleTransferParams(JobParams):
    """Paint one picture in the style of others: content, style and total variation loss, minimised by L-BFGS."""

    kind: ClassVar[str] = "style_transfer"
    stall_s: ClassVar[float] = 3600

    content_image: PictureId
    """The picture whose content is kept."""
    style_images: list[PictureId] = Field(min_length=1, max_length=8)
    """The picture or pictures whose style is taken; they keep their aspect ratio."""
    style_weights: list[Weight] | None = None
    """How much each style counts beside the others, one number per style: 3 and 1 are three quarters and one. Left
    out: all alike."""
    masks: list[PictureId] | None = None
    """One region picture per style image: the style is painted where it is white, not where it is black, and less
    where it is grey; transparent counts as black. Brought to the result's size by the nearest pixel."""
    network: Literal["vgg19", "vgg16", "squeezenet"] = "vgg19"
    """The network that looks. `squeezenet` is always there; the weights of the others are downloaded once."""
    content_layer: str = Field(default_factory=_own(lambda own: own.content_layer), validate_default=True)
    """The layer whose activations say what is in a picture. Left out: the network's own."""
    style_layers: dict[str, Weight] = Field(
        default_factory=_own(lambda own: dict(own.style_layers)), validate_default=True
    )
    """How much each layer's Gram matrix counts, as `{"block1_conv1": 1}` or `block1_conv1=1,block2_conv1=0.5`, in any
    order. Left out: the network's own."""
    content_weight: Weight = 0.025
    """How much the content counts."""
    style_weight: Weight = 1.0
    """How much the style counts."""
    tv_weight: Weight = 1e-4
    """How much smoothness (total variation) counts."""
    normalisation: Literal["book", "gatys"] = "book"
    """What a layer's style loss is divided by: the constants of the Keras book, alike for all layers, or, as in the
    paper, each layer's own channels and positions, which gives the upper layers much more weight."""
    size_px: int | None = Field(None, ge=SHORTEST_PX, le=LONGEST_PX)
    """Longer side of the result (px). Left out: the content image's own, up to 512."""
    scales: int = Field(0, ge=0, le=8)
    """At how many sizes the picture is painted, each twice the one before; 0: decided from the size."""
    style_scale: float = Field(1.0, gt=0, le=4)
    """Size of the style images relative to the result (ratio): larger ones give larger strokes."""
    init: Literal["content", "style", "random", "image"] = "content"
    """What the painting starts from: the content image, the first style image, noise, or `init_image`. L-BFGS ends in
    a minimum near the start, which so decides the layout: from `style` the style image comes back with hints of the
    content, and with ten times the default `content_weight` still does."""
    init_image: PictureId | None = None
    """The picture that the painting starts from, its middle in the content's aspect ratio; goes with `init` left out
    or `image`."""
    iterations: int = Field(60, ge=1, le=10_000)
    """Steps of L-BFGS at the result's own size; each coarser scale takes twice as many as the next finer one."""
    original_colors: bool = False
    """Keep the content image's colours and take only the brightness of the painting."""
    pooling: Literal["max", "average"] = "max"
    """How the network pools: `average` gives smoother pictures (Gatys et al.)."""
    tile_px: int = Field(0, ge=0, le=8192)
    """Side of the tiles that a large picture is worked on in (px); 0: decided from the size. The Gram matrices are
    those of the whole picture all the same."""

    @model_validator(mode="before")
    @classmethod
    def _init_image_is_used(cls, given: Any) -> Any:
        if isinstance(given, Mapping) and given.get("init_image") is not None and given.get("init") is None:
            return {**given, "init": "image"}
        return given

    @field_validator("style_weights")
    @classmethod
    def _one_weight_per_style(cls, weights: list[float] | None, info: ValidationInfo) -> list[float] | None:
        _check_count(weights, "weight", info)
        if weights is not None and not any(weights):
            raise ValueError("at least one style needs a weight above 0")
        return weights

    @field_validator("masks")
    @classmethod
    def _one_mask_per_style(cls, masks: list[str] | None, info: ValidationInfo) -> list[str] | None:
        _check_count(masks, "mask", info)
        return masks

    @field_validator("content_layer")
    @classmethod
    def _known_content_layer(cls, name: str, info: ValidationInfo) -> str:
        _check_layer(name, info)
        return name

    @field_validator("style_layers", mode="before")
    @classmethod
    def _spelled_out(cls, given: Any) -> Any:
        """Names alone, or `name=weight` as typed at a terminal, become a map; in it, a name could not come twice."""
        if isinstance(given, str):
            given = given.split(",")
        if not isinstance(given, list) or not all(isinstance(item, str) for item in given):
            return given
        pairs = [(name.strip(), weight or 1.0) for name, _, weight in (item.partition("=") for item in given)]
        names = [name for name, _ in pairs]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"layer {name!r} is named twice")
        return dict(pairs)

    @field_validator("style_layers")
    @classmethod
    def _known_style_layers(cls, layers: dict[str, float], info: ValidationInfo) -> dict[str, float]:
        for name in layers:
            _check_layer(name, info)
        if not any(layers.values()):
            raise ValueError("at least one layer needs a weight above 0; for no style, set style_weight to 0")
        return layers

    @field_validator("init_image")
    @classmethod
    def _init_image_goes_with_init(cls, image: str | None, info: ValidationInfo) -> str | None:
        if image is not None and info.data.get("init", "image") != "image":
            raise ValueError(f"init is {info.data['init']!r}: leave init out, or set it to 'image'")
        return image

    @property
    def style_shares(self) -> list[float]:
        """The weight of each style image; they add up to 1."""
        weights = self.style_weights or [1.0] * len(self.style_images)
        largest = max(weights)
        shares = [weight / largest for weight in weights]  # 1e308 + 1e308 would be infinite
        return [share / sum(shares) for share in shares]

    @property
    def used_style_layers(self) -> tuple[str, ...]:
        """The layers that count for the style, in the network's order."""
        return self._network.in_order(name for name, weight in self.style_layers.items() if weight)

    @property
    def used_layers(self) -> tuple[str, ...]:
        """All layers that count, in the network's order."""
        return self._network.in_order({*self.used_style_layers, self.content_layer})

    @property
    def least_side_px(self) -> int:
        """The shortest side that a picture may have at any scale (px)."""
        return self._network.least_side_px(self.used_layers)

    @property
    def _network(self) -> Network:
        return NETWORKS[self.network]

    def result_shape(self, content: Shape) -> Shape:
        """The result's shape: the content's aspect ratio at `size_px`."""
        return with_longer_side(content, self.size_px or min(max(content), DEFAULT_SIZE_PX))

    def scale_shapes(self, result: Shape) -> list[Shape]:
        """The picture's shape at each scale, coarsest first; the last is `result`."""
        scales = self.scales
        if not scales:
            fitting = min(max(result) / COARSEST_PX, min(result) / self.least_side_px)
            scales = 1 + int(math.log2(max(1.0, fitting)))
        return [_halved(result, times) for times in reversed(range(scales))]

    def scale_iterations(self, scales: int) -> list[int]:
        """The iterations at each scale, coarsest first."""
        return [self.iterations * COARSER_ITERATIONS**times for times in reversed(range(scales))]

    def style_shape(self, style: Shape, painted: Shape) -> Shape:
        """The shape of a style image beside a picture of shape `painted`; never too small for the network."""
        least_px = math.ceil(self.least_side_px * max(style) / min(style))
        return with_longer_side(style, max(round(max(painted) * self.style_scale), least_px))

    def corrections(self, shape: Shape) -> int:
        """How many pairs L-BFGS remembers for a picture of this shape."""
        fewest, most = CORRECTIONS
        pair_bytes = 2 * 3 * 8 * shape[0] * shape[1]
        return min(most, max(fewest, OPTIMISER_BYTES // pair_bytes))

    def memory_iterations(self, shape: Shape) -> int:
        """After how many iterations L-BFGS starts its memory anew for a picture of this shape."""
        fewest, most = MEMORY_ITERATIONS
        return min(most, max(fewest, TRACE_BYTES // (3 * 4 * shape[0] * shape[1])))

    def tile_side_px(self, shape: Shape) -> int | None:
        """Side of the tiles for a picture of this shape (px), a multiple of the network's stride; None: in one piece.

        Left to itself it does not depend on the machine, so that a job gives the same picture on each.
        """
        stride_px = max(self._network.layers[name].stride_px for name in self.used_layers)
        side_px = self.tile_px
        if not side_px:
            pixels = WHOLE_BYTES / self._network.gradient_bytes(self.used_layers, 1)
            if shape[0] * shape[1] <= pixels:
                return None
            side_px = math.isqrt(int(pixels)) - 2 * self.halo_px
        side_px = max(stride_px, side_px // stride_px * stride_px)
        return None if side_px >= max(shape) else side_px

    @property
    def halo_px(self) -> int:
        """How far around a tile the network must see, so that the tile's features are the whole picture's (px).

        The reach of all windows down to the deepest layer, rounded up to its stride.
        """
        reach_px = 0
        for name in self.used_layers:
            layer_reach, stride = 0, 1
            for window in self._network.layers[name].windows:
                # A padded window looks as far to both sides; how a wider step lies depends on the side's length.
                centred = window.padded and window.stride == 1
                layer_reach += (window.kernel // 2 if centred else window.kernel - 1) * stride
                stride *= window.stride
            reach_px = max(reach_px, math.ceil(layer_reach / stride) * stride)
        return reach_px

    def check(self, inputs: Inputs) -> None:
        """Refuse pictures that are too small for the layers and scales, and jobs too large for any worker.

        Raises:
            InvalidInput: with the field's name and the value that would work.
        """
        if not (self.content_weight or self.style_weight or self.tv_weight):
            raise InvalidInput(
                "style_weight: it, content_weight and tv_weight are all 0, so that nothing would be painted; leave one "
                "of them out for its default",
                field="style_weight",
            )
        uploads = self._uploads(inputs)
        if self.init == "image" and self.init_image is None:
            raise InvalidInput("init is 'image', but there is no init_image", field="init_image")
        for number, mask in enumerate(self.masks or [], 1):
            if inputs.is_black(mask, "masks"):
                raise InvalidInput(BLACK_MASK.format(number=number), field="masks")
        self._check_scales(uploads.content)
        self._check_styles(uploads)
        self._check_memory(uploads, inputs.largest_worker_bytes)

    def forecast_bytes(self, inputs: Inputs) -> int:
        """Peak memory that the job needs on its device (bytes)."""
        return self._forecast_bytes(self._uploads(inputs))

    def _uploads(self, inputs: Inputs) -> Uploads:
        def shape(upload: str, name: str) -> Shape:
            picture = inputs.picture(upload, name)
            return picture.height, picture.width

        return Uploads(
            content=shape(self.content_image, "content_image"),
            styles=[shape(upload, "style_images") for upload in self.style_images],
            others=[shape(upload, "masks") for upload in self.masks or []]
            + [shape(upload, "init_image") for upload in [self.init_image] if upload],
        )

    def _check_scales(self, content: Shape) -> None:
        result, least_px = self.result_shape(content), self.least_side_px
        coarsest = self.scale_shapes(result)[0]
        if min(coarsest) >= least_px:
            return
        fewer = [n for n in range(1, self.scales) if min(_halved(result, n - 1)) >= least_px]
        if fewer:
            raise InvalidInput(
                f"scales: at {self.scales} scales the coarsest picture is {coarsest[1]}x{coarsest[0]} px, but "
                f"{self.used_layers[-1]} needs {least_px} px along each side; take at most {fewer[-1]}",
                field="scales",
            )
        told = (
            f"the result would be {result[1]}x{result[0]} px, but {self.used_layers[-1]} needs {least_px} px along "
            "each side"
        )
        needed_px = max(SHORTEST_PX, math.ceil(least_px * max(content) / min(content)))
        if needed_px > LONGEST_PX:
            raise InvalidInput(
                f"content_image: {told}, which a picture so narrow does not reach at any size_px; crop it to at most "
                f"{LONGEST_PX // least_px} times as long as it is wide",
                field="content_image",
            )
        raise InvalidInput(f"size_px: {told}; take at least size_px {needed_px}", field="size_px")

    def _check_styles(self, uploads: Uploads) -> None:
        """No style image may have to be enlarged without bounds."""
        painted = self.result_shape(uploads.content)
        for number, style in enumerate(uploads.styles, 1):
            if max(self.style_shape(style, painted)) <= LONGEST_PX:
                continue
            if max(painted) * self.style_scale > LONGEST_PX:
                raise InvalidInput(
                    f"style_scale: the style images would be {max(painted) * self.style_scale:,.0f} px long, more than "
                    f"{LONGEST_PX:,}; take at most {math.floor(100 * LONGEST_PX / max(painted)) / 100:g}",
                    field="style_scale",
                )
            raise InvalidInput(
                f"style_images: number {number} is {style[1]}x{style[0]} px, but {self.used_layers[-1]} needs "
                f"{self.least_side_px} px along each side, and a picture so narrow would be enlarged to more than "
                f"{LONGEST_PX:,} px; crop it to at most {LONGEST_PX // self.least_side_px} times as long as it is wide",
                field="style_images",
            )

    def _check_memory(self, uploads: Uploads, available: int | None) -> None:
        needed = self._forecast_bytes(uploads)
        if available is None or needed <= available:
            return
        told = f"this job needs {_gibibytes(needed)}, the largest worker has {_gibibytes(available)}"
        for tile_px in range(1024, 127, -64):
            if self.model_copy(update={"tile_px": tile_px})._forecast_bytes(uploads) <= available:
                raise InvalidInput(f"tile_px: {told}; tile_px {tile_px} would fit", field="tile_px")
        longer_px = max(self.result_shape(uploads.content))
        for size_px in range(longer_px // 16 * 16, SHORTEST_PX - 1, -16):
            smaller = self.model_copy(update={"size_px": size_px})
            if smaller._fits_network(uploads.content) and smaller._forecast_bytes(uploads) <= available:
                raise InvalidInput(
                    f"size_px: {told}; size_px {size_px} is the largest that fits", field="size_px"
                )
        raise InvalidInput(
            f"size_px: {told}, and no size of the result fits; upload smaller pictures, or fewer",
            field="size_px",
        )

    def _fits_network(self, content: Shape) -> bool:
        return min(self.scale_shapes(self.result_shape(content))[0]) >= self.least_side_px

    def _forecast_bytes(self, uploads: Uploads) -> int:
        result = self.result_shape(uploads.content)
        styles = [self.style_shape(style, result) for style in uploads.styles]
        # A style image needs no gradient, and so less than this.
        gradient = max(self._piece_bytes(shape) for shape in (result, *styles))
        content_layer = self._network.layers[self.content_layer]
        # Per pixel of the whole picture: the content's features, the optimiser's memory and trace, and the pictures.
        per_pixel = (
            4 * content_layer.channels / content_layer.stride_px**2
            + 2 * 3 * 8 * self.corrections(result)
            + 4
            * 3
            * 4
            * self.memory_iterations(result)  # as gradients, as one array, and as a checkpoint's bytes
            + PICTURE_BYTES_PER_PIXEL
        )
        pictures = uploads.bytes + STYLE_BYTES_PER_PIXEL * sum(height * width for height, width in styles)
        fixed = RUNTIME_BYTES + self._network.weights_bytes + pictures
        return int(fixed + gradient + per_pixel * result[0] * result[1])

    def _piece_bytes(self, shape: Shape) -> float:
        """Peak memory of the network for a picture of this shape, whole or tile by tile (bytes)."""
        height, width = shape
        tile_px = self.tile_side_px(shape)
        if tile_px is not None:
            seen_px = tile_px + 2 * self.halo_px
            height, width = min(height, seen_px), min(width, seen_px)
        return self._network.gradient_bytes(self.used_layers, height * width)


def with_longer_side(shape: Shape, side_px: int) -> Shape:
    """This shape's aspect ratio, its longer side so long."""
    ratio = side_px / max(shape)
    return max(1, round(shape[0] * ratio)), max(1, round(shape[1] * ratio))


def _halved(shape: Shape, times: int) -> Shape:
    return max(1, round(shape[0] / 2**times)), max(1, round(shape[1] / 2**times))


def _check_count(given: list[Any] | None, noun: str, info: ValidationInfo) -> None:
    """One for each style image, where there are any."""
    styles = info.data.get("style_images")
    if given is not None and styles is not None and len(given) != len(styles):
        raise ValueError(f"there must be one {noun} per style image: {len(styles)}, not {len(given)}")


def _check_layer(name: str, info: ValidationInfo) -> None:
    if "network" not in info.data:
        return
    network = NETWORKS[info.data["network"]]
    if name not in network.layers:
        raise ValueError(f"{network.name} has no layer {name!r}; it has {', '.join(network.layers)}")


def _gibibytes(size_bytes: float) -> str:
    return f"{size_bytes / 2**30:.1f} GiB"
