"""The one Celery app, and every Celery setting that dreamq relies on, each with its reason.

Celery carries a job's id to a worker, nothing else: what a job is, and how it stands, is in the job record.
"""

from typing import Any
from urllib.parse import parse_qs, urlsplit

from celery import Celery

from shared.placement import all_queues
from shared.settings import Settings


def broker_url(redis_url: str) -> str:
    """The same Redis in kombu's words: it calls a unix socket `redis+socket` and the database `virtual_host`."""
    if not redis_url.startswith("unix://"):
        return redis_url
    parts = urlsplit(redis_url)
    database = parse_qs(parts.query).get("db", ["0"])[0]
    login = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
    return f"redis+socket://{login}{parts.path}?virtual_host={database}"


def transport_options(settings: Settings, *, impatient: bool) -> dict[str, Any]:
    """How kombu talks to Redis; impatient for the API, which must answer its clients within seconds."""
    return {
        # Only a message that was fetched and never started is subject to it: acknowledged early, a running
        # job is none of the broker's business.
        "visibility_timeout": settings.visibility_timeout_s,
        "unacked_restore_interval": 10,
        "unacked_restore_throttle": 3,
        # A half-open connection must not hang a publish for ever.
        "socket_timeout": 1 if impatient else 30,
        "socket_connect_timeout": 1 if impatient else 5,
        "socket_keepalive": True,
        "health_check_interval": 25,
        # A retry below kombu makes a new connection behind its back: it subscribes anew and waits for the first
        # message, in the main loop. An error instead lets Celery connect again as a whole.
        "retry_on_timeout": False,
        # The store holds the order; three more lists for each queue would only be polled for nothing.
        "priority_steps": [0],
    }


def make_celery_app(settings: Settings, *, impatient: bool = False) -> Celery:
    """An app on these settings: the module's own for workers and commands, others to publish from."""
    app = Celery(
        "dreamq", broker=broker_url(settings.redis_url), include=["workers.run_job"], set_as_current=False
    )
    app.conf.update(
        # JSON only: whoever reaches Redis must not be able to run code.
        task_serializer="json",
        accept_content=["json"],
        result_accept_content=["json"],
        # The job record is the result.
        task_ignore_result=True,
        task_store_errors_even_if_ignored=False,
        # A running job is guarded by its lease, not by its message: no visibility timeout, no lost connection
        # and no killed child can start it twice, and losses are counted in one place.
        task_acks_late=False,
        task_reject_on_worker_lost=False,
        task_retry_on_worker_lost=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        # Without these a worker holds one more job behind a running one, for hours.
        worker_disable_prefetch=True,
        worker_prefetch_multiplier=1,
        # One GPU, one process; spawned, since CUDA does not survive a fork.
        worker_pool="prefork",
        worker_concurrency=1,
        worker_pool_start_method="spawn",
        # The child imports TensorFlow before it says that it is up; the default of 4 s would kill it.
        worker_proc_alive_timeout=300,
        # Shorter than a lease: the wait blocks the main loop, though not the thread that renews.
        worker_soft_shutdown_timeout=0,
        # A worker outlives a long outage of Redis.
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_pool_acquire_timeout=5,
        broker_transport_options=transport_options(settings, impatient=impatient),
        visibility_timeout=settings.visibility_timeout_s,
        # A failed publish is recovery's to repeat; a retry here would hold up a client.
        task_publish_retry=False,
        # Flower and `inspect` see nothing without events.
        worker_send_task_events=True,
        task_send_sent_event=True,
        # Logs are lines on stderr; what a library prints stays apart from them.
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        task_queues={name: {"exchange": name, "routing_key": name} for name in all_queues()},
        task_default_queue="default",
        task_create_missing_queues=True,
    )
    return app


celery_app = make_celery_app(Settings.from_environment())
