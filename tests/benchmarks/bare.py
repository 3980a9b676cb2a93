"""What dreamq's queue is measured against: a Celery task and a Flask view with nothing around them."""

import os
import time

from celery import Celery
from flask import Flask

from shared.celery_app import broker_url

app = Celery("bare", broker=broker_url(os.environ.get("REDIS_URL", "redis://127.0.0.1/0")))
app.conf.update(
    task_ignore_result=True, worker_pool="prefork", worker_concurrency=1, worker_pool_start_method="spawn",
    worker_prefetch_multiplier=1, task_default_queue="bare", worker_proc_alive_timeout=60,
)  # fmt: skip


@app.task(name="bare.stamp")
def stamp(path: str) -> None:
    """Write down when the first line ran."""
    now = time.time()
    with open(f"{path}.tmp", "w") as opened:
        opened.write(repr(now))
    os.replace(f"{path}.tmp", path)


def view() -> Flask:
    """A Flask view that calls `delay()`, and nothing else."""
    web = Flask("bare")

    @web.post("/v1/jobs")
    def submit() -> tuple[dict[str, str], int]:
        return {"id": str(stamp.delay("/dev/null/never"))}, 202

    return web
