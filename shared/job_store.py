"""Job records in Redis: the only file that knows their keys (with the prelude of `shared/lua`).

Each step that must be one is a script; a script that an attempt calls carries the attempt's number and token
and is refused when another attempt owns the job.
"""

import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from shared.errors import JobNotFound, LeaseLost, RequestInvalid
from shared.job import Job, JobStatus, Worker
from shared.job_hash import hash_from_job, job_from_hash
from shared.redis_client import Client, P, now_ms, reachable

log = logging.getLogger(__name__)

_CHUNK = 200
_LUA = Path(__file__).parent / "lua"


class Claim(NamedTuple):
    """One attempt's hold on a job; attempt and token are its fence."""

    job_id: str
    attempt: int
    token: str
    pid: int


class Event(NamedTuple):
    """Something that happened to a job: `status`, `progress`, `artifact` or `text`."""

    id: str
    type: str
    data: dict[str, Any]


class Renewal(NamedTuple):
    """What a lease's renewal answers."""

    stop: str
    beat: int
    """How often the job has reported."""


class QueueHead(NamedTuple):
    """A queue, seen from outside."""

    queue: str
    waiting: int
    next_created_ms: int | None
    """When the job that is next was submitted; None where none waits."""


@dataclass(frozen=True)
class Published:
    """A message that is out and not yet claimed."""

    job_id: str
    kind: str
    at_ms: int
    publishes: int


