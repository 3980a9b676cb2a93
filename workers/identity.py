"""Who this worker is: the name Celery knows it by, its host, its device."""

import json
import os
import socket
from typing import Any

import psutil

from shared.job import Worker


def device() -> dict[str, Any]:
    """The device that the launcher gave to this worker: its name and memory (bytes); else this machine's CPU."""
    given = os.environ.get("DREAMQ_DEVICE")
    if given:
        found: dict[str, Any] = json.loads(given)
        return found
    return {"name": "cpu", "uuid": None, "memory_bytes": psutil.virtual_memory().total}


def this_worker(name: str | None) -> Worker:
    """This process as the one that runs a job; `name` is Celery's name of the worker, None outside of Celery."""
    host = socket.gethostname()
    return Worker(
        name=name or f"direct-{os.getpid()}@{host}", host=host, device=device()["name"], pid=os.getpid()
    )
