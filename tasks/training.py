"""What the trainings have in common: how many steps a compiled call takes, and variables as arrays."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np

from shared.errors import Diverged
from tasks.job_context import JobContext

CALL_S = 0.4
"""How long one compiled call should last: a cancel waits for its end, and each call costs a fraction of a ms."""

State = dict[str, Any]


class Pace:
    """How many steps go into one compiled call. The number changes nothing in what is computed."""

    def __init__(self) -> None:
        self.steps = 1

    @contextmanager
    def timed(self, steps: int) -> Iterator[None]:
        """Time a call of so many steps, and choose the next one's."""
        started = time.monotonic()
        yield
        step_s = (time.monotonic() - started) / steps
        # The first call traces the function, so it says nothing of the others; hence growth by steps.
        self.steps = max(1, min(int(CALL_S / step_s), 8 * self.steps))


def variable_arrays(name: str, variables: Sequence[Any]) -> State:
    """The values of variables, under names made from `name`, for a checkpoint."""
    return {f"{name}.{index:04d}": _copy(variable) for index, variable in enumerate(variables)}


def _copy(variable: Any) -> np.ndarray:
    # A copy: what Keras gives may be the memory in which the variable goes on changing.
    return np.array(keras.ops.convert_to_numpy(variable))


def assign_arrays(name: str, variables: Sequence[Any], state: State) -> None:
    """Give variables the values that `variable_arrays` took."""
    for index, variable in enumerate(variables):
        variable.assign(state[f"{name}.{index:04d}"])


def refuse_diverged(losses: np.ndarray, first_step: int) -> None:
    """Raise when the losses (steps, ...) of the steps from `first_step` on hold a value that is no number.

    Raises:
        Diverged: naming the step.
    """
    finite = np.isfinite(losses).reshape(len(losses), -1).all(axis=1)
    if not finite.all():
        step = first_step + int(np.argmin(finite)) + 1
        raise Diverged(f"The loss at step {step} is no finite number. Choose a smaller learning rate.")


@contextmanager
def back_to_good(
    job: JobContext, good: Callable[[], State], restore: Callable[[State], None]
) -> Iterator[None]:
    """Let a training that diverges end on its last good state: in the networks, and as a checkpoint."""
    try:
        yield
    except Diverged as error:
        state = good()
        restore(state)
        job.save_checkpoint(state["step"], state)
        job.summary["last_good_step"] = state["step"]
        raise Diverged(f"{error.message} What is left is the model of step {state['step']}.") from error
