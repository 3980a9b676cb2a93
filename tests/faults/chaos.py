"""Hundreds of jobs, a seeded adversary, and at last a look at whether every promise was kept.

`python -m tests.faults.chaos --minutes 20 --seed 7` prints what was done and what it cost, and exits 1 when a
promise was broken. The seed fixes what is submitted and what is done to whom in which order; how the processes
interleave is the machine's.
"""

import argparse
import heapq
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

os.environ["EXTRA_KINDS"] = "tests.faults.steps"

import psutil

from shared.errors import DreamqError, QueueUnavailable
from shared.queue import Queue
from tests.faults.fleet import LEASE_S, Fleet, Worker
from tests.faults.history import History, Told, broken_promises
from tests.workers.processes import until

WORKERS = 3
MOST_UNFINISHED = 12
"""So many jobs wait or run at a time: enough for every worker, few enough to see each one's end soon."""
SETTLE_S = 120
"""How long the last jobs may take to end once nothing is broken any more."""


class Client(threading.Thread):
    """Submits jobs of every sort, some twice under one key, and cancels some, as clients of the API do."""

    def __init__(self, fleet: Fleet, history: History, seed: int) -> None:
        super().__init__(name="client")
        self.queue = Queue.from_settings(fleet.settings, impatient=True)
        self.history = history
        self.random = random.Random(seed)
        self.stopping = threading.Event()
        self.made = 0
        self.unanswered: dict[str, dict[str, Any]] = {}
        """Submits under a key that were refused: whether they made a job is only settled by sending them again."""

    def run(self) -> None:
        """Submit until told to stop."""
        while not self.stopping.wait(self.random.uniform(0.02, 0.2)):
            if self.history.unfinished() < MOST_UNFINISHED:
                self.submit()
            if self.random.random() < 0.05:
                self.cancel_one()

    def submit(self) -> None:
        """One job; it counts from the moment that the queue has accepted it."""
        self.made += 1
        params, upstream = self.params(), self.upstream()
        key = f"key {self.made}" if self.random.random() < 0.3 else None
        priority = self.random.choice(["low", "normal", "normal", "high"])
        request = {"params": params, "priority": priority, "depends_on": upstream, "idempotency_key": key}
        for _ in range(self.random.choice([1, 2]) if key else 1):
            self.send(request)
        self.send_again()

    def send(self, request: dict[str, Any]) -> None:
        """One submit, and what was answered."""
        key = request["idempotency_key"]
        try:
            self.history.accepted(self.queue.submit("steps", **request), key)
            self.unanswered.pop(key, None)
        except QueueUnavailable as error:
            self.history.note("refused", code=error.code, key=key)
            if key:
                self.unanswered[key] = request
        except DreamqError as error:
            self.history.note("refused", code=error.code, key=key)
            self.unanswered.pop(key, None)

    def send_again(self) -> None:
        """What has not been answered yet."""
        for request in list(self.unanswered.values()):
            self.send(request)

    def params(self) -> dict[str, Any]:
        """Most jobs do well, some fail, and few kill what runs them."""
        draw = self.random
        trouble = draw.choices(["", "crash", "memory", "diverge", "die"], [90, 2, 2, 2, 2])[0]
        return {
            "steps": draw.randint(2, 40),
            "step_s": draw.choice([0.0, 0.02, 0.05, 0.1]),
            "checkpoint_every": draw.choice([0, 2, 5]),
            "latest": draw.random() < 0.5,
            "seed": draw.randrange(2**31),
            "trouble": trouble,
        }

    def upstream(self) -> list[str]:
        """One job in eight waits for others."""
        recent = self.history.recent()
        wanted = self.random.choice([1, 2]) if self.random.random() < 0.125 else 0
        return self.random.sample(recent, min(wanted, len(recent)))

    def cancel_one(self) -> None:
        """Cancel any of the jobs of late, ended or not."""
        recent = self.history.recent()
        if not recent:
            return
        job_id = self.random.choice(recent)
        try:
            self.history.cancelled(self.queue.cancel(job_id))
        except DreamqError as error:
            self.history.note("cancel refused", job=job_id, code=error.code)


class Watcher(threading.Thread):
    """Writes down every change of every job, as a client sees it who asks all the time."""

    def __init__(self, fleet: Fleet, history: History) -> None:
        super().__init__(name="watcher")
        self.queue = Queue.from_settings(fleet.settings, impatient=True)
        self.history = history
        self.stopping = threading.Event()

    def run(self) -> None:
        """Look until told to stop."""
        while not self.stopping.wait(0.1):
            with suppress(DreamqError):
                for job in self.queue.store.get_many(self.history.open_ids()):
                    self.history.saw(job)


