"""What a large fleet costs: simulated workers on a real Redis, with the store, dispatch and recovery of the product.

    python -m tests.benchmarks.fleet --workers 500 --jobs 100000

A simulated worker takes messages from the broker, claims, renews, reports and ends as a real one does, through the same
code; it computes nothing, and its files are left out (they cost the storage, not Redis). Each size is measured beside a
tenth of it, so that growth shows: throughput, latency of a claim, commands and memory per job, one turn of recovery,
and calls that must stay flat, listing and status.
"""

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shared.dispatch import Dispatch
from shared.job import Job, JobStatus, Worker, new_job_id, new_token
from shared.job_store import JobStore
from shared.placement import queues_served
from shared.queue import Queue
from shared.recovery import Recovery
from shared.settings import Settings
from workers.launcher import celery_command
from workers.redis_server import RedisServer

REPORTS_PER_JOB = 3
RENEWALS_PER_JOB = 1
QUEUE = "simulated"
MADE_SINGLY, CHUNK = 1000, 500
SETTLES_S, IDLE_S = 5, 20


@dataclass
class Measured:
    """One size of fleet."""

    workers: int
    jobs: int
    submits_per_s: float = 0
    jobs_per_s: float = 0
    claim_ms: list[float] = field(default_factory=list)
    commands_per_job: float = 0
    cpu_ms_per_job: float = 0
    bytes_per_job: float = 0
    recovery_turn_ms: float = 0
    list_ms: float = 0
    get_ms: float = 0


def main() -> None:
    """Measure a tenth of the size, then the size, each in a Redis of its own."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.fleet", description=__doc__)
    parser.add_argument("--workers", type=int, default=50, help="simulated workers")
    parser.add_argument("--jobs", type=int, default=2000, help="jobs that wait at the start")
    parser.add_argument("--run", type=int, default=1000, help="how many of them are run")
    options = parser.parse_args()
    tenth = measure(max(1, options.workers // 10), max(1, options.jobs // 10), options.run)
    whole = measure(options.workers, options.jobs, options.run)
    print_table(tenth, whole)
    calls, cpu_ms = idle_worker()
    print(f"an idle worker: {calls:.1f} commands/s, {cpu_ms:.2f} ms of Redis' CPU time in each second")


def measure(workers: int, jobs: int, run: int) -> Measured:
    """Everything about one size."""
    with empty_queue() as queue:
        measured = Measured(workers, jobs)
        fill(queue, measured)
        fleet = [SimulatedWorker(queue, number) for number in range(workers)]
        for worker in fleet:
            worker.announce()
        flat_calls(queue, measured)
        one_recovery_turn(queue, fleet, measured)
        run_jobs(queue, fleet, min(run, jobs - workers), measured)
    return measured


@contextmanager
def empty_queue() -> Iterator[Queue]:
    """A queue on a Redis of its own."""
    with tempfile.TemporaryDirectory(prefix="dq") as folder:
        server = RedisServer(Path(folder) / "redis")
        server.start()
        try:
            yield Queue.from_settings(Settings(redis_url=server.url, storage_url=f"{folder}/storage"))
        finally:
            server.stop()


def fill(queue: Queue, measured: Measured) -> None:
    """Jobs as they wait; their memory in Redis, of records, events and indexes."""
    before = memory(queue)
    singly = min(measured.jobs, MADE_SINGLY)
    started = time.perf_counter()
    for _ in range(singly):
        queue.store.create(waiting_job(queue.store.now_ms()))
    measured.submits_per_s = singly / (time.perf_counter() - started)
    for start in range(singly, measured.jobs, CHUNK):
        many = queue.store.redis.pipeline(transaction=False)
        store = JobStore(many)  # the same scripts, a whole chunk in one round trip
        for _ in range(min(CHUNK, measured.jobs - start)):
            store.create(waiting_job(int(time.time() * 1000)))
        many.execute()
    measured.bytes_per_job = (memory(queue) - before) / measured.jobs


def waiting_job(now_ms: int) -> Job:
    """A job as it is when it was just submitted."""
    params = {"seed": 1, "time_limit_s": None}
    return Job(id=new_job_id(), kind=QUEUE, params=params, queue=QUEUE, created_ms=now_ms, score=now_ms)


def memory(queue: Queue) -> int:
    """What Redis uses (bytes)."""
    return int(queue.store.redis.info("memory")["used_memory"])


def flat_calls(queue: Queue, measured: Measured) -> None:
    """A page of the list, and one job's status."""
    [job, *_], _ = queue.jobs(limit=50)
    measured.list_ms = median_ms(lambda: queue.jobs(status="queued", limit=50))
    measured.get_ms = median_ms(lambda: queue.get(job.id))


def one_recovery_turn(queue: Queue, fleet: "list[SimulatedWorker]", measured: Measured) -> None:
    """One turn while every worker runs a job; nothing is to be recovered, as nearly always."""
    claims = []
    for worker in fleet:
        queue.dispatch.step()
        if claim := worker.claim_next():
            claims.append(claim)
    recovery = Recovery(queue)
    recovery.turn()
    measured.recovery_turn_ms = median_ms(recovery.turn, times=9)
    for claim in claims:
        queue.store.finish(claim, JobStatus.SUCCEEDED, {})
        queue.store.written(claim.job_id)


