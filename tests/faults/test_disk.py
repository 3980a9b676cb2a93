"""What a storage without room costs: the job that needed it."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from shared.job import JobStatus
from tests.faults.fleet import Fleet
from tests.workers.processes import until

MIB = 2**20


class SmallDisk:
    """A tmpfs in a mount namespace of its own, seen through /proc by everybody; gone with the process that holds it."""

    def __init__(self, folder: Path, size_bytes: int) -> None:
        folder.mkdir()
        # Root passes permissions, so only a file system of its own can be full or read-only.
        mount = f"mount -t tmpfs -o size={size_bytes} tmpfs {folder} && echo mounted && exec sleep 600"
        command = ["unshare", "--mount", "sh", "-c", mount]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "mounted\n"
        self.folder = folder
        self.seen_at = Path(f"/proc/{self.process.pid}/root{folder}")

    def remount(self, options: str) -> None:
        """Change how it is mounted."""
        enter = ["nsenter", "--target", str(self.process.pid), "--mount"]
        subprocess.run([*enter, "mount", "-o", f"remount,{options}", str(self.folder)], check=True)

    def fill(self) -> Path:
        """Take all the room that is left; the file that has it."""
        filler = self.seen_at / "filler"
        with filler.open("wb", buffering=0) as opened, suppress(OSError):
            while True:
                opened.write(bytes(4096))
        return filler

    def files(self) -> list[Path]:
        """All that lies on it, half files too."""
        return [path for path in self.seen_at.rglob("*") if path.is_file()]

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


def may_mount() -> bool:
    """Whether this system lets us have a mount namespace of our own."""
    if os.geteuid() != 0 or shutil.which("unshare") is None or shutil.which("nsenter") is None:
        return False
    return subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode == 0


pytestmark = pytest.mark.skipif(not may_mount(), reason="a small disk needs root and mount namespaces")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    disk = SmallDisk(tmp_path / "disk", 2 * MIB)
    yield disk
    disk.close()


def test_a_full_disk_ends_the_job_that_filled_it_and_no_other(
    disk: SmallDisk, new_fleet: Callable[..., Fleet]
):
    fleet = new_fleet(storage_url=str(disk.seen_at))
    fleet.start()

    # Previews of 600 KiB: three find room, the fourth does not.
    job = fleet.submit(steps=10, checkpoint_every=1, preview_bytes=600 * 1024)
    ended = fleet.ended(job)

    assert (ended.status, ended.error.code) == (JobStatus.FAILED, "storage_full")
    assert [kept.name for kept in ended.artifacts] == [f"preview-000{step}.txt" for step in (1, 2, 3)]
    fleet.assert_files_whole(ended)
    assert not [path for path in disk.files() if path.name.startswith(".")], "half files are left"
    fleet.assert_succeeded(fleet.submit())


def test_a_job_whose_end_finds_no_room_ends_all_the_same(disk: SmallDisk, new_fleet: Callable[..., Fleet]):
    fleet = new_fleet(storage_url=str(disk.seen_at))
    fleet.start()
    job = fleet.submit(steps=30, step_s=0.05)
    fleet.until(lambda now: now.status == JobStatus.RUNNING, job)

    filler = disk.fill()

    ended = fleet.until(lambda now: now.status.ended, job)
    assert (ended.status, ended.error.code) == (JobStatus.FAILED, "storage_full")
    # Its `job.json` is written when there is room again.
    assert job.id in fleet.store.unwritten()
    filler.unlink()
    until(lambda: job.id not in fleet.store.unwritten())
    assert not [path for path in disk.files() if path.name.startswith(".")]
    fleet.assert_succeeded(fleet.submit())


def test_a_worker_that_is_asked_to_end_while_the_disk_is_full_gives_its_job_back(
    disk: SmallDisk, new_fleet: Callable[..., Fleet]
):
    fleet = new_fleet(storage_url=str(disk.seen_at))
    (worker,) = fleet.start()
    job = fleet.submit(steps=60, step_s=0.05)
    fleet.until(lambda now: now.progress.step >= 5, job)

    filler = disk.fill()
    worker.terminate()

    assert worker.drained() == 0
    given_back = fleet.queue.get(job.id)
    assert (given_back.status, given_back.losses, given_back.error) == (JobStatus.QUEUED, 0, None)
    filler.unlink()
    fleet.exactly(1)
    fleet.assert_succeeded(job)


def test_a_storage_that_is_read_only_for_a_while_costs_no_job_its_work(
    disk: SmallDisk, new_fleet: Callable[..., Fleet]
):
    fleet = new_fleet(storage_url=str(disk.seen_at))
    (worker,) = fleet.start()
    job = fleet.submit(steps=40, step_s=0.05, checkpoint_every=5)
    fleet.until_step(job, 10)

    disk.remount("ro")
    until(lambda: "waits for the storage" in worker.log(), what="the job's wait")
    disk.remount("rw")

    assert len(fleet.assert_succeeded(job).attempts) == 1


def test_a_job_that_waits_for_its_storage_can_be_cancelled(disk: SmallDisk, new_fleet: Callable[..., Fleet]):
    fleet = new_fleet(storage_url=str(disk.seen_at))
    (worker,) = fleet.start()
    job = fleet.submit(steps=400, step_s=0.05, checkpoint_every=5)
    fleet.until_step(job, 10)
    disk.remount("ro")
    until(lambda: "waits for the storage" in worker.log(), what="the job's wait")

    fleet.queue.cancel(job.id)

    fleet.until(lambda now: now.status == JobStatus.CANCELLED, job)
    disk.remount("rw")
    fleet.assert_files_whole(fleet.ended(job))
