"""Signals end a job that sees no flag: one that reports no more, and one that hears no SIGTERM either."""

from collections.abc import Callable

import pytest

from shared.job import JobStatus
from tests.faults.conftest import Deaf

WITHIN_S = 90


@pytest.mark.parametrize(("trouble", "number"), [("deaf", "SIGTERM"), ("stubborn", "SIGKILL")])
def test_a_job_that_sees_no_flag_is_ended_by_signals(
    deaf: Deaf, trouble: str, number: str, measured: Callable[[str, float], None]
):
    ended = deaf.fleet.ended(deaf.jobs[trouble], within_s=WITHIN_S)

    assert ended.status == JobStatus.CANCELLED
    assert len(ended.attempts) == 1
    took_ms = ended.finished_ms - ended.attempts[0].started_ms
    measured(f"from the start of a job, cancelled at once, to its end by {number}", took_ms / 1000)


def test_workers_whose_processes_were_ended_by_signals_take_the_next_jobs(deaf: Deaf):
    for job in deaf.jobs.values():
        deaf.fleet.ended(job, within_s=WITHIN_S)

    ran: set[str] = set()
    while len(ran) < len(deaf.fleet.workers):
        jobs = [deaf.fleet.submit(steps=10, step_s=0.05) for _ in deaf.fleet.workers]
        ran |= {deaf.fleet.assert_succeeded(job).attempts[0].worker.name for job in jobs}
