"""Training pictures: from an upload or a built-in set to two arrays of one size, kept as uint8."""

import zipfile
from dataclasses import replace
from io import BytesIO

import numpy as np

from shared.datasets import (
    BUILT_IN,
    UNREADABLE,
    Member,
    array_header,
    holds_arrays,
    inspect_arrays,
    label_names,
    open_archive,
    picture_members,
    refuse_broken,
)
from shared.errors import InvalidInput
from shared.kinds.training_pictures import LEAST_PICTURES, SIDE_OF_MIXED_PX, TrainingPicturesParams
from shared.storage import blame_file_system
from tasks.built_in_sets import load_built_in
from tasks.dataset import Dataset, LabelledPictures
from tasks.images import decode, resize, to_uint8
from tasks.job_context import JobContext

_MAX_HELD_OUT = 10_000
_SPLIT, _ORDER = 0x5B117, 0x02DE2  # tell the random streams of one seed apart


def load_dataset(params: TrainingPicturesParams, job: JobContext, size: tuple[int, int] | None) -> Dataset:
    """Read the data set that the parameters name, each picture brought to `size` (height, width).

    Without a size the pictures of a built-in set and of an `.npz` keep theirs, those of a zip become squares.

    Raises:
        InvalidInput: too many broken files, unknown classes, fewer than two pictures.
        DataUnavailable: a built-in set is neither here nor to be had.
    """
    if params.dataset in BUILT_IN:
        folder = job.settings.weights_dir / "datasets"
        dataset = load_built_in(
            params.dataset, folder, lambda done, total: job.report(0, 1, f"fetching {params.dataset}")
        )
    else:
        dataset = read_archive(params.dataset, "dataset", job, size=size, fit=params.fit)
    dataset = keep_classes(dataset, params)
    dataset = map_pictures(
        dataset, lambda pictures: with_channels(fit_all(pictures, size, params.fit), params.channels)
    )
    dataset = dataset if dataset.held_out else hold_out(dataset, params.held_out, params.seed or 0)
    if dataset.skipped:
        job.summary["skipped_files"] = list(dataset.skipped)
        job.warn(
            "files_skipped",
            f"{len(dataset.skipped)} files were broken or no pictures.",
            list(dataset.skipped),
        )
    job.summary |= {"pictures": len(dataset.train), "held_out_pictures": len(dataset.held_out)}
    return dataset


def epoch_order(seed: int, epoch: int, pictures: int) -> np.ndarray:
    """The order in which an epoch sees the pictures: a permutation that depends on nothing but seed and epoch."""
    return np.random.default_rng([_ORDER, seed, epoch]).permutation(pictures)


def epoch_batches(seed: int, epoch: int, pictures: int, batch_size: int) -> np.ndarray:
    """The indices of an epoch's whole batches, (steps, batch_size) int32; the few left over differ each epoch."""
    steps = pictures // batch_size
    order = epoch_order(seed, epoch, pictures)[: steps * batch_size]
    return order.reshape(steps, batch_size).astype(np.int32)


def fitting_batch(batch_size: int, pictures: int, job: JobContext) -> int:
    """The batch size, or the whole data set where it is smaller than a batch, which is said."""
    if pictures >= batch_size:
        return batch_size
    job.warn(
        "batch_shrunk",
        f"The data set has {pictures} pictures, so the batch has {pictures} instead of {batch_size}.",
    )
    return pictures


def hold_out(dataset: Dataset, share: float, seed: int) -> Dataset:
    """Set aside a share of the pictures, at least one, chosen by the seed."""
    count = min(max(1, round(share * len(dataset.train))), _MAX_HELD_OUT)
    order = np.random.default_rng([_SPLIT, seed]).permutation(len(dataset.train))
    return replace(
        dataset, train=dataset.train[np.sort(order[count:])], held_out=dataset.train[np.sort(order[:count])]
    )


