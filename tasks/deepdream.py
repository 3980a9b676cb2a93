"""DeepDream: gradient ascent on what a network sees in a picture (Mordvintsev et al., 2015; Chollet, 2017, ch. 8.2).

The objective is Chollet's: the sum over the layers of coefficient * sum(a[2:-2, 2:-2]**2) / size(a), where a
(height, width, channels) are a layer's activations. Two cells at each border don't count, since the padding shows in
them; the size is that of all of a. With a guide picture it is that of google/deepdream (`objective_guide`): a**2 gives
way to the product of a's feature vectors with the best-matching ones of the guide.

Pictures are held in [-1, 1] for every network, (height, width, 3) float32. Each step adds
step * gradient / max(mean(|gradient|), 1e-7), so that one `step` means the same for each of them.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import tensorflow as tf

from shared.errors import Diverged, JobCancelled, JobTimedOut
from shared.kinds.deepdream import (
    CROP_CELLS,
    GUIDE_SIDE_PX,
    DeepDreamParams,
    Shape,
    fitted,
    octave_shapes,
    tile_shape,
)
from tasks.job_context import JobContext
from tasks.networks import pretrained
from tasks.networks.pretrained import PretrainedNetwork
from tasks.tiles import Box, Tiles

PREVIEW_EVERY_STEPS = 10
PREVIEW_SIDE_PX = 1024
"""A look on the way need not be larger."""
_LEAST_SCALE = 1e-7
_MATCHED_AT_ONCE = 1024
"""Feature vectors that are compared with all of the guide's at a time, which bounds the memory."""


@dataclass
class Octave:
    """What one octave came to."""

    width: int
    height: int
    steps: int = 0
    """Steps that were applied."""
    loss_first: float | None = None
    loss_last: float | None = None
    ended_by: str = "iterations"
    """`iterations`, or `max_loss`."""
    tiles: int = 1
    """Pieces in which the last gradient was computed."""


