"""Gaussian noise."""

import keras

from keras_probcert.perturbations.perturbation import Perturbation
from keras_probcert.validation import check_number


@keras.saving.register_keras_serializable(package="keras_probcert")
class Gaussian(Perturbation):
    """Independent Gaussian noise on every coordinate, then clamped to `clip`.

    Args:
        sigma: the standard deviation, in units of the input, at least 0.
        clip: `(low, high)`, the valid input range, `(0, 1)` by default; `None`
            for no range.

    Raises:
        ValueError: if an argument is out of its range.

    Example:

    >>> import numpy as np
    >>> t = Gaussian(0.25, clip=None)(np.zeros((1, 10_000), "float32"), seed=0)
    >>> round(float(np.std(t)), 2)
    0.25
    """

    def __init__(self, sigma, clip=(0.0, 1.0)):
        super().__init__(clip)
        self.sigma = check_number("sigma", sigma)

    def sample(self, x, noise):
        return self.clamp(x + self.sigma * noise.normal(x.shape[2:]))

    def get_config(self):
        return {"sigma": self.sigma, **super().get_config()}
