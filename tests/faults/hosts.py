"""Hosts of their own: network namespaces with a cable each to this one, a name, and a clock that may go wrong."""

import os
import shutil
import subprocess
from pathlib import Path

from tests.faults.fleet import Place
from tests.workers.processes import ROOT

CLOCK = Path(__file__).with_name("clock")
"""The folder by which a Python sees another clock."""
_NETWORK = "198.18.77"  # of the block that RFC 2544 keeps for tests


def ip(*words: str) -> None:
    """One `ip` command.

    Raises:
        OSError: it is not there, or not permitted; with what it said.
    """
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"ip {' '.join(words)}: {done.stderr.strip()}")


class Host:
    """A network namespace whose only way out is a cable to us."""

    def __init__(self, index: int, *, clock_off_s: int = 0) -> None:
        """`index`, from 0 to 63, tells its cable and addresses from those of others."""
        self.name = f"dq{os.getpid()}-{index}"
        self.cable = f"dq{os.getpid() % 10**6}v{index}"  # an interface's name has 15 bytes at most
        self.ours, self.its = (f"{_NETWORK}.{4 * index + end}" for end in (1, 2))
        self.clock_off_s = clock_off_s

    def build(self) -> None:
        """Set it up; raises OSError where that is not permitted."""
        ip("netns", "add", self.name)
        ip("link", "add", self.cable, "type", "veth", "peer", "name", "eth0", "netns", self.name)
        ip("address", "add", f"{self.ours}/30", "dev", self.cable)
        ip("link", "set", self.cable, "up")
        ip("-n", self.name, "address", "add", f"{self.its}/30", "dev", "eth0")
        ip("-n", self.name, "link", "set", "eth0", "up")
        ip("-n", self.name, "link", "set", "lo", "up")

    def remove(self) -> None:
        """Take it away, and its cable with it."""
        subprocess.run(["ip", "netns", "delete", self.name], capture_output=True)

    def cut(self) -> None:
        """Unplug the cable; nobody is told."""
        ip("link", "set", self.cable, "down")

    def mend(self) -> None:
        """Plug it in again."""
        ip("link", "set", self.cable, "up")

    def place(self, redis_port: int) -> Place:
        """Where its workers run; they find Redis at our end of the cable."""
        named = ("unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', self.name)
        return Place(
            ("ip", "netns", "exec", self.name, *named),
            self.name,
            {
                "REDIS_URL": f"redis://{self.ours}:{redis_port}/0",
                "PYTHONPATH": f"{CLOCK}{os.pathsep}{ROOT}",
                "CLOCK_OFF_S": str(self.clock_off_s),
            },
        )


def missing() -> str:
    """What these hosts lack here; empty when they can be built."""
    if os.geteuid() != 0:
        return "hosts of their own need root"
    lacking = [program for program in ("ip", "unshare") if shutil.which(program) is None]
    return f"hosts of their own need the program {lacking[0]}" if lacking else ""
