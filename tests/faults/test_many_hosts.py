"""One host with Redis and the API, three with workers, one shared folder: hosts come, go, and are cut off."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import ResponseError

from api.client import Client
from shared.job import Job
from tests.faults.fleet import LEASE_S, Fleet, Worker
from tests.faults.history import orphans
from tests.faults.hosts import Host, missing
from tests.workers.processes import ROOT, python_process, until

CLOCKS_OFF_S = (0, 11 * 60, -7 * 60)
MOST_APART_S = 360
"""By less than this the times in a record differ from Redis' clock, which is ours; the hosts' clocks do by minutes."""


class ManyHosts:
    """The hosts, a worker on each, and a client of the API."""

    def __init__(self, fleet: Fleet, hosts: list[Host], client: Client) -> None:
        self.fleet, self.hosts, self.client = fleet, hosts, client
        fleet.store.redis.config_set("protected-mode", "no")  # each cable has two ends, and both are ours
        fleet.store.redis.config_set("bind", " ".join(host.ours for host in hosts))
        self.port = next(port for port in range(16379, 17379) if self._listens_on(port))
        self.workers = {host.name: self.start(host) for host in hosts}
        until(lambda: all(map(fleet.registered, self.workers.values())), what="the workers' registration")

    def _listens_on(self, port: int) -> bool:
        redis = self.fleet.store.redis
        try:
            return bool(redis.config_set("port", port))
        except ResponseError:  # somebody has it
            return False

    def start(self, host: Host) -> Worker:
        """Start a host's worker."""
        (worker,) = self.fleet.start(wait=False, place=host.place(self.port))
        return worker

    def submit(self, **params: Any) -> Job:
        """Queue a job through the API."""
        return self.fleet.queue.get(self.client.submit("steps", {"seed": 1, **params})["id"])

    def host_of(self, job: Job) -> Host:
        """The host that runs a job."""
        worker = self.fleet.queue.get(job.id).worker
        assert worker is not None
        return next(host for host in self.hosts if host.name == worker.host)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ManyHosts]:
    """Three hosts; the clocks of two are minutes off."""
    if reason := missing():
        pytest.skip(reason)
    hosts = [Host(index, clock_off_s=off_s) for index, off_s in enumerate(CLOCKS_OFF_S)]
    with ExitStack() as stack:
        for host in hosts:
            stack.callback(host.remove)
            try:
                host.build()
            except OSError as error:
                pytest.skip(f"hosts of their own are not permitted here: {error}")
        fleet = stack.enter_context(Fleet(tmp_path_factory.mktemp("many")))
        environment = fleet.settings.environment()
        api = stack.enter_context(python_process("-m", "api", "--port", "0", **environment))
        assert api.stdout is not None
        address = re.search(r"http://\S+", api.stdout.readline())
        assert address
        yield ManyHosts(fleet, hosts, Client(address[0]))


def test_the_hosts_share_the_jobs_that_the_api_takes(many: ManyHosts):
    ended = until_all_hosts_ran(many, steps=10, step_s=0.05)

    assert {len(job.attempts) for job in ended} == {1}
    assert {worker["host"] for worker in many.client.workers()} == {host.name for host in many.hosts}


def test_clocks_that_differ_by_minutes_change_nothing(many: ManyHosts):
    shown = [float(seen_by(host, "import time; print(time.time())")) - time.time() for host in many.hosts]
    assert [round(off_s / 60) * 60 for off_s in shown] == list(CLOCKS_OFF_S)

    # Longer than a lease: whoever judged by a wall clock would take a job from a living worker, or keep a dead one's.
    ended = until_all_hosts_ran(many, steps=25, step_s=LEASE_S / 20)

    now_ms = many.fleet.store.now_ms()
    for job in ended:
        assert [attempt.reason for attempt in job.attempts] == ["succeeded"]
        times = [job.created_ms, job.started_ms, job.finished_ms, now_ms]
        assert times == sorted(times)
        assert now_ms - job.created_ms < MOST_APART_S * 1000
    for worker in many.fleet.queue.workers():
        assert 0 <= now_ms - worker["since_ms"] < MOST_APART_S * 1000, worker


def test_a_host_that_is_cut_off_loses_its_job_to_another_and_takes_jobs_again_when_it_is_back(
    many: ManyHosts,
):
    job = many.submit(steps=160, step_s=0.05, checkpoint_every=5)  # 8 s, longer than the cut
    before = many.fleet.until_step(job, 10)
    host = many.host_of(job)
    worker = many.workers[host.name]

    host.cut()
    many.fleet.until(lambda now: now.attempt == 2, job)
    host.mend()

    until(
        lambda: f"job {job.id}: attempt 1 lost its lease" in worker.log(), what="its notice of the lost lease"
    )
    ended = many.fleet.assert_succeeded(job)
    assert [attempt.reason for attempt in ended.attempts] == ["worker_lost", "succeeded"]
    assert ended.attempts[1].worker.host != host.name
    assert ended.summary["resumed_from_step"] >= before.checkpoints[0].step
    assert list(orphans(Path(many.fleet.settings.storage_url), ended)) == []
    until(lambda: serves(many, host), what="a job on the host that is back")


def test_a_host_that_leaves_gives_its_job_to_another_and_one_that_comes_takes_its_share(many: ManyHosts):
    job = many.submit(steps=80, step_s=0.05)
    many.fleet.until(lambda now: now.progress.step > 3, job)
    host = many.host_of(job)

    many.workers[host.name].terminate()
    assert many.workers[host.name].drained() == 0
    ended = many.fleet.assert_succeeded(job)
    assert [attempt.reason for attempt in ended.attempts] == ["shutdown", "succeeded"]
    assert ended.attempts[1].worker.host != host.name

    many.workers[host.name] = many.start(host)
    until(lambda: serves(many, host), what="a job on the host that has come")


def until_all_hosts_ran(many: ManyHosts, **params: Any) -> list[Job]:
    """Run jobs, as many at a time as there are hosts, until each host had one; all of them, ended."""
    ended: list[Job] = []

    def each_had_one() -> bool:
        jobs = [many.submit(**params, seed=seed) for seed, _ in enumerate(many.hosts)]
        ended.extend(many.fleet.assert_succeeded(job) for job in jobs)
        return {job.attempts[0].worker.host for job in ended} == {host.name for host in many.hosts}

    until(each_had_one, what="a job on each host")
    return ended


def serves(many: ManyHosts, host: Host) -> bool:
    """Whether one of three short jobs runs on this host."""
    jobs = [many.submit(steps=5, step_s=0.05, seed=seed) for seed in range(3)]
    return host.name in {many.fleet.assert_succeeded(job).attempts[0].worker.host for job in jobs}


def seen_by(host: Host, program: str) -> str:
    """What a Python program prints on a host."""
    place = host.place(0)
    return subprocess.run(
        [*place.command, sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ, **place.environment},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
