"""What a task's `run(params, job)` is given: its inputs, a place for its files, and the way to say how far it is."""

import hashlib
import json
import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from shared import artifacts
from shared.errors import (
    ArtifactNotFound,
    InvalidInput,
    JobCancelled,
    JobNotFound,
    JobPreempted,
    JobTimedOut,
    QueueUnavailable,
    StopRequested,
    StorageFull,
    StorageUnavailable,
    UploadNotFound,
)
from shared.job import Artifact, CheckpointFile, Job, Progress, Warning_, artifact_view
from shared.job_store import Claim
from tasks import checkpoint as checkpoint_file
from tasks.images import decode, encode_png

if TYPE_CHECKING:
    # The queue brings Celery along, which a task has no need of: it is given one that is made already.
    from shared.queue import Queue

log = logging.getLogger(__name__)

TELL_EVERY_S = 0.5
"""Progress goes to Redis at most this often; a stop is seen as often."""

STORAGE_PATIENCE_S = 300
"""How long a job waits for a storage that is out of reach: a server restarts in less."""

_STOPS: dict[str, type[StopRequested]] = {
    "user": JobCancelled,
    "shutdown": JobPreempted,
    "timeout": JobTimedOut,
}

State = dict[str, Any]
T = TypeVar("T")


class JobContext:
    """One attempt at one job. It cannot tell whether Celery, a test or a notebook runs the task."""

    def __init__(self, queue: "Queue", job: Job, claim: Claim) -> None:
        self.queue = queue
        self.settings = queue.settings
        self.id = job.id
        self.attempt = claim.attempt
        self.claim = claim
        self.summary: dict[str, Any] = {}
        """What the kind has to say at the end."""
        self.provenance: dict[str, Any] = {}
        """What the result came from."""
        self.resumed_from_step: int | None = None
        self.artifacts: dict[str, Artifact] = {artifact.name: artifact for artifact in job.artifacts}
        self.warnings: list[Warning_] = list(job.warnings)
        self._checkpoints: list[CheckpointFile] = list(job.checkpoints)
        self._written: list[str] = []
        """The files of this attempt, oldest first."""
        self._progress = Progress()
        self._told_at = float("-inf")
        self._saved_at = time.monotonic()

    # Progress

    def report(
        self,
        step: int,
        total: int,
        message: str = "",
        metrics: dict[str, float] | None = None,
        checkpoint: Callable[[], State] | None = None,
    ) -> None:
        """Say that `step` of `total` is done; the one place where a job is stopped.

        Args:
            checkpoint: gives the state from which to resume; called when the last checkpoint is older than the
                setting CHECKPOINT_S, and before the job is stopped by a shutdown or its time limit.

        Raises:
            StopRequested: a subclass that says why; let it pass.
        """
        self._progress = Progress(step=step, total=total, message=message, metrics=finite(metrics or {}))
        now = time.monotonic()
        if now - self._told_at >= TELL_EVERY_S or step >= total:
            self._told_at = now
            self._obey(self._tell_progress(), checkpoint)
        if checkpoint is not None and now - self._saved_at >= self.settings.checkpoint_s:
            self._save_if_there_is_room(step, checkpoint())

    def _save_if_there_is_room(self, step: int, state: State) -> None:
        """A checkpoint may be many times the result: a disk that has no room for it may yet have room for that."""
        try:
            self.save_checkpoint(step, state)
        except StorageFull as error:
            self._saved_at = time.monotonic()
            log.warning("job %s: no checkpoint at step %d (%s)", self.id, step, error)
            if "checkpoint_skipped" not in {warning.code for warning in self.warnings}:
                self.warn(
                    "checkpoint_skipped",
                    f"no room for a checkpoint at step {step}; interrupted, the job goes on from an older one",
                )

    def fetching(self, done_bytes: int, total_bytes: int) -> None:
        """Say how far the download of a network's weights is; 0 bytes: another process is at it."""
        far = (
            f"{done_bytes / 2**20:.0f} of {total_bytes / 2**20:.0f} MiB"
            if done_bytes
            else "waiting for another process"
        )
        self.report(0, max(1, self._progress.total), f"fetching weights: {far}")

    def _tell_progress(self) -> str:
        data = self._progress.model_dump_json()
        try:
            return self.queue.store.write(self.claim, {"progress": data}, event="progress", data=data)
        except QueueUnavailable as error:
            # The work goes on: nobody can take the job while Redis is away, and it asks again next time.
            log.warning("job %s: progress not told (%s)", self.id, error)
            return ""

    @contextmanager
    def heeding_signals(self) -> Iterator[None]:
        """Stop as `report` does, also where only a signal could bring the stop.

        A process that does not report for long, in one call of a network or its compilation, is signalled; as it comes
        back from there that is a SystemExit, which knows nothing of partial pictures. No checkpoint is saved: a signal
        may come between any two statements, and the last checkpoint is of one moment.

        Raises:
            StopRequested: as `report`; the SystemExit, where the job was not asked to stop.
        """
        try:
            yield
        except SystemExit:
            self._obey(self._tell_progress(), None)
            raise

    def _obey(self, stop: str, checkpoint: Callable[[], State] | None) -> None:
        """Stop the task if the flag says so, its state saved where it is to go on."""
        if not stop:
            return
        if stop != "user" and checkpoint is not None:
            try:
                self.save_checkpoint(self._progress.step, checkpoint())
            except (StorageFull, StorageUnavailable) as error:
                # It was asked to stop, and stops: what its last checkpoint does not have is done again.
                log.warning("job %s: stops without a new checkpoint (%s)", self.id, error)
        raise _STOPS[stop]()

    def text(self, chunk: str, **about: Any) -> None:
        """Send a piece of text that grows, as an event; `about` says which text it belongs to."""
        self._insist("", "text", json.dumps({"text": chunk, **about}), {})

    def warn(self, code: str, message: str, detail: Any = None) -> None:
        """Tell of trouble that does not end the job."""
        warning = Warning_(code=code, message=message, detail=detail)
        self.warnings.append(warning)
        self._insist("warning", "", "", {f"warning.{len(self.warnings) - 1:04d}": warning.model_dump_json()})

    def _insist(self, what: str, event: str, data: str, fields: dict[str, str]) -> str:
        """A write that must not be lost: tried until Redis is back. Raises LeaseLost when the job is another's."""
        wait_s = 0.1
        while True:
            try:
                return self.queue.store.write(self.claim, fields, event=event, data=data)
            except QueueUnavailable as error:
                log.warning("job %s: %s waits for Redis (%s)", self.id, what or event, error)
                time.sleep(wait_s)
                wait_s = min(5.0, wait_s * 2)

    def patiently(self, call: Callable[[], T]) -> T:
        """Use the storage; while it is out of reach (read-only, a server away), wait rather than lose the work.

        Raises:
            StorageUnavailable: it stayed so for `STORAGE_PATIENCE_S`.
            StopRequested: the job was asked to stop meanwhile.
        """
        deadline, wait_s = time.monotonic() + STORAGE_PATIENCE_S, 0.1
        while True:
            try:
                return call()
            except StorageUnavailable as error:
                if time.monotonic() > deadline:
                    raise
                log.warning("job %s waits for the storage (%s)", self.id, error)
            time.sleep(wait_s)
            wait_s = min(5.0, wait_s * 2)
            self._obey(self._tell_progress(), None)

    # Inputs

    def load_image(self, upload_id: str, *, ground: int = 255) -> np.ndarray:
        """An uploaded picture: (height, width, 3) uint8 in sRGB, upright, composited on white or another grey."""
        path = self.upload_path(upload_id)
        return decode(path, max_pixels=self.settings.max_image_pixels, ground=ground)

    def upload_path(self, upload_id: str) -> Path:
        """A local file with an upload's bytes, only to be read."""
        try:
            return self.queue.storage.upload_path(upload_id)
        except UploadNotFound as error:
            raise InvalidInput(
                f"the upload {upload_id} is gone from the storage; upload the file again"
            ) from error

    def model_path(self, job_id: str, name: str) -> Path:
        """A local file with an artifact of an earlier job, its hash checked; only to be read."""
        try:
            artifact = self.queue.artifact(job_id, name)
            path = self.queue.storage.local_path(artifact.path)
        except (JobNotFound, ArtifactNotFound, FileNotFoundError) as error:
            raise InvalidInput(f"job {job_id} has left no {name}", field="model_job") from error
        with path.open("rb") as opened:
            if hashlib.file_digest(opened, "sha256").hexdigest() != artifact.sha256:
                raise InvalidInput(f"{name} of job {job_id} is damaged: its hash differs", field="model_job")
        self.provenance.setdefault("artifacts", {})[f"{job_id}/{name}"] = artifact.sha256
        return path

    # Artifacts

    def save_image(self, name: str, image: np.ndarray) -> None:
        """Leave a picture, (height, width[, 3]) in 0..255, as PNG; floats are clipped and rounded."""
        self.save_artifact(name, encode_png(image))

    def save_artifact(self, name: str, data: bytes | Path, media_type: str | None = None) -> None:
        """Leave a file. It is in storage before the record lists it; the same name again replaces it.

        Raises:
            StorageFull, StorageUnavailable: it could not be written (after some patience); nothing is left under
                the name.
            LeaseLost: another attempt owns the job; the file does not count.
        """
        replaced = self.artifacts.get(name)
        artifact = self.patiently(
            lambda: artifacts.store(self.queue.storage, self.claim, name, data, media_type, replaces=replaced)
        )
        self._written.append(artifact.path)
        known = list(self.artifacts)
        place = known.index(name) if name in known else len(known)
        self.artifacts[name] = artifact
        kept = json.dumps({**artifact.model_dump(), "place": place})
        told = json.dumps(artifact_view(self.id, artifact))
        self._insist(name, "artifact", told, {f"artifact.{name}": kept})
        if replaced is not None and replaced.path != artifact.path:
            self._delete_own(replaced.path)

    # Checkpoints

    def save_checkpoint(self, step: int, state: State) -> None:
        """Save all that is needed to go on after `step`; the newest two are kept.

        What the job has told of itself by now is kept with it, so leave the artifacts of a step before its checkpoint.
        """
        kept = {
            **state,
            "step": step,
            "__artifacts__": [artifact.model_dump() for artifact in self.artifacts.values()],
            "__warnings__": [warning.model_dump() for warning in self.warnings],
        }
        data = checkpoint_file.encode(kept)
        digest = hashlib.sha256(data).hexdigest()
        path = f"{artifacts.attempt_folder(self.claim)}/checkpoint-{step:08d}-{digest}.npz"
        self.patiently(lambda: self.queue.storage.write(path, data))
        self._written.append(path)
        new = CheckpointFile(path=path, sha256=digest, step=step)
        older = [known for known in self._checkpoints if known.path != path]
        self._checkpoints = [new, *older[:1]]
        kept_list = json.dumps([known.model_dump() for known in self._checkpoints])
        self._insist("checkpoint", "", "", {"checkpoints": kept_list})
        for known in older[1:]:
            self._delete_own(known.path)
        self._saved_at = time.monotonic()

    def resume(self) -> State | None:
        """The state of the newest checkpoint that is whole, None when the job starts anew."""
        for known in list(self._checkpoints):
            state = self._read_checkpoint(known)
            if state is None:
                self.warn(
                    "checkpoint_damaged",
                    f"the checkpoint of step {known.step} is damaged; the one before is used",
                )
                continue
            for artifact in state.pop("__artifacts__"):
                self._recall(Artifact(**artifact))
            told = {warning.code for warning in self.warnings}
            for warning in state.pop("__warnings__"):
                if warning["code"] not in told:
                    self.warn(**warning)
            self.resumed_from_step = int(state["step"])
            self.summary["resumed_from_step"] = self.resumed_from_step
            return state
        return None

    def _read_checkpoint(self, known: CheckpointFile) -> State | None:
        try:
            data = self.patiently(lambda: self.queue.storage.read(known.path))
            if hashlib.sha256(data).hexdigest() != known.sha256:
                return None
            return checkpoint_file.decode(data)
        except (FileNotFoundError, ValueError):
            return None

    def _recall(self, artifact: Artifact) -> None:
        """List an artifact of an earlier attempt again, where Redis forgot the record."""
        if artifact.name not in self.artifacts and self.queue.storage.exists(artifact.path):
            place = len(self.artifacts)
            self.artifacts[artifact.name] = artifact
            kept = json.dumps({**artifact.model_dump(), "place": place})
            self._insist(artifact.name, "", "", {f"artifact.{artifact.name}": kept})

    def _delete_own(self, path: str) -> None:
        """Remove a file of this attempt; an older attempt's are not ours to touch."""
        if path.startswith(artifacts.attempt_folder(self.claim)):
            self.queue.storage.delete(path)

    # The end, for `workers/run_job.py`

    def delete_checkpoints(self) -> None:
        """Remove this attempt's checkpoints: the job is done."""
        for known in self._checkpoints:
            self._delete_own(known.path)

    def discard(self) -> None:
        """Remove what this attempt wrote too late: another one owns the job, and goes on from the rest."""
        try:
            record = self.queue.store.get(self.id)
        except (JobNotFound, QueueUnavailable):
            return  # an emptied Redis is filled again from these files
        counts = {listed.path for listed in (*record.artifacts, *record.checkpoints)}
        late = self._written[
            max((n for n, path in enumerate(self._written, 1) if path in counts), default=0) :
        ]
        for path in (artifacts.manifest_file(self.claim), *late):
            self.queue.storage.delete(path)


def finite(metrics: dict[str, float]) -> dict[str, float | None]:
    """Metrics as JSON can hold them: NaN and Inf become null."""
    values = {name: float(value) for name, value in metrics.items()}
    return {name: value if math.isfinite(value) else None for name, value in values.items()}
