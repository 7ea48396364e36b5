"""Laplace noise."""

import keras
from keras import ops

from keras_probcert.perturbations.perturbation import Perturbation
from keras_probcert.validation import check_number


@keras.saving.register_keras_serializable(package="keras_probcert")
class Laplace(Perturbation):
    """Independent Laplace noise on every coordinate, then clamped to `clip`.

    Args:
        scale: the mean size of the noise of a coordinate, in units of the input, at
            least 0. Its standard deviation is √2 times that.
        clip: `(low, high)`, the valid input range, `(0, 1)` by default; `None`
            for no range.

    Raises:
        ValueError: if an argument is out of its range.

    Example:

    >>> import numpy as np
    >>> t = Laplace(0.25, clip=None)(np.zeros((1, 10_000), "float32"), seed=0)
    >>> round(float(np.mean(np.abs(t))), 2)
    0.25
    """

    def __init__(self, scale, clip=(0.0, 1.0)):
        super().__init__(clip)
        self.scale = check_number("scale", scale)

    def sample(self, x, noise):
        size = noise.exponential(x.shape[2:])
        sign = ops.where(noise.uniform(x.shape[2:]) < 0.5, -1.0, 1.0)
        return self.clamp(x + self.scale * sign * size)

    def get_config(self):
        return {"scale": self.scale, **super().get_config()}
