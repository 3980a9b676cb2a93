"""Style transfer coarse to fine: L-BFGS at one size of the picture after the other, in a decorrelated basis."""

import math
from typing import Any

import numpy as np
import scipy
import tensorflow as tf

from shared.errors import Diverged
from shared.kinds import style_memory
from shared.kinds.style_sizes import Shape
from shared.kinds.style_transfer import StyleTransferParams
from shared.networks import NETWORKS
from tasks.colors import keep_colors
from tasks.fourier import DecorrelatedBasis
from tasks.images import nearest, resize
from tasks.job_context import JobContext
from tasks.lbfgs import Stop, lbfgs
from tasks.style_functions import Functions
from tasks.style_objective import Losses, Objective, build_objective
from tasks.style_painting import Painting, Scale
from tasks.style_pictures import StylePictures
from tasks.style_weights import Weights, scale_weights

PREVIEWS = 10
XLA_PAYS_FROM = 1e10
"""Memory of all gradients of a scale (bytes) from where a tenth less time is worth a compilation."""


class Painter:
    """Takes a painting through its scales, and tells the job of it."""

    def __init__(
        self,
        pictures: StylePictures,
        shapes: list[Shape],
        functions: Functions,
        painting: Painting,
        job: JobContext,
    ) -> None:
        self.pictures, self.shapes, self.functions = pictures, shapes, functions
        self.params = pictures.params
        self.painting, self.job = painting, job
        self.planned = self.params.scale_iterations(len(shapes))
        for number, scale in enumerate(painting.scales):
            self.planned[number] += style_memory.RESTART_ITERATIONS * scale.restarts
        self.best = painting.picture
        """The picture with the lowest loss so far; always finite."""
        self._run: Run | None = None
        self._done = max(painting.step, self._steps_before())
        self._metrics: dict[str, float] = {}
        self._last_preview = self._previews_by(self._steps_before())

    @property
    def now(self) -> Painting:
        """The painting with the iterations that L-BFGS has made since it started its memory."""
        return self._run.moved() if self._run is not None else self.painting

    def paint_all(self) -> None:
        """Take it through all scales that are left."""
        with self.job.heeding_signals():
            for scale in range(self.painting.scale, len(self.shapes)):
                self.paint(scale)
            self.tell_done()

    def paint(self, scale: int) -> None:
        """Minimise at one size, in one run of L-BFGS, or in several that each start its memory anew.

        The gradients of a run fit into a checkpoint. With them a resumed job takes the same steps again without the
        network, and equals an unbroken one. Of a picture that is too large for that none are kept.
        """
        if len(self.painting.scales) == scale:
            self._enter(scale)
        self.best = self.painting.picture
        now, shape, memory = self.painting.scales[scale], self.shapes[scale], self.params.memory
        if now.ended_by != "iterations":
            return  # it had come to its end before the job was interrupted
        if 0 < now.iterations < self.planned[scale] and not memory.keeps_trace(shape):
            now.restarts += 1
            self.planned[scale] += style_memory.RESTART_ITERATIONS
        planned = self.planned[scale]
        self.tell_alive()
        weights = scale_weights(self.params, shape, self.shapes[-1])
        now.weights = {"content": weights.content, "style": weights.style, "variation": weights.variation}
        objective = self.objective(shape, planned, weights)
        run_iterations = memory.run_iterations(shape, planned)
        self.painting.keep_trace_of(self._origin(weights, memory.corrections(shape), run_iterations))
        while (made := self.painting.scales[scale].iterations) < planned:
            stop = self._run_once(objective, min(run_iterations, planned - made), memory.keeps_trace(shape))
            now = self.painting.scales[scale]
            now.message = stop.message
            if stop.at_minimum or not stop.iterations:
                now.ended_by = "minimum" if stop.at_minimum else "no_progress"
                break

    def finished(self, picture: np.ndarray) -> np.ndarray:
        """A picture as it is left: at the result's size, with the content's colours if they are to be kept."""
        picture = np.clip(resize(picture, self.shapes[-1]), 0, 255)
        return keep_colors(picture, self.pictures.content) if self.params.original_colors else picture

    def objective(self, shape: Shape, iterations: int, weights: Weights) -> Objective:
        """The objective at one size, with all that does not change while it is painted."""
        pictures, params = self.pictures, self.params
        whole = params.memory.tile_side_px(shape) is None
        return build_objective(
            self.functions,
            content=resize(pictures.content, shape),
            styles=[
                resize(style, params.sizes.style_shape((style.shape[0], style.shape[1]), shape))
                for style in pictures.styles
            ],
            masks=[nearest(mask, shape) for mask in pictures.masks] if pictures.masks else None,
            weights=weights,
            tile_px=params.memory.tile_side_px,
            halo_px=params.memory.halo_px,
            jit=whole and xla_pays(params, shape, iterations),
            on_tile=self.tell_alive,
        )

    def _enter(self, scale: int) -> None:
        """Bring the painting to the next size."""
        painting, shape = self.painting, self.shapes[scale]
        if scale > 0:
            painting.picture = self._enlarged(painting.picture, shape)
        painting.scale = scale
        painting.scales.append(Scale(width=shape[1], height=shape[0]))

    def _enlarged(self, picture: np.ndarray, shape: Shape) -> np.ndarray:
        """A painting at the next size, with the detail of what it started from, which the smaller one can't have."""
        if self.pictures.init is None:
            return resize(picture, shape)
        smaller = self.pictures.start((picture.shape[0], picture.shape[1]))
        return resize(picture, shape) + self.pictures.start(shape) - resize(smaller, shape)

    def _origin(self, weights: Weights, corrections: int, run_iterations: int) -> list[Any]:
        """All that decides which points are evaluated, and what comes of it, as JSON holds it."""
        basis = DecorrelatedBasis.POWER, DecorrelatedBasis.F0
        return [
            scipy.__version__,
            corrections,
            run_iterations,
            *basis,
            weights.content,
            weights.style,
            weights.variation,
            *weights.layers,
            *weights.shares,
            self.functions.network.weights_sha256,
        ]

    def _run_once(self, objective: Objective, iterations: int, traced: bool) -> Stop:
        """One run of L-BFGS from the painting's picture; what was computed before an interruption is not again."""
        self._run = Run(self, objective, traced)
        stop = self._run.minimise(
            iterations, self.params.memory.corrections(self.shapes[self.painting.scale])
        )
        self.painting, self._run = self._run.moved(), None
        return stop

    def _steps_before(self) -> int:
        """How many steps of the whole job lie before the painting's picture."""
        painting = self.painting
        return sum(self.planned[: painting.scale]) + sum(
            scale.iterations for scale in painting.scales[painting.scale :]
        )

    def _previews_by(self, step: int) -> int:
        return step // max(1, sum(self.planned) // PREVIEWS)

    def tell(self, iteration: int, losses: Losses, *, anew: bool = True) -> None:
        """Report where the painting is; here it is stopped, within one evaluation.

        Args:
            anew: it was not there before, in an attempt that was interrupted, and has been told then.
        """
        done = self._steps_before() + iteration
        self._metrics = {**losses._asdict(), "total": losses.total}
        if anew:
            self._done = done
            self.tell_alive()
        if self._previews_by(done) > self._last_preview and done < sum(self.planned):
            self._last_preview = self._previews_by(done)
            name = f"preview-{done:04d}.png"
            if anew or name not in self.job.artifacts:
                self.job.save_image(name, self.finished(self.best))

    def tell_alive(self) -> None:
        """Report again what was told last: between the tiles of a large picture, which may take minutes."""
        height, width = self.shapes[self.painting.scale]
        self.job.report(
            self._done,
            sum(self.planned),
            f"{width}x{height} px, size {self.painting.scale + 1} of {len(self.shapes)}",
            metrics=self._metrics,
            checkpoint=self.state,
        )

    def tell_done(self) -> None:
        """Report that all is done, also where the optimiser ended before its iterations."""
        total = sum(self.planned)
        self.job.report(total, total, "painted", metrics=self._metrics, checkpoint=self.state)

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds: with a trace the picture before it, else the one that was reached."""
        keeps_trace = self._run is None or self._run.traced
        return (self.painting if keeps_trace else self.now).state()


class Run:
    """One run of L-BFGS: evaluations replayed from the painting's trace, then new ones."""

    def __init__(self, painter: Painter, objective: Objective, traced: bool) -> None:
        self.painter, self.objective, self.traced = painter, objective, traced
        self.painting = painter.painting
        self.basis = DecorrelatedBasis(self.painting.picture)
        self.rows: list[list[float]] = []
        """The history since the painting's picture."""
        self.evaluations = self._evaluations_accepted = 0
        self._known = len(self.painting.losses)
        """So many evaluations were made before an interruption."""
        self.lowest = math.inf
        self._accepted_picture = self.painting.picture

    def minimise(self, iterations: int, corrections: int) -> Stop:
        """Go on from the painting's picture for at most so many iterations."""
        stop = lbfgs(
            self.evaluate,
            np.zeros(self.painting.picture.size),
            iterations=iterations,
            corrections=corrections,
            on_iteration=self.on_iteration,
        )
        self._evaluations_accepted = self.evaluations  # those of a last search in vain count as well
        return stop

    def moved(self) -> Painting:
        """The painting at the last point that was accepted."""
        if not self.evaluations:
            return self.painting
        return self.painting.moved(
            self._accepted_picture,
            self.rows,
            evaluations=self._evaluations_accepted,
            losses=(self._first.total, self._accepted.total),
        )

    def evaluate(self, point: np.ndarray) -> tuple[float, np.ndarray]:
        picture = self.basis.picture(point)
        losses, gradient = self._evaluated(picture)
        self.evaluations += 1
        if self.evaluations == 1:
            self._first = self._accepted = losses
        if losses.total < self.lowest:
            self.lowest, self.painter.best = losses.total, picture
        self._last, self._last_picture = losses, picture
        self.painter.tell(len(self.rows), losses, anew=self.evaluations > self._known)
        return losses.total, self.basis.gradient(gradient)

    def on_iteration(self) -> None:
        # The line search ends at the point that it accepts.
        self._accepted, self._accepted_picture = self._last, self._last_picture
        self._evaluations_accepted = self.evaluations
        painting, iteration = self.painting, len(self.rows) + 1
        self.rows.append(
            [
                painting.iterations + iteration,
                painting.evaluations + self.evaluations,
                *self._accepted,
                self._accepted.total,
            ]
        )
        self.painter.tell(iteration, self._accepted, anew=self.evaluations > self._known)

    def _evaluated(self, picture: np.ndarray) -> tuple[Losses, np.ndarray]:
        """The losses and the gradient at a picture, taken from the trace where it has them."""
        painting = self.painting
        if self.evaluations < len(painting.losses):
            return Losses(*painting.losses[self.evaluations]), painting.gradients[self.evaluations]
        losses, gradient = self.objective(picture)
        if not (math.isfinite(losses.total) and np.isfinite(gradient).all()):
            raise Diverged(
                f"the loss left the finite numbers (content {losses.content:.3g}, style {losses.style:.3g}, variation "
                f"{losses.variation:.3g}); the best picture before is kept as partial.png. Try smaller weights."
            )
        if self.traced:
            painting.losses.append(tuple(losses))
            painting.gradients.append(gradient)
        return losses, gradient


def xla_pays(params: StyleTransferParams, shape: Shape, iterations: int) -> bool:
    """Whether so many iterations at this size win back the seconds that XLA needs to compile for it.

    On a GPU the convolutions are cuDNN's either way.
    """
    passed_bytes = iterations * NETWORKS[params.network].gradient_bytes(
        params.used_layers, shape[0] * shape[1]
    )
    return passed_bytes > XLA_PAYS_FROM and not tf.config.list_physical_devices("GPU")
