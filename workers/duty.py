"""Whether this worker takes jobs: not while its host is drained, nor with a device that keeps failing."""

import logging
import os
import re
import signal
from typing import Any

from shared.job import Worker
from shared.worker_registry import WorkerRegistry

log = logging.getLogger(__name__)

FAILURES_IN_A_ROW = 3
"""So many different jobs on which a GPU failed, with no job that succeeded between, and the worker takes no more."""

_TROUBLE = re.compile(
    r"CUDA_ERROR_|CUDA error|cudaError|CUDNN_STATUS_|CUBLAS_STATUS_|CUSOLVER_STATUS_|CUFFT_|Xid"
)
_NO_MEMORY = re.compile(r"ALLOC_FAILED|OUT_OF_MEMORY|out of memory|Dst tensor is not initialized")
_RAISED_AS = frozenset(
    {"InternalError", "UnknownError", "FailedPreconditionError", "AbortedError", "XlaRuntimeError"}
)


class Duty:
    """One worker's readiness: `starting`, `ready`, `drained` or `quarantined`."""

    def __init__(self, registry: WorkerRegistry, worker: Worker) -> None:
        self.registry = registry
        self.worker = worker
        self.state = "starting"

    @property
    def takes_jobs(self) -> bool:
        """Whether messages are taken from the broker."""
        return self.state == "ready"

    def look(self) -> bool:
        """See what operators and the device say; True when the worker has just become ready.

        A worker that runs when its host is drained gives its jobs back and ends. One that is started on a drained host
        (by a supervisor that restarts whatever ends) waits until the host is back in service.

        Raises:
            QueueUnavailable: Redis did not answer; all stays as it was.
        """
        drained = self.registry.is_drained(self.worker.host)
        before = self.state
        if before in ("starting", "drained"):
            self.state = "drained" if drained else "ready"
        elif drained:
            log.warning("host %s is drained: this worker ends", self.worker.host)
            os.kill(os.getpid(), signal.SIGTERM)
        elif before == "ready" and self.registry.device_failures(self.worker.name) >= FAILURES_IN_A_ROW:
            log.error(
                "the device %s failed on %d jobs in a row: this worker takes no more until it is started again",
                self.worker.device,
                FAILURES_IN_A_ROW,
            )
            self.state = "quarantined"
        return self.takes_jobs and before != "ready"


def on_gpu(device: dict[str, Any]) -> bool:
    """Whether a worker's device is a GPU, which can fail while the machine goes on."""
    return bool(device.get("uuid"))


def lacks_memory(error: BaseException) -> bool:
    """Whether a computation failed because its device has no memory left, in whichever words that is told."""
    return type(error).__name__ == "ResourceExhaustedError" or (
        type(error).__name__ in _RAISED_AS and bool(_NO_MEMORY.search(str(error)))
    )


def device_failed(error: BaseException) -> bool:
    """Whether it was the device or its driver that failed, rather than the computation."""
    return (
        type(error).__name__ in _RAISED_AS and bool(_TROUBLE.search(str(error))) and not lacks_memory(error)
    )
