"""Which queued jobs are published next: the store holds the order, the broker a small window."""

import logging
import time
from collections import Counter
from contextlib import suppress

from celery import Celery
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from shared.errors import QueueUnavailable
from shared.job_store import JobStore

log = logging.getLogger(__name__)

MESSAGES_PER_WORKER = 2
"""One to start at once when the running job ends, one in reserve: more would fix the order too early."""
_WORKERS_KNOWN_FOR_S = 1.0


class Dispatch:
    """Publishes the next jobs until about two messages a worker are out."""

    def __init__(self, store: JobStore, app: Celery) -> None:
        self.store = store
        self.app = app
        self._windows: dict[str, int] = {}
        self._most = 0
        self._looked_at = float("-inf")

    def step(self, queue: str = "") -> int:
        """Publish what the windows have room for; how many.

        A message that cannot be sent just now is recovery's to send again.

        Args:
            queue: one in which a job was put just now, perhaps the first ever.

        Raises:
            QueueUnavailable: Redis cannot be reached.
        """
        if queue and queue not in self._windows:
            self.forget_workers()
        self._look_at_workers()
        published = 0
        for job_id, queue, kind in self.store.take_next(self._most, self._windows):
            published += self.publish(job_id, queue, kind)
        return published

    def publish(self, job_id: str, queue: str, kind: str) -> bool:
        """Send one job's id to the broker; False (and a line in the log) when that fails."""
        try:
            self.app.send_task(
                f"tasks.{kind}", args=[job_id], queue=queue, task_id=job_id, ignore_result=True
            )
        except (OperationalError, RedisError, OSError) as error:
            log.warning("job %s: not published (%s); recovery will try again", job_id, error)
            with suppress(QueueUnavailable):
                self.store.not_published(queue, job_id)
            return False
        return True

    def _look_at_workers(self) -> None:
        """Size the windows by the workers that serve each queue; looked at once a second, not at each submit."""
        now = time.monotonic()
        if now - self._looked_at < _WORKERS_KNOWN_FOR_S:
            return
        workers = self.store.workers()
        serving = Counter(queue for worker in workers for queue in worker["queues"])
        # With no worker known, two messages wait for the first that comes.
        queues = set(self.store.queues()) | set(serving)
        self._windows = {queue: MESSAGES_PER_WORKER * max(1, serving[queue]) for queue in sorted(queues)}
        self._most = MESSAGES_PER_WORKER * max(1, len(workers))
        self._looked_at = now

    def forget_workers(self) -> None:
        """Look again at the next step (a worker or a queue came)."""
        self._looked_at = float("-inf")
