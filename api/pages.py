"""The web pages: submit, list and watch, in the browser."""

from flask import Blueprint, make_response, render_template
from flask.typing import ResponseReturnValue

bp = Blueprint("pages", __name__)

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@bp.get("/")
def index() -> ResponseReturnValue:
    """The form and the list of jobs."""
    return page("index.html")


@bp.get("/jobs/<job_id>")
def job(job_id: str) -> ResponseReturnValue:
    """One job as it grows."""
    return page("job.html")


def page(template: str) -> ResponseReturnValue:
    """A page; all it shows comes from the API, with the key that the user has."""
    response = make_response(render_template(template))
    response.headers["Content-Security-Policy"] = _POLICY
    return response
