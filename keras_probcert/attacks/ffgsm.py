"""FFGSM: one long step from a random point."""

from keras_probcert.attacks.gradient_attack import GradientAttack


class FFGSM(GradientAttack):
    r"""The fast gradient sign method of fast adversarial training.

    One step of the sign of the gradient from a uniformly random point of the ball.

    Args:
        epsilon: ε, the L∞ radius, in units of the input, above 0; 8/255 by default.
        step_size: the length of the step in every coordinate, in units of the
            input; `None` (default) for `1.25 * epsilon`.
        clip: `(low, high)`, the valid input range, `(0, 1)` by default; `None` for
            no range.

    Raises:
        ValueError: if an argument is out of its range.

    Example:

    >>> import keras, numpy as np
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> x = np.random.rand(5, 4).astype("float32")
    >>> x_adv = FFGSM(epsilon=0.1)(model, x, y=[0, 1, 2, 0, 1], seed=0)
    >>> bool(np.abs(x_adv - x).max() <= 0.1 + 1e-6)
    True

    Reference:

    - Wong, Rice and Kolter, "Fast is Better than Free: Revisiting Adversarial
      Training" (ICLR 2020), algorithm 3.
    """

    random_start = True
    travel = 1.25

    def __init__(self, epsilon=8 / 255, step_size=None, clip=(0.0, 1.0)):
        super().__init__(epsilon, 1, step_size, clip=clip)
