"""One Celery worker per device: given its device, restarted when it dies, drained at the end."""

import json
import logging
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence

from shared.placement import queues_served
from workers.devices import Device
from workers.parent_death import die_with_parent
from workers.stop_signals import StopSignals

log = logging.getLogger(__name__)

LONGEST_WAIT_S = 60.0
LOOK_EVERY_S = 0.1


def celery_command(node: str, *, queues: str | None = None, loglevel: str = "info") -> list[str]:
    """The command line of one worker: an ordinary Celery worker, which Celery's own tools can talk to.

    Args:
        node: its name on this host, unlike that of any other worker here.
        queues: the queues it serves, separated by commas; None for all.
    """
    command = [sys.executable, "-m", "celery", "-A", "shared.celery_app", "worker"]
    command += ["--pool", "prefork", "--concurrency", "1", "--hostname", f"{node}@%h", "--loglevel", loglevel]
    # Workers need not know of each other: what they share is in the job records. Without the two a worker
    # starts a second sooner, and a hundred of them cost Redis no chatter.
    command += ["--without-gossip", "--without-mingle"]
    return [*command, "--queues", queues] if queues else command


def worker_environment(device: Device, outside: Mapping[str, str]) -> dict[str, str]:
    """What a worker must find in its environment before it starts, since CUDA reads it once."""
    return {
        **outside,
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": device.uuid or "-1",
        # By default TensorFlow takes the whole GPU at its first operation.
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",
        "DREAMQ_DEVICE": json.dumps(device.as_dict()),
    }


class Worker:
    """One device's worker process, and when to start it again after a death."""

    def __init__(self, device: Device, *, queues: Sequence[str], loglevel: str) -> None:
        self.device = device
        self.queues = queues
        self.loglevel = loglevel
        self.node = ""
        self.process: subprocess.Popen[bytes] | None = None
        self.started_at = 0.0
        self.start_at = 0.0
        self.deaths = 0  # in a row

    def start(self) -> None:
        # A fresh name each time: Redis may still know the last one, and job records tell attempts apart by it.
        self.node = f"{self.device.label}-{secrets.token_hex(3)}"
        self.process = subprocess.Popen(
            celery_command(self.node, queues=",".join(self.queues), loglevel=self.loglevel),
            env=worker_environment(self.device, os.environ),
            # A Ctrl-C in the terminal is ours to pass on, once; a second one would be a cold shutdown to Celery.
            start_new_session=True,
            preexec_fn=die_with_parent(signal.SIGKILL),
        )
        self.started_at = time.monotonic()
        log.info("worker %s started on %s (process %d)", self.node, self.device.name, self.process.pid)

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def ended(self) -> bool:
        """Whether it drained because somebody else asked it to (`dreamq admin drain`, Celery's own control)."""
        return self.process is not None and self.process.poll() == 0

    def keep_alive(self) -> None:
        """Notice a death, and start the worker again after a while; not one that was told to end."""
        if self.alive or self.ended:
            return
        now = time.monotonic()
        if self.process is not None:
            lived_s = now - self.started_at
            self.deaths = self.deaths + 1 if lived_s < LONGEST_WAIT_S else 1
            wait_s = wait_before_restart_s(self.deaths)
            how = ending(self.process.returncode)
            log.warning("worker %s ended (%s) after %.0f s; next in %.0f s", self.node, how, lived_s, wait_s)
            self.process, self.start_at = None, now + wait_s
        elif now >= self.start_at:
            self.start()

    def signal(self, number: int) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)


class Launcher:
    """Keeps one worker per device running until it is told to drain."""

    def __init__(
        self,
        devices: Sequence[Device],
        *,
        queues: str | None = None,
        classes: Sequence[str] = (),
        loglevel: str = "info",
    ) -> None:
        self.workers = [
            Worker(device, queues=queues_served(queues, device.memory_bytes, classes), loglevel=loglevel)
            for device in devices
        ]

    def run(self, stop: StopSignals) -> None:
        """Return when a stop was requested and every worker has drained, however long that takes."""
        while not stop.requested and not all(worker.ended for worker in self.workers):
            for worker in self.workers:
                worker.keep_alive()
            time.sleep(LOOK_EVERY_S)
        log.info("draining: running jobs are checkpointed and go back to the queue")
        for worker in self.workers:
            worker.signal(signal.SIGTERM)
        while any(worker.alive for worker in self.workers):
            if stop.hurried:  # jobs go on from their last checkpoint once their leases have run out
                for worker in self.workers:
                    worker.signal(signal.SIGKILL)
            time.sleep(LOOK_EVERY_S)
        log.info("drained: every worker has ended")


def wait_before_restart_s(deaths: int) -> float:
    """How long a worker that died so often in a row is left alone: 1, 2, 4 ... 60 s."""
    return min(2.0 ** (deaths - 1), LONGEST_WAIT_S)


def ending(status: int) -> str:
    """How a process ended, in words."""
    return f"exit status {status}" if status >= 0 else f"killed by {signal.Signals(-status).name}"
