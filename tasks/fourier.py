"""A basis in which natural pictures are decorrelated: the Fourier basis, each frequency by its usual size.

Neighbouring pixels of a picture are alike, so that single pixels are a poor choice of variables: a change of
the coarse structure needs thousands of them to move together. Frequencies, scaled as in natural pictures, are
a better one (Olah et al., Feature Visualization, 2017).
"""

import numpy as np
from scipy import fft


class DecorrelatedBasis:
    """The pictures `origin + S z`, where S is symmetric: it scales every spatial frequency f by (f0 + f)^-power.

    A step of length 1, which L-BFGS takes first since it knows nothing yet, changes the pixels by about a grey level.

    Args:
        origin: (height, width, channels), the picture at z = 0.
        power: 0 for plain pixels; the greater, the more the coarse structure moves in one step.
        f0: keeps the factor of the mean colour finite (cycles per pixel).
    """

    POWER, F0 = 0.5, 0.02

    def __init__(self, origin: np.ndarray, *, power: float = POWER, f0: float = F0) -> None:
        self.origin = np.asarray(origin, np.float64)
        height, width = origin.shape[:2]
        frequency = np.hypot(fft.fftfreq(height)[:, None], fft.rfftfreq(width)[None, :])
        step = 0.5 * np.sqrt(self.origin.size)
        self._factor = step * ((f0 + frequency) ** -power)[..., None]  # (height, width // 2 + 1, 1)

    def picture(self, z: np.ndarray) -> np.ndarray:
        """(height * width * channels,) -> (height, width, channels) float32."""
        return (self.origin + self._scaled(z.reshape(self.origin.shape))).astype(np.float32)

    def gradient(self, picture_gradient: np.ndarray) -> np.ndarray:
        """The gradient by z from the gradient by the picture: (height, width, channels) -> flat float64."""
        return self._scaled(np.asarray(picture_gradient, np.float64)).ravel()

    def _scaled(self, values: np.ndarray) -> np.ndarray:
        spectrum = fft.rfft2(values, axes=(0, 1)) * self._factor
        return np.asarray(fft.irfft2(spectrum, s=values.shape[:2], axes=(0, 1)))
