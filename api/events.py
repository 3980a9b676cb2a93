"""/v1/jobs/{id}/events: what happens to a job, as server-sent events, until it ends."""

import json
import logging
import re
import time
from collections.abc import Iterator

from flask import Blueprint, Response, request
from flask.typing import ResponseReturnValue

from api.context import Context, context
from api.errors import error_answer
from api.openapi import describes
from api.strict_json import finite
from shared.errors import DreamqError, RequestInvalid
from shared.job_store import Event

bp = Blueprint("events", __name__)
log = logging.getLogger(__name__)

_EVENT_ID = re.compile(r"\d{1,19}(-\d{1,19})?")
_LOOK_EVERY_S = 2.0
"""How often a silent stream looks whether the server shuts down (s)."""
_KEEP_ALIVE_S = 15.0
"""How long a stream may be silent before a comment tells both ends that it lives (s)."""
_RECONNECT_MS = 2000


@bp.get("/v1/jobs/<job_id>/events")
@describes(
    "text/event-stream",
    headers={"Last-Event-ID": "Replays what came after the event of this id."},
    errors=(401, 404, 422, 503),
)
def follow(job_id: str) -> ResponseReturnValue:
    """Follow a job: events `status`, `progress`, `artifact` and `text`, from its beginning to its end."""
    after = request.headers.get("Last-Event-ID") or "0"
    if not _EVENT_ID.fullmatch(after):
        raise RequestInvalid("Last-Event-ID: not one that this server gave", field="Last-Event-ID")
    here = context()
    here.queue.get(
        job_id
    )  # an unknown job is a 404; once the stream has begun it would be too late to say so
    if not here.streams.acquire(blocking=False):
        return error_answer(
            503, "too_many_streams", "too many event streams are open; try again in a few seconds"
        )
    stream = EventStream(here, here.queue.events(job_id, after=after, block_s=_LOOK_EVERY_S))
    # A proxy that collects answers would hold the events back.
    return Response(stream, mimetype="text/event-stream", headers={"X-Accel-Buffering": "no"})


class EventStream:
    """A job's events on the wire. It holds one of the server's streams until it is closed."""

    def __init__(self, here: Context, events: Iterator[Event | None]) -> None:
        self._here = here
        self._lines = write_events(here, events)
        self._open = True

    def __iter__(self) -> Iterator[str]:
        return self._lines

    def close(self) -> None:
        """Called by the server when all is sent or the client is gone, also when nothing was sent."""
        if self._open:
            self._open = False
            self._here.streams.release()


def write_events(here: Context, events: Iterator[Event | None]) -> Iterator[str]:
    """Events as text; comments keep a silent stream alive."""
    yield f"retry: {_RECONNECT_MS}\n: following\n\n"
    spoken = time.monotonic()
    try:
        for event in events:
            if event is not None:
                yield as_text(event)
                spoken = time.monotonic()
            elif time.monotonic() - spoken >= _KEEP_ALIVE_S:
                yield ": still here\n\n"
                spoken = time.monotonic()
            if here.closing.is_set():
                yield ": the server shuts down; come back with Last-Event-ID\n\n"
                return
    except DreamqError as error:
        # The status line is long sent. The client sees the stream end before the job has, and comes back.
        log.warning("an event stream ends early: %s", error)
        yield ": come back with Last-Event-ID\n\n"


def as_text(event: Event) -> str:
    """One event; JSON has no line breaks outside its strings, and writes those within them as \\n."""
    data = json.dumps(finite(event.data), separators=(",", ":"), allow_nan=False)
    return f"id: {event.id}\nevent: {event.type}\ndata: {data}\n\n"
