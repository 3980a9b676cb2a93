"""/v1/jobs: submit, look, list, cancel."""

import re

from flask import Blueprint, jsonify, request, url_for
from flask.typing import ResponseReturnValue

from api.context import queue
from api.openapi import describes
from api.schemas import JobAnswer, JobsAnswer, ListQuery, Nothing, SubmitRequest
from api.strict_json import read_json, read_query
from shared.errors import RequestInvalid
from shared.kinds import KINDS, no_such_kind
from shared.validation import IDEMPOTENCY_KEY_PATTERN

bp = Blueprint("jobs", __name__)


@bp.post("/v1/jobs")
@describes(
    JobAnswer,
    status=202,
    body=SubmitRequest,
    headers={
        "Idempotency-Key": "The same key and body make one job, however often they are sent; up to 255 characters."
    },
    errors=(400, 401, 409, 413, 415, 422, 503, 507),
)
def submit() -> ResponseReturnValue:
    """Queue a job and say where to watch it."""
    key = idempotency_key()
    wanted = read_json(SubmitRequest)
    job = queue().submit(
        wanted.kind,
        wanted.params,
        priority=wanted.priority,
        depends_on=wanted.depends_on,
        labels=wanted.labels,
        idempotency_key=key,
    )
    return jsonify(job.view()), 202, {"Location": url_for("jobs.show", job_id=job.id)}


def idempotency_key() -> str | None:
    """The header of this name, if it was sent."""
    key = request.headers.get("Idempotency-Key")
    if key is not None and not re.fullmatch(IDEMPOTENCY_KEY_PATTERN, key):
        raise RequestInvalid("Idempotency-Key: 1 to 255 printable ASCII characters", field="Idempotency-Key")
    return key


@bp.get("/v1/jobs")
@describes(JobsAnswer, query=ListQuery, errors=(401, 422, 503))
def index() -> ResponseReturnValue:
    """List jobs, newest first."""
    query = read_query(ListQuery)
    if query.kind is not None and query.kind not in KINDS:
        raise RequestInvalid(f"kind: {no_such_kind(query.kind)}", field="kind")
    jobs, next_cursor = queue().jobs(
        status=query.status, kind=query.kind, label=query.label, limit=query.limit, cursor=query.cursor
    )
    return jsonify(jobs=[job.view() for job in jobs], next_cursor=next_cursor)


@bp.get("/v1/jobs/<job_id>")
@describes(JobAnswer, errors=(401, 404, 503))
def show(job_id: str) -> ResponseReturnValue:
    """Show a job."""
    return jsonify(queue().get(job_id).view())


@bp.post("/v1/jobs/<job_id>/cancel")
@describes(JobAnswer, status=202, body=Nothing, errors=(401, 404, 503))
def cancel(job_id: str) -> ResponseReturnValue:
    """Ask for a job's cancel: a waiting one ends at once, a running one at its next step; asking again is harmless."""
    if request.content_length or request.headers.get("Transfer-Encoding"):
        read_json(Nothing)
    return jsonify(queue().cancel(job_id).view()), 202
