"""Where the kernel's count of its own kills is found: cgroups(7) of both versions, in containers and without."""

from pathlib import Path

import pytest

from workers.oom_kills import oom_kills

V2 = "low 0\nhigh 0\nmax 15\noom 4\noom_kill 3\noom_group_kill 0\n"
V1 = "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"


@pytest.mark.parametrize(
    ("membership", "file", "text", "count"),
    [
        ("0::/system.slice/dreamq.service", "system.slice/dreamq.service/memory.events", V2, 3),
        ("0::/", "memory.events", V2, 3),
        ("0::/../outer", "memory.events", V2, 3),
        ("4:cpu,memory:/docker/4f\n0::/", "memory/docker/4f/memory.oom_control", V1, 2),
        ("4:memory:/docker/4f", "memory/memory.oom_control", V1, 2),
        ("0::/", "elsewhere", "", 1),
        ("", "elsewhere", "", 1),
    ],
)
def test_the_kills_are_those_of_the_group_that_shares_the_limit_or_else_of_the_host(
    tmp_path: Path, membership: str, file: str, text: str, count: int
):
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "self" / "cgroup").write_text(membership + "\n")
    (tmp_path / "proc" / "vmstat").write_text("nr_free_pages 5\noom_kill 1\n")
    counter = tmp_path / "groups" / file
    counter.parent.mkdir(parents=True)
    counter.write_text(text)

    assert oom_kills(tmp_path / "proc", tmp_path / "groups") == count


def test_a_system_that_counts_no_kills_has_none(tmp_path: Path):
    assert oom_kills(tmp_path, tmp_path) == 0
