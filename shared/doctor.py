"""What `dreamq admin doctor` looks at: each finding is ok, a warning or a failure, and says what to do next."""

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Literal, NamedTuple

from shared.errors import DreamqError, QueueUnavailable
from shared.queue import Queue
from shared.redis_client import Client, server_facts

Level = Literal["ok", "warn", "fail"]

OLDEST_REDIS = (6, 2)
CLOCK_DIFFERS_S = 30
NEARLY_FULL = 0.8
_PROBE_BYTES = 1 << 16


class Finding(NamedTuple):
    """One line of the doctor's."""

    level: Level
    subject: str
    told: str
    advice: str = ""


def examine(queue: Queue) -> Iterator[Finding]:
    """Every finding, one subject after the other; a check that breaks down is a finding too."""
    try:
        queue.store.now_ms()
    except QueueUnavailable as error:
        yield Finding("fail", "Redis", error.message, "start it, or set REDIS_URL to where it is")
        checks: list[Callable[[Queue], Iterator[Finding]]] = [storage, weights]
    else:
        checks = [redis, clocks, storage, weights, workers, leases, locks, retention]
    for check in checks:
        try:
            yield from check(queue)
        except DreamqError as error:
            yield Finding("fail", check.__name__, error.message, "see the message; the other checks go on")


def memory_policy_warning(redis: Client) -> str:
    """What to say at a start when this Redis may drop jobs to make room; '' when it may not."""
    policy = server_facts(redis).policy
    if policy == "noeviction":
        return ""
    return (
        f"Redis' maxmemory-policy is {policy}: when its memory is full it drops jobs without a word. "
        "Set it: CONFIG SET maxmemory-policy noeviction, and in its configuration file"
    )


def redis(queue: Queue) -> Iterator[Finding]:
    """Version, memory policy, append-only file, room."""
    facts = server_facts(queue.store.redis)
    numbers = tuple(int(part) for part in re.findall(r"\d+", facts.version)[:2])
    if numbers >= OLDEST_REDIS:
        yield Finding("ok", "Redis", f"answers, version {facts.version}")
    else:
        yield Finding(
            "fail", "Redis", f"version {facts.version} is too old", "install 6.2 or newer, or Valkey"
        )
    if warning := memory_policy_warning(queue.store.redis):
        told, _, advice = warning.partition(". ")
        yield Finding("fail", "Redis memory", told, advice)
    elif facts.limit_bytes and facts.used_bytes > NEARLY_FULL * facts.limit_bytes:
        yield Finding(
            "warn", "Redis memory", f"{facts.used_bytes / facts.limit_bytes:.0%} of maxmemory is used",
            "raise maxmemory, or remove old jobs: dreamq admin prune",
        )  # fmt: skip
    else:
        yield Finding("ok", "Redis memory", f"noeviction, {facts.used_bytes / 2**20:.0f} MiB used")
    if not facts.append_only:
        yield Finding(
            "warn", "Redis file", "no append-only file: a restart of Redis forgets all but what the storage holds",
            "CONFIG SET appendonly yes, and in its configuration file",
        )  # fmt: skip
    elif not facts.append_only_ok:
        yield Finding(
            "fail", "Redis file", "the append-only file cannot be written", "look at Redis' disk and log"
        )
    else:
        yield Finding("ok", "Redis file", "append-only file is on")


def clocks(queue: Queue) -> Iterator[Finding]:
    """This host's clock against Redis'."""
    differs_s = abs(queue.store.now_ms() / 1000 - time.time())
    if differs_s > CLOCK_DIFFERS_S:
        yield Finding(
            "warn", "clocks", f"this host's clock and Redis' differ by {differs_s:.0f} s; only times in logs suffer",
            "run NTP on both",
        )  # fmt: skip
    else:
        yield Finding("ok", "clocks", f"this host's and Redis' differ by {differs_s:.1f} s")