def run_jobs(queue: Queue, fleet: "list[SimulatedWorker]", run: int, measured: Measured) -> None:
    """Run jobs through the whole life of a record, as fast as this one process can; the workers take turns."""
    before, cpu_s = commands(queue), cpu_time_s(queue)
    started = time.perf_counter()
    done = 0
    while done < run:
        queue.dispatch.step()
        for worker in fleet:
            if done < run and worker.run_one(measured.claim_ms):
                done += 1
    took_s = time.perf_counter() - started
    measured.jobs_per_s = run / took_s
    measured.cpu_ms_per_job = (cpu_time_s(queue) - cpu_s) * 1000 / run
    measured.commands_per_job = (commands(queue) - before).total() / run


def commands(queue: Queue) -> Counter[str]:
    """How often each command was called by clients or scripts, since the server started."""
    stats = queue.store.redis.info("commandstats")
    return Counter({name.removeprefix("cmdstat_"): int(values["calls"]) for name, values in stats.items()})


def cpu_time_s(queue: Queue) -> float:
    """The CPU time that the server has used (s), which tells its load whatever else the machine does."""
    used = queue.store.redis.info("cpu")
    return float(used["used_cpu_sys"]) + float(used["used_cpu_user"])


def idle_worker() -> tuple[float, float]:
    """What a real worker costs Redis while it waits for a job: commands per second, CPU time per second (ms)."""
    with empty_queue() as queue:
        nobody = load(queue)
        command = celery_command("idle", queues=",".join(queues_served(None, 80 << 30)), loglevel="error")
        environment = {**os.environ, **queue.settings.environment()}
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            while not queue.workers():
                time.sleep(0.5)
            time.sleep(SETTLES_S)
            one = load(queue)
            return one[0] - nobody[0], one[1] - nobody[1]
        finally:
            process.terminate()
            process.wait()


def load(queue: Queue) -> tuple[float, float]:
    """Redis' load over a while: commands per second, CPU time per second (ms)."""
    before, cpu_s = commands(queue), cpu_time_s(queue)
    time.sleep(IDLE_S)
    return (commands(queue) - before).total() / IDLE_S, (cpu_time_s(queue) - cpu_s) * 1000 / IDLE_S


def median_ms(call: Callable[[], Any], *, times: int = 25) -> float:
    """The median time of a call (ms)."""
    took = []
    for _ in range(times):
        started = time.perf_counter()
        call()
        took.append((time.perf_counter() - started) * 1000)
    return statistics.median(took)


class SimulatedWorker:
    """The calls that a worker makes, without the work."""

    def __init__(self, queue: Queue, number: int) -> None:
        self.queue = queue
        self.store = queue.store
        # Its own, as each process has its own: what it knows of the fleet, no other told it.
        self.dispatch = Dispatch(queue.store, queue.registry, queue.dispatch.app)
        self.worker = Worker(name=f"w{number}@simulated", host="simulated", device="none", pid=os.getpid())

    def announce(self) -> None:
        """Register, for the rest of the benchmark."""
        info = {**self.worker.model_dump(), "queues": [QUEUE], "memory_bytes": 16 << 30, "state": "ready"}
        self.queue.registry.announce(self.worker.name, info, ttl_ms=3_600_000)

    def claim_next(self) -> Any:
        """Take a message from the broker and claim its job; None when there is none."""
        message = self.store.redis.rpop(QUEUE)
        if message is None:
            return None
        job_id = json.loads(message)["headers"]["id"]
        return self.store.claim(job_id, token=new_token(), worker=self.worker)

    def run_one(self, claim_ms: list[float]) -> bool:
        """The life of one job; whether there was one."""
        started = time.perf_counter()
        claim = self.claim_next()
        if claim is None:
            return False
        claim_ms.append((time.perf_counter() - started) * 1000)
        self.store.get(claim.job_id)
        self.dispatch.step()  # as after each claim
        for step in range(REPORTS_PER_JOB):
            data = json.dumps({"step": step, "total": REPORTS_PER_JOB, "message": "", "metrics": {}})
            self.store.write(claim, {"progress": data}, event="progress", data=data)
        for _ in range(RENEWALS_PER_JOB):
            self.store.renew(claim)
        self.store.finish(claim, JobStatus.SUCCEEDED, {"summary": "{}"})
        self.store.written(claim.job_id)
        self.dispatch.step()  # as after each end
        return True


ROWS: list[tuple[str, str, Callable[[Measured], float]]] = [
    ("records made", "/s", lambda m: m.submits_per_s),
    ("jobs run, by one process that plays all workers", "/s", lambda m: m.jobs_per_s),
    ("from the broker's message to the claim, median", "ms", lambda m: statistics.median(m.claim_ms)),
    ("the same, 99 of 100", "ms", lambda m: statistics.quantiles(m.claim_ms, n=100)[-1]),
    ("commands in Redis per job", "", lambda m: m.commands_per_job),
    ("CPU time of Redis per job", "ms", lambda m: m.cpu_ms_per_job),
    ("memory in Redis per waiting job", "bytes", lambda m: m.bytes_per_job),
    ("one turn of recovery", "ms", lambda m: m.recovery_turn_ms),
    ("a page of 50 jobs", "ms", lambda m: m.list_ms),
    ("the status of one job", "ms", lambda m: m.get_ms),
]


def print_table(tenth: Measured, whole: Measured) -> None:
    """The two sizes side by side."""
    sizes = [f"{m.workers} workers, {m.jobs} jobs" for m in (tenth, whole)]
    print(f"{'':50} {sizes[0]:>26} {sizes[1]:>26}  ratio")
    for name, unit, value in ROWS:
        small, large = value(tenth), value(whole)
        print(f"{name:50} {small:20.2f} {unit:5} {large:20.2f} {unit:5} {large / small:6.2f}")


if __name__ == "__main__":
    main()
