"""The worker's main process: renews the leases of what its child runs, passes on stops, and sees the child die.

A thread does it, so that neither the computation nor Celery's own waits can hold it up. The process that computes
never renews: a lease says that somebody is there to notice that the computation has died or hangs.
"""

import logging
import os
import re
import signal
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import psutil
from celery import bootsteps, signals
from celery.worker import state as celery_state

from shared.celery_app import celery_app
from shared.doctor import memory_policy_warning
from shared.errors import DreamqError, JobNotFound, LeaseLost, QueueUnavailable
from shared.job import ID_PATTERN, Job
from shared.job_store import Claim
from shared.kinds import KINDS
from shared.queue import Queue, queue_from_environment
from shared.recovery import RecoveryThread, complete_end
from workers import alive
from workers.duty import Duty, on_gpu
from workers.identity import device, this_worker
from workers.oom_kills import oom_kills

log = logging.getLogger(__name__)

TERM_AFTER_S = 15
"""A child that did not see the flag for so long gets SIGTERM, and always exits after it."""
KILL_AFTER_S = 30
"""And SIGKILL, whatever it is doing: a checkpoint that takes longer to write is given up for the one before."""
DRAIN_S = KILL_AFTER_S + 30
"""How long a drain may take: the rest is for hearing of it, giving the job back, and the end of Celery itself. Docker,
Kubernetes and systemd are told to wait for longer, before they kill what they see."""


@dataclass
class Held:
    """What the main process knows of a claim; times are its own monotonic clock."""

    claim: Claim
    job: Job
    beat: int = -1
    beat_at: float = field(default_factory=time.monotonic)
    stop: str = ""
    stop_at: float = 0.0
    killed: str = ""
    """Why we killed the child, if we did."""
    termed: bool = False

    @property
    def stall_s(self) -> float:
        """How long this kind may make no step."""
        return KINDS[self.job.kind].stall_s

    def ran_ms(self, now_ms: int) -> int:
        """For how long the job has run, over all its attempts."""
        return sum((attempt.ended_ms or now_ms) - attempt.started_ms for attempt in self.job.attempts)


