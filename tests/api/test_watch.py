"""The live bar of a terminal, and what the lines without one say."""

import io

import pytest
from rich.console import Console

from api.client import JobEvent
from api.watch import line_of, told, watch_bar


class Told:
    """Stands for a server's stream with events of a test's choice."""

    def __init__(self, *events):
        self._events = [JobEvent(str(number), kind, data) for number, (kind, data) in enumerate(events)]

    def job(self, job_id):
        return {"status": "queued"}

    def events(self, job_id):
        return iter(self._events)


def progress(step, total, message="", **metrics):
    """A progress event."""
    return "progress", {"step": step, "total": total, "message": message, "metrics": metrics}


def shown(*events):
    """What a terminal shows in the end."""
    terminal = io.StringIO()
    console = Console(
        file=terminal,
        force_terminal=True,
        width=100,
        highlight=False,
        color_system=None,
        legacy_windows=False,
    )
    watch_bar(Told(*events), "x", console)
    return terminal.getvalue()


def test_the_bar_shows_step_message_and_metrics():
    text = shown(("status", {"status": "running"}), progress(30, 60, "octave 2 of 3", loss=3.21412))

    assert "running" in text
    assert "30/60" in text
    assert "octave 2 of 3  loss 3.214" in text


def test_files_and_text_scroll_by_above_the_bar():
    text = shown(
        ("artifact", {"name": "preview-0040.png"}),
        ("text", {"text": "once upon\na "}),
        ("text", {"text": "time"}),
    )

    assert "file preview-0040.png" in text
    assert "once upon" in text
    assert "a time" in text


def test_the_bar_says_that_a_worker_was_lost():
    lost = {"status": "queued", "attempt": 1, "reason": "worker_lost", "goes_on_from_step": 30}

    assert "its worker was lost; it goes on from its checkpoint of step 30" in shown(("status", lost))


def test_a_message_cannot_paint_the_terminal():
    text = shown(progress(1, 2, "[red]danger[/red]"), ("artifact", {"name": "[bold]x"}))

    assert "[red]danger[/red]" in text
    assert "[bold]x" in text


@pytest.mark.parametrize(
    ("kind", "data", "line"),
    [
        ("status", {"status": "running"}, "running"),
        ("status", {"status": "running", "attempt": 2}, "running (attempt 2)"),
        (
            "status",
            {"status": "queued", "attempt": 1, "reason": "worker_lost", "goes_on_from_step": 40},
            "queued again: its worker was lost; it goes on from its checkpoint of step 40",
        ),
        (
            "status",
            {"status": "queued", "attempt": 1, "reason": "shutdown", "goes_on_from_step": None},
            "queued again: its worker shut down; it begins anew",
        ),
        (
            "status",
            {"status": "queued", "attempt": 1, "reason": "internal", "goes_on_from_step": None},
            "queued again: its worker could not run it; it begins anew",
        ),
        (
            "status",
            {"status": "queued", "attempt": 1, "reason": "stopped", "goes_on_from_step": None},
            "queued again: it was stopped while its worker could not reach the storage; it begins anew",
        ),
        ("status", {"status": "succeeded"}, ""),  # the end is told apart
        (*progress(1, 2), "step 1 of 2"),
        (*progress(1, 0), "step 1"),
        ("artifact", {"name": "a.png"}, "file a.png"),
        ("text", {"text": "a\n"}, "a"),
        ("something new", {}, ""),
    ],
)
def test_an_event_in_words(kind, data, line):
    assert line_of(JobEvent("1", kind, data)) == line


def test_a_metric_that_is_none_is_a_dash_and_only_a_few_are_shown():
    metrics = {"loss": None, "a": 1.0, "b": 2.0, "c": 3.0}

    assert told({"message": "", "metrics": metrics}) == "loss -  a 1  b 2"
