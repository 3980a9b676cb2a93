"""Where pretrained weights come from: WEIGHTS_DIR, the Keras project's server, or an installed package."""

from dataclasses import dataclass
from pathlib import Path

from shared.errors import WeightsUnavailable
from tasks.download import Checksum, DownloadFailed, OnFetched, download
from tasks.networks.squeezenet import packaged_weights

DOWNLOAD_URL = "https://storage.googleapis.com/tensorflow/keras-applications"
"""Where keras.applications takes its weights from."""


@dataclass(frozen=True)
class PublishedFile:
    """Weights without the classifier, as the Keras project publishes them."""

    folder: str
    name: str
    md5: str


PUBLISHED = {
    "inception_v3": PublishedFile(
        "inception_v3",
        "inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5",
        "bcbd6486424b2319ff4ef7d526e38f63",
    ),
    "vgg16": PublishedFile(
        "vgg16", "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5", "6d6bbae143d832006294945121d1f1fc"
    ),
    "vgg19": PublishedFile(
        "vgg19", "vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5", "253f8cb515780f3b799900260a226db6"
    ),
}


def find(name: str, weights_dir: Path, on_fetched: OnFetched | None = None) -> Path:
    """The file with the weights of network `name`, downloaded into `weights_dir` if need be.

    Raises:
        WeightsUnavailable: not here and not to be had; says which file to put where.
    """
    here = _in_folder(name, weights_dir)
    if here is None and name == "squeezenet":
        here = packaged_weights()
        if here is None:
            raise WeightsUnavailable(
                f"No weights for squeezenet: install the ndf package, or put squeezenet.weights.h5 into {weights_dir}."
            )
    return here or _download(name, weights_dir, on_fetched or (lambda done, total: None))


def _in_folder(name: str, weights_dir: Path) -> Path | None:
    names = [f"{name}.weights.h5", *([PUBLISHED[name].name] if name in PUBLISHED else [])]
    return next((weights_dir / file for file in names if (weights_dir / file).is_file()), None)


def _download(name: str, weights_dir: Path, on_fetched: OnFetched) -> Path:
    """Fetch a published file into `weights_dir`, one process of this folder at a time."""
    published = PUBLISHED[name]
    url = f"{DOWNLOAD_URL}/{published.folder}/{published.name}"
    path = weights_dir / published.name
    try:
        download(url, path, Checksum("md5", published.md5), on_fetched)
    except DownloadFailed as error:
        raise WeightsUnavailable(
            f"No weights for {name}: choose the network squeezenet, which needs no download, or put {url} (or your "
            f"own {name}.weights.h5) into {weights_dir.absolute()} (the download failed: {error})."
        ) from error
    return path