@dataclass
class Dream:
    """How far a job is: all that changes from step to step."""

    picture: np.ndarray
    octave: int = 0
    """The octave that is worked on, from 0."""
    iteration: int = 0
    """Steps done in it."""
    octaves: list[Octave] = field(default_factory=list)

    def state(self) -> dict[str, Any]:
        """All that is needed to go on; random numbers come from (seed, step) and need none."""
        octaves = [asdict(octave) for octave in self.octaves]
        return {
            "picture": self.picture,
            "octave": self.octave,
            "iteration": self.iteration,
            "octaves": octaves,
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "Dream":
        """The inverse of `state`."""
        octaves = [Octave(**octave) for octave in state["octaves"]]
        return cls(state["picture"], state["octave"], state["iteration"], octaves)


def run(params: DeepDreamParams, job: JobContext) -> None:
    """Dream on a picture, octave by octave, and leave `result.png`."""
    network = load_network(params, job)
    original = to_unit(job.load_image(params.image))
    original = resize(original, fitted(shape_of(original), params.max_side_px))
    shapes = octave_shapes(shape_of(original), params.octaves, params.octave_scale)
    resumed = job.resume()
    dream = Dream.from_state(resumed) if resumed else Dream(resize(original, shapes[0]))
    ascent = Ascent(params, job, network)
    try:
        with job.heeding_signals():
            for octave in range(dream.octave, params.octaves):
                dream.picture = resize(dream.picture, shapes[octave])
                ascent.climb(dream)
                dream.picture = dream.picture + lost_detail(
                    original, shapes[max(0, octave - 1)], shapes[octave]
                )
                dream.octave, dream.iteration = octave + 1, 0
                ascent.save_preview(dream)
                job.save_checkpoint(ascent.steps(dream), dream.state())
    except (JobCancelled, JobTimedOut):
        job.save_image("partial.png", to_255(dream.picture))
        raise
    finally:
        job.summary["octaves"] = [asdict(octave) for octave in dream.octaves]
    job.save_image("result.png", to_255(dream.picture))


def load_network(params: DeepDreamParams, job: JobContext) -> PretrainedNetwork:
    """The job's network down to its last layer, its weights' hash noted."""
    network = pretrained.load(
        params.network,
        params.dreaming_layers,
        weights_dir=job.settings.weights_dir,
        on_fetched=job.fetching,
    )
    job.provenance["network"] = {"name": network.name, "weights_sha256": network.weights_sha256}
    return network


class Ascent:
    """The steps of one job: gradient ascent at the size of one octave after the other."""

    def __init__(self, params: DeepDreamParams, job: JobContext, network: PretrainedNetwork) -> None:
        self.params = params
        self.job = job
        self.layers = network.layers
        self.coefficients = tf.constant([params.layers[layer] for layer in network.layers], tf.float32)
        guided = params.guide_image is not None
        self.guide = guide_features(network, job.load_image(params.guide_image)) if guided else []
        self.gradient_at = gradient_function(network, guided=guided)
        self.metrics: dict[str, float] = {}

    def climb(self, dream: Dream) -> None:
        """Take an octave's steps, changing `dream`; ends early where the loss is above `max_loss`.

        Raises:
            Diverged: the loss or the gradient left the finite numbers.
        """
        height, width = shape_of(dream.picture)
        if len(dream.octaves) == dream.octave:
            dream.octaves.append(Octave(width, height))
        octave = dream.octaves[dream.octave]
        while dream.iteration < self.params.iterations:
            loss, gradient = self.look(dream)
            octave.loss_last = loss
            octave.loss_first = loss if octave.loss_first is None else octave.loss_first
            # Before the step is taken, as in the book; its second edition looks after it.
            if self.params.max_loss is not None and loss > self.params.max_loss:
                self.end_early(dream, octave, loss)
                return
            dream.picture += self.params.step * normalised(gradient)
            dream.iteration += 1
            octave.steps += 1
            self.report(dream)
            if self.steps(dream) % PREVIEW_EVERY_STEPS == 0 and dream.iteration < self.params.iterations:
                self.save_preview(dream)

    def look(self, dream: Dream) -> tuple[float, np.ndarray]:
        """The loss, and its gradient at the picture as it is shifted for this step, shifted back."""
        random = step_random(self.params.seed or 0, self.steps(dream))
        jitter_px = self.params.jitter_px
        shift = random.integers(-jitter_px, jitter_px, size=2, endpoint=True)
        picture = np.roll(dream.picture, shift, axis=(0, 1))
        shape = shape_of(picture)
        tile_px = self.params.tile_px or self.params.auto_tile_px(shape)
        tiles = Tiles(shape, tile_shape(shape, tile_px), random)
        dream.octaves[dream.octave].tiles = len(tiles.boxes)
        losses = []

        def gradient_of(box: Box) -> np.ndarray:
            if losses:
                self.report(dream, f", tile {len(losses) + 1} of {len(tiles.boxes)}")
            loss, gradient = self.gradient_at(picture[box], self.coefficients, self.guide)
            losses.append(loss.numpy())
            return gradient.numpy()

        gradient = np.roll(tiles.blend(gradient_of), -shift, axis=(0, 1))
        of_layers = np.mean(losses, axis=0)
        loss = float(of_layers.sum())
        if not (np.isfinite(loss) and np.isfinite(gradient).all()):
            raise Diverged(
                f"loss or gradient are not finite in octave {dream.octave + 1}; choose a smaller step"
            )
        self.metrics = {"loss": loss} | dict(zip(self.layers, of_layers.tolist(), strict=True))
        return loss, gradient

    def end_early(self, dream: Dream, octave: Octave, loss: float) -> None:
        """Spare an octave the rest of its steps: the loss is high enough."""
        octave.ended_by = "max_loss"
        dream.iteration = self.params.iterations
        if octave.steps == 0:
            self.job.warn(
                "octave_unchanged",
                f"octave {dream.octave + 1} changed nothing: its loss of {loss:.3g} is above max_loss "
                f"{self.params.max_loss:g} before the first step",
            )
        self.report(dream)

    def steps(self, dream: Dream) -> int:
        """Steps behind us, those counted that an octave was spared."""
        return dream.octave * self.params.iterations + dream.iteration

    def report(self, dream: Dream, detail: str = "") -> None:
        """Say how far the dream is; raises StopRequested."""
        height, width = shape_of(dream.picture)
        self.job.report(
            self.steps(dream),
            self.params.octaves * self.params.iterations,
            f"octave {dream.octave + 1} of {self.params.octaves}, {width}x{height}{detail}",
            metrics=self.metrics,
            checkpoint=dream.state,
        )

    def save_preview(self, dream: Dream) -> None:
        """A look at the dream, named by its step."""
        small = resize(dream.picture, fitted(shape_of(dream.picture), PREVIEW_SIDE_PX))
        self.job.save_image(f"preview-{self.steps(dream):04d}.png", to_255(small))


@lru_cache(maxsize=16)
def gradient_function(
    network: PretrainedNetwork, *, guided: bool
) -> Callable[..., tuple[tf.Tensor, tf.Tensor]]:
    """(picture, coefficients, guide features) -> (weighted loss of each layer, gradient of their sum).

    One trace serves pictures of all sizes, and every job of this process with the same network and layers.
    """
    picture = tf.TensorSpec([None, None, 3], tf.float32)
    coefficients = tf.TensorSpec([len(network.layers)], tf.float32)
    guide = [tf.TensorSpec([None, None], tf.float32) for _ in network.layers] if guided else []

    @tf.function(input_signature=[picture, coefficients, guide], autograph=False)
    def gradient_at(
        picture: tf.Tensor, coefficients: tf.Tensor, guide: list[tf.Tensor]
    ) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(picture)
            activations = network.activations(to_255(picture)[None])
            features = [activations[layer][0] for layer in network.layers]
            if guided:
                strengths = [strength_towards(a, g) for a, g in zip(features, guide, strict=True)]
            else:
                strengths = [strength(a) for a in features]
            losses = coefficients * tf.stack(strengths)
        return losses, tape.gradient(losses, picture)

    return gradient_at


def strength(features: tf.Tensor) -> tf.Tensor:
    """How strong a layer's activations (height, width, channels) are: the sum of their squares without the border."""
    return tf.reduce_sum(cropped(features) ** 2) / size(features)


def strength_towards(features: tf.Tensor, guide: tf.Tensor) -> tf.Tensor:
    """How much a layer's activations are like the guide's feature vectors (cells, channels) that suit them best."""
    vectors = tf.reshape(cropped(features), [-1, features.shape[-1]])
    best = tf.gather(guide, best_matches(tf.stop_gradient(vectors), guide))
    return tf.reduce_sum(vectors * best) / size(features)


def best_matches(vectors: tf.Tensor, guide: tf.Tensor) -> tf.Tensor:
    """For each vector (n, channels), which of the guide's (cells, channels) has the largest product with it: (n,)."""
    starts = tf.range(0, tf.shape(vectors)[0], _MATCHED_AT_ONCE)
    padded = tf.pad(vectors, [[0, -tf.shape(vectors)[0] % _MATCHED_AT_ONCE], [0, 0]])

    def match(start: tf.Tensor) -> tf.Tensor:
        products = tf.matmul(padded[start : start + _MATCHED_AT_ONCE], guide, transpose_b=True)
        return tf.argmax(products, axis=1, output_type=tf.int32)

    matches = tf.map_fn(match, starts, fn_output_signature=tf.TensorSpec([_MATCHED_AT_ONCE], tf.int32))
    return tf.reshape(matches, [-1])[: tf.shape(vectors)[0]]


def cropped(features: tf.Tensor) -> tf.Tensor:
    """Features without the cells in which the padding shows."""
    return features[CROP_CELLS:-CROP_CELLS, CROP_CELLS:-CROP_CELLS]


def size(features: tf.Tensor) -> tf.Tensor:
    """How many values there are."""
    return tf.cast(tf.size(features, tf.int64), tf.float32)


def guide_features(network: PretrainedNetwork, guide: np.ndarray) -> list[tf.Tensor]:
    """Each layer's feature vectors (cells, channels) in a guide picture (height, width, 3) of uint8."""
    small = resize(to_unit(guide), fitted(shape_of(guide), GUIDE_SIDE_PX))
    activations = network.activations(to_255(small)[None])
    return [tf.reshape(activations[layer], [-1, activations[layer].shape[-1]]) for layer in network.layers]


def normalised(gradient: np.ndarray) -> np.ndarray:
    """The gradient with a mean magnitude of 1, so that a step is as long in a flat picture as in a busy one."""
    return gradient / max(float(np.abs(gradient).mean()), _LEAST_SCALE)


def lost_detail(original: np.ndarray, smaller: Shape, shape: Shape) -> np.ndarray:
    """What the original has at `shape` and a picture that grew from `smaller` cannot have."""
    whole = resize(original, shape)
    return whole - resize(resize(original, smaller), shape)


def resize(picture: np.ndarray, shape: Shape) -> np.ndarray:
    """A new picture of exactly this shape: bicubic, with a wider kernel where it shrinks, so that nothing aliases.

    The book's bilinear zoom would blur the small octaves' patterns each time they grow.
    """
    if shape_of(picture) == shape:
        return picture.copy()
    with tf.device("CPU"):  # large pictures would not leave a GPU the room for a tile
        return tf.image.resize(picture, shape, method="bicubic", antialias=True).numpy()


def step_random(seed: int, step: int) -> np.random.Generator:
    """The random numbers of one step, whatever ran before it: so a resumed job draws what an unbroken one does."""
    return np.random.default_rng([seed, step])


def shape_of(picture: np.ndarray) -> Shape:
    """Height and width."""
    return picture.shape[0], picture.shape[1]


def to_unit(picture: Any) -> Any:
    """0..255 -> [-1, 1], float32."""
    return np.asarray(picture, np.float32) / np.float32(127.5) - np.float32(1.0)


def to_255(picture: Any) -> Any:
    """[-1, 1] -> 0..255; neither clipped nor rounded, also for tensors."""
    return (picture + 1.0) * 127.5
