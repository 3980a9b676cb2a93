"""The parameters that say which pictures a network is trained on, the same for every kind that trains on pictures."""

from typing import Annotated, Literal

from pydantic import Field

from shared.datasets import BUILT_IN, DatasetInfo, describe_dataset, inspect_dataset
from shared.errors import InvalidInput
from shared.kinds.base import Inputs, JobParams

DatasetId = Annotated[
    str,
    Field(
        pattern=rf"^([0-9a-f]{{64}}|{'|'.join(BUILT_IN)})$",
        json_schema_extra={"format": "upload", "media": "application/zip,.npz", "built_in": list(BUILT_IN)},
    ),
]
"""A parameter that names an uploaded archive of pictures, or a set that is built in."""

LEAST_PICTURES = 2
"""One to train on and one to judge by."""
SIDE_OF_MIXED_PX = 64
"""The size to which the pictures of a zip are brought when the job names none."""
LEAST_EPOCHS, MOST_EPOCHS = 30, 1_000
"""Between these lie the epochs of a job that leaves open how long to train."""
ENOUGH_STEPS = 3_000
"""Fewer updates than this leave a network half trained, whatever the number of epochs."""


def enough_epochs(steps_per_epoch: int) -> int:
    """The epochs that give a small set enough updates too, where the job leaves open how long to train."""
    return min(max(LEAST_EPOCHS, -(-ENOUGH_STEPS // steps_per_epoch)), MOST_EPOCHS)


class TrainingPicturesParams(JobParams):
    """Which pictures to train on, and how they are made alike."""

    dataset: DatasetId
    """A zip of pictures (folders are labels), an `.npz` with `images` and perhaps `labels`, or a built-in set:
    `digits`, `fashion_mnist`, `mnist`, `cifar10`."""
    classes: list[str] = Field([], max_length=1000)
    """The labels to keep; empty keeps all."""
    channels: Literal["auto", "grey", "rgb"] = "auto"
    """`auto` is grey when every picture is."""
    fit: Literal["crop", "pad"] = "crop"
    """How other proportions are met: cut to the middle, or whole with the edge repeated around."""
    batch_size: int = Field(64, ge=2, le=8192)
    """Pictures per step."""
    held_out: float = Field(0.1, gt=0, le=0.5)
    """Share of the pictures that is judged by and never trained on, where the set has no test part of its own."""

    def describe(self, inputs: Inputs) -> DatasetInfo:
        """What the listing of the data set says; its pictures stay unread.

        Raises:
            InvalidInput: the archive is refused.
        """
        if (built_in := BUILT_IN.get(self.dataset)) is not None:
            kept = len(self.classes) or len(built_in.classes)
            return DatasetInfo(
                pictures=built_in.pictures * kept // len(built_in.classes),
                classes=built_in.classes,
                height=built_in.side_px,
                width=built_in.side_px,
                channels=built_in.channels,
            )
        return describe_dataset(inputs.path(self.dataset, "dataset"))

    def check(self, inputs: Inputs) -> None:
        """Refuse an archive that is unsafe, broken or too small, and classes that it has not."""
        if self.dataset not in BUILT_IN:
            path = inputs.path(self.dataset, "dataset")
            try:
                inspect_dataset(path, max_pixels=inputs.settings.max_image_pixels)
            except InvalidInput as error:
                raise InvalidInput(error.message, field="dataset") from error
        info = self.describe(inputs)
        if info.pictures < LEAST_PICTURES:
            raise InvalidInput(
                f"The data set has {info.pictures} picture; training takes at least {LEAST_PICTURES}.",
                field="dataset",
            )
        # The labels of an .npz are known only to the job that reads them.
        if info.classes or (self.classes and info.height is None):
            self.check_classes(info.classes)

    def check_memory(self, inputs: Inputs) -> None:
        """Refuse a training that fits into no worker, with the batch size that does.

        Raises:
            InvalidInput: naming `batch_size`, or `dataset` where no batch is small enough.
        """
        available, needed = inputs.largest_worker_bytes, self.forecast_bytes(inputs)
        if available is None or needed <= available:
            return
        said = (
            f"The training needs about {needed >> 20} MiB, and the largest worker has {available >> 20} MiB."
        )
        batch_size = self.batch_size // 2
        while batch_size >= 2:
            if self.model_copy(update={"batch_size": batch_size}).forecast_bytes(inputs) <= available:
                raise InvalidInput(f"{said} A batch_size of {batch_size} would fit.", field="batch_size")
            batch_size //= 2
        raise InvalidInput(f"{said} Choose fewer or smaller pictures, or a smaller network.", field="dataset")

    def check_classes(self, known: tuple[str, ...]) -> None:
        """Refuse classes that the data set has not.

        Raises:
            InvalidInput: naming them, and those that there are.
        """
        if missing := sorted(set(self.classes) - set(known)):
            there = ", ".join(known[:20]) + (", ..." if len(known) > 20 else "")
            raise InvalidInput(
                f"The data set has no class {', '.join(map(repr, missing))}; it has {there or 'no labels at all'}.",
                field="classes",
            )

    def data_bytes(self, info: DatasetInfo, height: int, width: int) -> int:
        """Memory of the decoded pictures as the training holds them, and once more while they are put there."""
        channels = {"grey": 1, "rgb": 3, "auto": info.channels or 3}[self.channels]
        return 2 * info.pictures * height * width * channels
