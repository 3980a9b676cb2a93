"""A kind that only the tests register: it counts steps, and leaves a chain of hashes that shows each was done once."""

import hashlib
import os
import signal
import time
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import Field

from shared.errors import Diverged, JobCancelled
from shared.kinds.base import Inputs, JobParams, PictureId

if TYPE_CHECKING:
    from tasks.job_context import JobContext, State


class StepsParams(JobParams):
    """Count, with all that a job can do and all that can go wrong with it."""

    kind: ClassVar[str] = "steps"
    task: ClassVar[str] = "tests.faults.steps"
    imports: ClassVar[tuple[str, ...]] = ()

    steps: int = Field(5, ge=1)
    """How many steps to take."""
    step_s: float = Field(0.0, ge=0)
    """How long each takes (s)."""
    checkpoint_every: int = Field(0, ge=0)
    """Steps between two checkpoints; 0 = as the context decides."""
    checkpoint_takes_s: float = Field(0.0, ge=0)
    """How long it takes to gather a checkpoint's state (s)."""
    preview_bytes: int = Field(64, ge=64)
    """Size of the preview that each checkpoint of `checkpoint_every` leaves."""
    latest: bool = False
    """Whether each checkpoint also leaves a file of one and the same name."""
    trouble: Literal["", "crash", "diverge", "memory", "die", "deaf", "stubborn", "hang", "odd", "hoard"] = ""
    """What goes wrong at half way: an unforeseen error, NaN, no memory, SIGKILL, no more reports, the same and no ear
    for SIGTERM either, no more steps, an exception that is none, ever more memory."""
    image: PictureId | None = None
    """A picture: looked at by the submit check, decoded by the job, left as `picture.png`."""

    def check(self, inputs: Inputs) -> None:
        """A picture must be one."""
        if self.image:
            inputs.picture(self.image, "image")


PARAMS = StepsParams


def chain(steps: int, seed: int) -> str:
    """What `result.txt` holds after `steps` steps, each done exactly once and in order."""
    value = str(seed).encode()
    for step in range(steps):
        value = hashlib.sha256(value + str(step).encode()).digest()
    return value.hex()


def run(params: StepsParams, job: "JobContext") -> None:
    """Take the steps."""
    state = job.resume() or {"value": np.frombuffer(str(params.seed).encode(), np.uint8), "step": 0}
    value = state["value"].tobytes()
    for step in range(int(state["step"]), params.steps):
        if step == params.steps // 2:
            misbehave(params.trouble, job)
        value = hashlib.sha256(value + str(step).encode()).digest()
        time.sleep(params.step_s)
        done = step + 1
        if params.checkpoint_every and done % params.checkpoint_every == 0:
            job.save_artifact(f"preview-{done:04d}.txt", value.hex().encode().ljust(params.preview_bytes))
            if params.latest:
                job.save_artifact("latest.txt", value.hex().encode())
            job.save_checkpoint(done, {"value": np.frombuffer(value, np.uint8)})
        try:
            job.report(done, params.steps, checkpoint=partial(state_of, value, params.checkpoint_takes_s))
        except JobCancelled:
            job.save_artifact("partial.txt", value.hex().encode())
            raise
    if params.image:
        job.save_image("picture.png", job.load_image(params.image))
    job.summary["steps"] = params.steps
    job.save_artifact("result.txt", value.hex().encode())


def state_of(value: bytes, takes_s: float) -> "State":
    """What a checkpoint holds."""
    time.sleep(takes_s)
    return {"value": np.frombuffer(value, np.uint8)}


def misbehave(trouble: str, job: "JobContext") -> None:
    """Go wrong in one of the ways that tasks do."""
    match trouble:
        case "crash":
            raise RuntimeError("an unforeseen thing")
        case "diverge":
            raise Diverged("the loss is NaN at step 3")
        case "memory":
            raise MemoryError
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)
        case "deaf" | "hang":
            time.sleep(3600)
        case "stubborn":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(3600)
        case "hoard":
            hoard = []
            while True:
                hoard.append(b"x" * 2**23)
        case "odd":
            raise KeyboardInterrupt
