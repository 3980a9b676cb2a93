"""Fetch a file once, whole and checked, however many workers want it."""

import fcntl
import hashlib
import os
import urllib.request
from http.client import HTTPException
from pathlib import Path

TIMEOUT_S = 30
"""How long a server may stay silent."""

_CHUNK_BYTES = 2**20


class DownloadFailed(Exception):
    """The file could not be fetched, or is not the one that was meant."""


def download(url: str, path: Path, *, sha256: str) -> None:
    """Fetch `url` to `path`, unless a file is there; under a lock, to a temporary name, checked, then renamed.

    Raises:
        DownloadFailed: saying why.
    """
    if path.exists():
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path.with_name(f".{path.name}.lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not path.exists():
                _fetch(url, path, sha256)
    except (OSError, HTTPException, ValueError) as error:  # URLError is an OSError
        raise DownloadFailed(f"{url}: {error}") from error


def _fetch(url: str, path: Path, sha256: str) -> None:
    partial = path.with_name(f".{path.name}.partial")
    digest = hashlib.sha256()
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer, open(partial, "wb") as file:
            while chunk := answer.read(_CHUNK_BYTES):
                digest.update(chunk)
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        if digest.hexdigest() != sha256:
            raise DownloadFailed(f"{url} has sha256 {digest.hexdigest()} and not {sha256}")
        partial.rename(path)
    finally:
        partial.unlink(missing_ok=True)