class LeaseKeeper(threading.Thread):
    """Looks after the claims of one worker until the process ends."""

    def __init__(self, queue: Queue, name: str, queues: list[str]) -> None:
        super().__init__(name="lease", daemon=True)
        self.queue = queue
        self.store = queue.store
        self.registry = queue.registry
        self.settings = queue.settings
        self.worker = this_worker(name)
        self.queues = queues
        self.draining = threading.Event()
        self.duty = Duty(self.registry, self.worker)
        self._held: dict[str, Held] = {}
        self._revoked: set[str] = set()
        self._announced_at = float("-inf")
        self._since_ms = 0
        # Of the latest turns: a large process takes a while to die, a young one may be dead before it is looked after.
        self._oom_kills = deque([oom_kills()], maxlen=3)
        self._every_s = min(2.0, self.settings.renew_every_s / 2)

    def run(self) -> None:
        """Turn after turn; trouble is logged once, and the next turn tries again."""
        trouble = ""
        while True:
            try:
                self.turn()
                trouble = ""
            except Exception as error:
                # Whatever it was, the thread must live: without it the worker loses every job.
                if str(error) != trouble:
                    log.warning("lease: %s", error, exc_info=not isinstance(error, DreamqError))
                trouble = str(error)
            time.sleep(self._every_s)

    def turn(self) -> None:
        """Say that we live, renew what runs, stop what is to stop, give back what died."""
        alive.touch()
        self._oom_kills.append(oom_kills())
        # First what others take for our life; nothing that goes wrong elsewhere may keep a lease from being renewed.
        self.take_up_new()
        for held in list(self._held.values()):
            self.look_after(held)
        self.announce()
        self.cancel_revoked()

    def announce(self) -> None:
        """Tell the others that this worker is there."""
        now = time.monotonic()
        if now - self._announced_at < self.settings.renew_every_s:
            return
        became_ready = self.duty.look()
        self._since_ms = self._since_ms or self.store.now_ms()
        info = {
            **self.worker.model_dump(),
            "queues": self.queues,
            "memory_bytes": device()["memory_bytes"],
            "since_ms": self._since_ms,
            "lease_ms": int(self.settings.lease_s * 1000),
            "state": "draining" if self.draining.is_set() else self.duty.state,
        }
        self.registry.announce(self.worker.name, info, ttl_ms=int(self.settings.lease_s * 3000))
        self._announced_at = now
        if became_ready:
            if warning := memory_policy_warning(self.store.redis):
                log.warning(warning)
            self.queue.dispatch.forget_workers()
            self.queue.dispatch.step()

    def cancel_revoked(self) -> None:
        """A revoke from Flower or Celery's control names a job by its id: it is a cancel, wherever the job is."""
        for job_id in set(celery_state.revoked) - self._revoked:
            try:
                if re.fullmatch(ID_PATTERN, job_id):
                    self.queue.cancel(job_id)
            except JobNotFound:
                log.info("revoked %s: no job of that id", job_id)
            self._revoked.add(job_id)

    def take_up_new(self) -> None:
        """Find the claims that our child has made since the last turn, and forget those that ended."""
        claims = {claim.job_id: claim for claim in self.store.claims(self.worker.name)}
        for job_id, claim in claims.items():
            if job_id not in self._held or self._held[job_id].claim != claim:
                try:
                    self._held[job_id] = Held(claim, self.store.get(job_id))
                except JobNotFound:
                    self.store.drop_claim(self.worker.name, claim)  # its record was removed
                except ValueError as error:
                    # Written by another version of dreamq, it must not cost the other claims their leases.
                    log.error("job %s: its record cannot be read: %s", job_id, error)
        for job_id in list(self._held):
            if job_id not in claims and not self._child_alive(self._held[job_id].claim.pid):
                del self._held[job_id]

    def look_after(self, held: Held) -> None:
        """One claim: renewed while its child lives."""
        claim = held.claim
        if not self._child_alive(claim.pid):
            self.give_back(held)
            return
        try:
            renewal = self.store.renew(claim)
        except LeaseLost:
            self.lease_lost(held)
            return
        now = time.monotonic()
        if renewal.beat != held.beat:
            held.beat, held.beat_at = renewal.beat, now
        elif now - held.beat_at > (self.settings.stall_s or held.stall_s) and not held.killed:
            self._kill(held, "stalled")
        self.pass_on_stop(held, renewal.stop)

    def pass_on_stop(self, held: Held, stop: str) -> None:
        """Set the flag where time is up or the worker shuts down; signals hurry what does not see it."""
        limit_s = held.job.params.get("time_limit_s")
        if limit_s and held.ran_ms(self.store.now_ms()) > limit_s * 1000 and stop in ("", "shutdown"):
            stop = "timeout" if self.store.request_stop(held.claim, "timeout") else stop
        if self.draining.is_set() and not stop:
            stop = "shutdown" if self.store.request_stop(held.claim, "shutdown") else stop
        if stop:
            self._hurry(held, stop)

    def lease_lost(self, held: Held) -> None:
        """Another attempt owns the job, or Redis forgot it: our child sees that at its next report."""
        self.store.drop_claim(self.worker.name, held.claim)
        if held.claim.job_id in {request.id for request in celery_state.active_requests}:
            self._hurry(held, "lease lost")
        else:
            self._held.pop(held.claim.job_id, None)

    def give_back(self, held: Held) -> None:
        """The child is dead and its job unfinished: at once to the queue, unless its end was already written."""
        claim = held.claim
        del self._held[claim.job_id]
        if complete_end(self.queue, claim):
            return
        asked = held.stop or self.store.get(claim.job_id).stop
        reason = held.killed or ("shutdown" if asked else self.why_lost())
        if not asked and on_gpu(device()):
            # A GPU that fails often takes its process along; a job that kills its process counts once.
            self.registry.note_device_failure(self.worker.name, claim.job_id)
        status = self.store.release(claim, reason, loss=not asked, max_losses=self.settings.max_losses)
        if status:
            log.warning(
                "job %s: process %d is gone (%s); the job is %s", claim.job_id, claim.pid, reason, status
            )
            job = self.store.get(claim.job_id)
            if job.status.ended:
                self.queue.settle_end(job)
            else:
                self.queue.dispatch.step()

    def why_lost(self) -> str:
        """Why a child that nobody asked to go is gone, as far as the kernel's count of its own kills tells."""
        return "out_of_memory" if oom_kills() > self._oom_kills[0] else "worker_lost"

    def _hurry(self, held: Held, stop: str) -> None:
        now = time.monotonic()
        if held.stop != stop:
            held.stop, held.stop_at = stop, now
        waited_s = now - held.stop_at
        if waited_s > KILL_AFTER_S:
            self._kill(held, held.stop)
        elif waited_s > TERM_AFTER_S and not held.termed:
            held.termed = True
            self._signal(held, signal.SIGTERM)

    def _kill(self, held: Held, reason: str) -> None:
        log.warning("job %s: process %d is killed (%s)", held.claim.job_id, held.claim.pid, reason)
        held.killed = reason
        self._signal(held, signal.SIGKILL)

    def _signal(self, held: Held, number: int) -> None:
        with suppress(ProcessLookupError):  # it has ended by itself: the next turn sees that
            os.kill(held.claim.pid, number)

    def _child_alive(self, pid: int) -> bool:
        """Whether `pid` is a living child of ours (a number can be used again, a zombie computes nothing)."""
        try:
            process = psutil.Process(pid)
            return process.ppid() == os.getpid() and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False


