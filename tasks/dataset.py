"""What a network is trained on: pictures of one size with their labels, in two parts."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class LabelledPictures:
    """Pictures of one size (n, height, width, 1 or 3) uint8, with a label number each, if there are labels."""

    pictures: np.ndarray
    labels: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, which: np.ndarray) -> "LabelledPictures":
        labels = None if self.labels is None else self.labels[which]
        return LabelledPictures(pictures=self.pictures[which], labels=labels)


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """What a network is trained on, what it is judged by, and what the labels mean."""

    train: LabelledPictures
    held_out: LabelledPictures | None
    label_names: tuple[str, ...]
    skipped: tuple[str, ...] = ()
    """Files of the archive that were broken or no pictures."""
