"""JSON as the standard has it: no NaN, no duplicate keys, nothing that UTF-8 cannot say."""

import json
import math
from typing import Any, TypeVar

from flask import current_app, request
from flask.json.provider import JSONProvider
from pydantic import BaseModel, ValidationError
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge, UnsupportedMediaType

from shared.errors import RequestInvalid
from shared.validation import request_invalid

MAX_JSON_BYTES = 2**20

Model = TypeVar("Model", bound=BaseModel)


class StrictJson(JSONProvider):
    """How the application writes and reads JSON."""

    def dumps(self, obj: Any, **kwargs: Any) -> str:
        """Write JSON; numbers that are none become null."""
        try:
            return json.dumps(obj, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        except ValueError:
            return json.dumps(finite(obj), ensure_ascii=False, separators=(",", ":"), allow_nan=False)

    def loads(self, s: str | bytes, **kwargs: Any) -> Any:
        """Read JSON.

        Raises:
            BadRequest: it is no JSON at all.
            RequestInvalid: it says what strict JSON cannot say; `field` names where.
        """
        try:
            text = s if isinstance(s, str) else s.decode("utf-8")
            value = json.loads(text, object_pairs_hook=_object)
            _refuse_unspeakable(value, "")
        except RecursionError as error:
            raise RequestInvalid("the body is nested too deeply") from error
        except UnicodeDecodeError as error:
            raise BadRequest("the body is not UTF-8") from error
        except ValueError as error:
            raise BadRequest(f"the body is not JSON: {error}") from error
        return value


def finite(value: Any) -> Any:
    """The same value with None for each NaN or infinity."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object, unless it says one thing twice: which of the two was meant?"""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise RequestInvalid(f"{key!a} is given twice", field=ascii(key)[1:-1])
        found[key] = value
    return found


def _refuse_unspeakable(value: Any, path: str) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise RequestInvalid(f"{_named(path)}: NaN and infinite numbers are not JSON", field=_named(path))
    if isinstance(value, str) and not _encodable(value):
        raise RequestInvalid(f"{_named(path)}: half a surrogate pair is no character", field=_named(path))
    if isinstance(value, dict):
        for key, inner in value.items():
            if not _encodable(key):
                raise RequestInvalid(f"{key!a} is no name", field=_named(path))
            _refuse_unspeakable(inner, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            _refuse_unspeakable(inner, f"{path}.{number}" if path else str(number))


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _named(path: str) -> str:
    # A parameter goes by its own name everywhere: `octaves`, not `params.octaves`.
    return path.removeprefix("params.")


def read_json(model: type[Model]) -> Model:
    """The request's JSON body as a model.

    Raises:
        UnsupportedMediaType: it does not say that it is JSON (a web page of another origin can't say so unasked).
        RequestEntityTooLarge: it is larger than 1 MiB; found out before, or while, it is read.
        BadRequest, RequestInvalid: it is not what this call takes.
    """
    if request.mimetype != "application/json":
        raise UnsupportedMediaType("the body must be JSON, sent with Content-Type: application/json")
    # One byte more than may come: a stream of unknown length just ends at the limit, and would be cut unseen.
    request.max_content_length = MAX_JSON_BYTES + 1
    body = request.get_data(cache=False)
    if len(body) > MAX_JSON_BYTES:
        raise RequestEntityTooLarge()
    value = current_app.json.loads(body)
    if not isinstance(value, dict):
        raise RequestInvalid("the body must be a JSON object")
    return parse(model, value)


def read_query(model: type[Model]) -> Model:
    """The request's query string as a model; raises RequestInvalid naming the field."""
    for name, values in request.args.lists():
        if len(values) > 1:
            raise RequestInvalid(f"{name} is given twice", field=name)
    return parse(model, request.args.to_dict())


def parse(model: type[Model], value: dict[str, Any]) -> Model:
    """A validated model.

    Raises:
        RequestInvalid: with the name of the first field that cannot be used.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise request_invalid(error, value, model.model_fields) from error
