"""`dreamq admin drain`, `prune` and `doctor`, as an operator calls them."""

import json

import pytest
from click.testing import CliRunner

from api.cli import main


@pytest.fixture
def dreamq(settings):
    """Run the `dreamq` command; its result."""
    return lambda *arguments: CliRunner().invoke(main, arguments)


def test_a_host_is_drained_and_put_back(dreamq, queue):
    queue.registry.announce("w@h1", {"name": "w@h1", "host": "h1", "queues": []}, ttl_ms=60_000)

    mistyped = dreamq("admin", "drain", "h11")
    assert (mistyped.exit_code, queue.registry.drained_hosts()) == (2, [])
    assert "those with workers: h1" in mistyped.output
    drained = dreamq("admin", "drain", "h1")
    assert (drained.exit_code, queue.registry.drained_hosts()) == (0, ["h1"])
    assert "its workers (1)" in drained.output
    assert dreamq("admin", "drain", "h2", "--ahead").exit_code == 0
    assert dreamq("admin", "drain", "--undo", "h2").exit_code == 0

    back = dreamq("admin", "drain", "--undo", "h1")
    assert (back.exit_code, queue.registry.drained_hosts()) == (0, [])
    assert dreamq("admin", "drain", "--undo", "h1").exit_code == 2


@pytest.mark.parametrize("host", ["", " ", "h 1", "h1\n"])
def test_what_no_host_can_be_called_is_not_drained_even_ahead(dreamq, queue, host):
    refused = dreamq("admin", "drain", host, "--ahead")

    assert (refused.exit_code, queue.registry.drained_hosts()) == (2, [])
    assert "is no host's name" in refused.output


def test_prune_says_what_it_removed(dreamq, queue, run):
    job = run("steps", steps=1)
    queue.store.redis.hset(f"dreamq:job:{job.id}", "finished_ms", 1)

    assert (
        "1 jobs, 0 uploads and 0 leftovers would be removed"
        in dreamq("admin", "prune", "--days", "1", "--dry-run").output
    )
    pruned = dreamq("admin", "prune", "--days", "1", "--json")

    assert json.loads(pruned.output) == {"checkpoints": [], "jobs": [job.id], "uploads": [], "leftovers": []}


def test_prune_wants_to_know_how_old_and_takes_it_from_the_setting(dreamq, monkeypatch):
    refused = dreamq("admin", "prune")
    assert (refused.exit_code, "RETENTION_DAYS" in refused.output) == (2, True)

    monkeypatch.setenv("RETENTION_DAYS", "30")
    assert dreamq("admin", "prune").exit_code == 0


def test_the_doctor_says_line_by_line_what_is_well_and_what_to_do(dreamq, queue):
    examined = dreamq("admin", "doctor")
    assert examined.exit_code == 0
    assert "ok    Redis: answers" in examined.output
    assert "-> start some: python -m workers" in examined.output

    queue.store.redis.set("dreamq:recovery", "for ever")
    failed = dreamq("admin", "doctor", "--json")
    assert failed.exit_code == 1
    assert "fail" in {finding["level"] for finding in json.loads(failed.output)}


def test_the_list_of_workers_says_why_one_takes_no_jobs(api_client, queue):
    for name, state in (("a@h", "ready"), ("b@h", "quarantined")):
        queue.registry.announce(
            name, {"name": name, "host": "h", "device": "gpu", "queues": [], "state": state}, ttl_ms=60_000
        )

    listed = CliRunner().invoke(main, ["--url", api_client.url, "workers"])

    assert [line.split("\t")[-1] for line in listed.output.splitlines()[1:]] == ["idle", "quarantined"]
