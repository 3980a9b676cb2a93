"""Train a variational autoencoder on pictures."""

from typing import ClassVar, Literal

from pydantic import Field

from shared.datasets import DatasetInfo
from shared.kinds.base import Inputs
from shared.kinds.training_pictures import SIDE_OF_MIXED_PX, TrainingPicturesParams

DEEP_FROM_PX = 64
"""From this shorter side on `auto` takes the deeper architecture."""

_FRAMEWORK_BYTES = 600 * 2**20


class VaeTrainParams(TrainingPicturesParams):
    """Train a convolutional VAE on pictures: a latent space to walk in, and to edit pictures through."""

    kind: ClassVar[str] = "vae_train"
    trains: ClassVar[bool] = True

    image_size: int | None = Field(None, ge=4, le=512)
    """Side of the square to which every picture is brought (px); left out, a built-in set and an `.npz` keep
    their size, and the pictures of a zip become 64 px."""
    latent_dim: int = Field(2, ge=1, le=512)
    """Numbers in a latent vector; 2 can be drawn as a plane."""
    beta: float = Field(1.0, ge=0, le=1e6)
    """Weight of the KL loss; 1 is the true bound, more orders the latent space, less sharpens the pictures."""
    reconstruction: Literal["bce", "mse"] = "bce"
    """Reconstruction loss, summed over the picture: binary cross-entropy or squared differences."""
    architecture: Literal["auto", "book", "deep"] = "auto"
    """`book` has two strided convolutions, `deep` four; `auto` is `deep` from 64 px on."""
    epochs: int | None = Field(None, ge=1, le=10_000)
    """Passes over the pictures; left out, 30, or for a small set as many as 3,000 steps take (1,000 at most)."""
    batch_size: int = Field(128, ge=2, le=8192)
    """Pictures per step."""
    learning_rate: float = Field(0.001, gt=0)
    """Step size of Adam."""

    def picture_size(self, info: DatasetInfo) -> tuple[int, int]:
        """Height and width of the pictures as the network sees them."""
        if self.image_size is not None:
            return self.image_size, self.image_size
        return info.height or SIDE_OF_MIXED_PX, info.width or SIDE_OF_MIXED_PX

    def chosen_architecture(self, height: int, width: int) -> Literal["book", "deep"]:
        """The architecture that `auto` stands for at this size."""
        if self.architecture == "auto":
            return "deep" if min(height, width) >= DEEP_FROM_PX else "book"
        return self.architecture

    def check(self, inputs: Inputs) -> None:
        """Refuse what can't be trained on, and what fits into no worker."""
        super().check(inputs)
        self.check_memory(inputs)

    def forecast_bytes(self, inputs: Inputs) -> int:
        """The pictures, and the activations of a batch, their gradients and the space to compute them in."""
        info = self.describe(inputs)
        height, width = self.picture_size(info)
        # Filters of the layers at 1/2, 1/4, ... of the size, in the encoder and in the decoder.
        filters = (32, 64) if self.chosen_architecture(height, width) == "book" else (32, 64, 128, 256)
        values = sum(2 * count * height * width // 4**halved for halved, count in enumerate(filters, start=1))
        values += (filters[0] + 6) * height * width
        return _FRAMEWORK_BYTES + self.data_bytes(info, height, width) + 12 * self.batch_size * int(values)
