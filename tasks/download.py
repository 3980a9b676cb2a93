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
from typing import IO, Any, NamedTuple

CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 30.0
_CHUNK_BYTES = 2**20

OnFetched = Callable[[int, int], None]
"""Told the bytes that are here and the bytes of the whole (0 while unknown); may raise to give up."""


class DownloadFailed(Exception):
    """The file could not be fetched, or is not the one that was meant."""


class Checksum(NamedTuple):
    """By which a published file is known."""

    algorithm: str
    """As hashlib calls it."""
    digest: str
    unpacked: bool = False
    """It is the sum of what the gzip file holds, not of the file."""

    def of(self, path: Path) -> str:
        """The sum of another file; empty for one that is no gzip file and should be."""
        opener = gzip.open if self.unpacked else open
        try:
            with opener(path, "rb") as file:
                return hashlib.file_digest(file, self._new).hexdigest()
        except (gzip.BadGzipFile, EOFError, zlib.error):
            return ""

    def fits(self, path: Path) -> bool:
        """Whether it is the file that was published."""
        return self.of(path) == self.digest

    def _new(self) -> Any:
        return hashlib.new(self.algorithm, usedforsecurity=False)


def download(url: str, path: Path, checksum: Checksum, on_fetched: OnFetched) -> None:
    """Fetch `url` to `path`, unless a file is there; under a lock, to a temporary name, checked, then renamed.

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
                _fetch(url, path, checksum, on_fetched)
    except (OSError, http.client.HTTPException) as error:
        raise DownloadFailed(f"{url}: {error}") from error


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


def _fetch(url: str, path: Path, checksum: Checksum, on_fetched: OnFetched) -> None:
    handle, partial = tempfile.mkstemp(prefix=".fetching-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file, _open(url) as answer:
            _copy(answer, file, on_fetched)
            file.flush()
            os.fsync(file.fileno())
        if not checksum.fits(Path(partial)):
            raise DownloadFailed(
                f"{url} arrived with the checksum {checksum.of(Path(partial))} instead of {checksum.digest}"
            )
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
        raise TimeoutError(f"no answer from {url} within {CONNECT_TIMEOUT_S:g} s")
    if isinstance(outcome[0], Exception):
        raise outcome[0]
    return outcome[0]
