"""What is known of each pretrained ImageNet network without TensorFlow; a test compares it with the built networks."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from types import MappingProxyType
from typing import Literal

NetworkName = Literal["inception_v3", "vgg16", "vgg19", "squeezenet"]
Preset = Literal["geometric", "creatures"]

RUNTIME_BYTES = 700 * 2**20
"""What a worker's process holds before it computes anything: Python, TensorFlow and Keras."""


@dataclass(frozen=True)
class Window:
    """A convolution or pooling, as far as it changes a side's length: kernel, stride, padded or not."""

    kernel: int
    stride: int = 1
    padded: bool = False

    def side(self, side: int) -> int:
        """How many positions the window has on a side of so many cells."""
        if self.padded:
            return -(-side // self.stride)
        return max(0, (side - self.kernel) // self.stride + 1)


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One layer that a job may name."""

    name: str
    channels: int
    windows: tuple[Window, ...]
    """What lies between the picture and this layer."""
    bytes_per_pixel: float
    """float32 activations of all layers down to this one, per pixel of the picture (bytes)."""

    @cached_property
    def stride_px(self) -> int:
        """Pixels of the picture from one cell to the next."""
        stride = 1
        for window in self.windows:
            stride *= window.stride
        return stride

    def side(self, side_px: int) -> int:
        """Cells along a side of `side_px` pixels."""
        cells = side_px
        for window in self.windows:
            cells = window.side(cells)
        return cells

    def least_side_px(self, cells: int) -> int:
        """The shortest side that leaves so many cells (px)."""
        return next(side_px for side_px in count(1) if self.side(side_px) >= cells)


@dataclass(frozen=True, kw_only=True)
class DreamDefaults:
    """What DeepDream takes where a job leaves it open."""

    layers: Mapping[str, float]
    """Coefficient of each layer."""
    presets: Mapping[Preset, Mapping[str, float]]
    step: float = 0.01
    """In units of a [-1, 1] value range."""
    max_loss: float | None = None
    jitter_px: int = 0


@dataclass(frozen=True, kw_only=True)
class Network:
    """A network of keras.applications, or SqueezeNet 1.1, without its classifier."""

    name: NetworkName
    layers: Mapping[str, Layer]
    """In the order in which a picture passes them."""
    preprocessing: Literal["tf", "caffe"]
    """`tf`: RGB in [-1, 1]. `caffe`: BGR in 0..255 minus the mean colour of ImageNet."""
    weights_bytes: int
    gradient_factor: float
    """Peak memory of a picture's gradient in units of the activations that it passes (measured on a CPU)."""
    dream: DreamDefaults

    def in_order(self, layers: Iterable[str]) -> tuple[str, ...]:
        """The same layers, each once, in the order in which a picture passes them."""
        wanted = set(layers)
        return tuple(name for name in self.layers if name in wanted)

    def gradient_bytes(self, layers: Iterable[str], pixels: int) -> float:
        """Peak memory of the gradient of a picture of so many pixels, down to the last of these layers (bytes)."""
        return self.gradient_factor * pixels * max(self.layers[name].bytes_per_pixel for name in layers)

    def least_side_px(self, layers: Iterable[str], cells: int = 1) -> int:
        """The shortest side that leaves so many cells at every one of these layers (px)."""
        return max(self.layers[name].least_side_px(cells) for name in layers)

    def reach_px(self, layers: Iterable[str]) -> int:
        """How far around a part of a picture one must see, so that its features are the whole picture's (px).

        The reach of all windows down to the deepest of these layers, rounded up to its stride.
        """
        reach_px = 0
        for name in layers:
            layer_reach, stride = 0, 1
            for window in self.layers[name].windows:
                # A padded window looks as far to both sides; how a wider step lies depends on the side's length.
                centred = window.padded and window.stride == 1
                layer_reach += (window.kernel // 2 if centred else window.kernel - 1) * stride
                stride *= window.stride
            reach_px = max(reach_px, -(-layer_reach // stride) * stride)
        return reach_px


def _layers(stages: Iterable[tuple[str, int, list[Window], float]]) -> Mapping[str, Layer]:
    """Layers from rows of (name, channels, windows since the row before, bytes per pixel down to here)."""
    layers: dict[str, Layer] = {}
    windows: tuple[Window, ...] = ()
    for name, channels, more, bytes_per_pixel in stages:
        windows += tuple(more)
        layers[name] = Layer(name=name, channels=channels, windows=windows, bytes_per_pixel=bytes_per_pixel)
    return MappingProxyType(layers)


def _inception_v3_layers() -> Mapping[str, Layer]:
    """`mixed0` to `mixed10`, as numbered by keras.applications."""
    stem = [Window(3, 2), Window(3), Window(3, padded=True), Window(3, 2), Window(1), Window(3), Window(3, 2)]
    halve = [Window(3, 2)]
    rows: list[tuple[str, int, list[Window], float]] = [
        ("mixed0", 256, stem, 495.1),
        ("mixed1", 288, [], 586.7),
        ("mixed2", 288, [], 680.1),
        ("mixed3", 768, halve, 728.8),
        ("mixed4", 768, [], 796.3),
        ("mixed5", 768, [], 869.5),
        ("mixed6", 768, [], 942.7),
        ("mixed7", 768, [], 1021.6),
        ("mixed8", 1280, halve, 1054.6),
        ("mixed9", 2048, [], 1093.8),
        ("mixed10", 2048, [], 1135.5),
    ]
    return _layers(rows)


def _vgg_layers(convolutions_per_block: tuple[int, ...]) -> Mapping[str, Layer]:
    """All convolutions of a VGG network (Simonyan & Zisserman, 2014); each block but the first starts by pooling."""
    rows: list[tuple[str, int, list[Window], float]] = []
    bytes_per_pixel, cells_per_pixel = 0.0, 1.0
    for block, convolutions in enumerate(convolutions_per_block, start=1):
        channels = min(64 * 2 ** (block - 1), 512)
        pooling: list[Window] = []
        if block > 1:
            pooling, cells_per_pixel = [Window(2, 2)], cells_per_pixel / 4
            bytes_per_pixel += 4 * rows[-1][1] * cells_per_pixel
        for number in range(1, convolutions + 1):
            bytes_per_pixel += 4 * channels * cells_per_pixel
            windows = [*pooling, Window(3, padded=True)] if number == 1 else [Window(3, padded=True)]
            rows.append((f"block{block}_conv{number}", channels, windows, bytes_per_pixel))
    return _layers(rows)


def _squeezenet_layers() -> Mapping[str, Layer]:
    """`conv1`, the fire modules `fire2` to `fire9`, and the class maps `conv10`."""
    halve, fire = [Window(3, 2)], [Window(3, padded=True)]
    rows: list[tuple[str, int, list[Window], float]] = [
        ("conv1", 64, [Window(3, 2, padded=True)], 64.0),
        ("fire2", 128, halve + fire, 147.3),
        ("fire3", 128, fire, 214.8),
        ("fire4", 256, halve + fire, 256.2),
        ("fire5", 256, fire, 289.6),
        ("fire6", 384, halve + fire, 305.9),
        ("fire7", 384, fire, 318.2),
        ("fire8", 512, fire, 334.7),
        ("fire9", 512, fire, 351.2),
        ("conv10", 1000, [], 366.3),
    ]
    return _layers(rows)


_VGG_DREAM = DreamDefaults(
    layers={"block4_conv3": 1.0, "block5_conv2": 1.0},
    presets={
        "geometric": {"block3_conv1": 1.0, "block3_conv3": 1.0},
        "creatures": {"block5_conv1": 1.0, "block5_conv3": 1.0},
    },
    jitter_px=32,
)

NETWORKS: Mapping[str, Network] = MappingProxyType(
    {
        network.name: network
        for network in (
            Network(
                name="inception_v3",
                layers=_inception_v3_layers(),
                preprocessing="tf",
                weights_bytes=4 * 21_802_784,
                gradient_factor=1.5,
                dream=DreamDefaults(
                    # Chollet, "Deep Learning with Python" (2017), listing 8.8 to 8.12.
                    layers={"mixed2": 0.2, "mixed3": 3.0, "mixed4": 2.0, "mixed5": 1.5},
                    presets={
                        "geometric": {"mixed1": 1.0, "mixed2": 1.0},
                        "creatures": {"mixed5": 1.0, "mixed6": 1.5, "mixed7": 2.0},
                    },
                    max_loss=10.0,
                ),
            ),
            Network(
                name="vgg16",
                layers=_vgg_layers((2, 2, 3, 3, 3)),
                preprocessing="caffe",
                weights_bytes=4 * 14_714_688,
                gradient_factor=4.0,
                dream=_VGG_DREAM,
            ),
            Network(
                name="vgg19",
                layers=_vgg_layers((2, 2, 4, 4, 4)),
                preprocessing="caffe",
                weights_bytes=4 * 20_024_384,
                gradient_factor=4.0,
                dream=_VGG_DREAM,
            ),
            Network(
                name="squeezenet",
                layers=_squeezenet_layers(),
                preprocessing="caffe",
                weights_bytes=4 * 1_235_496,
                gradient_factor=2.5,
                dream=DreamDefaults(
                    layers={"fire5": 1.0, "fire7": 1.0},
                    # Without it a few hot spots take all the steps, in noise instead of eyes.
                    jitter_px=32,
                    presets={
                        "geometric": {"fire3": 1.0, "fire4": 1.0},
                        "creatures": {"fire7": 1.0, "fire9": 1.0},
                    },
                ),
            ),
        )
    }
)