class Adversary:
    """Breaks something every few seconds, and mends it a while later."""

    def __init__(self, fleet: Fleet, history: History, seed: int) -> None:
        self.fleet = fleet
        self.history = history
        self.random = random.Random(seed)
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._order = 0
        self.faults: list[tuple[Callable[[], None], int]] = [
            (self.kill_child, 3),
            (self.kill_main, 3),
            (self.kill_worker, 4),
            (self.freeze_worker, 4),
            (self.cut, 3),
            (self.silence, 3),
            (self.drain, 4),
            (self.at_a_phase, 12),
            (self.kill_redis, 2),
            (self.freeze_redis, 2),
            (self.empty_redis, 2),
            (self.fill_redis, 1),
            (self.lose_messages, 2),
        ]

    def run(self, until_s: float) -> None:
        """Break and mend until that `time.monotonic()`."""
        faults, weights = zip(*self.faults, strict=True)
        next_at = time.monotonic() + 2
        while time.monotonic() < until_s:
            self.mend_what_is_due()
            if time.monotonic() >= next_at:
                self.random.choices(faults, weights)[0]()
                next_at = time.monotonic() + self.random.uniform(0.5, 5)
            time.sleep(0.05)
        while self._due:
            self.mend_what_is_due(all_of_it=True)
        self.replace_the_dead()

    def mend_what_is_due(self, *, all_of_it: bool = False) -> None:
        """Undo the faults whose time is over."""
        while self._due and (all_of_it or self._due[0][0] <= time.monotonic()):
            heapq.heappop(self._due)[2]()

    def later(self, least_s: float, most_s: float, undo: Callable[[], None]) -> None:
        """Have something done after a while."""
        self._order += 1
        due = time.monotonic() + self.random.uniform(least_s, most_s)
        heapq.heappush(self._due, (due, self._order, undo))

    # Whom it hits

    def worker(self) -> Worker:
        """One of the workers that live; mostly one that runs a job."""
        alive: list[Worker] = []
        while not alive:  # one that drains may end between two looks
            self.replace_the_dead(at_least=1)
            alive = [worker for worker in self.fleet.workers if worker.alive]
        busy = [worker for worker in alive if self.history.run_by(worker.name)]
        return self.random.choice(busy if busy and self.random.random() < 0.8 else alive)

    def replace_the_dead(self, at_least: int = WORKERS) -> None:
        """As many workers as there should be."""
        for worker in [worker for worker in self.fleet.workers if not worker.alive]:
            self.fleet.workers.remove(worker)
            worker.end()
        missing = at_least - len(self.fleet.workers)
        if missing > 0:
            self.fleet.start(missing, wait=False)

    def did(self, what: str, worker: Worker | None = None) -> None:
        """Write a fault down, with the jobs that it may have hit."""
        jobs = [] if worker is None else self.history.run_by(worker.name)
        self.history.fault(what, worker.name if worker else "", jobs)

    # What it does to workers

    def kill_child(self) -> None:
        worker = self.worker()
        running = self.history.process_of(worker.name)
        if running is None:
            return
        with suppress(psutil.NoSuchProcess):
            if psutil.Process(running).ppid() == worker.process.pid:
                self.did("pool process killed", worker)
                psutil.Process(running).kill()

    def kill_main(self) -> None:
        worker = self.worker()
        self.did("main process killed", worker)
        worker.kill_main()
        self.later(0.2, 3, self.replace_the_dead)

    def kill_worker(self) -> None:
        worker = self.worker()
        self.did("worker killed", worker)
        worker.kill()
        self.later(0.2, 3, self.replace_the_dead)

    def freeze_worker(self) -> None:
        worker = self.worker()
        self.did("worker frozen", worker)
        worker.freeze()
        self.later(0.5, 2.5 * LEASE_S, worker.thaw)

    def cut(self) -> None:
        worker = self.worker()
        self.did("connections cut", worker)
        worker.wire.cut()

    def silence(self) -> None:
        worker = self.worker()
        self.did("host cut off", worker)
        worker.wire.silence()
        self.later(0.5, 2.5 * LEASE_S, worker.wire.mend)

    def drain(self) -> None:
        worker = self.worker()
        self.did("worker drained", worker)
        worker.terminate()
        self.later(2, 6, self.replace_the_dead)

    def at_a_phase(self) -> None:
        """Lose a certain call, or its reply, and perhaps the worker with it."""
        worker = self.worker()
        phase, *marks = self.random.choice(
            [
                ("claim", self.fleet.script("claim"), b""),
                ("checkpoint", self.fleet.script("write"), b"checkpoints"),
                ("artifact", self.fleet.script("write"), b"artifact."),
                ("progress", self.fleet.script("write"), b"progress"),
                ("renewal", self.fleet.script("renew"), b""),
                ("end", self.fleet.script("finish"), b""),
                ("end", self.fleet.script("finish"), b""),
                ("publish", b"LPUSH", b""),
            ]
        )
        lost = self.random.choice(["call", "reply"])
        then, act = self.random.choice(
            [("", None), ("", None), (", worker killed", worker.kill), (", worker frozen", worker.freeze)]
        )

        def strike() -> None:
            self.did(f"{lost} lost at {phase}{then}", worker)
            if act is not None:
                act()

        set_trap = worker.wire.lose_call if lost == "call" else worker.wire.lose_reply
        trap = set_trap(*marks, act=strike)
        if act == worker.freeze:
            self.later(3, 3 + 2 * LEASE_S, worker.thaw)
        self.later(6, 8, self.replace_the_dead)
        self.later(8, 9, lambda: worker.wire.remove(trap))

    # What it does to Redis

    def kill_redis(self) -> None:
        process = self.fleet.redis.process
        if process is None:
            return
        self.did("Redis killed")
        process.kill()
        process.wait()
        time.sleep(self.random.uniform(0, 2))
        self.fleet.redis.start()

    def freeze_redis(self) -> None:
        process = self.fleet.redis.process
        if process is None:
            return
        self.did("Redis frozen")
        process.send_signal(signal.SIGSTOP)
        time.sleep(self.random.uniform(0.5, 2 * LEASE_S))
        process.send_signal(signal.SIGCONT)

    def empty_redis(self) -> None:
        self.did("Redis emptied")
        self.fleet.store.redis.flushall()

    def fill_redis(self) -> None:
        self.did("Redis full")
        self.fleet.store.redis.config_set("maxmemory", 1)
        time.sleep(self.random.uniform(0.5, 1.5 * LEASE_S))
        self.fleet.store.redis.config_set("maxmemory", 0)

    def lose_messages(self) -> None:
        self.did("broker's messages lost")
        self.fleet.store.redis.delete("steps", "unacked", "unacked_index")


