"""What happened to each job of a chaos run, and whether every promise was kept."""

import json
import statistics
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from shared.artifacts import read_job
from shared.job import Job, JobStatus
from tests.faults.fleet import Fleet
from tests.faults.steps import chain

ENDS_OF_TROUBLE = {
    "crash": "internal",
    "memory": "out_of_memory",
    "diverge": "diverged",
    "die": "worker_lost",
}


@dataclass
class Seen:
    """A job as its client has seen it."""

    accepted: Job
    now: Job
    end: Job | None = None
    cancelled: Job | None = None
    """The job as the first cancel answered."""
    checkpoints: dict[int, int] = field(default_factory=dict)
    """The newest step that was seen saved, by attempt."""


class Fault(NamedTuple):
    """Something that the adversary did, by this machine's clock (ms since 1970, as Redis' is here)."""

    at_ms: int
    what: str
    hit: list[tuple[str, int]]
    """The jobs that ran there, with their attempts."""


class Told(NamedTuple):
    """What is to be said at the end of a run."""

    jobs: int
    faults: int
    lines: list[str]
    broken: list[str]

    def __str__(self) -> str:
        verdict = ["every promise was kept"] if not self.broken else ["BROKEN:", *self.broken]
        return "\n".join([*self.lines, "", *verdict])


