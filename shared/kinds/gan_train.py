"""Train a generative adversarial network on pictures."""

from typing import ClassVar, Literal

from pydantic import Field

from shared.errors import InvalidInput
from shared.kinds.base import Inputs
from shared.kinds.training_pictures import TrainingPicturesParams

_FRAMEWORK_BYTES = 700 * 2**20


class GanTrainParams(TrainingPicturesParams):
    """Train a DCGAN on pictures: a generator that makes new ones like them."""

    kind: ClassVar[str] = "gan_train"
    trains: ClassVar[bool] = True

    image_size: Literal[32, 64, 96, 128] = 32
    """Side of the square to which every picture is brought (px)."""
    latent_dim: int = Field(128, ge=1, le=1024)
    """Numbers in a latent vector, drawn from a standard normal."""
    base_channels: int = Field(64, ge=4, le=512)
    """Channels of the discriminator's first layer; they double with each halving, up to eight times."""
    epochs: int | None = Field(None, ge=1, le=100_000)
    """Passes over the pictures; left out together with `steps`, 30, or for a small set as many as 3,000 steps take
    (1,000 at most)."""
    steps: int | None = Field(None, ge=1, le=100_000_000)
    """Updates of both networks, instead of epochs."""
    generator_learning_rate: float = Field(0.0002, gt=0)
    """Step size of the generator's Adam."""
    discriminator_learning_rate: float = Field(0.0002, gt=0)
    """Step size of the discriminator's Adam."""
    beta_1: float = Field(0.5, ge=0, lt=1)
    """Momentum of both Adams."""
    batch_norm: bool = True
    """Batch normalization in the generator."""
    dropout: float = Field(0.3, ge=0, lt=1)
    """Share of the discriminator's last features that is dropped in training."""
    label_noise: float = Field(0.05, ge=0, le=1)
    """Uniform noise that moves the discriminator's labels towards the other side; they stay within 0 and 1."""
    real_label: float = Field(0.9, gt=0.5, le=1)
    """Label of real pictures (one-sided smoothing); 1 turns it off."""
    ema: float = Field(0.995, ge=0, lt=1)
    """How slowly the generator that is kept follows the one that is trained, per step; 0 keeps the latter."""
    two_passes: bool = False
    """Draw new pictures for the generator's update, after the discriminator's: the textbook form, and slower."""
    kid_network: Literal["squeezenet", "inception_v3"] = "squeezenet"
    """The ImageNet network in whose features the kernel inception distance (KID) is taken."""
    kid_pictures: int = Field(500, ge=0, le=10_000)
    """How many generated and held-out pictures the KID compares at each look; 0 leaves it out."""

    def check(self, inputs: Inputs) -> None:
        """Refuse what can't be trained on, what fits into no worker, and two ways of saying how long."""
        super().check(inputs)
        if self.epochs is not None and self.steps is not None:
            raise InvalidInput("Give either epochs or steps, not both.", field="steps")
        self.check_memory(inputs)
        if 0 < self.kid_pictures < 2:
            raise InvalidInput("The KID compares at least 2 pictures; 0 leaves it out.", field="kid_pictures")

    def forecast_bytes(self, inputs: Inputs) -> int:
        """The pictures, a batch's activations in both networks with their gradients, the weights with their moments."""
        halvings = {32: 3, 64: 4, 96: 4, 128: 5}[self.image_size]
        filters = [self.base_channels * 2 ** min(index, 3) for index in range(halvings)]
        sides = [self.image_size // 2 ** (index + 1) for index in range(halvings)]
        # Per picture: the discriminator sees real and generated ones, the generator makes the latter; each value is
        # kept before and after its activation, and has a gradient.
        values = 3 * 3 * sum(count * side**2 for count, side in zip(filters, sides, strict=True))
        values += 12 * self.image_size**2
        weights = sum(2 * 16 * before * after for before, after in zip([3, *filters], filters, strict=False))
        weights += self.latent_dim * filters[-1] * sides[-1] ** 2
        pictures = self.data_bytes(self.describe(inputs), self.image_size, self.image_size)
        return _FRAMEWORK_BYTES + pictures + 4 * int(self.batch_size * values + 6 * weights)
