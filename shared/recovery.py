"""What a vanished worker, a lost message, a crash between two writes or an empty Redis leaves behind.

Runs in every worker's main process and in the API, so that status is true even with all workers dead.
A few of them watch the leases; who holds the lock acts.
"""

import logging
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from shared.artifacts import STORAGE_MARK, cancel_file, find_checkpoints, read_job, read_manifest
from shared.errors import DreamqError, JobNotFound, QueueUnavailable, StorageUnavailable
from shared.job import ID_PATTERN, Job, JobStatus
from shared.job_hash import hash_from_job
from shared.job_store import Claim
from shared.queue import Queue
from shared.redis_client import server_run

log = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")

LONGEST_REPUBLISH_S = 600
_LOCK_TURNS = 10
_ATTEMPT = re.compile(r"[0-9]+-")
_QUOTED_ID = re.compile(rf'"({ID_PATTERN.strip("^$")})"')
WATCHERS = 5
"""How many processes watch over the leases. Should all of them vanish at once, others follow within seconds."""
_WATCH_TURNS = 3


class StorageAway(StorageUnavailable):
    """The storage went away while the records were compared with it; the next turn begins anew."""


class Leases:
    """Which running jobs have not been renewed for a whole lease, by this process' own monotonic clock.

    A Redis that pauses stops all renewals, so the count starts again after any gap: what was not watched
    cannot be judged.
    """

    def __init__(self, lease_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.lease_s = lease_s
        self.clock = clock
        self._seen: dict[str, tuple[str, float]] = {}
        self._last_look = clock()

    def start_again(self) -> None:
        """Forget what was seen: what could not be renewed meanwhile cannot be judged."""
        self._seen.clear()

    def look(self, read: Callable[[], dict[str, str]]) -> list[str]:
        """Read the leases; the ids of the jobs whose lease has run out.

        Raises:
            QueueUnavailable: Redis did not answer; the count starts again.
        """
        started = self.clock()
        try:
            leases = read()
        except QueueUnavailable:
            self.start_again()
            raise
        now = self.clock()
        if now - self._last_look > self.lease_s / 2 or now - started > self.lease_s / 3:
            self.start_again()
        self._last_look = now
        self._seen = {
            job_id: self._seen[job_id] if self._seen.get(job_id, ("", 0))[0] == value else (value, now)
            for job_id, value in leases.items()
        }
        return [job_id for job_id, (_, since) in self._seen.items() if now - since >= self.lease_s]


class Recovery:
    """One process' turns."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.store = queue.store
        self.storage = queue.storage
        self.settings = queue.settings
        self.leases = Leases(self.settings.lease_s)

    def turn(self) -> None:
        """Watch the leases, and do what is to be done if no other process does it just now.

        Raises:
            DreamqError: Redis or the storage cannot be reached.
        """
        try:
            self._turn()
        except QueueUnavailable:
            # Away, or full: then it still answers who reads, but the living cannot renew.
            self.leases.start_again()
            raise

    def _turn(self) -> None:
        lost = self.leases.look(self.store.leases)
        with self.store.recovery_lock(
            ttl_ms=int(self.settings.recovery_every_s * _LOCK_TURNS * 1000)
        ) as held:
            if not held:
                return
            # What is done here reads and writes the storage; an empty folder in its place would take it all.
            self.queue.check_storage()
            self.rebuild_if_restarted()
            for job_id in lost:
                one_job(job_id, self.take_back, job_id)
            self.publish_again()
            for job in self.store.waiting():
                one_job(job.id, self.move_on, job)
            for job_id in self.store.unwritten():
                one_job(job_id, self.write_end, job_id)
            self.queue.dispatch.step()

    def take_turn(self, name: str) -> None:
        """As `turn`, where few others watch already: what a large fleet costs Redis must not grow with its square.

        Args:
            name: of this process.

        Raises:
            DreamqError: Redis or the storage cannot be reached.
        """
        ttl_ms = int(self.settings.recovery_every_s * _WATCH_TURNS * 1000)
        try:
            on_watch = self.store.watch(name, most=WATCHERS, ttl_ms=ttl_ms)
        except QueueUnavailable:
            self.leases.start_again()
            raise
        if on_watch:
            self.turn()

    def take_back(self, job_id: str) -> None:
        """A job whose worker is no longer heard: complete its end if it came to that, else queue it again."""
        claim = self.store.claim_of(job_id)
        if claim is not None and not complete_end(self.queue, claim):
            status = self.store.release(claim, "worker_lost", loss=True, max_losses=self.settings.max_losses)
            log.warning(
                "job %s: attempt %d is no longer heard; the job is %s",
                job_id,
                claim.attempt,
                status or "another's",
            )
            self.follow_up(job_id)

    def follow_up(self, job_id: str) -> None:
        """What follows when a job has just ended."""
        job = self.store.get(job_id)
        if job.status.ended:
            self.queue.settle_end(job)

    def publish_again(self) -> None:
        """Send the messages again that nobody took: each later than the time before."""
        now = self.store.now_ms()
        for queue in self.store.queues():
            waiting: set[str] | None = None
            for message in self.store.published(queue, before_ms=now - int(self.settings.lease_s * 1000)):
                patience_s = min(LONGEST_REPUBLISH_S, self.settings.lease_s * 2 ** (message.publishes - 1))
                if now - message.at_ms < patience_s * 1000:
                    continue
                if waiting is None:
                    waiting = set(_QUOTED_ID.findall("\n".join(self.store.broker_holds(queue))))
                # One that still stands in the broker's list is not lost, only not reached yet.
                if message.job_id not in waiting and self.store.published_again(queue, message.job_id):
                    log.warning("job %s: its message was lost; published again", message.job_id)
                    self.queue.dispatch.publish(message.job_id, queue, message.kind)

    def move_on(self, job: Job) -> None:
        """A waiting job: an upstream job may have ended when nobody could look."""
        for upstream_id in job.depends_on:
            if not self.store.exists(upstream_id):
                upstream = read_job(self.storage, upstream_id)
                if upstream is not None:
                    self.store.create(upstream)
        if self.store.settle(job) == JobStatus.FAILED:
            self.follow_up(job.id)

    def write_end(self, job_id: str) -> None:
        """An ended job whose end did not reach the storage."""
        try:
            self.queue.settle_end(self.store.get(job_id))
        except JobNotFound:
            self.store.written(job_id)

    # An empty or older Redis

    def rebuild_if_restarted(self) -> None:
        """Compare the records with the storage whenever Redis restarted or was emptied.

        A restart may have lost the last second of writes, even with an append-only file.
        """
        run = server_run(self.store.redis)
        if self.store.rebuilt_for() == run or not self.storage.exists(STORAGE_MARK):
            return
        started = time.monotonic()
        restored = sum(
            bool(one_job(job_id, self.restore_again, job_id)) for job_id in self.storage.names("jobs")
        )
        self.store.set_rebuilt_for(run)
        self.queue.dispatch.forget_workers()
        log.info(
            "records compared with the storage: %d restored in %.1f s", restored, time.monotonic() - started
        )

    def restore_again(self, job_id: str) -> bool:
        """As `restore`; a job that cannot be read is only passed over where the storage itself is sound.

        Raises:
            StorageAway: it is not, and nobody may take the records for compared.
        """
        try:
            return self.restore(job_id)
        except StorageUnavailable:
            try:
                self.storage.check()
            except DreamqError as error:
                raise StorageAway from error
            return self.restore(job_id)

    def restore(self, job_id: str) -> bool:
        """Bring one job's record up to what the storage knows; whether that changed anything."""
        stored = read_job(self.storage, job_id)
        if stored is None:
            return False
        try:
            record = self.store.get(job_id)
        except JobNotFound:
            job = self.continued(stored)
            created = self.store.create(job)
            if created and job.status.ended and not stored.status.ended:
                self.queue.settle_end(job)
            return created
        if record.status.ended:
            return False
        # Redis may have lost the job's last writes.
        if stored.status.ended:
            self.store.forget(record)
            return self.store.create(stored)
        if record.stop != "user" and self.storage.exists(cancel_file(job_id)):
            self.queue.cancel(job_id)
            return True
        return False

    def continued(self, stored: Job) -> Job:
        """A job as it goes on from what its attempts left in storage."""
        if stored.status.ended:
            return stored
        checkpoints = find_checkpoints(self.storage, stored.id)
        names = self.storage.names(f"jobs/{stored.id}/attempts")
        folders = sorted(
            ((int(name.partition("-")[0]), name) for name in names if _ATTEMPT.match(name)), reverse=True
        )
        attempt = max((number for number, _ in folders), default=0)
        job = stored.model_copy(update={"attempt": attempt, "checkpoints": checkpoints[:2]})
        for _, name in folders:
            end = read_manifest(self.storage, f"jobs/{stored.id}/attempts/{name}")
            if end is not None:
                return Job.model_validate({**job.model_dump(), **end, "finished_ms": self.store.now_ms()})
        if self.storage.exists(cancel_file(stored.id)):
            ended = {"status": JobStatus.CANCELLED, "stop": "user", "finished_ms": self.store.now_ms()}
            return job.model_copy(update=ended)
        return job


def one_job(job_id: str, step: Callable[[T], R], subject: T) -> R | None:
    """Do something for one job. What is wrong with it alone (a foreign file, a record of another version) is logged,
    and must not keep the others from being looked after.

    Raises:
        QueueUnavailable, StorageAway: that is no matter of one job.
    """
    try:
        return step(subject)
    except (QueueUnavailable, StorageAway):
        raise
    except Exception as error:
        log.error("job %s: recovery failed: %s", job_id, error, exc_info=not isinstance(error, DreamqError))
        return None


def complete_end(queue: Queue, claim: Claim) -> bool:
    """End a job whose attempt wrote its manifest, and died before it could write the record; whether it did."""
    end = read_manifest(queue.storage, f"jobs/{claim.job_id}/attempts/{claim.attempt}-{claim.token}")
    if end is None:
        return False
    job = Job.model_validate({**queue.store.get(claim.job_id).model_dump(), **end})
    kept = hash_from_job(job)
    fields = {
        name: str(value)
        for name, value in kept.items()
        if name in ("error", "summary", "provenance", "progress")
        or name.startswith(("artifact.", "warning."))
    }
    if queue.store.finish(claim, job.status, fields):
        queue.settle_end(queue.store.get(claim.job_id))
    return True


class RecoveryThread(threading.Thread):
    """Takes a turn every few seconds until it is stopped."""

    def __init__(self, queue: Queue, name: str = "recovery") -> None:
        super().__init__(name=name, daemon=True)
        self._recovery = Recovery(queue)
        self._watcher = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._stopping = threading.Event()

    def run(self) -> None:
        """Turn after turn; trouble is logged once, and the next turn tries again."""
        trouble = ""
        while not self._stopping.wait(self._recovery.settings.recovery_every_s):
            try:
                self._recovery.take_turn(self._watcher)
                trouble = ""
            except Exception as error:
                # Whatever it was, the thread must live: nobody else would notice that it is gone.
                if str(error) != trouble:
                    log.warning("recovery: %s", error, exc_info=not isinstance(error, DreamqError))
                trouble = str(error)

    def stop(self) -> None:
        """Ask the thread to end."""
        self._stopping.set()