class History:
    """Every submit, claim, write, fault and end, in order; also written to a file, a line each."""

    def __init__(self, file: Path) -> None:
        self._lock = threading.RLock()
        self._file = file
        self._jobs: dict[str, Seen] = {}
        self._keys: dict[str, str] = {}
        self._started = time.monotonic()
        self.counts: Counter[str] = Counter()
        self.faults: list[Fault] = []
        self.broken: list[str] = []

    def note(self, what: str, **details: Any) -> None:
        """One line of the file."""
        with self._lock, self._file.open("a") as opened:
            self.counts[what] += 1
            at_s = round(time.monotonic() - self._started, 3)
            opened.write(json.dumps({"at_s": at_s, "what": what, **details}) + "\n")

    def accepted(self, job: Job, key: str | None) -> None:
        """The queue has taken a job."""
        with self._lock:
            if key is not None and self._keys.setdefault(key, job.id) != job.id:
                self.broken.append(f"{key!r}: doubled: it made {self._keys[key]} and {job.id}")
            if job.id not in self._jobs:
                self._jobs[job.id] = Seen(job, job)
            self.note("accepted", job=job.id, key=key, params=job.params, depends_on=job.depends_on)

    def cancelled(self, job: Job) -> None:
        """The queue has taken a cancel."""
        with self._lock:
            seen = self._jobs[job.id]
            seen.cancelled = seen.cancelled or job
            self.note("cancel", job=job.id, status=job.status)

    def saw(self, job: Job) -> None:
        """A job as it is now."""
        with self._lock:
            seen = self._jobs[job.id]
            step = job.checkpoints[0].step if job.checkpoints else 0
            if job.attempt:
                seen.checkpoints[job.attempt] = max(step, seen.checkpoints.get(job.attempt, 0))
            if shape(seen.now) != shape(job):
                worker = job.worker.name if job.worker else ""
                self.note(str(job.status), job=job.id, attempt=job.attempt, worker=worker, checkpoint=step)
            seen.now = job
            if job.status.ended:
                seen.end = seen.end or job

    def fault(self, what: str, worker: str, hit: list[tuple[str, int]]) -> None:
        """The adversary strikes."""
        with self._lock:
            self.faults.append(Fault(int(time.time() * 1000), what, hit))
            self.note("fault", fault=what, worker=worker, jobs=[job_id for job_id, _ in hit])

    def ids(self) -> list[str]:
        """All accepted jobs, oldest first."""
        with self._lock:
            return list(self._jobs)

    def recent(self) -> list[str]:
        """The jobs of late."""
        return self.ids()[-20:]

    def open_ids(self) -> list[str]:
        """The jobs whose end was not seen yet."""
        with self._lock:
            return [job_id for job_id, seen in self._jobs.items() if seen.end is None]

    def unfinished(self) -> int:
        """How many they are."""
        return len(self.open_ids())

    def run_by(self, worker: str) -> list[tuple[str, int]]:
        """The jobs that a worker was last seen to run, and their attempts."""
        with self._lock:
            jobs = [seen.now for seen in self._jobs.values() if seen.end is None]
        return [(job.id, job.attempt) for job in jobs if job.worker and job.worker.name == worker]

    def process_of(self, worker: str) -> int | None:
        """The pool process in which a worker was last seen to run a job."""
        for job_id, _ in self.run_by(worker):
            running = self._jobs[job_id].now.worker
            return running.pid if running else None
        return None

    def __iter__(self) -> Iterator[tuple[str, Seen]]:
        with self._lock:
            return iter(list(self._jobs.items()))

    def told(self, jobs: dict[str, Job], broken: list[str]) -> Told:
        """The figures of the run."""
        ends = Counter(f"{job.status}{f' ({job.error.code})' if job.error else ''}" for job in jobs.values())
        attempts = Counter(attempt.reason for job in jobs.values() for attempt in job.attempts)
        lines = [
            f"{len(jobs)} jobs accepted, {self.counts['refused']} submits refused while Redis was away",
            *(f"{number:6d} {end}" for end, number in sorted(ends.items())),
            "attempts, as far as Redis remembers them: "
            + ", ".join(f"{number} {reason}" for reason, number in sorted(attempts.items(), key=str)),
            f"{len(self.faults)} faults; s until a job that it took away was queued again, and ran again:",
            f"{'':42s} faults  jobs  queued: median  worst  running: median  worst",
        ]
        kinds: dict[str, list[Fault]] = defaultdict(list)
        for fault in self.faults:
            kinds[fault.what].append(fault)
        every: list[tuple[float, float]] = []
        for what, faults in sorted(kinds.items()):
            took = [both for fault in faults for both in recovered(fault, jobs)]
            every += took
            lines.append(f"{what:42s} {len(faults):6d} {row(took)}")
        lines.append(f"{'all':42s} {len(self.faults):6d} {row(every)}")
        ran = sum(bool(job.attempts) for job in jobs.values())
        lost = sum(": lost: " in trouble for trouble in broken)
        doubled = sum(": doubled: " in trouble for trouble in broken)
        lines.append(
            f"{len(self.faults)} faults, {ran} jobs run, lost {lost}, doubled {doubled},"
            f" broken promises {len(broken)}"
        )
        return Told(len(jobs), len(self.faults), lines, broken)


def shape(job: Job) -> tuple[Any, ...]:
    """What makes a job another than before in the history's eyes."""
    return job.status, job.attempt, job.token, job.stop, tuple(saved.path for saved in job.checkpoints)


def recovered(fault: Fault, jobs: dict[str, Job]) -> list[tuple[float, float]]:
    """How long it took until the jobs that a fault took away were queued again, and until they ran again (s)."""
    took = []
    for job_id, number in fault.hit:
        attempts = {attempt.attempt: attempt for attempt in jobs[job_id].attempts}
        before, after = attempts.get(number), attempts.get(number + 1)
        if before is None or before.ended_ms is None or after is None or before.ended_ms < fault.at_ms:
            continue
        took.append(((before.ended_ms - fault.at_ms) / 1000, (after.started_ms - fault.at_ms) / 1000))
    return took


def row(took: list[tuple[float, float]]) -> str:
    """Number, median and worst of some durations."""
    if not took:
        return f"{0:5d}"
    queued, running = zip(*took, strict=True)
    return (
        f"{len(took):5d} {statistics.median(queued):15.2f} {max(queued):6.2f}"
        f" {statistics.median(running):16.2f} {max(running):6.2f}"
    )


