"""Every error as an HTTP status and `{"error": {"code", "message", "field"?}}`."""

import re
from typing import cast

from flask import Flask, Response, current_app, jsonify, request
from werkzeug.exceptions import HTTPException

from shared import errors as e

STATUS: dict[type[e.DreamqError], int] = {
    e.RequestInvalid: 422,
    e.InvalidInput: 422,
    e.JobNotFound: 404,
    e.UploadNotFound: 404,
    e.ArtifactNotFound: 404,
    e.KindNotFound: 404,
    e.IdempotencyConflict: 409,
    e.UploadTooLarge: 413,
    e.QueueUnavailable: 503,
    e.StorageUnavailable: 503,
    e.StorageFull: 507,
}
"""Which status says which error; any other is a 500."""

RETRY_AFTER_S = 2


def init_app(app: Flask) -> None:
    """Answer every error in the one shape."""
    app.register_error_handler(e.DreamqError, answer_ours)
    app.register_error_handler(HTTPException, answer_http)
    app.register_error_handler(Exception, answer_unexpected)


def status_of(error: e.DreamqError) -> int:
    """The HTTP status of one of our errors."""
    status = next((STATUS[base] for base in type(error).__mro__ if base in STATUS), 500)
    # What the URL names and is not there is a 404; what a field of the body names is bad input.
    return 422 if status == 404 and error.field is not None else status


def error_answer(status: int, code: str, message: str, field: str | None = None) -> Response:
    """The one shape of an error."""
    error = {"code": code, "message": message} | ({"field": field} if field else {})
    response = jsonify(error=error)
    response.status_code = status
    if status == 503:
        response.headers["Retry-After"] = str(RETRY_AFTER_S)
    return response


def answer_ours(error: Exception) -> Response:
    """One of dreamq's own errors."""
    assert isinstance(error, e.DreamqError)
    status = status_of(error)
    if status == 500:
        return answer_unexpected(error)
    if status == 503:
        # Which socket or folder cannot be reached is the operator's business, not the client's.
        current_app.logger.warning("%s %s: %s", request.method, request.path, error.message)
        return error_answer(status, error.code, type(error)().message)
    return error_answer(status, error.code, error.message, error.field)


def answer_http(error: Exception) -> Response:
    """What Flask and Werkzeug raise: unknown path, wrong method, too large a body."""
    assert isinstance(error, HTTPException)
    status = error.code or 500
    if error.response is not None:  # a redirect
        return cast(Response, error.response)
    message = error.description or error.name
    if status == 404:
        message = f"there is nothing at {request.path}; /openapi.json lists all calls"
    elif status == 405:
        message = f"{request.method} is not possible here"
    elif status == 413:
        message = f"the body is larger than this call takes ({request.max_content_length} bytes)"
    code = "too_large" if status == 413 else re.sub(r"\W+", "_", error.name.lower())
    response = error_answer(status, code, message)
    for name, value in error.get_headers(request.environ):
        if name.lower() not in ("content-type", "content-length"):
            response.headers[name] = value
    return response


def answer_unexpected(error: Exception) -> Response:
    """Our own mistake: logged whole, told without details."""
    current_app.logger.error("%s %s failed", request.method, request.path, exc_info=error)
    return error_answer(500, "internal", "something went wrong in the server; its log says what")
