"""A short run of the checker, with a fixed seed; `python -m tests.faults.chaos` makes long ones."""

from pathlib import Path

import pytest

from tests.faults.chaos import WORKERS, Adversary, run
from tests.faults.fleet import Fleet
from tests.faults.history import History


def test_faults_of_workers_that_are_gone_are_mended_in_peace(tmp_path: Path):
    with Fleet(tmp_path) as fleet:
        adversary = Adversary(fleet, History(tmp_path / "history.jsonl"), seed=1)
        lasting = [adversary.silence, adversary.freeze_worker, *[adversary.at_a_phase] * 10]
        for strike in lasting:
            strike()
            gone = fleet.workers.pop()
            gone.end()

        adversary.mend_what_is_due(all_of_it=True)

        assert len(fleet.workers) == WORKERS
        assert all(worker.alive for worker in fleet.workers)


@pytest.mark.timeout(400)  # two minutes of faults, and the time that the last jobs need to end
def test_two_minutes_of_chaos_break_no_promise(tmp_path: Path):
    told = run(tmp_path, minutes=2, seed=1)

    print(told)
    assert told.jobs > 0
    assert told.faults > 0
    assert not told.broken, f"{told}\n\n{(tmp_path / 'history.jsonl').read_text()}"
