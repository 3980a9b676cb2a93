"""/v1/kinds: every kind of job, with the JSON schema of its parameters."""

import inspect
from typing import Any

from flask import Blueprint, jsonify
from flask.typing import ResponseReturnValue

from api.openapi import describes
from api.schemas import KindAnswer, KindsAnswer
from shared.errors import KindNotFound
from shared.kinds import KINDS, no_such_kind

bp = Blueprint("kinds", __name__)


@bp.get("/v1/kinds")
@describes(KindsAnswer, errors=(401,))
def index() -> ResponseReturnValue:
    """List the kinds of job."""
    return jsonify(kinds=[view(kind) for kind in KINDS])


@bp.get("/v1/kinds/<kind>")
@describes(KindAnswer, errors=(401, 404))
def show(kind: str) -> ResponseReturnValue:
    """Show a kind of job."""
    if kind not in KINDS:
        raise KindNotFound(no_such_kind(kind))
    return jsonify(view(kind))


def view(kind: str) -> dict[str, Any]:
    """A kind as the API shows it."""
    params = KINDS[kind]
    return {"kind": kind, "description": inspect.getdoc(params) or "", "schema": params.model_json_schema()}
