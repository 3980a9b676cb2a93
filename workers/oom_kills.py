"""How often the kernel has killed a process for want of memory: that a process is gone does not say why."""

from collections.abc import Iterator
from pathlib import Path


def oom_kills(proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """Kills so far among the processes that share this one's memory limit; on a host without limits, of the host.

    Returns:
        A count that only grows; always 0 where the kernel tells none (other systems than Linux).
    """
    for file in (*_counters(proc, cgroups), proc / "vmstat"):
        try:
            text = file.read_text()
        except OSError:
            continue
        for line in text.splitlines():
            name, _, count = line.partition(" ")
            if name == "oom_kill":
                return int(count)
    return 0


def _counters(proc: Path, cgroups: Path) -> Iterator[Path]:
    """The files of our control group, of either version (cgroups(7)); a container may see its own as the root."""
    try:
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return
    for line in filter(None, lines):
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            yield cgroups / "memory" / path.lstrip("/") / "memory.oom_control"
            yield cgroups / "memory" / "memory.oom_control"
        elif not controllers:
            yield cgroups / path.lstrip("/") / "memory.events"
            yield cgroups / "memory.events"
