"""EOTPGD: PGD on models that draw at random."""

from keras_probcert.attacks.upgd import UPGD


class EOTPGD(UPGD):
    r"""PGD along the mean of several gradients, for models that draw at random.

    The expectation over transformation (EOT) is the model's own; where a model
    draws nothing, this is PGD. On JAX, models that
    draw fail in the loop of steps.

    Args:
        epsilon: ε, the L∞ radius, in units of the input, above 0; 8/255 by default.
        steps: the number of steps, at least 1; 10 by default.
        step_size: the length of a step in every coordinate, in units of the input;
            `None` (default) for `2.5 * epsilon / steps`.
        eot_iter: how many gradients are averaged, at least 1; 2 by default.
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
    >>> x_adv = EOTPGD(epsilon=0.1)(model, x, y=[0, 1, 2, 0, 1], seed=0)

    Reference:

    - Liu, Li, Wu and Hsieh, "Adv-BNN: Improved Adversarial Defense through Robust
      Bayesian Neural Network" (ICLR 2019), equation 10.
    """

    def __init__(
        self,
        epsilon=8 / 255,
        steps=10,
        step_size=None,
        eot_iter=2,
        random_start=True,
        clip=(0.0, 1.0),
    ):
        super().__init__(
            epsilon,
            steps,
            step_size,
            random_start,
            decay=0.0,
            eot_iter=eot_iter,
            clip=clip,
        )
