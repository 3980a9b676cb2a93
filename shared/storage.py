"""The storage root through fsspec: checked names, whole files or none, uploads under their hash."""

import errno
import hashlib
import logging
import os
import re
import shutil
import stat
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import IO, Any, NamedTuple

import fsspec
from fsspec.implementations.local import LocalFileSystem

from shared.errors import (
    DreamqError,
    InvalidInput,
    StorageFull,
    StorageUnavailable,
    UploadNotFound,
    UploadTooLarge,
)

log = logging.getLogger(__name__)

LONGEST_NAME = 128
NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{LONGEST_NAME - 1}}}")
_TEMPORARY = re.compile(r"\.?[0-9a-f]{32}\.tmp")
_CHUNK = 1 << 20
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Upload(NamedTuple):
    """A stored upload, named by the sha256 of its bytes."""

    id: str
    bytes: int
    media_type: str


def checked(path: str) -> str:
    """The same path, when each of its parts is a plain name.

    Raises:
        InvalidInput: a part could leave its folder, hide, or mean something to a shell or a URL.
    """
    for part in path.split("/"):
        checked_name(part)
    return path


def checked_name(name: str) -> str:
    """The same name, when it is plain; raises as `checked`."""
    if not NAME.fullmatch(name):
        raise InvalidInput(
            f"{name!r} is no file name: letters, digits, dot, dash and underscore only, up to 128"
        )
    return name


@contextmanager
def told_apart(*, writing: bool = False, foreign: bool = False) -> Iterator[None]:
    """Name the trouble a file system can have: full, or out of reach; a file that is not there stays what it is.

    Args:
        writing: nothing is looked for that may not be there, only a place to write to.
        foreign: the file system is one with a client of its own, which raises errors that Python does not know
            (no connection, no credentials).
    """
    try:
        yield
    except DreamqError:
        raise
    except FileNotFoundError as error:
        if not writing:
            raise
        raise StorageUnavailable(f"the storage cannot be written: {error}") from error
    except OSError as error:
        if error.errno in _FULL:
            raise StorageFull(f"the storage has no room left ({error.strerror})") from error
        raise StorageUnavailable(f"the storage cannot be used: {error}") from error
    except Exception as error:
        if not foreign:
            raise
        raise StorageUnavailable(f"the storage cannot be used: {error}") from error


def blame_file_system(error: Exception) -> None:
    """Do nothing where a file is broken; where it could not be read (a stale handle, a bad disk), say that instead.

    Raises:
        StorageUnavailable: the operating system gave the error. Those that Pillow and h5py make of what a file holds
            have no number, and what points before the beginning of a file is an invalid argument.
    """
    cause: BaseException | None = error
    while cause is not None:  # zipfile tells what it could not read as no zip file
        if isinstance(cause, OSError) and cause.errno not in (None, errno.EINVAL):
            raise StorageUnavailable(f"the storage cannot be used: {cause}") from error
        cause = cause.__context__


