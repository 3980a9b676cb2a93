"""The workers that are heard of: what each serves, which hosts are out of service, whose device fails."""

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

from shared.job import iso
from shared.redis_client import Client, P, now_ms, reachable

_SERVED_KNOWN_FOR_MS = 2000
_FAILURES_KEPT_S = 86400


class WorkerRegistry:
    """The workers of one Redis."""

    def __init__(self, redis: Client) -> None:
        self.redis = redis

    def announce(self, name: str, info: Mapping[str, Any], *, ttl_ms: int) -> None:
        """Say that a worker lives."""
        with reachable():
            pipe = self.redis.pipeline(transaction=False)
            pipe.set(f"{P}worker:{name}", json.dumps(info), px=ttl_ms)
            pipe.zadd(f"{P}workers", {name: now_ms(self.redis)})
            pipe.execute()

    def retire(self, name: str) -> None:
        """Say that a worker is gone."""
        with reachable():
            self.redis.delete(f"{P}worker:{name}")
            self.redis.zrem(f"{P}workers", name)

    def all(self) -> list[dict[str, Any]]:
        """The workers heard of lately; each as it announced itself, with the jobs it holds, when it was last heard
        (`heard_at`), and whether it has been silent for longer than a lease (`lost`)."""
        now = now_ms(self.redis)
        with reachable():
            heard: dict[str, float] = dict(self.redis.zrange(f"{P}workers", 0, -1, withscores=True))
            names = list(heard)
            pipe = self.redis.pipeline(transaction=False)
            for name in names:
                pipe.get(f"{P}worker:{name}")
                pipe.hkeys(f"{P}claims:{name}")
            answers = pipe.execute()
            for name, info in zip(names, answers[::2], strict=True):
                if info is None:
                    self.redis.zrem(f"{P}workers", name)
        return [
            {
                **told,
                "jobs": jobs,
                "heard_at": iso(at_ms),
                "lost": now - at_ms > told.get("lease_ms", now),
            }
            for told, jobs, at_ms in (
                (json.loads(info), jobs, int(heard[name]))
                for name, info, jobs in zip(names, answers[::2], answers[1::2], strict=True)
                if info is not None
            )
        ]

    def drain(self, host: str) -> None:
        """Take a host out of service: its workers give back their jobs and take no others."""
        with reachable():
            self.redis.sadd(f"{P}drained", host)

    def undrain(self, host: str) -> bool:
        """Put a host back in service; False when it was not out of it."""
        with reachable():
            return bool(self.redis.srem(f"{P}drained", host))

    def drained_hosts(self) -> list[str]:
        """The hosts that are out of service."""
        with reachable():
            return sorted(self.redis.smembers(f"{P}drained"))

    def is_drained(self, host: str) -> bool:
        """Whether a host is out of service."""
        with reachable():
            return bool(self.redis.sismember(f"{P}drained", host))

    def note_device_failure(self, worker_name: str, job_id: str) -> None:
        """Note that a worker's device failed on a job; one that fails on it again counts once."""
        with reachable():
            pipe = self.redis.pipeline(transaction=False)
            pipe.sadd(f"{P}device_failures:{worker_name}", job_id)
            pipe.expire(f"{P}device_failures:{worker_name}", _FAILURES_KEPT_S)
            pipe.execute()

    def device_failures(self, worker_name: str) -> int:
        """On how many jobs a worker's device failed since the last that succeeded."""
        with reachable():
            return int(self.redis.scard(f"{P}device_failures:{worker_name}"))

    def note_device_works(self, worker_name: str) -> None:
        """Note that a job succeeded on a worker's device."""
        with reachable():
            self.redis.delete(f"{P}device_failures:{worker_name}")

    def served(self, *, fresh: bool = False) -> list[tuple[list[str], int]]:
        """The sets of queues that workers serve, each with how many take jobs there; known for a moment by all.

        Counted by whoever finds it too old, so that what a job costs does not grow with the number of workers.

        Args:
            fresh: count them now.
        """
        with reachable():
            told = None if fresh else self.redis.get(f"{P}served")
        if told is None:
            ready = [
                worker
                for worker in self.all()
                if worker.get("state", "ready") == "ready" and not worker["lost"]
            ]
            groups = Counter(" ".join(sorted(worker["queues"])) for worker in ready)
            told = json.dumps(list(groups.items()))
            with reachable():
                self.redis.set(f"{P}served", told, px=_SERVED_KNOWN_FOR_MS)
        return [(queues.split(), count) for queues, count in json.loads(told)]
