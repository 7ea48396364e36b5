"""Gaussian noise: no search at all."""

from keras_probcert.attacks.attack import Attack
from keras_probcert.attacks.gradient_attack import standard_normal
from keras_probcert.perturbations.noise import Noise
from keras_probcert.validation import check_number


class GaussianNoise(Attack):
    r"""One draw of \(x + \sigma N(0, 1)\), brought into `clip`.

    Args:
        sigma: σ, in units of the input, at least 0; 0.1 by default.
        clip: `(low, high)`, the valid input range, `(0, 1)` by default; `None` for
            no range.

    Raises:
        ValueError: if an argument is out of its range.

    Example:

    >>> import keras, numpy as np
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> x = np.random.rand(5, 4).astype("float32")
    >>> x_adv = GaussianNoise(sigma=0.1)(model, x, y=[0, 1, 2, 0, 1], seed=0)
    """

    uses_gradients = False

    def __init__(self, sigma=0.1, clip=(0.0, 1.0)):
        super().__init__(clip=clip)
        self.sigma = check_number("sigma", sigma)

    def run(self, model, x, y, seeds):
        return self.clamp(x + self.sigma * standard_normal(x, Noise(seeds, 1)))