def run(folder: Path, *, minutes: float, seed: int) -> Told:
    """One whole run; what came of it."""
    history = History(folder / "history.jsonl")
    started = time.monotonic()
    with Fleet(folder) as fleet:
        fleet.start(WORKERS)
        client, watcher = Client(fleet, history, seed), Watcher(fleet, history)
        with fleet.recovery_elsewhere():
            watcher.start()
            client.start()
            try:
                Adversary(fleet, history, seed + 1).run(started + minutes * 60)
            finally:
                client.stopping.set()
                client.join()
                until(
                    lambda: client.send_again() or not client.unanswered, what="answers to all keyed submits"
                )
            with suppress(AssertionError):  # what has not ended by then is told below
                until(lambda: at_rest(fleet, history), within_s=SETTLE_S)
            watcher.stopping.set()
            watcher.join()
        jobs = {job_id: fleet.queue.get(job_id) for job_id in history.ids()}
        told = history.told(jobs, broken_promises(fleet, history, jobs))
        for queue in (client.queue, watcher.queue):
            queue.store.redis.close()
            queue.dispatch.app.close()
    return told


def at_rest(fleet: Fleet, history: History) -> bool:
    """Whether nothing is left to be done."""
    with suppress(DreamqError):
        return not (history.unfinished() or fleet.store.unwritten() or fleet.store.redis.llen("steps"))
    return False


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="keep history, logs and storage there")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it as the command line says; 1 when a promise was broken."""
    options = parse(arguments)
    folder = options.folder or Path(tempfile.mkdtemp(prefix="chaos-"))
    folder.mkdir(parents=True, exist_ok=True)
    told = run(folder, minutes=options.minutes, seed=options.seed)
    print(
        f"seed {options.seed}, {options.minutes:g} minutes, {WORKERS} workers, {os.cpu_count()} cores,",
        end=" ",
    )
    print(f"LEASE_S={LEASE_S}, at most {MOST_UNFINISHED} unfinished jobs at a time\n{told}")
    if told.broken:
        print(f"\nhistory and logs: {folder}", file=sys.stderr)
    return 1 if told.broken else 0


if __name__ == "__main__":
    sys.exit(main())
