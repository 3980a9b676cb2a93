"""Queues, jobs and workers in numbers, in Prometheus' text format (version 0.0.4)."""

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from shared.job_store import JobStore
from shared.placement import CLASSES, class_of
from shared.queue import Queue

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metric(NamedTuple):
    """One metric with its values, each under its labels."""

    name: str
    type: str
    help: str
    values: list[tuple[dict[str, str], float]]


def exposition(queue: Queue) -> str:
    """All metrics, as a scrape reads them.

    Raises:
        QueueUnavailable: Redis cannot be reached.
    """
    return "".join(line for metric in (*gauges(queue), *counters(queue.store)) for line in lines(metric))


def gauges(queue: Queue) -> Iterator[Metric]:
    """How things stand now."""
    store = queue.store
    now_ms, heads = store.now_ms(), store.queue_heads()
    yield Metric(
        "dreamq_jobs", "gauge", "Jobs whose records are kept, by status.",
        [({"status": status}, count) for status, count in store.status_counts().items()],
    )  # fmt: skip
    yield Metric(
        "dreamq_queue_jobs", "gauge", "Jobs that wait in a queue for a worker.",
        [({"queue": head.queue}, head.waiting) for head in heads],
    )  # fmt: skip
    yield Metric(
        "dreamq_queue_age_seconds", "gauge", "Time since the submit of the job that is next in a queue; 0: none waits.",
        [
            ({"queue": head.queue}, max(0, now_ms - head.next_created_ms) / 1000 if head.next_created_ms else 0)
            for head in heads
        ],
    )  # fmt: skip
    # One for each class, whether or not there was ever such a job: an autoscaler must find it.
    load = Counter(class_of(queue) for queue in store.running_queues())
    for head in heads:
        load[class_of(head.queue)] += head.waiting
    yield Metric(
        "dreamq_class_jobs", "gauge", "Jobs that wait or run, by memory class: how many workers could be busy.",
        [({"class": memory_class}, load[memory_class]) for memory_class in CLASSES],
    )  # fmt: skip
    states = Counter(state_of(worker) for worker in queue.workers())
    yield Metric(
        "dreamq_workers", "gauge", "Workers that are registered, by what they do.",
        [
            ({"state": state}, states[state])
            for state in ("busy", "idle", "draining", "drained", "quarantined", "lost")
        ],
    )  # fmt: skip


def state_of(worker: dict[str, object]) -> str:
    """What a worker does: `busy` or `idle`, or why it takes no jobs (`lost`: it is silent for longer than a lease)."""
    if worker["lost"]:
        return "lost"
    state = str(worker.get("state", "ready"))
    return state if state != "ready" else "busy" if worker["jobs"] else "idle"


def counters(store: JobStore) -> Iterator[Metric]:
    """What has happened since Redis was last empty."""
    counted = store.counters()
    ended = [(name.split(" ")[1:], count) for name, count in counted.items() if name.startswith("ended ")]
    yield Metric(
        "dreamq_jobs_ended_total", "counter", "Jobs that ended, by kind, status and the error's code.",
        [({"kind": kind, "status": status, "code": code}, count) for (kind, status, code), count in sorted(ended)],
    )  # fmt: skip
    requeued = {
        name.partition(" ")[2]: count for name, count in counted.items() if name.startswith("requeued ")
    }
    yield Metric(
        "dreamq_recoveries_total", "counter", "Jobs that went back to the queue from an attempt that did not end them.",
        [({"reason": reason}, count) for reason, count in sorted(requeued.items())],
    )  # fmt: skip
    yield Metric(
        "dreamq_messages_republished_total", "counter", "Messages that were lost on the way and sent again.",
        [({}, counted.get("republished", 0))],
    )  # fmt: skip


def lines(metric: Metric) -> Iterator[str]:
    """A metric in the text format."""
    yield f"# HELP {metric.name} {metric.help}\n# TYPE {metric.name} {metric.type}\n"
    for labels, value in metric.values:
        inside = ",".join(f'{name}="{escaped(text)}"' for name, text in labels.items())
        yield f"{metric.name}{'{' + inside + '}' if inside else ''} {value:.15g}\n"


def escaped(text: str) -> str:
    """A label's value as it stands between quotes."""
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