def keep_classes(dataset: Dataset, params: TrainingPicturesParams) -> Dataset:
    """Keep the pictures of the classes that are named, and number these anew, in the data set's order."""
    params.check_classes(dataset.label_names)
    kept = [name for name in dataset.label_names if name in params.classes or not params.classes]
    if dataset.train.labels is not None and len(kept) < len(dataset.label_names):
        numbers = np.full(len(dataset.label_names), -1)
        numbers[[dataset.label_names.index(name) for name in kept]] = range(len(kept))
        held_out = dataset.held_out and _keep(dataset.held_out, numbers)
        dataset = replace(
            dataset, train=_keep(dataset.train, numbers), held_out=held_out, label_names=tuple(kept)
        )
    if len(dataset.train) < LEAST_PICTURES:
        raise InvalidInput(
            f"{len(dataset.train)} pictures are left; training takes at least {LEAST_PICTURES}.",
            field="dataset",
        )
    return dataset


def _keep(pictures: LabelledPictures, numbers: np.ndarray) -> LabelledPictures:
    assert pictures.labels is not None
    renumbered = numbers[pictures.labels]
    kept = pictures[np.flatnonzero(renumbered >= 0)]
    return replace(kept, labels=renumbered[renumbered >= 0])


def map_pictures(dataset: Dataset, change) -> Dataset:
    """Apply one change to the pictures of both parts."""
    train = replace(dataset.train, pictures=change(dataset.train.pictures))
    held_out = dataset.held_out and replace(dataset.held_out, pictures=change(dataset.held_out.pictures))
    return replace(dataset, train=train, held_out=held_out)


def with_channels(pictures: np.ndarray, channels: str) -> np.ndarray:
    """Bring (n, height, width, 1 or 3) uint8 to the channels asked for; `auto` drops colour where none shows.

    Grey is luma as ITU-R BT.601 has it, the weights that Pillow uses too.
    """
    if pictures.shape[3] == 1:
        return np.repeat(pictures, 3, axis=3) if channels == "rgb" else pictures
    if channels == "rgb":
        return pictures
    if is_grey(pictures):
        return np.ascontiguousarray(pictures[..., :1])
    if channels == "auto":
        return pictures
    luma = np.empty((*pictures.shape[:3], 1), np.uint8)
    for index, picture in enumerate(pictures):
        luma[index, ..., 0] = np.rint(picture @ np.array([0.299, 0.587, 0.114]))
    return luma


def is_grey(pictures: np.ndarray) -> bool:
    """Whether no pixel of pictures (n, height, width, 3) has any colour."""
    return all(np.ptp(picture, axis=-1).max() == 0 for picture in pictures)


def fit_all(pictures: np.ndarray, size: tuple[int, int] | None, fit: str) -> np.ndarray:
    """Bring pictures (n, height, width, channels) uint8 to one size; without one they keep theirs."""
    if size is None or pictures.shape[1:3] == size:
        return pictures
    fitted = np.empty((len(pictures), *size, pictures.shape[3]), np.uint8)
    for index, picture in enumerate(pictures):
        fitted[index] = fit_picture(picture, size, fit)
    return fitted


