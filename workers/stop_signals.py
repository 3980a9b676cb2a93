"""The signals that ask a process to stop, noted for its main loop to see."""

import signal
from types import FrameType

CTRL_C_TO_HURRY = 3


class StopSignals:
    """SIGTERM, Ctrl-C or a closed terminal ask to stop, once or often alike; the third Ctrl-C asks to hurry."""

    # Only notes are taken here: whatever the main loop is doing, such as starting a process, it finishes first.

    def __init__(self) -> None:
        self.requested = False
        self.interrupts = 0
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._note)

    @property
    def hurried(self) -> bool:
        return self.interrupts >= CTRL_C_TO_HURRY

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.requested = True
        self.interrupts += number == signal.SIGINT
