"""API keys: a file of hashes, one key a line; a key itself is shown once, when it is made."""

import hashlib
import hmac
import logging
import os
import re
import secrets
import tempfile
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from shared.errors import RequestInvalid, SettingsInvalid

log = logging.getLogger(__name__)

_LINE = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._@-]{0,63}) (?P<sha256>[0-9a-f]{64}) (?P<created_at>\S+)")
_HEAD = "# API keys of dreamq: name, sha256 of the key, when it was made. Written by `dreamq admin keys`.\n"


class ApiKey(NamedTuple):
    """What is kept of a key. It is 256 random bits, so a plain hash cannot be searched through."""

    name: str
    sha256: str
    created_at: str


class KeyFile:
    """The keys in one file, read again whenever the file changes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stamp: tuple[int, int, int] | None = None
        self._keys: list[ApiKey] = []
        self._lock = threading.Lock()

    def keys(self) -> list[ApiKey]:
        """The keys that count now; none when the file is missing or cannot be read: nobody gets in then."""
        with self._lock:
            try:
                found = self.path.stat()
                stamp = (found.st_mtime_ns, found.st_size, found.st_ino)
                if stamp != self._stamp:
                    self._keys = read(self.path)
                    self._stamp = stamp
            except (OSError, SettingsInvalid) as error:
                if self._stamp is not None or self._keys:
                    log.error("no API key counts now: %s", error)
                self._stamp, self._keys = None, []
            return self._keys

    def knows(self, key: str) -> bool:
        """Whether `key` is one of ours, in a time that does not depend on how much of it is right."""
        presented = _sha256(key)
        matches = [hmac.compare_digest(presented, known.sha256) for known in self.keys()]
        return any(matches)


def read(path: Path) -> list[ApiKey]:
    """The keys in a file.

    Raises:
        SettingsInvalid: the file is missing, or a line of it is not as `add` writes it.
    """
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsInvalid(f"API_KEYS_FILE={str(path)!r} cannot be read: {error}") from error
    keys = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        matched = _LINE.fullmatch(line.strip())
        if matched is None:
            raise SettingsInvalid(
                f"API_KEYS_FILE={str(path)!r}: line {number} is no key that `dreamq admin keys` wrote"
            )
        keys.append(ApiKey(**matched.groupdict()))
    return keys


def add(path: Path, name: str) -> str:
    """Make a key called `name`, keep its hash in the file, and return the key.

    Raises:
        RequestInvalid: there is a key of this name, or the name has other characters than it may have.
    """
    keys = read(path) if path.exists() else []
    if any(key.name == name for key in keys):
        raise RequestInvalid(
            f"there is a key called {name!r} already; remove it first, or choose another name", field="name"
        )
    secret = f"dreamq_{secrets.token_urlsafe(32)}"
    made = ApiKey(name, _sha256(secret), datetime.now(UTC).isoformat(timespec="seconds"))
    if not _LINE.fullmatch(" ".join(made)):
        raise RequestInvalid(
            "a key's name has letters, digits, dot, dash, underscore and @ only, up to 64", field="name"
        )
    write(path, [*keys, made])
    return secret


def remove(path: Path, name: str) -> None:
    """Remove the key called `name`; whoever has it is refused from now on. Raises RequestInvalid when there is none."""
    keys = read(path)
    left = [key for key in keys if key.name != name]
    if len(left) == len(keys):
        raise RequestInvalid(f"there is no key called {name!r}", field="name")
    write(path, left)


def write(path: Path, keys: list[ApiKey]) -> None:
    """Replace the file at once, readable by its owner alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w") as opened:  # mkstemp makes it with mode 0600
            opened.write(_HEAD + "".join(f"{' '.join(key)}\n" for key in keys))
            opened.flush()
            os.fsync(opened.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _sha256(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
