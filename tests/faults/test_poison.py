"""Jobs that harm the process that runs them: they end, with a code that says why, and nothing else suffers."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.fleet import Fleet, Place
from tests.workers.processes import until


def test_a_job_that_kills_its_process_each_time_ends_as_worker_lost(fleet: Fleet):
    fleet.exactly(2)
    poison = fleet.submit(trouble="die")
    others = [fleet.submit(steps=10, step_s=0.05, seed=seed) for seed in range(8)]

    ended = fleet.ended(poison)

    assert ended.error.code == "worker_lost"
    # MAX_LOSSES are forgiven, one more is not.
    assert [attempt.reason for attempt in ended.attempts] == ["worker_lost"] * (fleet.settings.max_losses + 1)
    assert {len(fleet.assert_succeeded(job).attempts) for job in others} == {1}
    assert all(worker.alive for worker in fleet.workers)


def test_a_job_that_gets_on_between_its_losses_is_not_given_up(fleet: Fleet):
    fleet.exactly(1)
    # It dies at its half way, after two checkpoints: what was lost before them is forgiven, what comes after counts.
    ended = fleet.ended(fleet.submit(steps=8, checkpoint_every=2, trouble="die"))

    assert ended.error.code == "worker_lost"
    assert ended.checkpoints[0].step == 4
    assert len(ended.attempts) == fleet.settings.max_losses + 1


def test_what_goes_wrong_in_a_job_has_a_code_and_the_next_job_passes(fleet: Fleet):
    (worker,) = fleet.exactly(1)
    for trouble, code in (
        ("memory", "out_of_memory"),
        ("crash", "internal"),
        ("odd", "internal"),
        ("diverge", "diverged"),
    ):
        ended = fleet.ended(fleet.submit(trouble=trouble))
        assert (ended.error.code, len(ended.attempts)) == (code, 1), trouble
        assert len(fleet.assert_succeeded(fleet.submit()).attempts) == 1, trouble
    assert worker.alive


MEMORY_GROUPS = Path("/sys/fs/cgroup/memory")  # version 1
UNIFIED_GROUPS = Path("/sys/fs/cgroup")  # version 2


@pytest.fixture
def small_machine() -> Iterator[Place]:
    """A place with 250 MiB: enough for a worker (about 150), not for one whose job hoards memory."""
    groups, limit = MEMORY_GROUPS, "memory.limit_in_bytes"
    if not groups.is_dir():
        groups, limit = UNIFIED_GROUPS, "memory.max"
    group = groups / f"dreamq-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / limit).write_text(str(250 * 2**20))
    except OSError as error:
        if group.is_dir():
            group.rmdir()
        pytest.skip(f"no memory limit can be set here: {error}")
    yield Place(("sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "sh"))
    until(lambda: not (group / "cgroup.procs").read_text(), what="the end of all that ran there")
    group.rmdir()


def test_a_job_whose_process_the_system_kills_for_want_of_memory_says_so(
    small_machine: Place, tmp_path: Path
):
    with Fleet(tmp_path / "fleet", max_losses=1) as fleet:
        (worker,) = fleet.start(place=small_machine)

        ended = fleet.ended(fleet.submit(trouble="hoard"))

        assert ended.error.code == "out_of_memory"
        assert "smaller size" in ended.error.message
        assert [attempt.reason for attempt in ended.attempts] == ["out_of_memory"] * 2
        assert worker.alive
        assert len(fleet.assert_succeeded(fleet.submit()).attempts) == 1