def broken_promises(fleet: Fleet, history: History, jobs: dict[str, Job]) -> list[str]:
    """Each promise that was not kept, in words; none when all is well."""
    broken = list(history.broken)
    for job_id, seen in history:
        job = jobs[job_id]
        checks = [
            one_end(fleet, job, seen),
            the_right_end(fleet, job, seen, jobs),
            one_attempt_at_a_time(job),
            no_work_twice(job, seen),
            whole_files(fleet, job),
        ]
        broken += [f"job {job_id}: {trouble}" for check in checks for trouble in check]
    return [*broken, *nothing_left_in_redis(fleet, jobs), *nothing_half_in_storage(fleet, jobs)]


def one_end(fleet: Fleet, job: Job, seen: Seen) -> Iterator[str]:
    """Every accepted job reaches one end, the same for Redis, for the storage and for who has seen it."""
    if not job.status.ended:
        yield f"lost: {job.status}, attempt {job.attempt}"
        return
    if seen.end is not None and (seen.end.status, seen.end.error) != (job.status, job.error):
        yield f"was {seen.end.status} ({seen.end.error}), now {job.status} ({job.error})"
    if job.finished_ms is None:
        yield "ended, and nobody knows when"
    stored = read_job(fleet.queue.storage, job.id)
    if stored is None or (stored.status, stored.artifacts) != (job.status, job.artifacts):
        yield f"in storage it is {stored and stored.status}, in Redis {job.status}"
    events = [event for event in fleet.store.events_after(job.id, "0") if event.type == "status"]
    ends = [event.data["status"] for event in events if JobStatus(event.data["status"]).ended]
    if len(ends) > 1:
        yield f"doubled: its end was told {len(ends)} times: {ends}"


def the_right_end(fleet: Fleet, job: Job, seen: Seen, jobs: dict[str, Job]) -> Iterator[str]:
    """The end is the one that the job's own doing leads to, with the result of an unbroken run."""
    code = job.error.code if job.error else ""
    trouble = job.params["trouble"]
    upstream = [jobs[job_id] for job_id in job.depends_on]
    match job.status:
        case JobStatus.SUCCEEDED:
            if trouble:
                yield f"succeeded with trouble {trouble!r}"
            result = job.artifact("result.txt")
            expected = chain(job.params["steps"], job.params["seed"]).encode()
            if result is None or fleet.queue.storage.read(result.path) != expected:
                yield "its result is not that of an unbroken run"
            if any(
                other.status != JobStatus.SUCCEEDED or (other.finished_ms or 0) > (job.started_ms or 0)
                for other in upstream
            ):
                yield "it did not wait for what it depends on"
        case JobStatus.CANCELLED:
            if seen.cancelled is None:
                yield "cancelled, and nobody asked for it"
        case JobStatus.FAILED if code == "upstream_failed":
            if all(other.status == JobStatus.SUCCEEDED for other in upstream):
                yield "upstream_failed, but what it depends on succeeded"
        case JobStatus.FAILED if code == "worker_lost":
            losses = sum(attempt.reason == "worker_lost" for attempt in job.attempts)
            if losses <= fleet.settings.max_losses:
                yield f"given up after {losses} losses"
        case JobStatus.FAILED:
            if code != ENDS_OF_TROUBLE.get(trouble):
                yield f"failed as {code} with trouble {trouble!r}: {job.error}"
    if seen.cancelled is not None and seen.cancelled.status == JobStatus.CANCELLED != job.status:
        yield f"cancelled while it waited, and yet {job.status}"


def one_attempt_at_a_time(job: Job) -> Iterator[str]:
    """No two attempts own a job at a time, and only the last can have done it."""
    for before, after in zip(job.attempts, job.attempts[1:], strict=False):
        if before.ended_ms is None or before.ended_ms > after.started_ms:
            yield f"doubled: attempts {before.attempt} and {after.attempt} owned it together"
        if before.reason in ("succeeded", "failed", "cancelled"):
            yield f"doubled: attempt {before.attempt} had {before.reason}"
    if job.status == JobStatus.SUCCEEDED and job.attempts and job.attempts[-1].reason != "succeeded":
        yield f"succeeded, though its last attempt ended as {job.attempts[-1].reason}"