class Storage:
    """Files below one root. Paths are relative to it, with `/` between checked names."""

    def __init__(self, url: str) -> None:
        self.url = url
        try:
            # No cache of listings: other machines write here too.
            self.fs, self.root = fsspec.core.url_to_fs(url, use_listings_cache=False)
        except (ImportError, ValueError) as error:
            raise StorageUnavailable(f"STORAGE_URL={url!r} cannot be used: {error}") from error
        self.local = isinstance(self.fs, LocalFileSystem)
        self.cache = Path(tempfile.gettempdir()) / f"dreamq-cache-{os.getuid()}"

    def full(self, path: str) -> str:
        """The path as the file system knows it."""
        return f"{self.root}/{checked(path)}"

    def _told_apart(self, *, writing: bool = False) -> AbstractContextManager[None]:
        return told_apart(writing=writing, foreign=not self.local)

    def write(self, path: str, data: bytes) -> None:
        """Store bytes: whole under the name, or not at all.

        Raises:
            StorageFull: there is no room; nothing is left under the name.
            StorageUnavailable: any other trouble.
        """
        with self._told_apart(writing=True):
            if not self.local:
                self.fs.pipe_file(self.full(path), data)
                return
            with self._temporary(path) as temporary:
                temporary.write(data)

    def write_file(self, path: str, source: Path) -> None:
        """Store a local file's bytes; raises as `write`."""
        with self._told_apart(writing=True):
            if not self.local:
                self.fs.put_file(str(source), self.full(path))
                return
            with self._temporary(path) as temporary, source.open("rb") as opened:
                shutil.copyfileobj(opened, temporary, _CHUNK)

    @contextmanager
    def _temporary(self, path: str) -> Iterator[IO[bytes]]:
        """A file beside the final one, renamed to it when all is written and on disk."""
        final = Path(self.full(path))
        final.parent.mkdir(parents=True, exist_ok=True)
        temporary = final.with_name(f".{uuid.uuid4().hex}.tmp")
        try:
            with temporary.open("wb") as opened:
                yield opened
                opened.flush()
                os.fsync(opened.fileno())
            temporary.replace(final)
        finally:
            temporary.unlink(missing_ok=True)

    def read(self, path: str) -> bytes:
        """All bytes of a file; FileNotFoundError when there is none."""
        with self._told_apart():
            return bytes(self.fs.cat_file(self.full(path)))

    def open(self, path: str) -> IO[bytes]:
        """Open a file for reading; FileNotFoundError when there is none."""
        with self._told_apart():
            opened: IO[bytes] = self.fs.open(self.full(path), "rb")
            return opened

    def exists(self, path: str) -> bool:
        """Whether there is a file of this name.

        Raises:
            StorageUnavailable: that cannot be known now. (fsspec's own `exists` says no to any error.)
        """
        try:
            self._info(path)
        except FileNotFoundError:
            return False
        return True

    def _info(self, path: str) -> dict[str, Any]:
        """What the file system says of a file or folder; FileNotFoundError when there is none."""
        with self._told_apart():
            found: dict[str, Any] = self.fs.info(self.full(path))
            return found

    def names(self, folder: str) -> list[str]:
        """The names in a folder, sorted; none when there is no such folder."""
        with self._told_apart():
            try:
                found: list[Any] = self.fs.ls(self.full(folder), detail=False)
            except (FileNotFoundError, NotADirectoryError):
                return []
        names = (str(entry).rstrip("/").rsplit("/", 1)[-1] for entry in found)
        return sorted(name for name in names if NAME.fullmatch(name))

    def modified_ms(self, folder: str) -> dict[str, int]:
        """When each file in a folder was last written (milliseconds since 1970, by the storage's clock)."""
        with self._told_apart():
            try:
                found: list[dict[str, Any]] = self.fs.ls(self.full(folder), detail=True)
            except FileNotFoundError:
                return {}
        names = {entry["name"].rsplit("/", 1)[-1]: entry for entry in found if entry["type"] == "file"}
        return {name: written_ms(entry) for name, entry in names.items() if NAME.fullmatch(name)}

    def remove_half_files(self, folder: str, *, before_ms: int, dry_run: bool = False) -> list[str]:
        """Remove what killed writers have left half written in a folder; the paths. (An object store has none.)

        A file or folder that cannot be looked at, or removed, is logged and left.

        Args:
            folder: "" for the root, or for this machine's cache of an object store.
            before_ms: what was written to since then may be somebody's work (milliseconds since 1970).
            dry_run: only say which.
        """
        if not self.local and folder:
            return []
        place = Path(self.root, folder) if self.local else self.cache
        found = []
        for path in _half_files(place):
            with _passed_over(path):
                if path.stat().st_mtime * 1000 < before_ms:
                    if not dry_run:
                        path.unlink()
                    found.append(str(path))
        return found

    def delete(self, path: str) -> None:
        """Remove a file or a folder with all in it, if it is there."""
        with self._told_apart():
            try:
                self.fs.rm(self.full(path), recursive=True)
            except FileNotFoundError:
                return

    def local_path(self, path: str) -> Path:
        """A file on this machine with the bytes of `path`: itself, or a copy in the cache.

        Only for files that never change under their name (uploads, artifacts, checkpoints).
        """
        if self.local:
            if self._info(path)["type"] != "file":
                raise FileNotFoundError(path)
            return Path(self.full(path))
        copy = self._own_cache() / hashlib.sha256(f"{self.url}\n{path}".encode()).hexdigest()
        if not copy.exists():
            temporary = copy.with_name(f"{uuid.uuid4().hex}.tmp")
            with self._told_apart():
                self.fs.get_file(self.full(path), str(temporary))
            temporary.replace(copy)
        return copy

    def _own_cache(self) -> Path:
        """The cache's folder, made where it is missing.

        Raises:
            StorageUnavailable: it is another user's, who could put other bytes in a copy's place.
        """
        with told_apart(writing=True):
            with suppress(FileExistsError):
                self.cache.mkdir(parents=True, mode=0o700)
            found = self.cache.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
            raise StorageUnavailable(
                f"{self.cache} is not a folder of this user's: remove it, or set TMPDIR to a folder of your own"
            )
        return self.cache

    def check(self) -> None:
        """Raise StorageUnavailable (or StorageFull) unless a file can be written and removed."""
        probe = f"probe-{uuid.uuid4().hex}"
        self.write(probe, b"dreamq")
        self.delete(probe)

    # Uploads

    def store_upload(self, source: IO[bytes], *, limit_bytes: int) -> Upload:
        """Store a stream under the hash of its bytes; the same bytes are stored once.

        Raises:
            UploadTooLarge: more than `limit_bytes` came; nothing is kept.
            InvalidInput: nothing came.
        """
        with self._spool() as spool:
            digest, size, head = hashlib.sha256(), 0, b""
            with told_apart():
                while chunk := source.read(_CHUNK):
                    size += len(chunk)
                    if size > limit_bytes:
                        raise UploadTooLarge(f"the upload is larger than {limit_bytes} bytes")
                    head = head or chunk[:512]
                    digest.update(chunk)
                    spool.write(chunk)
                spool.flush()
                os.fsync(spool.fileno())
            if size == 0:
                raise InvalidInput("the upload is empty", field="file")
            self._keep_upload(digest.hexdigest(), Path(spool.name))
        return Upload(digest.hexdigest(), size, media_type(head))

    @contextmanager
    def _spool(self) -> Iterator[IO[bytes]]:
        """A temporary file for what comes in: beside the uploads where they can be renamed, else on this machine."""
        folder = Path(self.full("uploads")) if self.local else self._own_cache()
        with told_apart():
            folder.mkdir(parents=True, exist_ok=True)
            spool = (folder / f".{uuid.uuid4().hex}.tmp").open("wb")
        try:
            with spool:
                yield spool
        finally:
            Path(spool.name).unlink(missing_ok=True)

    def _keep_upload(self, upload_id: str, temporary: Path) -> None:
        # Written again where it is there already: the same bytes, and new to retention, which goes by the file's age.
        path = f"uploads/{upload_id}"
        with self._told_apart(writing=True):
            if self.local:
                temporary.chmod(0o644)
                temporary.replace(self.full(path))
            else:
                self.fs.put_file(str(temporary), self.full(path))

    def upload_path(self, upload_id: str) -> Path:
        """A local file with an upload's bytes.

        Raises:
            UploadNotFound: there is no such upload.
        """
        try:
            return self.local_path(f"uploads/{upload_id}")
        except FileNotFoundError as error:
            raise UploadNotFound(f"there is no upload {upload_id}; upload the file first") from error


