"""A real kind under the faults that the tests' own kind goes through: the same picture, byte for byte."""

from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from shared.job import Job, JobStatus
from tests.faults.fleet import Fleet

# 3 x 12 steps on a cat, 300 px wide: some seconds of work, with room for a fault after the first octave.
DREAM = {"network": "squeezenet", "max_side_px": 300, "octaves": 3, "iterations": 12, "seed": 7}


@pytest.fixture(scope="module")
def dreamers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Workers that serve DeepDream."""
    with Fleet(tmp_path_factory.mktemp("dreamers"), queues="deepdream") as fleet:
        yield fleet


@pytest.fixture(scope="module")
def dream(dreamers: Fleet, chelsea: Path) -> Callable[[], Job]:
    """Submit one and the same dream."""
    image = dreamers.queue.upload(chelsea).id
    return lambda: dreamers.queue.submit("deepdream", {"image": image, **DREAM})


@pytest.fixture(scope="module")
def unbroken(dreamers: Fleet, dream: Callable[[], Job]) -> str:
    """The hash of the picture that a job leaves whom nothing befell, on a fresh worker."""
    dreamers.exactly(1)
    return result_of(dreamers, dream())


def result_of(fleet: Fleet, job: Job) -> str:
    """The hash of a job's picture, once it has succeeded."""
    ended = fleet.ended(job, within_s=100)
    assert ended.status == JobStatus.SUCCEEDED, ended.view()
    fleet.assert_files_whole(ended)
    result = ended.artifact("result.png")
    assert result is not None
    return result.sha256


def until_dreaming(fleet: Fleet, job: Job) -> None:
    """Wait until the first octave is saved and the second is worked on."""
    fleet.until(lambda now: now.checkpoints and now.progress.step > now.checkpoints[0].step, job, within_s=60)


def test_a_dream_is_the_same_on_a_warm_worker(dreamers, dream, unbroken):
    assert result_of(dreamers, dream()) == unbroken


def test_only_the_process_that_computes_loads_tensorflow(dreamers, unbroken):
    main, *below = dreamers.workers[0].tree()

    # The one that is to live for ever, and would hold the GPU after its child is gone, has none of it.
    assert not loads_tensorflow(main)
    assert any(map(loads_tensorflow, below))


def loads_tensorflow(process: psutil.Process) -> bool:
    """Whether TensorFlow's library is mapped into a process."""
    return "tensorflow" in Path(f"/proc/{process.pid}/maps").read_text()


def test_a_dream_whose_worker_is_killed_goes_on_elsewhere_to_the_same_picture(dreamers, dream, unbroken):
    dreamers.exactly(2)
    job = dream()
    until_dreaming(dreamers, job)
    dreamers.runner(job).kill()

    assert result_of(dreamers, job) == unbroken
    ended = dreamers.queue.get(job.id)
    assert ended.summary["resumed_from_step"] >= DREAM["iterations"]
    assert [attempt.reason for attempt in ended.attempts] == ["worker_lost", "succeeded"]


def test_a_dream_that_redis_forgot_is_rebuilt_and_comes_to_the_same_picture(dreamers, dream, unbroken):
    dreamers.exactly(1)
    job = dream()
    until_dreaming(dreamers, job)
    dreamers.store.redis.flushall()

    assert result_of(dreamers, job) == unbroken
    previews = [artifact.name for artifact in dreamers.queue.get(job.id).artifacts]
    assert previews == sorted(set(previews), key=previews.index)
    assert {"preview-0012.png", "preview-0024.png", "preview-0036.png"} <= set(previews)


def test_a_cancelled_dream_keeps_what_it_had_made(dreamers, dream, unbroken):
    dreamers.exactly(1)
    job = dream()
    until_dreaming(dreamers, job)
    dreamers.queue.cancel(job.id)

    ended = dreamers.ended(job)
    assert ended.status == JobStatus.CANCELLED
    assert {"preview-0012.png", "partial.png"} <= {artifact.name for artifact in ended.artifacts}
