"""The parameters of neural style transfer, and what can be known of a job before it runs."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from shared.errors import InvalidInput
from shared.kinds.base import Inputs, JobParams, PictureId
from shared.kinds.style_memory import Memory, Uploads, check_memory
from shared.kinds.style_sizes import LONGEST_PX, SHORTEST_PX, Shape, Sizes
from shared.networks import NETWORKS, Network

COARSER_ITERATIONS = 2
"""A coarser scale gets so many times the iterations of the next finer one; each costs a quarter."""

LEAST_WEIGHT = 1e-12
"""Of smaller ones the products, weight of a layer times that of the style, are zero in float32."""


def _not_vanishing(weight: float) -> float:
    if 0 < weight < LEAST_WEIGHT:
        raise ValueError(f"must be 0, or at least {LEAST_WEIGHT:g}")
    return weight


Weight = Annotated[float, Field(ge=0), AfterValidator(_not_vanishing)]


@dataclass(frozen=True, kw_only=True)
class StyleDefaults:
    """What a network takes where a job leaves it open, and what makes the same weights look alike with each."""

    content_layer: str
    style_layers: Mapping[str, float]
    """Name -> weight."""
    content_factor: float = 1.0
    average_pooling_factor: float = 1.0
    """Of the content, where the network pools by averages."""
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
        average_pooling_factor=8.0,  # fire5 sees less through averages: without it sky and trees are gone
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
    """How much the content counts. Network and size have factors of their own on it, so that the default looks right
    with each; the job's summary has what came of it."""
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
    """Size of the style images relative to the result (ratio): larger ones give larger strokes. A style image of which
    the deepest layer would see too little is taken larger, with a warning."""
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
    """How the network pools: with the VGG networks `average` gives smoother pictures (Gatys et al.)."""
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
        for name, times in Counter(name for name, _ in pairs).items():
            if times > 1:
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
    def compared_layer(self) -> str:
        """The layer at which the content is compared: where it counts for nothing, one that is passed anyhow."""
        return self.content_layer if self.content_weight else self.used_style_layers[-1]

    @property
    def used_layers(self) -> tuple[str, ...]:
        """All layers that count, in the network's order."""
        return self._network.in_order({*self.used_style_layers, self.compared_layer})

    @property
    def _network(self) -> Network:
        return NETWORKS[self.network]

    @property
    def sizes(self) -> Sizes:
        """The sizes of the result, of its scales and of the style images."""
        return Sizes(
            size_px=self.size_px,
            scales=self.scales,
            style_scale=self.style_scale,
            least_side_px=self._network.least_side_px(self.used_layers),
            layer=self._network.layers[self.used_layers[-1]],
        )

    @property
    def memory(self) -> Memory:
        """What the job needs of memory."""
        return Memory(
            network=self._network,
            layers=self.used_layers,
            style_layers=self.used_style_layers,
            content_layer=self.compared_layer,
            masks=len(self.masks or []),
            tile_px=self.tile_px,
        )

    def scale_iterations(self, scales: int) -> list[int]:
        """The iterations at each scale, coarsest first."""
        return [self.iterations * COARSER_ITERATIONS**times for times in reversed(range(scales))]

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
                raise InvalidInput(
                    f"masks: number {number} is black or transparent all over: nothing would be painted",
                    field="masks",
                )
        self.sizes.check_scales(uploads.content)
        self.sizes.check_styles(uploads.content, uploads.styles)
        check_memory(self, uploads, inputs.largest_worker_bytes)

    def forecast_bytes(self, inputs: Inputs) -> int:
        """Peak memory that the job needs on its device (bytes)."""
        return self.forecast_of(self._uploads(inputs))

    def forecast_of(self, uploads: Uploads) -> int:
        """The same for uploads of these sizes."""
        return self.memory.forecast_bytes(uploads, self.sizes, self.scale_iterations)

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
