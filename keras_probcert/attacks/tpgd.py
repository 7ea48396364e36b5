"""TPGD: the search of TRADES, away from what the model says of the input."""

from keras_probcert.attacks import losses
from keras_probcert.attacks.gradient_attack import GradientAttack, standard_normal


class TPGD(GradientAttack):
    r"""Projected gradient ascent on KL\((p(x) \| p(x'))\).

    Starts at \(x + 0.001 \cdot N(0, 1)\), since the gradient at \(x\) is zero. The
    labels serve only to tell whether what it found may be returned.

    Args:
        epsilon: ε, the L∞ radius, in units of the input, above 0; 8/255 by default.
        steps: the number of steps, at least 1; 10 by default.
        step_size: the length of a step in every coordinate, in units of the input;
            `None` (default) for `2.5 * epsilon / steps`.
        clip: `(low, high)`, the valid input range, `(0, 1)` by default; `None` for
            no range.

    Raises:
        ValueError: if an argument is out of its range.

    Example:

    >>> import keras, numpy as np
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> x = np.random.rand(5, 4).astype("float32")
    >>> x_adv = TPGD(epsilon=0.1)(model, x, y=[0, 1, 2, 0, 1], seed=0)
    >>> bool(np.abs(x_adv - x).max() <= 0.1 + 1e-6)
    True

    Reference:

    - Zhang, Yu, Jiao, Xing, El Ghaoui and Jordan, "Theoretically Principled
      Trade-off between Robustness and Accuracy" (ICML 2019), algorithm 1.
    """

    def __init__(self, epsilon=8 / 255, steps=10, step_size=None, clip=(0.0, 1.0)):
        super().__init__(epsilon, steps, step_size, clip=clip)

    def start(self, x, noise):
        return self.clamp(x + 0.001 * standard_normal(x, noise))

    def value(self, model, point, y, x, clean, noise):
        return losses.kl_divergence(clean, model(point))
