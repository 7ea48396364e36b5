"""MI-FGSM: gradient steps with momentum."""

from keras import ops

from keras_probcert.attacks.gradient_attack import GradientAttack, momentum
from keras_probcert.validation import check_number


class MIFGSM(GradientAttack):
    r"""The momentum iterative fast gradient sign method.

    Follows the sign of \(g \leftarrow \mu g + \nabla \ell / \lVert\nabla
    \ell\rVert\), with the mean absolute coordinate as the norm.

    Args:
        epsilon: ε, the L∞ radius, in units of the input, above 0; 8/255 by default.
        steps: the number of steps, at least 1; 10 by default.
        step_size: the length of a step in every coordinate, in units of the input;
            `None` (default) for `2.5 * epsilon / steps`.
        decay: μ, at least 0; 1 by default.
        clip: `(low, high)`, the valid input range, `(0, 1)` by default; `None` for
            no range.

    Raises:
        ValueError: if an argument is out of its range.

    Example:

    >>> import keras, numpy as np
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> x = np.random.rand(5, 4).astype("float32")
    >>> x_adv = MIFGSM(epsilon=0.1)(model, x, y=[0, 1, 2, 0, 1])

    Reference:

    - Dong, Liao, Pang, Su, Zhu, Hu and Li, "Boosting Adversarial Attacks with
      Momentum" (CVPR 2018), algorithm 1.
    """

    def __init__(
        self, epsilon=8 / 255, steps=10, step_size=None, decay=1.0, clip=(0.0, 1.0)
    ):
        super().__init__(epsilon, steps, step_size, clip=clip)
        self.decay = check_number("decay", decay)

    def memory(self, x):
        return (ops.zeros_like(x),)

    def direction(self, gradient, memory):
        velocity, *rest = memory
        velocity = momentum(gradient, velocity, self.decay)
        return self.search.direction(velocity), (velocity, *rest)