def in_service() -> bool:
    """Whether this worker takes jobs: it has looked whether its host is drained, and its device is trusted."""
    return _keeper is not None and _keeper.duty.takes_jobs


def child_is_up(pool: Any) -> bool:
    """Whether Celery's pool has a living process that has said that it is up; a dead one is replaced at once."""
    prefork = getattr(pool, "_pool", None)
    if not hasattr(prefork, "_fileno_to_inq"):
        return True  # `--pool solo` or `threads`: nothing to wait for
    up = [process for process in prefork._fileno_to_inq.values() if process is not None]
    if all(process._is_alive() for process in up):
        return bool(up)
    prefork.maintain_pool()  # Celery itself looks every 5 s only
    return False


class AwaitChild(bootsteps.StartStopStep):
    """Takes no message from the broker while the pool's child is not up, or the worker is out of service."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, consumer: Any) -> None:
        """Put our condition before Celery's own."""
        qos = consumer.task_consumer.channel.qos
        celerys = qos.can_consume

        def can_consume() -> bool:
            # A child that is starting may yet die, and a message that it was to have would be lost with it.
            return in_service() and child_is_up(consumer.pool) and bool(celerys())

        qos.can_consume = can_consume


celery_app.steps["consumer"].add(AwaitChild)

_keeper: LeaseKeeper | None = None
_recovery: RecoveryThread | None = None


@signals.celeryd_after_setup.connect
def tell_children_their_queues(sender: str, instance: Any, **_: Any) -> None:
    """A spawned child knows nothing of `--queues`; it imports what their kinds need."""
    os.environ["DREAMQ_QUEUES"] = ",".join(instance.app.amqp.queues.consume_from)


@signals.worker_ready.connect
def start_threads(sender: Any, **_: Any) -> None:
    """Announce the worker, and look after leases and recovery from now on."""
    global _keeper, _recovery
    if _keeper is not None:
        return  # ready again after a lost connection
    queue = queue_from_environment()
    _keeper = LeaseKeeper(queue, sender.hostname, sorted(sender.app.amqp.queues.consume_from))
    _keeper.start()
    _recovery = RecoveryThread(queue)
    _recovery.start()


@signals.worker_shutting_down.connect
def drain(**_: Any) -> None:
    """Runs inside a signal handler: only a flag is set, the thread does the rest."""
    if _keeper is not None:
        _keeper.draining.set()


@signals.worker_shutdown.connect
def retire(**_: Any) -> None:
    """The worker is gone; nobody need wait for its heartbeat to run out."""
    if _keeper is None:
        return
    try:
        _keeper.registry.retire(_keeper.worker.name)
        _keeper.queue.dispatch.step()
    except QueueUnavailable as error:
        log.info("not signed off: %s", error)
