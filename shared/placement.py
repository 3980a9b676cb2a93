"""Which queue a job waits in: by its kind, and by how much memory it needs of a device."""

from collections.abc import Iterable, Sequence
from typing import Any

from shared.errors import RequestInvalid
from shared.kinds import KINDS, no_such_kind

GIB = 2**30
CLASSES = {"small": 7 * GIB, "16g": 14 * GIB, "24g": 22 * GIB, "48g": 44 * GIB, "80g": 76 * GIB}
"""Memory classes by the cards they are named after, smallest first: the least memory that a device of the class
has (NVML tells some 5% less than the name), and the most that a job of the class may need."""
SMALLEST, *_, LARGEST = CLASSES


def class_for(forecast_bytes: int) -> str:
    """The smallest class whose devices hold a job; the largest one for a job that is beyond all."""
    return next((name for name, size in CLASSES.items() if forecast_bytes <= size), LARGEST)


def queue_name(kind: str, memory_class: str) -> str:
    """The queue of a kind and a class: `deepdream`, and `deepdream.24g` for what needs more."""
    return kind if memory_class == SMALLEST else f"{kind}.{memory_class}"


def kind_of(queue: str) -> str:
    """The kind whose jobs wait in a queue."""
    return queue.partition(".")[0]


def class_of(queue: str) -> str:
    """The class whose jobs wait in a queue."""
    return queue.partition(".")[2] or SMALLEST


def all_queues(classes: Iterable[str] = tuple(CLASSES)) -> list[str]:
    """The queues of every kind, of these classes."""
    return [queue_name(kind, memory_class) for kind in KINDS for memory_class in classes]


def classes_held(memory_bytes: int) -> list[str]:
    """The classes whose jobs a device holds; the smallest is every device's."""
    return [name for name, size in CLASSES.items() if memory_bytes >= size or name == SMALLEST]


def checked_queues(wanted: str | None) -> str | None:
    """The same kinds and queues, when there are such. A misspelt one would serve nothing, for ever, in silence.

    Raises:
        RequestInvalid: naming the one there is not.
    """
    for name in wanted.split(",") if wanted else ():
        if name.strip() not in all_queues():
            raise RequestInvalid(no_such_kind(name.strip()))
    return wanted


def checked_classes(names: str) -> list[str]:
    """Memory classes separated by commas, when there are such; raises as `checked_queues`."""
    classes = [name.strip() for name in names.split(",") if name.strip()]
    for name in classes:
        if name not in CLASSES:
            raise RequestInvalid(f"there is no memory class {name!r}; there are {', '.join(CLASSES)}")
    return classes


def queues_served(wanted: str | None, memory_bytes: int, classes: Sequence[str] = ()) -> list[str]:
    """The queues of one worker.

    Args:
        wanted: kinds and queues, separated by commas; a kind stands for all of its queues that the device can
            serve, a queue with a class (`deepdream.24g`) for itself. None: all kinds.
        memory_bytes: of its device.
        classes: the classes to serve, if not all that the device holds.
    """
    served = [name for name in classes_held(memory_bytes) if not classes or name in classes]
    found: list[str] = []
    for name in wanted.split(",") if wanted else KINDS:
        plain = name.strip()
        found += [plain] if "." in plain else [queue_name(plain, memory_class) for memory_class in served]
    return list(dict.fromkeys(found))


def queue_for(kind: str, forecast_bytes: int, workers: Sequence[dict[str, Any]]) -> str:
    """The queue for a job: that of its class, unless only smaller-classed workers are there that hold it all the same.

    Args:
        workers: those that are registered, with `queues` and `memory_bytes`. A machine with 12 GiB is of the class
            `small`; alone, it takes a job of 10 GiB rather than let it wait for a device that nobody has.
    """
    place = queue_name(kind, class_for(forecast_bytes))
    if place == kind or not workers or any(place in worker["queues"] for worker in workers):
        return place
    order = all_queues()
    held = [
        queue
        for worker in workers
        if (worker.get("memory_bytes") or 0) >= forecast_bytes
        for queue in worker["queues"]
        if kind_of(queue) == kind and queue in order
    ]
    return max(held, key=order.index, default=place)