def fit_picture(picture: np.ndarray, size: tuple[int, int], fit: str) -> np.ndarray:
    """Bring a picture (height, width, channels) uint8 to `size` without changing its proportions.

    `crop` cuts its middle out, as large as the proportions of `size` allow; `pad` repeats its edge to both sides.
    """
    height, width = picture.shape[:2]
    if fit == "crop":
        scale = min(height / size[0], width / size[1])
    else:
        scale = max(height / size[0], width / size[1])
    window = max(1, round(scale * size[0])), max(1, round(scale * size[1]))
    margins = [(window[0] - height) // 2, (window[1] - width) // 2]
    if fit == "crop":
        top, left = -margins[0], -margins[1]
        picture = picture[top : top + window[0], left : left + window[1]]
    else:
        around = [
            (margin, side - margin - old)
            for margin, side, old in zip(margins, window, (height, width), strict=True)
        ]
        picture = np.pad(picture, (*around, (0, 0)), mode="edge")
    return to_uint8(resize(picture, size))


def read_archive(
    upload_id: str, field: str, job: JobContext, *, size: tuple[int, int] | None, fit: str
) -> Dataset:
    """Read an uploaded `.zip` of pictures, which become (n, *size, 3), or an `.npz`, whose pictures keep their size.

    Raises:
        InvalidInput: naming `field`: the archive is refused.
    """
    try:
        with open_archive(job.upload_path(upload_id)) as archive:
            if holds_arrays(archive):
                return read_arrays(archive)
            return read_pictures(archive, job, size or (SIDE_OF_MIXED_PX, SIDE_OF_MIXED_PX), fit)
    except InvalidInput as error:
        raise InvalidInput(error.message, field=field) from error


def read_pictures(archive: zipfile.ZipFile, job: JobContext, size: tuple[int, int], fit: str) -> Dataset:
    """Decode the pictures of a zip, each fitted into (*size, 3); broken ones are left out and listed."""
    members = picture_members(archive)
    names = label_names(members)
    pictures = np.empty((len(members), *size, 3), np.uint8)
    labels, skipped = [], []
    for index, member in enumerate(members):
        if index % 50 == 0:
            job.report(0, 1, f"reading picture {index + 1} of {len(members)}")
        picture = read_picture(archive, member, job.settings.max_image_pixels)
        if picture is None:
            skipped.append(member.name)
            continue
        pictures[len(labels)] = fit_picture(picture, size, fit)
        labels.append(names.index(member.label) if member.label is not None else 0)
    refuse_broken(skipped, len(members))
    train = LabelledPictures(pictures=pictures[: len(labels)], labels=np.array(labels) if names else None)
    return Dataset(train=train, held_out=None, label_names=names, skipped=tuple(skipped))


def read_picture(archive: zipfile.ZipFile, member: Member, max_pixels: int) -> np.ndarray | None:
    """Decode one file of an archive, (height, width, 3) uint8; None when it is broken or no picture."""
    try:
        return decode(BytesIO(archive.read(member.info)), max_pixels=max_pixels)
    except (InvalidInput, *UNREADABLE) as error:
        blame_file_system(error)
        return None


def read_arrays(archive: zipfile.ZipFile) -> Dataset:
    """Read `images` and `labels` of an `.npz`, without unpickling anything."""
    inspect_arrays(archive)
    images = read_array(archive, "images.npy")
    images = images[..., np.newaxis] if images.ndim == 3 else images
    labels, names = None, ()
    if "labels.npy" in archive.namelist():
        raw = read_array(archive, "labels.npy").reshape(-1)
        values, labels = np.unique(raw, return_inverse=True)
        names = tuple(
            value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
            for value in values.tolist()
        )
    train = LabelledPictures(pictures=as_uint8(images), labels=labels)
    return Dataset(train=train, held_out=None, label_names=names)


def read_array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """Read one `.npy` file of an archive whose header has been found in order."""
    header = array_header(archive, name)
    with archive.open(name) as file:
        array = np.lib.format.read_array(file, allow_pickle=False)
    assert array.shape == header.shape
    return array


def as_uint8(images: np.ndarray) -> np.ndarray:
    """Values 0 to 1 (floats, truth values) become 0 to 255; uint8 stays.

    Raises:
        InvalidInput: a float is not between 0 and 1.
    """
    if images.dtype == np.uint8:
        return images
    scaled = np.empty(images.shape, np.uint8)
    for index, image in enumerate(images):
        if not (np.min(image) >= 0 and np.max(image) <= 1):  # NaN fails both
            raise InvalidInput(
                f"Image {index} of the .npz has values outside 0 to 1. Save floats as 0 to 1, or uint8 as 0 to 255."
            )
        scaled[index] = np.rint(image.astype(np.float32) * 255)
    return scaled
