"""/openapi.json, built from the routes that exist, their docstrings and the models they name."""

import inspect
import re
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from flask import Blueprint, Flask, current_app, jsonify
from flask.typing import ResponseReturnValue
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from werkzeug.routing import Rule

from api.schemas import ErrorAnswer
from shared.kinds import KINDS

bp = Blueprint("openapi", __name__)

View = TypeVar("View", bound=Callable[..., Any])
_REF = "#/components/schemas/{model}"


class Doc(NamedTuple):
    """What a call's signature does not say."""

    answer: type[BaseModel] | str
    """A model, or the media type of what is no JSON."""
    status: int
    body: type[BaseModel] | str | None
    query: type[BaseModel] | None
    headers: dict[str, str]
    errors: tuple[int, ...]


def describes(
    answer: type[BaseModel] | str,
    *,
    status: int = 200,
    body: type[BaseModel] | str | None = None,
    query: type[BaseModel] | None = None,
    headers: dict[str, str] | None = None,
    errors: tuple[int, ...] = (),
) -> Callable[[View], View]:
    """Say of a view what it takes and answers."""

    def mark(view: View) -> View:
        view.openapi = Doc(answer, status, body, query, headers or {}, errors)  # type: ignore[attr-defined]
        return view

    return mark


@bp.get("/openapi.json")
@describes("application/json")
def show() -> ResponseReturnValue:
    """This description of the API."""
    return jsonify(build(current_app))


def build(app: Flask) -> dict[str, Any]:
    """The OpenAPI description of all calls of an application (its pages left out)."""
    calls = [(rule, doc) for rule in app.url_map.iter_rules() if (doc := doc_of(app, rule)) is not None]
    paths: dict[str, dict[str, Any]] = {}
    for rule, doc in sorted(calls, key=lambda call: call[0].rule):
        for method in sorted((rule.methods or set()) & {"GET", "POST"}):
            operation = describe_call(rule, doc, inspect.getdoc(app.view_functions[rule.endpoint]) or "")
            paths.setdefault(path_of(rule), {})[method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "dreamq",
            "version": "1",
            "description": "A job queue for generative deep learning.",
        },
        "paths": paths,
        "components": {
            "schemas": component_schemas([doc for _, doc in calls]),
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"key": []}, {}],
    }


def doc_of(app: Flask, rule: Rule) -> Doc | None:
    """What a route's view says of itself; None for pages and static files."""
    doc = getattr(app.view_functions[rule.endpoint], "openapi", None)
    return doc if isinstance(doc, Doc) else None


def path_of(rule: Rule) -> str:
    """A route's path as OpenAPI writes it: `/v1/jobs/{job_id}`."""
    return re.sub(r"<(?:[^:<>]+:)?([^<>]+)>", r"{\1}", rule.rule)


def describe_call(rule: Rule, doc: Doc, text: str) -> dict[str, Any]:
    """One operation."""
    summary, _, rest = text.partition("\n")
    operation: dict[str, Any] = {"operationId": rule.endpoint.replace(".", "_"), "summary": summary}
    if rest.strip():
        operation["description"] = rest.strip()
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in sorted(rule.arguments)
    ]
    parameters += [
        {"name": name, "in": "header", "description": description, "schema": {"type": "string"}}
        for name, description in doc.headers.items()
    ]
    if doc.query is not None:
        for name, schema in doc.query.model_json_schema(ref_template=_REF)["properties"].items():
            parameters.append({"name": name, "in": "query", "schema": schema})
    if parameters:
        operation["parameters"] = parameters
    if doc.body is not None:
        operation["requestBody"] = {"content": content(doc.body)}
    operation["responses"] = {str(doc.status): {"description": summary, "content": content(doc.answer)}}
    for status in doc.errors:
        operation["responses"][str(status)] = {"description": "refused", "content": content(ErrorAnswer)}
    return operation


def content(what: type[BaseModel] | str) -> dict[str, Any]:
    """A body: JSON of a model, or bytes of a media type."""
    if isinstance(what, str):
        return {what: {}}
    return {"application/json": {"schema": {"$ref": _REF.format(model=what.__name__)}}}


def component_schemas(docs: list[Doc]) -> dict[str, Any]:
    """The schemas of all models that the calls and the kinds name."""
    models: list[type[BaseModel]] = [ErrorAnswer, *KINDS.values()]
    for doc in docs:
        models += [model for model in (doc.answer, doc.body, doc.query) if isinstance(model, type)]
    _, schema = models_json_schema(
        [(model, "validation") for model in dict.fromkeys(models)], ref_template=_REF
    )
    found: dict[str, Any] = schema["$defs"]
    return found
