"""Neural style transfer (Gatys, Ecker and Bethge, 2015), minimised by L-BFGS, coarse to fine, in a decorrelated basis.

The losses are those of the paper or of the Keras book (`tasks/style_losses.py`). What departs from both:

- The picture is painted at several sizes, each twice the one before (`tasks/style_painter.py`). Coarse structure, which
  takes many iterations, is found where an iteration is cheap.
- At each size the variables are frequencies instead of pixels (`tasks/fourier.py`).
- The weights depend on the size and on the network (`tasks/style_weights.py`).
"""

import csv
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict

import tensorflow as tf

from shared.errors import Diverged, JobCancelled, JobTimedOut
from shared.kinds.style_sizes import Shape
from shared.kinds.style_transfer import StyleTransferParams
from tasks.job_context import JobContext
from tasks.networks import pretrained
from tasks.style_functions import Functions, functions_for
from tasks.style_painter import Painter
from tasks.style_painting import Painting
from tasks.style_pictures import StylePictures

LARGER = 1.1
"""A style image that is taken so many times larger than asked is warned of."""
FAR_BELOW = 0.5
"""A scale that ended before this part of its iterations is warned of."""

COLUMNS = ("iteration", "evaluations", "content", "style", "variation", "total")


def run(params: StyleTransferParams, job: JobContext) -> None:
    """Paint the content image in the style of the others, coarse to fine, and leave `result.png`."""
    with float32_throughout():
        paint(params, job)


def paint(params: StyleTransferParams, job: JobContext) -> None:
    pictures = StylePictures.load(params, job)
    height, width = pictures.content.shape[:2]
    shapes = params.sizes.scale_shapes(params.sizes.result_shape((height, width)))
    functions = load_functions(params, job)
    pictures.check_masks(shapes[-1], functions.style_layers)
    warn_of_larger_styles(pictures, shapes[-1], job)
    state = job.resume()
    painting = Painting.from_state(state) if state else Painting(pictures.start(shapes[0]))
    painter = Painter(pictures, shapes, functions, painting, job)
    try:
        painter.paint_all()
    except (JobCancelled, JobTimedOut, Diverged) as end:
        job.summary |= summary_of(painter.now, ENDED_BY[type(end)], str(end))
        job.save_image("partial.png", painter.finished(painter.best))
        leave_history(painter.now.rows, job)
        raise
    painting = painter.painting
    last = painting.scales[-1]
    job.summary |= summary_of(painting, last.ended_by, last.message)
    job.save_image("result.png", painter.finished(painting.picture))
    leave_history(painting.rows, job)
    warn_of_early_ends(painting, painter.planned, job)


ENDED_BY: dict[type[Exception], str] = {
    JobCancelled: "cancelled",
    JobTimedOut: "timeout",
    Diverged: "diverged",
}


@contextmanager
def float32_throughout() -> Iterator[None]:
    """Keep a GPU from rounding the factors of its products to TF32's 10 bits, as TensorFlow lets it.

    A Gram matrix is a sum over all positions, and L-BFGS lives on small differences of losses.
    """
    config = tf.config.experimental
    before = config.tensor_float_32_execution_enabled()
    config.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        config.enable_tensor_float_32_execution(before)


def load_functions(params: StyleTransferParams, job: JobContext) -> Functions:
    """The network's compiled functions, kept from an earlier job where there was one alike."""
    network = pretrained.load(
        params.network,
        params.used_layers,
        weights_dir=job.settings.weights_dir,
        pooling=params.pooling,
        on_fetched=job.fetching,
    )
    job.provenance["network"] = {"name": network.name, "weights_sha256": network.weights_sha256}
    return functions_for(
        network,
        params.compared_layer,
        params.used_style_layers,
        params.normalisation,
        styles=len(params.style_images),
        masked=params.masks is not None,
    )


def leave_history(rows: list[list[float]], job: JobContext) -> None:
    """Leave each iteration's losses, times their weights, as `history.csv`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([int(row[0]), int(row[1]), *(f"{value:.9g}" for value in row[2:])] for row in rows)
    job.save_artifact("history.csv", text.getvalue().encode(), "text/csv")


def summary_of(painting: Painting, ended_by: str, message: str) -> dict[str, object]:
    """Why the optimiser stopped, and how far it came."""
    return {
        "ended_by": ended_by,
        "message": message,
        "iterations": painting.iterations,
        "evaluations": painting.evaluations,
        "loss": next((scale.loss_last for scale in reversed(painting.scales) if scale.evaluations), None),
        "scales": [asdict(scale) for scale in painting.scales],
    }


def warn_of_larger_styles(pictures: StylePictures, result: Shape, job: JobContext) -> None:
    """Warn of style images that are taken larger than `style_scale` says, since the network would see too little."""
    sizes = pictures.params.sizes
    asked_px = round(max(result) * sizes.style_scale)
    for number, style in enumerate(pictures.styles, 1):
        taken = sizes.style_shape((style.shape[0], style.shape[1]), result)
        if max(taken) > max(asked_px, 1) * LARGER:
            job.warn(
                "style_larger_than_asked",
                f"style image {number} is looked at at {taken[1]}x{taken[0]} px, not at {asked_px} px along its longer "
                f"side as style_scale {sizes.style_scale:g} says: {sizes.layer.name} would see too little of it",
            )


def warn_of_early_ends(painting: Painting, planned: list[int], job: JobContext) -> None:
    """Warn where the optimiser stopped far below what was asked."""
    for scale, wanted in zip(painting.scales, planned, strict=True):
        if scale.ended_by == "no_progress" and scale.iterations < FAR_BELOW * wanted:
            job.warn(
                "stopped_early",
                f"at {scale.width}x{scale.height} px the optimiser stopped after {scale.iterations} of {wanted} "
                f"iterations, since no step lowered the loss any more ({scale.message})",
            )
