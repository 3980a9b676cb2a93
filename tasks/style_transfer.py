"""Neural style transfer (Gatys, Ecker and Bethge, 2015), minimised by L-BFGS, coarse to fine, in a decorrelated basis.

The losses are those of the paper or of the Keras book (`tasks/style_losses.py`). What departs from both:

- The picture is painted at several sizes, each twice the one before. Coarse structure, which takes many iterations,
  is found where an iteration is cheap.
- At each size the variables are frequencies instead of pixels (`tasks/fourier.py`).
- The weights are those for a picture of 400 x 600 px, the book's. The style loss doesn't depend on the size of the
  picture, while content and variation are sums over it: these two are weighted by the ratio of pixels.
- Each network has factors of its own for content and style (`STYLE_DEFAULTS`).
"""

import csv
import io
import math
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import scipy
import tensorflow as tf

from shared.errors import Diverged, InvalidInput, JobCancelled, JobTimedOut
from shared.kinds.style_transfer import (
    BLACK_MASK,
    STYLE_DEFAULTS,
    Shape,
    StyleTransferParams,
    with_longer_side,
)
from shared.networks import NETWORKS
from tasks.colors import keep_colors, luminance
from tasks.fourier import DecorrelatedBasis
from tasks.images import resize
from tasks.job_context import JobContext
from tasks.lbfgs import Stop, lbfgs
from tasks.networks import pretrained
from tasks.style_objective import Functions, Losses, Objective, Weights, build_objective, functions_for

BOOK_PIXELS = 400 * 600
"""The size of picture at which the weights are the book's."""
PREVIEWS = 10
XLA_PAYS_FROM = 1e10
"""Memory of all gradients of a scale (bytes) from where a tenth less time is worth a compilation."""
FAR_BELOW = 0.5
"""A scale that ended before this part of its iterations is warned of."""

COLUMNS = ("iteration", "evaluations", "content", "style", "variation", "total")


@dataclass
class Scale:
    """What one size of the picture came to."""

    width: int
    height: int
    iterations: int = 0
    evaluations: int = 0
    loss_first: float | None = None
    loss_last: float | None = None
    ended_by: str = "iterations"
    """`iterations`, `minimum` (the gradient is zero), or `no_progress` (no step lowers the loss any more)."""
    message: str = ""
    """SciPy's own word on it."""


