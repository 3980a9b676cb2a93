"""What is no longer needed: checkpoints of ended jobs first, then old jobs, then uploads that no job names, and what
writers that were killed have left."""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from shared.artifacts import cancel_file, find_checkpoints, job_file, key_file, read_job, refusal_file
from shared.errors import DreamqError, InvalidInput, StorageUnavailable
from shared.job import Job
from shared.queue import Queue

log = logging.getLogger(__name__)

DAY_MS = 86_400_000
CHECKPOINTS_KEPT_DAYS = 1
"""An ended job is never resumed; its last checkpoint is kept for a day, for those who want to look into it."""
PRUNE_EVERY_S = 3600.0
HALF_FILES_KEPT_DAYS = 1
"""A file that nobody has written to for so long is nobody's work."""
_SUBMIT_TAKES_MS = 600_000
"""At most, from the look at what a job names to its `job.json`, where its names are seen."""
_CHUNK = 200


@dataclass
class Pruned:
    """What was removed, or would be."""

    checkpoints: list[str] = field(default_factory=list)
    jobs: list[str] = field(default_factory=list)
    uploads: list[str] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)
    """Paths: half files, refused jobs, and idempotency keys of jobs that are gone."""


class Retention:
    """Goes through the storage once."""

    def __init__(self, queue: Queue, days: int, *, dry_run: bool = False) -> None:
        self.queue = queue
        self.store = queue.store
        self.storage = queue.storage
        self.days = days
        self.dry_run = dry_run
        self.began = time.monotonic()
        self.pruned = Pruned()
        self._without_record: set[str] = set()

    def prune(self) -> Pruned:
        """Remove what is older than so many days and what nothing needs any more; what that was.

        Never touched: a job that has not ended, a job that an unfinished one names (its model, or a job that it
        depends on), what a submit names meanwhile, and an upload that any job names or that came within the same time.

        Raises:
            DreamqError: Redis or the storage cannot be reached; what was removed by then stays removed.
        """
        now_ms = self.store.now_ms()
        # The uploads before the jobs: one that comes meanwhile is not in the list, one that is named meanwhile is seen.
        uploads = self.old_uploads(now_ms)
        needed = {text for job in self.jobs() if not job.status.ended for text in job.names()}
        left = set(needed)
        for job in self.jobs():
            age_ms = now_ms - (job.finished_ms or now_ms)
            if job.status.ended and age_ms > self.days * DAY_MS and job.id not in needed:
                self.remove_job(job)
                continue
            if job.status.ended and age_ms > CHECKPOINTS_KEPT_DAYS * DAY_MS:
                self.remove_checkpoints(job)
                for attempt in self.storage.names(f"jobs/{job.id}/attempts"):
                    self.remove_half_files(f"jobs/{job.id}/attempts/{attempt}", now_ms)
            left |= set(job.names())
        for upload in uploads:
            if upload not in left:
                self.remove_upload(upload)
        for folder in ("", "uploads", "keys"):
            self.remove_half_files(folder, now_ms)
        self.remove_old_keys(now_ms)
        self.remove_refused(now_ms)
        return self.pruned

    def jobs(self) -> Iterator[Job]:
        """Every job that the storage knows, as the record has it or, without one, as the storage has."""
        names = self.storage.names("jobs")
        for start in range(0, len(names), _CHUNK):
            chunk = names[start : start + _CHUNK]
            records = {job.id: job for job in self.store.get_many(chunk)}
            for job_id in chunk:
                job = records.get(job_id) or self.stored(job_id)
                if job is not None:
                    yield job

    def stored(self, job_id: str) -> Job | None:
        """A job that Redis does not know, as the storage has it."""
        try:
            job = read_job(self.storage, job_id)
            if job is None:
                self._without_record.add(job_id)
            return job
        except StorageUnavailable as error:
            log.error("job %s is left alone: %s", job_id, error)
            return None

    def old_uploads(self, now_ms: int) -> list[str]:
        """Uploads that came, the last time, more than so many days ago."""
        return [
            name
            for name, modified_ms in self.storage.modified_ms("uploads").items()
            if now_ms - modified_ms > self.days * DAY_MS
        ]

    def remove_job(self, job: Job) -> None:
        """A job with all its files; the record first, so that nobody is led to files that are gone."""
        with self.removal(job.id, self.pruned.jobs) as granted:
            if granted:
                self.store.forget(job)
                # `job.json` late: what a crash leaves is found again by the next turn.
                for path in (f"jobs/{job.id}/attempts", cancel_file(job.id), f"jobs/{job.id}"):
                    self.storage.delete(path)
                self.free_key(job)

    def free_key(self, job: Job) -> None:
        """Let the idempotency key of a removed job go, unless it stands for another job by now.

        After the job's files: as long as there are any, whoever sends the request again is shown this job.
        """
        if not job.idempotency:
            return
        key = job.idempotency.partition(" ")[0]
        if self.key_names(key) == job.id:
            self.storage.delete(key_file(key))
        self.store.forget_key(job)  # a submit may have bound it anew, from the file

    def remove_upload(self, upload: str) -> None:
        """An upload."""
        with self.removal(upload, self.pruned.uploads) as granted:
            if granted:
                self.storage.delete(f"uploads/{upload}")

    @contextmanager
    def removal(self, name: str, told: list[str]) -> Iterator[bool]:
        """Whether an upload or a job is to be removed, while no submit can come to name it."""
        if self.dry_run:
            told.append(name)
            yield False
            return
        ran_ms = int((time.monotonic() - self.began) * 1000)
        granted = self.store.begin_removal(name, unless_held_for_ms=ran_ms + _SUBMIT_TAKES_MS)
        if granted:
            told.append(name)
        yield granted
        if granted:
            self.store.end_removal(name)

    def remove_checkpoints(self, job: Job) -> None:
        """The checkpoints of an ended job."""
        for checkpoint in find_checkpoints(self.storage, job.id):
            self.pruned.checkpoints.append(checkpoint.path)
            if not self.dry_run:
                self.storage.delete(checkpoint.path)

    def remove_half_files(self, folder: str, now_ms: int) -> None:
        """What was being written in a folder when its writer was killed."""
        before_ms = now_ms - HALF_FILES_KEPT_DAYS * DAY_MS
        self.pruned.leftovers += self.storage.remove_half_files(
            folder, before_ms=before_ms, dry_run=self.dry_run
        )

    def remove_old_keys(self, now_ms: int) -> None:
        """Idempotency keys whose job is gone, or never came to be."""
        for key, written_ms in self.storage.modified_ms("keys").items():
            if now_ms - written_ms > self.days * DAY_MS and self.is_spent(key):
                self.remove_leftover(key_file(key))

    def is_spent(self, key: str) -> bool:
        """Whether an idempotency key stands for no job."""
        job_id = self.key_names(key)
        if job_id is None:
            return False  # it went with its job
        try:
            return not self.store.exists(job_id) and not self.storage.exists(job_file(job_id))
        except InvalidInput:
            return True  # damaged: it stands for nothing

    def key_names(self, key: str) -> str | None:
        """The job that an idempotency key was last used for, by the storage; None when it knows none."""
        try:
            return self.storage.read(key_file(key)).decode(errors="replace").partition(" ")[0]
        except FileNotFoundError:
            return None

    def remove_refused(self, now_ms: int) -> None:
        """Jobs of which nothing is left but that they were refused: no Redis can still take them up."""
        for job_id in self._without_record:
            written = self.storage.modified_ms(f"jobs/{job_id}")
            refused = f"jobs/{job_id}/{next(iter(written), '')}" == refusal_file(job_id)
            if refused and len(written) == 1 and now_ms - max(written.values()) > self.days * DAY_MS:
                self.remove_leftover(f"jobs/{job_id}")

    def remove_leftover(self, path: str) -> None:
        """A file or folder that stands for nothing any more."""
        self.pruned.leftovers.append(path)
        if not self.dry_run:
            self.storage.delete(path)


class RetentionThread(threading.Thread):
    """Prunes once an hour, in one process at a time, as the setting RETENTION_DAYS says."""

    def __init__(self, queue: Queue, days: int) -> None:
        super().__init__(name="retention", daemon=True)
        self.queue = queue
        self.days = days

    def run(self) -> None:
        """Turn after turn; trouble is logged, and the next turn tries again."""
        while True:
            try:
                self.turn()
            except DreamqError as error:
                log.warning("retention: %s", error)
            time.sleep(PRUNE_EVERY_S)

    def turn(self) -> None:
        """Prune, unless another process has done it within the hour."""
        if not self.queue.store.take_turn("retention", every_s=PRUNE_EVERY_S):
            return
        pruned = Retention(self.queue, self.days).prune()
        log.info(
            "retention: %d checkpoints, %d jobs, %d uploads, %d leftovers removed",
            len(pruned.checkpoints), len(pruned.jobs), len(pruned.uploads), len(pruned.leftovers),
        )  # fmt: skip
