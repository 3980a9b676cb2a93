"""What the routes of one application share: the queue, and whether the server is about to end."""

import threading
from dataclasses import dataclass, field
from typing import cast

from flask import current_app

from shared.queue import Queue

MAX_STREAMS = 256
"""How many event streams may be open at once; the server has more threads than that, for all other calls."""


@dataclass(frozen=True)
class Context:
    """One application's queue and the state of its event streams."""

    queue: Queue
    closing: threading.Event = field(default_factory=threading.Event)
    """Set when the server shuts down: open event streams end then."""
    streams: threading.Semaphore = field(default_factory=lambda: threading.BoundedSemaphore(MAX_STREAMS))


def context() -> Context:
    """The context of the application that answers this request."""
    return cast(Context, current_app.extensions["dreamq"])


def queue() -> Queue:
    """The queue of the application that answers this request."""
    return context().queue
