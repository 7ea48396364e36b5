"""The L1 ball."""

import math

import keras
from keras import ops

from keras_probcert.perturbations.perturbation import Perturbation
from keras_probcert.validation import check_number


@keras.saving.register_keras_serializable(package="keras_probcert")
class L1(Perturbation):
    """Uniform in the L1 ball, then clamped to `clip`.

    A uniform direction (exponentials with random signs, divided by their sum)
    times `epsilon · u^(1/d)`, u uniform on [0, 1), d the number of coordinates.
    The copy is clamped to `clip` after sampling; there is no exact sampler of
    ball ∩ box in a fixed number of steps, so none is offered.

    Args:
        epsilon: the radius, in units of the input, at least 0.
        clip: `(low, high)`, the valid input range, `(0, 1)` by default; `None`
            for no range.

    Raises:
        ValueError: if an argument is out of its range.

    Example:

    >>> import numpy as np
    >>> x = np.full((1, 100), 0.5, "float32")
    >>> float(abs(np.asarray(L1(2.0)(x, seed=0)) - x).sum()) <= 2.0
    True
    """

    def __init__(self, epsilon, clip=(0.0, 1.0)):
        super().__init__(clip)
        self.epsilon = check_number("epsilon", epsilon)

    def sample(self, x, noise):
        shape = x.shape[2:]
        axes = tuple(range(2, len(x.shape)))
        size = math.prod(shape)
        length = noise.exponential(shape)
        sign = ops.where(noise.uniform(shape) < 0.5, -1.0, 1.0)
        norm = ops.sum(length, axis=axes, keepdims=True)
        radius = self.epsilon * noise.uniform((1,) * len(shape)) ** (1.0 / size)
        # A zero norm has probability 0 but for float32's rounding.
        return self.clamp(x + sign * length * (radius / ops.maximum(norm, 1e-30)))

    def get_config(self):
        return {"epsilon": self.epsilon, **super().get_config()}
