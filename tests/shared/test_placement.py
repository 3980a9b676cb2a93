"""Which queue a job takes, and which queues a worker serves."""

import pytest

from shared.dispatch import rooms
from shared.kinds import KINDS
from shared.placement import (
    GIB,
    all_queues,
    class_for,
    class_of,
    classes_held,
    kind_of,
    queue_for,
    queues_served,
)
from tests.faults.steps import StepsParams

CARDS = {  # what nvidia-smi tells of them (MiB)
    "T4": 15360, "L4": 23034, "RTX 3090": 24576, "A100 40GB": 40960, "L40S": 46068, "A100 80GB": 81920, "H100": 81559,
}  # fmt: skip


@pytest.mark.parametrize(
    ("card", "largest"),
    [("T4", "16g"), ("L4", "24g"), ("RTX 3090", "24g"), ("A100 40GB", "24g"), ("L40S", "48g"), ("A100 80GB", "80g"),
     ("H100", "80g")],
)  # fmt: skip
def test_a_card_serves_the_class_that_bears_its_size_and_all_below(card, largest):
    held = classes_held(CARDS[card] * 2**20)

    assert held[0] == "small"
    assert held[-1] == largest


def test_the_smallest_device_serves_the_smallest_class():
    assert classes_held(1 * GIB) == ["small"]


@pytest.mark.parametrize(
    ("gib", "expected"), [(0, "small"), (7, "small"), (7.1, "16g"), (22, "24g"), (22.1, "48g"), (500, "80g")]
)
def test_a_job_takes_the_smallest_class_that_holds_it(gib, expected):
    assert class_for(int(gib * GIB)) == expected


def test_what_a_class_promises_its_devices_hold():
    assert all(class_for(GIB * size) in classes_held(GIB * size) for size in (7, 14, 22, 44, 76))


def test_a_queues_name_says_kind_and_class():
    assert [(kind_of(name), class_of(name)) for name in ("deepdream", "deepdream.24g")] == [
        ("deepdream", "small"),
        ("deepdream", "24g"),
    ]
    assert len(all_queues()) == 5 * len(KINDS)


@pytest.mark.parametrize(
    ("wanted", "gib", "classes", "served"),
    [
        ("steps", 16, (), ["steps", "steps.16g"]),
        ("steps", 4, (), ["steps"]),
        ("steps", 80, ("80g", "48g"), ["steps.48g", "steps.80g"]),
        ("steps.24g", 4, (), ["steps.24g"]),  # said outright: as one wishes
        ("steps, other", 4, (), ["steps", "other"]),
    ],
)
def test_a_worker_serves_the_classes_that_its_device_holds(wanted, gib, classes, served):
    assert queues_served(wanted, gib * GIB, classes) == served


def test_without_a_wish_every_kind_is_served():
    assert {kind_of(queue) for queue in queues_served(None, 16 * GIB)} == set(KINDS)


def worker(gib: int) -> dict[str, object]:
    return {"queues": queues_served("steps", gib * GIB), "memory_bytes": gib * GIB}


@pytest.mark.parametrize(
    ("forecast_gib", "workers", "queue"),
    [
        (1, [], "steps"),
        (20, [], "steps.24g"),
        (20, [24, 80], "steps.24g"),
        (10, [12], "steps"),  # of class `small`, and holds it: nobody else will come
        (10, [12, 24], "steps.16g"),
        (20, [16], "steps.24g"),  # holds it not: it waits for one that does
        (90, [94], "steps.80g"),
    ],
)
def test_a_job_waits_where_a_worker_that_holds_it_looks(forecast_gib, workers, queue):
    assert queue_for("steps", forecast_gib * GIB, [worker(gib) for gib in workers]) == queue


def test_a_submitted_job_lies_in_the_queue_of_its_class(queue, monkeypatch):
    monkeypatch.setattr(StepsParams, "forecast_bytes", lambda self, inputs: 20 * GIB)

    job = queue.submit("steps", {})

    assert queue.get(job.id).queue == "steps.24g"
    assert job.id in queue.store.broker_holds("steps.24g")[0]


def test_messages_that_nobody_takes_do_not_fill_the_room_of_others():
    assert rooms({"a", "b"}, [(["a"], 2)]) == [(4, {"a": 4})]


def test_without_any_worker_two_messages_wait_for_the_first():
    assert rooms({"a", "b"}, []) == [(2, {"a": 2, "b": 2})]


def test_workers_that_serve_the_same_share_a_room_and_who_serves_most_comes_first():
    assert rooms({"a", "a.24g"}, [(["a"], 2), (["a", "a.24g"], 1)]) == [
        (2, {"a": 6, "a.24g": 2}),
        (4, {"a": 6}),
    ]


def test_a_busy_queue_of_small_jobs_does_not_starve_an_older_large_one(queue, monkeypatch):
    small = ["steps"]
    for name, queues in (("s@h", small), ("l@h", [*small, "steps.24g"])):
        queue.registry.announce(name, {"name": name, "queues": queues}, ttl_ms=60_000)
    ids = [queue.submit("steps", {}).id for _ in range(4)]
    with monkeypatch.context() as large:
        large.setattr(StepsParams, "forecast_bytes", lambda self, inputs: 20 * GIB)
        old = queue.submit("steps", {}).id
    ids += [queue.submit("steps", {}).id for _ in range(4)]

    published = []
    for job_id in ids[:3]:  # as workers do: what ends makes room
        queue.cancel(job_id)
        published.append(bool(queue.store.broker_holds("steps.24g")))

    assert published[-1]
    assert old in queue.store.broker_holds("steps.24g")[0]
