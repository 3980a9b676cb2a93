"""Fetch a file once, whole and checked, however many workers want it."""

import fcntl
import gzip
import hashlib
import http.client
import os
import tempfile
import threading
import time
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 30.0
_CHUNK_BYTES = 2**20

OnFetched = Callable[[int, int], None]
"""Told the bytes that are here and the bytes of the whole (0 while unknown); may raise to give up."""


class DownloadFailed(Exception):
    """The file could not be fetched, or is not the one that was meant."""


def download(url: str, path: Path, *, sha256: str, unpacked: bool = False, on_fetched: OnFetched) -> None:
    """Fetch `url` to `path`, unless a file is there; under a lock, to a temporary name, checked, then renamed.

    Args:
        sha256: the sum of the file or, if `unpacked`, of what the gzip file holds.

    Raises:
        DownloadFailed: saying why.
    """
    if path.exists():
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path.with_name(f".{path.name}.lock"), on_fetched):
            # Another process may have fetched it while this one waited for the lock.
            if not path.exists():
                _fetch(url, path, sha256, unpacked, on_fetched)
    except (OSError, http.client.HTTPException) as error:
        raise DownloadFailed(f"{url}: {error}") from error


def sha256_of(path: Path, *, unpacked: bool) -> str:
    """The SHA-256 of a file or of what a gzip file holds; empty for one that is no gzip file."""
    opener = gzip.open if unpacked else open
    try:
        with opener(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (gzip.BadGzipFile, EOFError, zlib.error):
        return ""


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


def _fetch(url: str, path: Path, sha256: str, unpacked: bool, on_fetched: OnFetched) -> None:
    handle, partial = tempfile.mkstemp(prefix=".fetching-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file, _open(url) as answer:
            _copy(answer, file, on_fetched)
            file.flush()
            os.fsync(file.fileno())
        if sha256_of(Path(partial), unpacked=unpacked) != sha256:
            raise DownloadFailed(f"{url}: what came is not the published file")
        os.chmod(partial, 0o644)
        os.replace(partial, path)
    finally:
        Path(partial).unlink(missing_ok=True)


def _copy(answer: http.client.HTTPResponse, file: IO[bytes], on_fetched: OnFetched) -> None:
    total, done = int(answer.headers.get("Content-Length") or 0), 0
    while chunk := answer.read(_CHUNK_BYTES):
        file.write(chunk)
        done += len(chunk)
        on_fetched(done, total)


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
        raise TimeoutError(f"no answer within {CONNECT_TIMEOUT_S:g} s")
    if isinstance(outcome[0], Exception):
        raise outcome[0]
    return outcome[0]
