"""Where a job's files lie, what they are called, and the manifest that is written last."""

import hashlib
import json
import mimetypes
import re
from pathlib import Path
from typing import Any

from shared.errors import StorageUnavailable
from shared.job import Artifact, CheckpointFile, Job
from shared.job_store import Claim
from shared.storage import LONGEST_NAME, Storage, checked_name

STORAGE_MARK = "dreamq.json"
"""In every storage in which a job was ever submitted; an empty folder in its place, not mounted, has none."""

MEDIA_TYPES = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".gif": "image/gif",
    ".webp": "image/webp",
    ".csv": "text/csv; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
    ".json": "application/json",
    ".keras": "application/octet-stream",
    ".npz": "application/octet-stream",
    ".npy": "application/octet-stream",
}


def job_file(job_id: str) -> str:
    """The path of a job's record in storage."""
    return f"jobs/{job_id}/job.json"


def refusal_file(job_id: str) -> str:
    """The path whose existence says that the submit was answered with an error: should Redis have taken the job up
    all the same, it is not to be run."""
    return f"jobs/{job_id}/refused.json"


def cancel_file(job_id: str) -> str:
    """The path whose existence says that a user cancelled the job (a Redis that lost its memory forgets)."""
    return f"jobs/{job_id}/cancel.json"


def key_file(key_hash: str) -> str:
    """The path of what an idempotency key was used for."""
    return f"keys/{key_hash}"


def attempt_folder(claim: Claim) -> str:
    """The only folder in which an attempt writes."""
    return f"jobs/{claim.job_id}/attempts/{claim.attempt}-{claim.token}"


def manifest_file(claim: Claim) -> str:
    """The last file of an attempt: how it ended."""
    return f"{attempt_folder(claim)}/manifest.json"


def media_type_of(name: str) -> str:
    """The media type of an artifact, from its name's ending."""
    suffix = Path(name).suffix
    return MEDIA_TYPES.get(suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"


def store(
    storage: Storage,
    claim: Claim,
    name: str,
    data: bytes | Path,
    media_type: str | None = None,
    *,
    replaces: Artifact | None = None,
) -> Artifact:
    """Write one file below the attempt's folder; it counts once the record lists it.

    Args:
        replaces: the file of this name that the record lists now; it is left as it is.
    """
    path = f"{attempt_folder(claim)}/{checked_name(name)}"
    if isinstance(data, Path):
        with data.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
        size = data.stat().st_size
    else:
        digest, size = hashlib.sha256(data).hexdigest(), len(data)
    if replaces is not None and replaces.path == path:
        # Until the record lists the new file, the old one must stay what the record says of it.
        beside = f"{digest[:16]}-{name}"[:LONGEST_NAME]
        path = f"{attempt_folder(claim)}/{beside}"
    if isinstance(data, Path):
        storage.write_file(path, data)
    else:
        storage.write(path, data)
    return Artifact(
        name=name, media_type=media_type or media_type_of(name), bytes=size, sha256=digest, path=path
    )


def write_job(storage: Storage, job: Job) -> None:
    """Write a job's whole record to storage."""
    storage.write(job_file(job.id), job.model_dump_json(indent=1).encode())


def read_job(storage: Storage, job_id: str) -> Job | None:
    """A job's record in storage, None when there is none."""
    try:
        return Job.model_validate_json(storage.read(job_file(job_id)))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise StorageUnavailable(f"{job_file(job_id)} is damaged: {error}") from error


def write_manifest(storage: Storage, claim: Claim, end: dict[str, Any]) -> None:
    """Write how an attempt ended, with the names, bytes and hashes of the files that count: its last file."""
    storage.write(manifest_file(claim), json.dumps(end, indent=1).encode())


def read_manifest(storage: Storage, folder: str) -> dict[str, Any] | None:
    """How the attempt in this folder ended, None when it did not come to that."""
    try:
        found: dict[str, Any] = json.loads(storage.read(f"{folder}/manifest.json"))
    except (FileNotFoundError, ValueError):
        return None
    return found


def find_checkpoints(storage: Storage, job_id: str) -> list[CheckpointFile]:
    """All checkpoints of all attempts, newest first, from their names alone (`checkpoint-<step>-<sha256>.npz`)."""
    found = []
    for attempt in storage.names(f"jobs/{job_id}/attempts"):
        for name in storage.names(f"jobs/{job_id}/attempts/{attempt}"):
            if saved := re.fullmatch(r"checkpoint-([0-9]+)-([0-9a-f]+)\.npz", name):
                path = f"jobs/{job_id}/attempts/{attempt}/{name}"
                found.append(CheckpointFile(path=path, sha256=saved[2], step=int(saved[1])))
    return sorted(found, key=lambda checkpoint: checkpoint.step, reverse=True)
