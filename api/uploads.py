"""/v1/uploads: files that jobs may name, streamed into the storage."""

from collections.abc import Iterator
from typing import IO, cast

from flask import Blueprint, jsonify, request
from flask.typing import ResponseReturnValue
from gunicorn.http.errors import ParseException  # type: ignore[import-untyped]
from werkzeug.exceptions import BadRequest, ClientDisconnected
from werkzeug.sansio.multipart import Data, Epilogue, Field, File, MultipartDecoder, NeedData

from api.context import queue
from api.openapi import describes
from api.schemas import UploadAnswer
from shared.errors import RequestInvalid

bp = Blueprint("uploads", __name__)

_CHUNK = 256 * 1024
_ENVELOPE_BYTES = 64 * 1024
"""What boundaries and headers of a multipart body may add to the file."""


@bp.post("/v1/uploads")
@describes(UploadAnswer, status=201, body="application/octet-stream", errors=(400, 401, 413, 422, 503, 507))
def upload() -> ResponseReturnValue:
    """Store a file: the raw body, or the field `file` of a multipart form. The same bytes are stored once."""
    limit = queue().settings.max_upload_bytes
    multipart = request.mimetype == "multipart/form-data"
    # Beyond the limit by a byte, since a stream of unknown length is an error as soon as the limit is *reached*;
    # the storage counts the file itself.
    request.max_content_length = limit + (_ENVELOPE_BYTES if multipart else 1)
    body = Body(request.stream, request.content_length)
    source = FileField(body, request.mimetype_params.get("boundary", "")) if multipart else body
    stored = queue().upload(cast(IO[bytes], source), limit_bytes=limit)
    return jsonify(id=stored.id, bytes=stored.bytes, media_type=stored.media_type), 201


class Body:
    """The request's body; one that breaks off is an error, not a shorter file."""

    def __init__(self, stream: IO[bytes], expected_bytes: int | None) -> None:
        self._stream = stream
        self._left = expected_bytes

    def read(self, size: int) -> bytes:
        try:
            chunk = self._stream.read(size)
        except (OSError, ClientDisconnected, ParseException) as error:
            raise BadRequest("the body broke off, or its chunked encoding is damaged") from error
        if self._left is not None:
            self._left -= len(chunk)
            if not chunk and self._left > 0:
                raise BadRequest(f"the body broke off {self._left} bytes before its end")
        return chunk


class FileField:
    """The one field `file` of a multipart form, as a stream: never held as a whole, never spooled twice."""

    def __init__(self, body: Body, boundary: str) -> None:
        if not boundary or len(boundary) > 200:
            raise BadRequest("the Content-Type of a multipart form names its boundary")
        self._body = body
        self._decoder = MultipartDecoder(boundary.encode("latin-1", "replace"), max_parts=1)
        self._chunks = self._decode()

    def read(self, _size: int) -> bytes:
        """The next piece of the file, b"" after the last."""
        return next(self._chunks, b"")

    def _decode(self) -> Iterator[bytes]:
        seen = False
        while True:
            event = self._next_event()
            if isinstance(event, File | Field):
                if event.name != "file":
                    raise RequestInvalid(
                        f"there is no field {event.name!r:.100} here; there is `file`", field=event.name
                    )
                seen = True
            elif isinstance(event, Data) and event.data:
                yield event.data
            elif isinstance(event, Epilogue):
                break
        if not seen:
            raise RequestInvalid("file is required", field="file")

    def _next_event(self) -> object:
        try:
            while isinstance(event := self._decoder.next_event(), NeedData):
                self._decoder.receive_data(self._body.read(_CHUNK) or None)
        except (ValueError, UnicodeDecodeError, AttributeError) as error:
            raise BadRequest(f"the body is no multipart form: {error}") from error
        return event
