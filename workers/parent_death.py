"""A child process that dies with its parent, whatever ends the parent."""

import ctypes
import os
import sys
from collections.abc import Callable

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def die_with_parent(signal_number: int) -> Callable[[], None] | None:
    """A `preexec_fn` for subprocess.Popen: the kernel sends the child this signal when its parent dies.

    Even `kill -9` of the parent then leaves no orphan. The parent is the *thread* that starts the child, so call
    Popen from the main thread. None where the kernel has no such thing (it is Linux's).
    """
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None, use_errno=True)  # looked up here: between fork and exec a child should do little
    parent = os.getpid()

    def ask_the_kernel() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal_number)
        if os.getppid() != parent:  # it died before we could ask
            os._exit(1)

    return ask_the_kernel
