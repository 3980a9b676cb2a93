"""Fleets of real workers for the fault tests; what they wrote is shown when a test fails."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from shared.job import Job
from tests.faults.fleet import Fleet

_MEASURED = "measured"
_OPEN: list[Fleet] = []
_SHOWN = 6000  # characters of a worker's log


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """One fleet for the tests of a file that leave Redis alone; `exactly` gives each test sound workers."""
    with Fleet(tmp_path_factory.mktemp("fleet")) as fleet:
        _OPEN.append(fleet)
        yield fleet
        _OPEN.remove(fleet)


@pytest.fixture
def new_fleet(tmp_path: Path) -> Iterator[Callable[..., Fleet]]:
    """Fleets of a test's own, with settings of its own."""
    with ExitStack() as stack:
        made: list[Fleet] = []

        def make(**settings: Any) -> Fleet:
            fleet = stack.enter_context(Fleet(tmp_path / f"fleet-{len(made)}", **settings))
            made.append(fleet)
            _OPEN.append(fleet)
            return fleet

        yield make
        for fleet in made:
            _OPEN.remove(fleet)


class Deaf(NamedTuple):
    """Jobs that never report again, each on a worker of its own, cancelled as they fell silent."""

    fleet: Fleet
    jobs: dict[str, Job]


@pytest.fixture(scope="session")
def deaf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deaf]:
    """They end after 15 and 30 s. The first file of this folder asks for them, the last but few looks at them."""
    with Fleet(tmp_path_factory.mktemp("deaf")) as fleet:
        _OPEN.append(fleet)
        fleet.start(2)
        jobs = {}
        for trouble in ("deaf", "stubborn"):
            jobs[trouble] = fleet.submit(steps=20, trouble=trouble)
            fleet.until(lambda now: now.progress.step > 0, jobs[trouble])
            fleet.queue.cancel(jobs[trouble].id)
        yield Deaf(fleet, jobs)
        _OPEN.remove(fleet)


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> Callable[[str, float], None]:
    """Keep a duration (s) for the table at the end of the run: told, never judged."""
    return lambda what, seconds: request.node.user_properties.append((_MEASURED, f"{seconds:8.2f} s  {what}"))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """The durations that tests have measured, in whichever process they ran."""
    for report in terminalreporter.getreports("passed") + terminalreporter.getreports("failed"):
        for name, line in report.user_properties if report.when == "call" else ():
            if name == _MEASURED:
                terminalreporter.write_line(line)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """Put the workers' logs beside a failure."""
    report = yield
    if report.failed:
        for fleet in _OPEN:
            report.sections += [(f"log of {name}", text[-_SHOWN:]) for name, text in fleet.logs()]
    return report
