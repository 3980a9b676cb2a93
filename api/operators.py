"""For operators: which workers there are, whether this process lives, whether it can serve."""

from flask import Blueprint, Response, jsonify
from flask.typing import ResponseReturnValue

from api.context import queue
from api.openapi import describes
from api.schemas import StateAnswer, WorkersAnswer
from shared import metrics

bp = Blueprint("operators", __name__)


@bp.get("/v1/workers")
@describes(WorkersAnswer, errors=(401, 503))
def workers() -> ResponseReturnValue:
    """List the workers that were heard of lately."""
    return jsonify(workers=queue().workers())


@bp.get("/healthz")
@describes(StateAnswer)
def healthz() -> ResponseReturnValue:
    """Tell that this process lives; asks nobody else."""
    return jsonify(status="alive")


@bp.get("/readyz")
@describes(StateAnswer, errors=(503,))
def readyz() -> ResponseReturnValue:
    """Tell whether Redis and the storage answer."""
    queue().check_ready()
    return jsonify(status="ready")


@bp.get("/metrics")
@describes(metrics.MEDIA_TYPE, errors=(401, 503))
def show_metrics() -> ResponseReturnValue:
    """Tell in numbers how queues, jobs and workers are, in Prometheus' text format."""
    return Response(metrics.exposition(queue()), content_type=metrics.MEDIA_TYPE)
