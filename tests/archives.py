"""Archives of pictures of every sort, built in memory."""

import io
import zipfile
from collections.abc import Mapping

import numpy as np
from PIL import Image


def png(picture: np.ndarray) -> bytes:
    """A picture as the bytes of a PNG file."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return file.getvalue()


def zip_of(files: Mapping[str, bytes], *, compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip of files by name."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return file.getvalue()


def npz_of(**arrays: np.ndarray) -> bytes:
    """An `.npz` of named arrays; objects are pickled into it, as NumPy does."""
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def blobs(count: int, side: int = 12, channels: int = 1, *, seed: int = 0) -> np.ndarray:
    """Soft spots at random places (count, side, side[, 3]) uint8: pictures that a tiny network can learn."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:side, :side]
    centres = rng.uniform(side * 0.25, side * 0.75, (2, count, 1, 1))
    spots = 255 * np.exp(-((rows - centres[0]) ** 2 + (columns - centres[1]) ** 2) / (side / 3))
    pictures = spots.astype(np.uint8)
    return (
        pictures if channels == 1 else np.stack([pictures, pictures[:, ::-1], pictures[:, :, ::-1]], axis=-1)
    )


def folder_of(pictures: np.ndarray, folder: str = "") -> dict[str, bytes]:
    """Pictures as PNG files of one folder, by name."""
    return {f"{folder}{index:03d}.png": png(picture) for index, picture in enumerate(pictures)}
