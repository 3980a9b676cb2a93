"""Which queued jobs are published next: the store holds the order, the broker a small window."""

import logging
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress

from celery import Celery
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from shared.errors import QueueUnavailable
from shared.job_store import JobStore
from shared.worker_registry import WorkerRegistry

log = logging.getLogger(__name__)

MESSAGES_PER_WORKER = 2
"""One to start at once when the running job ends, one in reserve: more would fix the order too early."""
_WORKERS_KNOWN_FOR_S = 1.0


class Dispatch:
    """Publishes the next jobs until about two messages a worker are out."""

    def __init__(self, store: JobStore, registry: WorkerRegistry, app: Celery) -> None:
        self.store = store
        self.registry = registry
        self.app = app
        self._known: set[str] = set()
        self._rooms: list[tuple[int, dict[str, int]]] = []
        self._looked_at = float("-inf")
        self._fresh = False

    def step(self, queue: str = "") -> int:
        """Publish what the windows have room for; how many.

        A message that cannot be sent just now is recovery's to send again.

        Args:
            queue: one in which a job was put just now, perhaps the first ever.

        Raises:
            QueueUnavailable: Redis cannot be reached.
        """
        if queue and queue not in self._known:
            self._looked_at = float("-inf")
        self._look_at_workers()
        published = 0
        for most, windows in self._rooms:
            for job_id, queue, kind in self.store.take_next(most, windows):
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
        """Size the windows by the workers there are; looked at once a second, not at each submit."""
        now = time.monotonic()
        if now - self._looked_at < _WORKERS_KNOWN_FOR_S:
            return
        self._known = set(self.store.queues())
        self._rooms = rooms(self._known, self.registry.served(fresh=self._fresh))
        self._fresh = False
        self._looked_at = now

    def forget_workers(self) -> None:
        """Look again at the next step (a worker came or went)."""
        self._looked_at = float("-inf")
        self._fresh = True


def rooms(queues: set[str], served: Sequence[tuple[Sequence[str], int]]) -> list[tuple[int, dict[str, int]]]:
    """How many messages may be out: for each group of workers that serve the same, at most so many over its queues,
    and at most so many in each of them.

    What no worker serves stays in the store, or its messages would fill the room of those that are. With no worker
    at all, two messages wait for the first that comes.

    Args:
        queues: those in which a job ever waited.
        served: the queues of each group of workers, and how many they are.
    """
    groups: Counter[frozenset[str]] = Counter()
    for names, count in served:
        groups[frozenset(names) & queues] += count
    if not groups:
        groups[frozenset(queues)] = 1
    serving: Counter[str] = Counter()
    for group, count in groups.items():
        serving.update(dict.fromkeys(group, count))
    # Who serves most comes first. Otherwise those who serve less would refill the queues that they share, again and
    # again, before an older job of a queue that they do not serve has its turn.
    order = sorted(groups, key=lambda group: (-len(group), sorted(group)))
    return [
        (
            MESSAGES_PER_WORKER * groups[group],
            {queue: MESSAGES_PER_WORKER * serving[queue] for queue in sorted(group)},
        )
        for group in order
        if group
    ]
