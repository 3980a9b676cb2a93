"""The Flask application: blueprints, error handlers, nothing else."""

from flask import Flask

from api import artifacts, errors, events, jobs, kinds, openapi, operators, pages, security, uploads
from api.context import Context
from api.strict_json import MAX_JSON_BYTES, StrictJson
from shared.queue import Queue
from shared.settings import Settings


def create_app(settings: Settings, queue: Queue | None = None, *, bound_host: str = "127.0.0.1") -> Flask:
    """The API on these settings.

    Args:
        queue: the queue to serve; by default a new one that gives up on Redis within seconds.
        bound_host: the name or address on which the server listens; clients may call us by it.
    """
    app = Flask("api")
    app.config["MAX_CONTENT_LENGTH"] = MAX_JSON_BYTES
    app.url_map.merge_slashes = False  # no redirects: a path is one of ours or it is not
    app.json = StrictJson(app)
    app.extensions["dreamq"] = Context(queue or Queue.from_settings(settings, impatient=True))
    security.init_app(app, settings, bound_host)
    errors.init_app(app)
    for blueprint in (
        uploads.bp, jobs.bp, events.bp, artifacts.bp, kinds.bp, operators.bp, openapi.bp, pages.bp,
    ):  # fmt: skip
        app.register_blueprint(blueprint)
    return app
