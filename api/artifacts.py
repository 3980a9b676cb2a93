"""/v1/jobs/{id}/artifacts/{name}: the files that a job leaves."""

from flask import Blueprint, Response, request
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import RequestedRangeNotSatisfiable
from werkzeug.http import parse_range_header
from werkzeug.wsgi import FileWrapper

from api.context import queue
from api.openapi import describes
from shared.errors import ArtifactNotFound
from shared.storage import NAME

bp = Blueprint("artifacts", __name__)

SHOWN = frozenset(
    {"image/png", "image/jpeg", "image/gif", "image/webp", "text/plain", "text/csv", "application/json"}
)
"""What a browser may show; all else (HTML and SVG could run scripts in our name) is downloaded as plain bytes."""

_CHUNK = 64 * 1024


@bp.get("/v1/jobs/<job_id>/artifacts/<path:name>")
@describes(
    "application/octet-stream",
    headers={
        "Range": "A part of the file.",
        "If-None-Match": "The ETag of what you have: 304 if it is the same.",
    },
    errors=(401, 404, 416, 503),
)
def fetch(job_id: str, name: str) -> ResponseReturnValue:
    """Download a file of a job: any name in its `artifacts`, also while it runs."""
    if not NAME.fullmatch(name):
        raise ArtifactNotFound(f"{name!r:.100} is no artifact's name")
    artifact = queue().artifact(job_id, name)  # from the record; a name from a URL is never joined to a path
    base_type = artifact.media_type.partition(";")[0].strip()
    shown = base_type in SHOWN
    try:
        opened = queue().storage.open(artifact.path)
    except FileNotFoundError as error:
        raise ArtifactNotFound(f"the file of {name!r} is gone from the storage") from error
    response = Response(
        FileWrapper(opened, _CHUNK),
        mimetype=base_type if shown else "application/octet-stream",
        headers={
            "Content-Disposition": f'{"inline" if shown else "attachment"}; filename="{artifact.name}"',
            "Cache-Control": "private, no-cache",
        },
    )
    response.content_length = artifact.bytes
    response.set_etag(artifact.sha256)
    environ = request.environ
    if not honoured(request.headers.get("Range", ""), artifact.bytes):
        environ = {name: value for name, value in environ.items() if name != "HTTP_RANGE"}
    try:
        return response.make_conditional(environ, accept_ranges=True, complete_length=artifact.bytes)
    except RequestedRangeNotSatisfiable:
        opened.close()
        raise


def honoured(header: str, length: int) -> bool:
    """Whether a Range header asks for one part; anything else is passed over and the whole file sent (RFC 9110, 14.2),
    also where a suffix is longer than the file."""
    asked = parse_range_header(header)
    if asked is None or asked.units != "bytes" or len(asked.ranges) != 1:
        return False
    return asked.ranges[0][0] > -length
