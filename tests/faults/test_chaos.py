"""A short run of the checker, with a fixed seed; `python -m tests.faults.chaos` makes long ones."""

from pathlib import Path

import pytest

from tests.faults.chaos import run


@pytest.mark.timeout(400)  # two minutes of faults, and the time that the last jobs need to end
def test_two_minutes_of_chaos_break_no_promise(tmp_path: Path):
    told = run(tmp_path, minutes=2, seed=1)

    print(told)
    assert told.jobs > 0
    assert told.faults > 0
    assert not told.broken, f"{told}\n\n{(tmp_path / 'history.jsonl').read_text()}"