def _half_files(place: Path) -> list[Path]:
    """What has a half file's name in a folder; nothing, and a word in the log, where one cannot look into it."""
    with _passed_over(place):
        return [path for path in place.iterdir() if _TEMPORARY.fullmatch(path.name)]
    return []


@contextmanager
def _passed_over(path: Path) -> Iterator[None]:
    """Go on after trouble with one file or folder; one that is gone (its writer has come to its end) is none."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        log.warning("%s is left alone: %s", path, error.strerror)


def written_ms(entry: dict[str, Any]) -> int:
    """When a file was last written, from what fsspec's listing of its storage says (each has a word of its own)."""
    told = next(
        entry[word]
        for word in ("mtime", "LastModified", "updated", "last_modified", "created")
        if word in entry
    )
    if isinstance(told, str):
        told = datetime.fromisoformat(told)
    return int((told.timestamp() if isinstance(told, datetime) else told) * 1000)


_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"BM", "image/bmp"),
    (b"II*\0", "image/tiff"),
    (b"MM\0*", "image/tiff"),
    (b"PK\x03\x04", "application/zip"),
    (b"\x89HDF\r\n\x1a\n", "application/x-hdf5"),
)


def media_type(head: bytes) -> str:
    """The media type that the first bytes of a file show."""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image/webp"
    for signature, found in _SIGNATURES:
        if head.startswith(signature):
            return found
    if b"\0" in head:
        return "application/octet-stream"
    return "text/plain"
