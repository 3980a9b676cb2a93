"""How far a painting is: what a checkpoint of a style transfer holds."""

from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np


@dataclass
class Scale:
    """What one size of the picture came to."""

    width: int
    height: int
    weights: dict[str, float] = field(default_factory=dict)
    """Of content, style and variation at this size."""
    iterations: int = 0
    evaluations: int = 0
    restarts: int = 0
    """How often an interruption cost L-BFGS its memory."""
    loss_first: float | None = None
    loss_last: float | None = None
    ended_by: str = "iterations"
    """`iterations`, `minimum` (the gradient is zero), or `no_progress` (no step lowers the loss any more)."""
    message: str = ""
    """SciPy's own word on it."""


@dataclass
class Painting:
    """How far a job is: all that changes from evaluation to evaluation."""

    picture: np.ndarray
    """(height, width, 3) float32, where L-BFGS last started its memory anew."""
    scale: int = 0
    """The scale that is worked on, from 0, the coarsest."""
    scales: list[Scale] = field(default_factory=list)
    rows: list[list[float]] = field(default_factory=list)
    """The history up to `picture`."""
    losses: list[tuple[float, ...]] = field(default_factory=list)
    gradients: list[np.ndarray] = field(default_factory=list)
    """Of each evaluation since `picture`: with them the same steps are taken again without the network."""
    step: int = 0
    """What the job had told of itself when this was saved."""
    origin: list[Any] = field(default_factory=list)
    """What these evaluations came from: with another optimiser, other weights or another network they are none."""

    def state(self) -> dict[str, Any]:
        """All that is needed to go on."""
        return {
            "picture": self.picture,
            "scale": self.scale,
            "scales": [asdict(scale) for scale in self.scales],
            "rows": self.rows,
            "losses": np.array(self.losses, np.float64).reshape(-1, 3),
            "gradients": np.array(self.gradients, np.float32).reshape(-1, *self.picture.shape),
            "origin": self.origin,
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "Painting":
        """The inverse of `state`."""
        return cls(
            picture=state["picture"],
            scale=state["scale"],
            scales=[Scale(**scale) for scale in state["scales"]],
            rows=state["rows"],
            losses=[tuple(losses) for losses in state["losses"].tolist()],
            gradients=list(state["gradients"]),
            step=state.get("step", 0),
            origin=state.get("origin", []),
        )

    def keep_trace_of(self, origin: list[Any]) -> None:
        """Forget the evaluations since `picture` if they came from something else: they are of other points."""
        if self.origin != origin:
            self.losses, self.gradients = [], []
        self.origin = origin

    def moved(
        self, picture: np.ndarray, rows: list[list[float]], *, evaluations: int, losses: tuple[float, float]
    ) -> "Painting":
        """The same painting, some iterations of its last scale later.

        Args:
            rows: the history of these iterations, one each.
            losses: the total before the first of them and after the last.
        """
        now = self.scales[-1]
        later = replace(
            now,
            iterations=now.iterations + len(rows),
            evaluations=now.evaluations + evaluations,
            loss_first=losses[0] if now.loss_first is None else now.loss_first,
            loss_last=losses[1],
        )
        return replace(
            self,
            picture=picture,
            scales=[*self.scales[:-1], later],
            rows=self.rows + rows,
            losses=[],
            gradients=[],
        )

    @property
    def iterations(self) -> int:
        return sum(scale.iterations for scale in self.scales)

    @property
    def evaluations(self) -> int:
        return sum(scale.evaluations for scale in self.scales)