@dataclass
class Painting:
    """How far a job is: all that changes from evaluation to evaluation."""

    picture: np.ndarray
    """(height, width, 3) float32, where L-BFGS last started its memory anew."""
    scale: int = 0
    """The scale that is worked on, from 0, the coarsest."""
    scales: list[Scale] = field(default_factory=list)
    rows: list[list[float]] = field(default_factory=list)
    """The history up to `picture`."""
    losses: list[tuple[float, float, float]] = field(default_factory=list)
    gradients: list[np.ndarray] = field(default_factory=list)
    """Of each evaluation since `picture`: with them the same steps are taken again without the network."""
    optimiser: list[Any] = field(default_factory=list)
    """What decides which steps are taken; a release with another optimiser goes on from `picture` without the trace."""

    def state(self) -> dict[str, Any]:
        """All that is needed to go on."""
        return {
            "picture": self.picture,
            "scale": self.scale,
            "iteration": self.scales[-1].iterations if self.scales else 0,
            "scales": [asdict(scale) for scale in self.scales],
            "rows": self.rows,
            "losses": np.array(self.losses, np.float64).reshape(-1, 3),
            "gradients": np.array(self.gradients, np.float32).reshape(-1, *self.picture.shape),
            "optimiser": self.optimiser,
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "Painting":
        """The inverse of `state`."""
        return cls(
            picture=state["picture"],
            scale=state["scale"],
            scales=[Scale(**scale) for scale in state["scales"]],
            rows=state["rows"],
            losses=[tuple(losses) for losses in state["losses"].tolist()],
            gradients=list(state["gradients"]),
            optimiser=state.get("optimiser", []),
        )

    def keep_trace_of(self, optimiser: list[Any]) -> None:
        """Forget the evaluations since `picture` if another optimiser made them: its steps led to other points."""
        if self.optimiser != optimiser:
            self.losses, self.gradients = [], []
        self.optimiser = optimiser

    @property
    def iterations(self) -> int:
        return sum(scale.iterations for scale in self.scales)

    @property
    def evaluations(self) -> int:
        return sum(scale.evaluations for scale in self.scales)


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """The uploaded pictures, in their own sizes."""

    params: StyleTransferParams
    content: np.ndarray
    styles: list[np.ndarray]
    masks: list[np.ndarray] | None
    init: np.ndarray | None
    """What the painting starts from; None for noise."""

    @classmethod
    def load(cls, params: StyleTransferParams, job: JobContext) -> "Inputs":
        content = job.load_image(params.content_image)
        styles = [job.load_image(upload) for upload in params.style_images]
        starts = {"content": lambda: content, "style": lambda: styles[0], "random": lambda: None}
        return cls(
            params=params,
            content=content,
            styles=styles,
            masks=[_mask(job, upload, number) for number, upload in enumerate(params.masks, 1)]
            if params.masks
            else None,
            init=job.load_image(params.init_image) if params.init_image else starts[params.init](),
        )

    def start(self, shape: Shape) -> np.ndarray:
        """What the painting starts from, at this size: (height, width, 3) float32."""
        if self.init is None:
            noise = np.random.default_rng(self.params.seed).normal(127.5, 25, (*shape, 3))
            return noise.astype(np.float32)
        return resize(_same_aspect(self.init, shape), shape)


def run(params: StyleTransferParams, job: JobContext) -> None:
    """Paint the content image in the style of the others, coarse to fine, and leave `result.png`."""
    inputs = Inputs.load(params, job)
    shapes = params.scale_shapes(params.result_shape(inputs.content.shape[:2]))
    functions = _functions(params, job)
    state = job.resume()
    painting = Painting.from_state(state) if state else Painting(inputs.start(shapes[0]))
    painter = Painter(inputs, shapes, functions, painting, job)
    try:
        for scale in range(painting.scale, len(shapes)):
            painter.paint(scale)
        painter.tell_done()
    except (JobCancelled, JobTimedOut, Diverged):
        job.save_image("partial.png", painter.finished(painter.best))
        leave_history(painting.rows + painter.new_rows, job)
        raise
    job.save_image("result.png", painter.finished(painting.picture))
    leave_history(painting.rows, job)
    tell_end(painting, params.scale_iterations(len(shapes)), job)


class Painter:
    """Takes a painting through its scales, and tells the job of it."""

    def __init__(
        self,
        inputs: Inputs,
        shapes: list[Shape],
        functions: Functions,
        painting: Painting,
        job: JobContext,
    ) -> None:
        self.inputs, self.shapes, self.functions = inputs, shapes, functions
        self.painting, self.job = painting, job
        self.planned = inputs.params.scale_iterations(len(shapes))
        self.best = painting.picture
        """The picture with the lowest loss so far; always finite."""
        self.new_rows: list[list[float]] = []
        """The history since `painting.picture`."""
        self._metrics: dict[str, float] = {}
        self._last_preview = self._previews_by(self._steps_before())

    def paint(self, scale: int) -> None:
        """Minimise at one size, in runs of L-BFGS that each start its memory anew.

        The runs are so short that the gradients of one fit into a checkpoint. With them a resumed job takes the same
        steps again without the network, and equals an unbroken one.
        """
        painting = self.painting
        shape, planned = self.shapes[scale], self.planned[scale]
        if len(painting.scales) == scale:
            self._enter(scale)
        self.best = painting.picture
        objective = self.objective(shape, planned)
        now = painting.scales[scale]
        run_iterations = self.inputs.params.memory_iterations(shape)
        painting.keep_trace_of([scipy.__version__, self.inputs.params.corrections(shape), run_iterations])
        while now.iterations < planned:
            stop = self._run(objective, min(run_iterations, planned - now.iterations))
            now.message = stop.message
            if stop.at_minimum or not stop.iterations:
                now.ended_by = "minimum" if stop.at_minimum else "no_progress"
                break

    def finished(self, picture: np.ndarray) -> np.ndarray:
        """A picture as it is left: at the result's size, with the content's colours if they are to be kept."""
        picture = np.clip(resize(picture, self.shapes[-1]), 0, 255)
        return keep_colors(picture, self.inputs.content) if self.inputs.params.original_colors else picture

    def _enter(self, scale: int) -> None:
        """Bring the painting to the next size."""
        painting, shape = self.painting, self.shapes[scale]
        if scale > 0:
            painting.picture = self._enlarged(painting.picture, shape)
        painting.scale = scale
        painting.scales.append(Scale(width=shape[1], height=shape[0]))

    def _enlarged(self, picture: np.ndarray, shape: Shape) -> np.ndarray:
        """A painting at the next size, with the detail of what it started from, which the smaller one can't have."""
        if self.inputs.init is None:
            return resize(picture, shape)
        smaller = self.inputs.start(picture.shape[:2])
        return resize(picture, shape) + self.inputs.start(shape) - resize(smaller, shape)

    def objective(self, shape: Shape, iterations: int) -> Objective:
        """The objective at one size, with all that does not change while it is painted."""
        inputs, params = self.inputs, self.inputs.params
        whole = params.tile_side_px(shape) is None
        return build_objective(
            self.functions,
            content=resize(inputs.content, shape),
            styles=[resize(style, params.style_shape(style.shape[:2], shape)) for style in inputs.styles],
            masks=[resize_nearest(mask, shape) for mask in inputs.masks] if inputs.masks else None,
            weights=scale_weights(params, shape, self.shapes[-1]),
            tile_px=params.tile_side_px,
            halo_px=params.halo_px,
            jit=whole and xla_pays(params, shape, iterations),
        )

    def _run(self, objective: Objective, iterations: int) -> Stop:
        """One run of L-BFGS from the painting's picture; what was computed before an interruption is not again."""
        painting = self.painting
        basis = DecorrelatedBasis(painting.picture)
        run = _Run(self, objective, basis)
        stop = lbfgs(
            run.evaluate,
            np.zeros(painting.picture.size),
            iterations=iterations,
            corrections=self.inputs.params.corrections(painting.picture.shape[:2]),
            on_iteration=run.on_iteration,
        )
        now = painting.scales[-1]
        now.iterations += stop.iterations
        now.evaluations += stop.evaluations
        now.loss_first = run.first.total if now.loss_first is None else now.loss_first
        now.loss_last = run.accepted.total
        painting.picture = basis.picture(stop.point)
        painting.rows, self.new_rows = painting.rows + self.new_rows, []
        painting.losses, painting.gradients = [], []
        return stop

    def _steps_before(self) -> int:
        """How many steps of the whole job lie before the painting's picture."""
        painting = self.painting
        return sum(self.planned[: painting.scale]) + sum(
            s.iterations for s in painting.scales[painting.scale :]
        )

    def _previews_by(self, step: int) -> int:
        return step // max(1, sum(self.planned) // PREVIEWS)

    def tell(self, iteration: int, losses: Losses) -> None:
        """Report where the painting is; here it is stopped, within one evaluation."""
        done = self._steps_before() + iteration
        total = sum(self.planned)
        height, width = self.shapes[self.painting.scale]
        self._metrics = {**losses._asdict(), "total": losses.total}
        self.job.report(
            done,
            total,
            f"{width}x{height} px, size {self.painting.scale + 1} of {len(self.shapes)}",
            metrics=self._metrics,
            checkpoint=self.painting.state,
        )
        if self._previews_by(done) > self._last_preview and done < total:
            self._last_preview = self._previews_by(done)
            self.job.save_image(f"preview-{done:04d}.png", self.finished(self.best))

    def tell_done(self) -> None:
        """Report that all is done, also where the optimiser ended before its iterations."""
        total = sum(self.planned)
        self.job.report(total, total, "painted", metrics=self._metrics, checkpoint=self.painting.state)


class _Run:
    """One run of L-BFGS: evaluations replayed from the painting's trace, then new ones added to it."""

    def __init__(self, painter: Painter, objective: Objective, basis: DecorrelatedBasis) -> None:
        self.painter, self.objective, self.basis = painter, objective, basis
        self.evaluations = self.iterations = 0
        self.lowest = math.inf

    def evaluate(self, point: np.ndarray) -> tuple[float, np.ndarray]:
        painter, painting = self.painter, self.painter.painting
        picture = self.basis.picture(point)
        if self.evaluations == len(painting.losses):
            losses, gradient = self.objective(picture)
            self._check(losses, gradient)
            painting.losses.append(tuple(losses))
            painting.gradients.append(gradient)
        losses = Losses(*painting.losses[self.evaluations])
        gradient = painting.gradients[self.evaluations]
        self.evaluations += 1
        if self.evaluations == 1:
            self.first = self.accepted = losses
        if losses.total < self.lowest:
            self.lowest, painter.best = losses.total, picture
        self.last = losses
        painter.tell(self.iterations, losses)
        return losses.total, self.basis.gradient(gradient)

    def on_iteration(self) -> None:
        self.iterations += 1
        self.accepted = self.last  # the line search ends at the point that it accepts
        painting = self.painter.painting
        iterations, evaluations = (
            painting.iterations + self.iterations,
            painting.evaluations + self.evaluations,
        )
        self.painter.new_rows.append([iterations, evaluations, *self.accepted, self.accepted.total])
        self.painter.tell(self.iterations, self.accepted)

    def _check(self, losses: Losses, gradient: np.ndarray) -> None:
        if not (math.isfinite(losses.total) and np.isfinite(gradient).all()):
            raise Diverged(
                f"the loss left the finite numbers (content {losses.content:.3g}, style {losses.style:.3g}, variation "
                f"{losses.variation:.3g}); the best picture before is kept as partial.png. Try smaller weights."
            )


def scale_weights(params: StyleTransferParams, shape: Shape, result: Shape) -> Weights:
    """The weights for a picture of this size, on the way to one of the size `result`."""
    own = STYLE_DEFAULTS[params.network]
    pixels = shape[0] * shape[1]
    per_pixel = BOOK_PIXELS / pixels
    # At the coarse sizes the layout is decided, and the style alone would make another one.
    coarseness = result[0] * result[1] / pixels
    layers = params.used_style_layers
    return Weights(
        content=params.content_weight * own.content_factor * per_pixel * coarseness,
        style=params.style_weight * own.style_factor[params.normalisation] / len(params.style_layers),
        variation=params.tv_weight * per_pixel,
        layers=tuple(params.style_layers[name] for name in layers),
        shares=tuple(params.style_shares),
    )


def xla_pays(params: StyleTransferParams, shape: Shape, iterations: int) -> bool:
    """Whether so many iterations at this size win back the seconds that XLA needs to compile for it.

    On a GPU the convolutions are cuDNN's either way.
    """
    passed_bytes = iterations * NETWORKS[params.network].gradient_bytes(
        params.used_layers, shape[0] * shape[1]
    )
    return passed_bytes > XLA_PAYS_FROM and not tf.config.list_physical_devices("GPU")


def leave_history(rows: list[list[float]], job: JobContext) -> None:
    """Leave each iteration's losses, times their weights, as `history.csv`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([int(row[0]), int(row[1]), *(f"{value:.9g}" for value in row[2:])] for row in rows)
    job.save_artifact("history.csv", text.getvalue().encode(), "text/csv")


def tell_end(painting: Painting, planned: list[int], job: JobContext) -> None:
    """Say why the optimiser stopped, and warn where that was far below what was asked."""
    last = painting.scales[-1]
    job.summary |= {
        "ended_by": last.ended_by,
        "message": last.message,
        "iterations": painting.iterations,
        "evaluations": painting.evaluations,
        "loss": last.loss_last,
        "scales": [asdict(scale) for scale in painting.scales],
    }
    for scale, wanted in zip(painting.scales, planned, strict=True):
        if scale.ended_by == "no_progress" and scale.iterations < FAR_BELOW * wanted:
            job.warn(
                "stopped_early",
                f"at {scale.width}x{scale.height} px the optimiser stopped after {scale.iterations} of {wanted} "
                f"iterations, since no step lowered the loss any more ({scale.message})",
            )


def resize_nearest(image: np.ndarray, shape: Shape) -> np.ndarray:
    """(height, width) -> `shape`, each pixel the nearest one's value."""
    rows, columns = (
        np.minimum((np.arange(wanted) + 0.5) * side / wanted, side - 1).astype(int)
        for wanted, side in zip(shape, image.shape, strict=True)
    )
    return image[np.ix_(rows, columns)]


def _mask(job: JobContext, upload: str, number: int) -> np.ndarray:
    """A region picture as (height, width) float32 in 0..1; what is transparent is not painted, as if black."""
    mask = luminance(job.load_image(upload, ground=0)) / 255
    if not mask.max() > 0:
        raise InvalidInput(BLACK_MASK.format(number=number), field="masks")
    return mask


def _same_aspect(image: np.ndarray, shape: Shape) -> np.ndarray:
    """The middle of an image, as much of it as has the aspect ratio of `shape`; all of it if only rounding differs."""
    if with_longer_side((image.shape[0], image.shape[1]), max(shape)) == shape:
        return image
    ratio = min(image.shape[0] / shape[0], image.shape[1] / shape[1])
    height, width = max(1, round(shape[0] * ratio)), max(1, round(shape[1] * ratio))
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return image[top : top + height, left : left + width]


def _functions(params: StyleTransferParams, job: JobContext) -> Functions:
    """The network's compiled functions, kept from an earlier job where there was one alike."""

    def on_fetched(done_bytes: int, total_bytes: int) -> None:
        job.report(
            0, 1, f"downloading the weights of {params.network}: {done_bytes:,} of {total_bytes:,} bytes"
        )

    network = pretrained.load(
        params.network,
        params.used_layers,
        weights_dir=job.settings.weights_dir,
        pooling=params.pooling,
        on_fetched=on_fetched,
    )
    job.provenance |= {"network": params.network, "weights_sha256": network.weights_sha256}
    return functions_for(
        network,
        params.content_layer,
        params.used_style_layers,
        params.normalisation,
        styles=len(params.style_images),
        masked=params.masks is not None,
    )
