"""PGD: projected gradient ascent from a random point of the ball."""

from keras_probcert.attacks.gradient_attack import GradientAttack
from keras_probcert.validation import check_bool


class PGD(GradientAttack):
    r"""Projected gradient ascent in an L∞ ball, from a random point of it.

    Args:
        epsilon: ε, the L∞ radius, in units of the input, above 0; 8/255 by default.
        steps: the number of steps, at least 1; 10 by default.
        step_size: the length of a step in every coordinate, in units of the input;
            `None` (default) for `2.5 * epsilon / steps`.
        random_start: whether to start at a uniformly random point of the ball
            (default) or at `x`.
        clip: `(low, high)`, the valid input range, `(0, 1)` by default; `None` for
            no range.

    Raises:
        ValueError: if an argument is out of its range.

    Example:

    >>> import keras, numpy as np
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> x = np.random.rand(5, 4).astype("float32")
    >>> x_adv = PGD(epsilon=0.1, steps=20)(model, x, y=[0, 1, 2, 0, 1], seed=0)
    >>> bool(np.abs(x_adv - x).max() <= 0.1 + 1e-6)
    True

    Reference:

    - Madry, Makelov, Schmidt, Tsipras and Vladu, "Towards Deep Learning Models
      Resistant to Adversarial Attacks" (ICLR 2018), section 2.1.
    """

    def __init__(
        self,
        epsilon=8 / 255,
        steps=10,
        step_size=None,
        random_start=True,
        clip=(0.0, 1.0),
    ):
        super().__init__(epsilon, steps, step_size, clip=clip)
        self.random_start = check_bool("random_start", random_start)
