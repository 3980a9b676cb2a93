"""A short run of the checker, with a fixed seed; `python -m tests.faults.chaos` makes long ones."""

from pathlib import Path

import pytest

from tests.faults.chaos import run


@pytest.mark.timeout(300)  # a minute of faults, and the time that the last jobs need to end
def test_a_minute_of_chaos_breaks_no_promise(tmp_path: Path):
    told = run(tmp_path, minutes=1, seed=1)

    print(told)
    assert told.jobs > 0
    assert told.faults > 0
    assert not told.broken, f"{told}\n\n{(tmp_path / 'history.jsonl').read_text()}"