def storage(queue: Queue) -> Iterator[Finding]:
    """Whether files can be written, replaced, read back, listed and removed."""
    name = f"probe-{os.getpid()}"
    data = os.urandom(_PROBE_BYTES)
    started = time.monotonic()
    try:
        with suppress(QueueUnavailable):  # which is told by the check of Redis
            queue.check_storage()
        queue.storage.write(f"{name}/file", b"older")
        queue.storage.write(f"{name}/file", data)
        whole = queue.storage.read(f"{name}/file") == data and queue.storage.names(name) == ["file"]
    finally:
        queue.storage.delete(name)
    took_ms = (time.monotonic() - started) * 1000
    if whole:
        yield Finding(
            "ok",
            "storage",
            f"{queue.settings.storage_url}: written, replaced, read, removed in {took_ms:.0f} ms",
        )
    else:
        yield Finding(
            "fail", "storage", f"{queue.settings.storage_url} gives back something else than was written",
            "mount it without a cache of its own (NFS: lookupcache=positive, actimeo=1)",
        )  # fmt: skip


def weights(queue: Queue) -> Iterator[Finding]:
    """The folder of pretrained weights."""
    folder = queue.settings.weights_dir
    if not folder.exists():
        yield Finding(
            "ok", "weights", f"{folder} is not there yet; it is made when weights are first fetched",
        )  # fmt: skip
    elif not os.access(folder, os.W_OK):
        yield Finding(
            "warn", "weights", f"{folder} cannot be written: only the networks whose weights lie there can be used",
            "give the workers' user the right to write there, or put the weights there yourself",
        )  # fmt: skip
    else:
        yield Finding("ok", "weights", f"{folder} can be written, {sum(1 for _ in folder.iterdir())} files")


def workers(queue: Queue) -> Iterator[Finding]:
    """Who takes jobs, who does not, and queues that nobody serves."""
    known = queue.workers()
    ready = [worker for worker in known if worker.get("state", "ready") == "ready" and not worker["lost"]]
    served = {name for worker in ready for name in worker["queues"]}
    if ready:
        yield Finding(
            "ok",
            "workers",
            f"{len(ready)} take jobs, {sum(bool(worker['jobs']) for worker in ready)} are busy",
        )
    else:
        yield Finding("warn", "workers", "none takes jobs", "start some: python -m workers")
    for worker in known:
        if worker.get("state") == "quarantined":
            yield Finding(
                "fail", "workers", f"{worker['name']}: its device {worker['device']} keeps failing",
                "look at dmesg and nvidia-smi on its host, then restart the worker",
            )  # fmt: skip
    for host in queue.registry.drained_hosts():
        yield Finding(
            "warn", "workers", f"host {host} is drained", f"back in service: dreamq admin drain --undo {host}"
        )
    for head in queue.store.queue_heads():
        if head.waiting and ready and head.queue not in served:
            yield Finding(
                "warn", "queues", f"{head.waiting} jobs wait in {head.queue}, which no worker serves",
                "start a worker whose device and --queues fit",
            )  # fmt: skip


def leases(queue: Queue) -> Iterator[Finding]:
    """Running jobs whose worker is not registered."""
    names = {worker["name"] for worker in queue.workers()}
    running, _ = queue.store.find(status="running", limit=500)
    lost = [job.id for job in running if job.worker and job.worker.name not in names]
    if lost:
        yield Finding(
            "warn", "running jobs", f"{len(lost)} of {len(running)} have no registered worker: {', '.join(lost[:3])}",
            f"recovery takes them back within {2 * queue.settings.lease_s:.0f} s if a worker or the API runs",
        )  # fmt: skip
    else:
        yield Finding("ok", "running jobs", f"{len(running)}, all with their workers")


def locks(queue: Queue) -> Iterator[Finding]:
    """The lock of recovery, which would hold up everybody if it never went away."""
    left_s = queue.store.recovery_lock_left_s()
    if left_s is None or left_s >= 0:
        yield Finding(
            "ok", "recovery lock", "free" if left_s is None else f"held, for at most {left_s:.0f} s more"
        )
    else:
        yield Finding(
            "fail",
            "recovery lock",
            "held without an end: nothing is recovered",
            "DEL dreamq:recovery in Redis",
        )


def retention(queue: Queue) -> Iterator[Finding]:
    """How many records there are, and whether any ever goes."""
    count = sum(queue.store.status_counts().values())
    if queue.settings.retention_days is None and count > 100_000:
        yield Finding(
            "warn", "retention", f"{count} jobs are kept and none is ever removed",
            "set RETENTION_DAYS, or run dreamq admin prune",
        )  # fmt: skip
    else:
        kept = f"{queue.settings.retention_days} days" if queue.settings.retention_days else "for ever"
        yield Finding("ok", "retention", f"{count} jobs, kept {kept}")