class JobStore:
    """The job records in one Redis."""

    def __init__(self, redis: Client) -> None:
        self.redis = redis
        prelude = (_LUA / "prelude.lua").read_text()
        self._scripts = {
            path.stem: redis.register_script(f"{prelude}\n{path.read_text()}")
            for path in _LUA.glob("*.lua")
            if path.stem != "prelude"
        }

    def _run(self, script: str, *args: str | int | float) -> Any:
        with reachable():
            return self._scripts[script](args=args)

    # Reading

    def now_ms(self) -> int:
        """Milliseconds since 1970 by Redis' clock, the only one that counts."""
        return now_ms(self.redis)

    def get(self, job_id: str) -> Job:
        """The record of a job.

        Raises:
            JobNotFound: Redis has none.
        """
        found = self.get_many([job_id], skip_unreadable=False)
        if not found:
            raise JobNotFound()
        return found[0]

    def get_many(self, job_ids: Sequence[str], *, skip_unreadable: bool = True) -> list[Job]:
        """The records of those of `job_ids` that Redis has, in that order."""
        if len(job_ids) == 1:
            answers = [self._run("get", job_ids[0])]
        else:
            with reachable():
                pipe = self.redis.pipeline(transaction=False)
                for job_id in job_ids:
                    self._scripts["get"](args=[job_id], client=pipe)
                answers = pipe.execute()
        jobs = []
        for flat, rank in answers:
            if flat:
                fields = dict(zip(flat[::2], flat[1::2], strict=True))
                try:
                    jobs.append(job_from_hash(fields, queue_position=None if rank is None else rank + 1))
                except (ValueError, KeyError, TypeError) as error:
                    if not skip_unreadable:
                        raise
                    # One record that another version of dreamq wrote must not hide all others.
                    log.error("job %s: its record cannot be read: %s", fields.get("id"), error)
        return jobs

    def any_job(self) -> bool:
        """Whether Redis has the record of any job."""
        with reachable():
            return bool(self.redis.exists(f"{P}jobs"))

    def exists(self, job_id: str) -> bool:
        """Whether Redis has a record of this job."""
        with reachable():
            return bool(self.redis.exists(f"{P}job:{job_id}"))

    def find(
        self,
        *,
        status: str | None = None,
        kind: str | None = None,
        label: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> tuple[list[Job], str | None]:
        """Jobs that fit all filters, newest first, and the cursor of the next page.

        Raises:
            RequestInvalid: the cursor is none of ours.
        """
        keys = [f"{P}jobs"]
        keys += [
            f"{P}jobs:{name}:{value}"
            for name, value in (("status", status), ("kind", kind), ("label", label))
            if value
        ]
        with reachable():
            sizes = [self.redis.zcard(key) for key in keys]
            smallest = keys[sizes.index(min(sizes))]
            others = [key for key in keys[1:] if key != smallest]
            found: dict[str, str] = {}
            for chunk in self._newest_first(smallest, cursor):
                found |= self._in_all(others, chunk)
                if len(found) > limit:
                    break
        page = list(found)[:limit]
        return self.get_many(page), found[page[-1]] if len(found) > limit else None

    def _newest_first(self, key: str, cursor: str | None) -> Iterator[dict[str, str]]:
        """Members of an index, newest first, a few at a time, each with its place; those after `cursor` only."""
        upper, after = "+inf", ""
        if cursor is not None:
            upper, _, after = cursor.partition("-")
            if not (upper.isascii() and upper.isdigit()):
                raise RequestInvalid("cursor: not one that a list call answered", field="cursor")
        start = 0
        while chunk := self.redis.zrevrangebyscore(
            key, upper, "-inf", start=start, num=_CHUNK, withscores=True
        ):
            yield {
                job_id: f"{int(score)}-{job_id}"
                for job_id, score in chunk
                if cursor is None or (int(score), job_id) < (int(upper), after)
            }
            start += _CHUNK

    def _in_all(self, keys: Sequence[str], chunk: dict[str, str]) -> dict[str, str]:
        """Those of `chunk` that stand in all these indexes too."""
        pipe = self.redis.pipeline(transaction=False)
        for key in keys:
            pipe.zmscore(key, list(chunk))
        columns = pipe.execute() if keys and chunk else []
        standing = zip(chunk.items(), *columns, strict=True)
        return {job_id: place for (job_id, place), *scores in standing if None not in scores}

    # The life of a job

    def reserve(self, key_hash: str, job_id: str, body_hash: str) -> tuple[str, str]:
        """Bind an idempotency key to a job id and a body; the pair that is bound now (perhaps an earlier one)."""
        with reachable():
            self.redis.set(f"{P}idempotency:{key_hash}", f"{job_id} {body_hash}", nx=True)
        return self.reserved(key_hash) or (job_id, body_hash)

    def reserved(self, key_hash: str) -> tuple[str, str] | None:
        """The job id and the body that an idempotency key is bound to."""
        with reachable():
            bound: str | None = self.redis.get(f"{P}idempotency:{key_hash}")
        if bound is None:
            return None
        job_id, _, body_hash = bound.partition(" ")
        return job_id, body_hash

    def create(self, job: Job) -> bool:
        """Write a new record; False when Redis has one already."""
        labels = [*job.labels, *(f"{name}={value}" for name, value in job.labels.items())]
        if job.idempotency:
            key_hash, _, body_hash = job.idempotency.partition(" ")
            self.reserve(key_hash, job.id, body_hash)
        if job.status == JobStatus.WAITING:
            with reachable():
                pipe = self.redis.pipeline(transaction=False)
                for upstream_id in job.depends_on:
                    pipe.sadd(f"{P}dependents:{upstream_id}", job.id)
                pipe.execute()
        fields = [part for pair in hash_from_job(job).items() for part in pair]
        args = [job.id, job.kind, str(job.status), job.created_ms, len(labels), *labels, *fields]
        return bool(self._run("create", *args))

    def claim(self, job_id: str, *, token: str, worker: Worker) -> Claim | None:
        """Take a queued job; None when it is not to be had."""
        attempt = int(self._run("claim", job_id, token, worker.model_dump_json(), worker.name, worker.pid))
        return Claim(job_id, attempt, token, worker.pid) if attempt else None

    def renew(self, claim: Claim) -> Renewal:
        """Renew a lease.

        Raises:
            LeaseLost: another attempt owns the job.
        """
        answer = self._run("renew", *claim[:3])
        if answer is None:
            raise LeaseLost()
        return Renewal(str(answer[0]), int(answer[1]))

    def write(self, claim: Claim, fields: Mapping[str, str], *, event: str = "", data: str = "") -> str:
        """Write fields of the record, and an event; the stop reason, '' for none.

        Raises:
            LeaseLost: another attempt owns the job.
        """
        pairs = [part for pair in fields.items() for part in pair]
        answer = self._run("write", *claim[:3], event, data, *pairs)
        if answer is None:
            raise LeaseLost()
        return str(answer)

    def finish(self, claim: Claim, status: JobStatus, fields: Mapping[str, str]) -> bool:
        """End a running job; False when another attempt owns it."""
        pairs = [part for pair in fields.items() for part in pair]
        return bool(self._run("finish", *claim[:3], str(status), *pairs))

    def release(self, claim: Claim, reason: str, *, loss: bool, max_losses: int) -> str:
        """Take a running job from its attempt; the status after that, '' when another attempt owns it."""
        return str(self._run("release", *claim[:3], reason, int(loss), max_losses))

    def cancel(self, job_id: str) -> None:
        """Ask for a cancel.

        Raises:
            JobNotFound: Redis has no such job.
        """
        if not self._run("cancel", job_id):
            raise JobNotFound()

    def request_stop(self, claim: Claim, reason: str) -> bool:
        """Flag a running job to stop; False when another attempt owns it."""
        return bool(self._run("stop", *claim[:3], reason))

    def settle(self, job: Job) -> str:
        """Move a waiting job on if its upstream jobs allow; its status after that."""
        return str(self._run("settle", job.id, *job.depends_on))

    # The window of published messages

    def take_next(self, most: int, windows: Mapping[str, int]) -> Iterator[tuple[str, str, str]]:
        """Choose queued jobs to publish and mark them published: (id, queue, kind)."""
        flat = self._run("dispatch", most, *(part for pair in windows.items() for part in pair))
        return zip(flat[::3], flat[1::3], flat[2::3], strict=True)

    def queues(self) -> list[str]:
        """The queues in which a job ever waited."""
        with reachable():
            return sorted(self.redis.smembers(f"{P}queues"))

    def published(self, queue: str, *, before_ms: int) -> list[Published]:
        """The messages of a queue that are out and unclaimed, and went out up to this time."""
        with reachable():
            out = self.redis.zrangebyscore(f"{P}published:{queue}", "-inf", before_ms, withscores=True)
            pipe = self.redis.pipeline(transaction=False)
            for job_id, _ in out:
                pipe.hmget(f"{P}job:{job_id}", "kind", "publishes")
            found = pipe.execute()
        return [
            Published(job_id, kind, int(at_ms), int(publishes or 1))
            for (job_id, at_ms), (kind, publishes) in zip(out, found, strict=True)
            if kind
        ]

    def published_again(self, queue: str, job_id: str) -> bool:
        """Note that a job's message goes out once more; False when it was claimed or ended meanwhile."""
        with reachable():
            changed = self.redis.zadd(f"{P}published:{queue}", {job_id: self.now_ms()}, xx=True, ch=True)
            if changed:
                self.redis.hincrby(f"{P}job:{job_id}", "publishes", 1)
                self.redis.hincrby(f"{P}counters", "republished", 1)
        return bool(changed)

    def not_published(self, queue: str, job_id: str) -> None:
        """Note that a job's message did not go out: the next step may choose it again at once."""
        self._run("unpublish", queue, job_id)

    def broker_holds(self, queue: str) -> list[str]:
        """The raw messages that wait in the broker's list of a queue (few: the window is small)."""
        with reachable():
            return list(self.redis.lrange(queue, 0, -1))

    # Leases

    def leases(self) -> dict[str, str]:
        """Each running job, with a value that every renewal changes."""
        with reachable():
            return dict(self.redis.hgetall(f"{P}running"))

    def claim_of(self, job_id: str) -> Claim | None:
        """The claim under which a job runs now."""
        with reachable():
            status, attempt, token, worker = self.redis.hmget(
                f"{P}job:{job_id}", "status", "attempt", "token", "worker"
            )
        if status != JobStatus.RUNNING:
            return None
        return Claim(job_id, int(attempt), token, json.loads(worker)["pid"])

    def claims(self, worker_name: str) -> list[Claim]:
        """What a worker holds."""
        with reachable():
            held = self.redis.hgetall(f"{P}claims:{worker_name}")
        parts = ((job_id, *value.split(" ")) for job_id, value in held.items())
        return [Claim(job_id, int(attempt), token, int(pid)) for job_id, attempt, token, pid in parts]

    def drop_claim(self, worker_name: str, claim: Claim) -> None:
        """Forget a claim that another attempt has taken over."""
        self._run("drop", worker_name, claim.job_id, f"{claim.attempt} {claim.token} {claim.pid}")

    # What there is, in numbers

    def counters(self) -> dict[str, int]:
        """Since Redis was last empty: `ended <kind> <status> <code>`, `requeued <reason>`, `republished`."""
        with reachable():
            return {name: int(value) for name, value in self.redis.hgetall(f"{P}counters").items()}

    def status_counts(self) -> dict[str, int]:
        """How many jobs there are in each status."""
        with reachable():
            pipe = self.redis.pipeline(transaction=False)
            for status in JobStatus:
                pipe.zcard(f"{P}jobs:status:{status}")
            return dict(zip(map(str, JobStatus), pipe.execute(), strict=True))

    def queue_heads(self) -> list[QueueHead]:
        """How many jobs wait in each queue, and since when the next of each."""
        names = self.queues()
        with reachable():
            pipe = self.redis.pipeline(transaction=False)
            for name in names:
                pipe.zcard(f"{P}queued:{name}")
                pipe.zrange(f"{P}queued:{name}", 0, 0)
            answers = pipe.execute()
            for ids in answers[1::2]:
                pipe.hget(f"{P}job:{ids[0] if ids else ''}", "created_ms")
            created = pipe.execute()
        return [
            QueueHead(name, waiting, int(created_ms) if created_ms else None)
            for name, waiting, created_ms in zip(names, answers[::2], created, strict=True)
        ]

    def running_queues(self) -> list[str]:
        """For each running job the queue that it came from."""
        with reachable():
            pipe = self.redis.pipeline(transaction=False)
            for job_id in self.redis.hkeys(f"{P}running"):
                pipe.hget(f"{P}job:{job_id}", "queue")
            return [queue for queue in pipe.execute() if queue]

    # Events

    def emit(self, claim: Claim, event: str, data: str) -> str:
        """Tell of something that is not kept in the record (text as it grows); the stop reason."""
        return self.write(claim, {}, event=event, data=data)

    def events_after(self, job_id: str, after: str, *, block_ms: int | None = None) -> list[Event]:
        """Events after the one with id `after` ('0': all that are kept), waiting up to `block_ms` for the first."""
        with reachable():
            answer = self.redis.xread({f"{P}events:{job_id}": after}, count=500, block=block_ms)
        entries = answer[0][1] if answer else []
        return [Event(entry_id, fields["type"], json.loads(fields["data"])) for entry_id, fields in entries]

    def last_event_id(self, job_id: str) -> str | None:
        """The id of the newest event; None when none is kept."""
        with reachable():
            newest = self.redis.xrevrange(f"{P}events:{job_id}", count=1)
        return str(newest[0][0]) if newest else None

    # What recovery needs

    @contextmanager
    def recovery_lock(self, *, ttl_ms: int) -> Iterator[bool]:
        """Hold the one recovery lock, if it is free."""
        key = f"{P}recovery"
        with reachable():
            lock = self.redis.lock(key, timeout=ttl_ms / 1000, blocking=False)
            held = lock.acquire()
        try:
            yield held
        finally:
            if held:
                # A turn that outlived its lock has lost it to another process: nothing to give back.
                with reachable():
                    if lock.owned():
                        lock.release()

    def watch(self, name: str, *, most: int, ttl_ms: int) -> bool:
        """Be one of at most so many processes that watch over the leases; whether this one is, for `ttl_ms`."""
        return bool(self._run("watch", name, most, ttl_ms))

    def recovery_lock_left_s(self) -> float | None:
        """How long the recovery lock is held at most; None when it is free, negative when it has no end."""
        with reachable():
            left_ms = int(self.redis.pttl(f"{P}recovery"))
        return None if left_ms == -2 else left_ms / 1000

    def take_turn(self, name: str, *, every_s: float) -> bool:
        """Whether it is this process' turn to do what is to be done once in a while by one of them."""
        with reachable():
            return bool(self.redis.set(f"{P}turn:{name}", "taken", nx=True, px=int(every_s * 1000)))

    def hold(self, names: Iterable[str]) -> bool:
        """Keep uploads and jobs from being removed while a job that names them is made.

        Returns:
            False when one of them is being removed just now.
        """
        return bool(self._run("hold", *names))

    def begin_removal(self, name: str, *, unless_held_for_ms: int) -> bool:
        """Whether an upload or a job may be removed: no submit has asked for it within this time, and none can now."""
        return bool(self._run("remove", name, unless_held_for_ms))

    def end_removal(self, name: str) -> None:
        """It is gone: whoever names it now is told so."""
        with reachable():
            self.redis.zrem(f"{P}removing", name)

    def rebuilt_for(self) -> str | None:
        """The server run for which the records were last compared with the storage; None in an empty Redis."""
        with reachable():
            run: str | None = self.redis.get(f"{P}rebuilt_for")
            return run

    def set_rebuilt_for(self, run: str) -> None:
        """Note that the records agree with the storage."""
        with reachable():
            self.redis.set(f"{P}rebuilt_for", run)

    def waiting(self) -> list[Job]:
        """Some of the jobs that wait for others: all of them where they are few, else others each time."""
        with reachable():
            ids: Iterable[str] = self.redis.srandmember(f"{P}waiting", _CHUNK)
        return self.get_many(sorted(ids))

    def dependents(self, job_id: str) -> list[Job]:
        """The jobs that were submitted to wait for this one."""
        with reachable():
            ids: Iterable[str] = self.redis.smembers(f"{P}dependents:{job_id}")
        return self.get_many(sorted(ids))

    def unwritten(self) -> list[str]:
        """The ended jobs whose end is not in storage yet."""
        with reachable():
            return sorted(self.redis.smembers(f"{P}unwritten"))

    def written(self, job_id: str) -> None:
        """Note that a job's end is in storage."""
        with reachable():
            self.redis.srem(f"{P}unwritten", job_id)

    def forget(self, job: Job) -> None:
        """Remove a record with all that belongs to it (used when the storage knows better, and by prune)."""
        labels = [*job.labels, *(f"{name}={value}" for name, value in job.labels.items())]
        indexes = [f"{P}jobs", f"{P}jobs:kind:{job.kind}", *(f"{P}jobs:label:{label}" for label in labels)]
        indexes += [f"{P}jobs:status:{status}" for status in JobStatus]
        indexes += [f"{P}{place}:{job.queue}" for place in ("queued", "unpublished", "published")]
        with reachable():
            pipe = self.redis.pipeline()
            for key in indexes:
                pipe.zrem(key, job.id)
            pipe.srem(f"{P}waiting", job.id)
            pipe.srem(f"{P}unwritten", job.id)
            pipe.hdel(f"{P}running", job.id)
            pipe.delete(f"{P}job:{job.id}", f"{P}events:{job.id}", f"{P}dependents:{job.id}")
            pipe.execute()
        self.forget_key(job)

    def forget_key(self, job: Job) -> None:
        """Free the idempotency key of a job that is gone, if the key still stands for that job."""
        if job.idempotency:
            self._run("forget_key", job.idempotency.partition(" ")[0], job.id)