def no_work_twice(job: Job, seen: Seen) -> Iterator[str]:
    """A lost worker costs at most the work since the last checkpoint."""
    if job.status != JobStatus.SUCCEEDED or job.attempt < 2:
        return
    saved = max((step for attempt, step in seen.checkpoints.items() if attempt < job.attempt), default=0)
    resumed = job.summary.get("resumed_from_step", 0)
    if resumed < saved:
        yield f"attempt {job.attempt} went on from step {resumed}, though step {saved} was saved"


def whole_files(fleet: Fleet, job: Job) -> Iterator[str]:
    """What the record lists is in storage, with the bytes that it says, once."""
    for artifact in job.artifacts:
        try:
            data = fleet.queue.storage.read(artifact.path)
        except FileNotFoundError:
            yield f"{artifact.path} is listed and not there"
            continue
        if (len(data), sha256(data).hexdigest()) != (artifact.bytes, artifact.sha256):
            yield f"{artifact.path} holds other bytes than the record says"


def nothing_left_in_redis(fleet: Fleet, jobs: dict[str, Job]) -> Iterator[str]:
    """When all jobs have ended, nothing waits, runs or is held, and the indexes agree with the records."""
    redis = fleet.store.redis
    for key in ("running", "waiting", "unwritten", "queued:steps", "published:steps"):
        if redis.exists(f"dreamq:{key}"):
            yield f"left in Redis: dreamq:{key}"
    yield from (f"left in Redis: {key}" for key in redis.scan_iter("dreamq:claims:*"))
    if redis.llen("steps"):
        yield f"{redis.llen('steps')} messages are left in the broker's list"
    known = set(redis.zrange("dreamq:jobs", 0, -1))
    if known != set(jobs):
        yield f"not submitted, or forgotten: {sorted(known ^ set(jobs))}"
    for status in JobStatus:
        indexed = set(redis.zrange(f"dreamq:jobs:status:{status}", 0, -1))
        if indexed != {job.id for job in jobs.values() if job.status == status}:
            yield f"the index of {status} jobs is wrong"


def nothing_half_in_storage(fleet: Fleet, jobs: dict[str, Job]) -> Iterator[str]:
    """No file is half under its final name, and none is anybody's but a job's."""
    root = Path(fleet.settings.storage_url)
    refused = {path.parent.name for path in (root / "jobs").glob("*/refused.json")}
    strangers = {path.name for path in (root / "jobs").iterdir()} - set(jobs) - refused
    yield from (f"a job that nobody submitted is in storage: {name}" for name in sorted(strangers))
    for path in (root / "jobs").rglob("manifest.json"):
        json.loads(path.read_text())
    for path in (root / "jobs").rglob("checkpoint-*"):
        if sha256(path.read_bytes()).hexdigest() != path.stem.rpartition("-")[2]:
            yield f"a checkpoint is half: {path.relative_to(root)}"
    for job in jobs.values():
        yield from orphans(root, job)


def orphans(root: Path, job: Job) -> Iterator[str]:
    """Files beside a result that no record lists. (The folders of attempts that died keep what these had.)"""
    result = job.artifact("result.txt")
    if job.status != JobStatus.SUCCEEDED or result is None:
        return
    listed = {artifact.path for artifact in job.artifacts}
    folder = (root / result.path).parent
    for path in folder.iterdir():
        of_the_job = path.name == "manifest.json" or path.name.startswith("checkpoint-")
        if not of_the_job and path.relative_to(root).as_posix() not in listed:
            yield f"job {job.id}: {path.name} of the attempt that did it is not listed"
