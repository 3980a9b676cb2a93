"""What a pool process does as it starts, before each job, and how it knows that it is worn out."""

import importlib
import logging
import os
import sys
import time
from typing import Any

import psutil
from celery.signals import worker_process_init

from shared.kinds import KINDS
from shared.kinds.base import JobParams
from shared.placement import kind_of
from shared.settings import Settings

log = logging.getLogger(__name__)

_trainings = 0


@worker_process_init.connect
def warm_up(**_: Any) -> None:
    """Import what the tasks of our queues' kinds import, while nobody waits for it."""
    kinds = {kind_of(queue) for queue in os.environ.get("DREAMQ_QUEUES", "").split(",")}
    started = time.monotonic()
    names = sorted({name for kind in kinds if kind in KINDS for name in KINDS[kind].imports}, reverse=True)
    for name in names:
        importlib.import_module(name)
    if Settings.from_environment().deterministic and "tensorflow" in sys.modules:
        # Process-wide, and with no way back: hence a setting, not a parameter of a job.
        sys.modules["tensorflow"].config.experimental.enable_op_determinism()
    log.info(
        "pool process %d is up: %s in %.1f s",
        os.getpid(),
        ", ".join(names) or "nothing to import",
        time.monotonic() - started,
    )


def seed(value: int) -> None:
    """Set every global random state: a warm process must give what a fresh one gives."""
    if "keras" not in sys.modules:
        return  # a kind that computes without it
    sys.modules["keras"].utils.set_random_seed(value)


def is_worn(params: type[JobParams], settings: Settings) -> bool:
    """Whether this process should be replaced now, after a job of this kind."""
    global _trainings
    _trainings += params.trains
    limit_bytes = (settings.max_child_memory_mb or 0) * 2**20 or psutil.virtual_memory().total // 2
    return _trainings >= settings.max_trainings_per_child or psutil.Process().memory_info().rss > limit_bytes
