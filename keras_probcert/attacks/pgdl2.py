"""PGDL2: projected gradient ascent in the Euclidean ball."""

from keras import ops

from keras_probcert.attacks.gradient_attack import GradientAttack, standard_normal
from keras_probcert.validation import check_bool


class PGDL2(GradientAttack):
    r"""Projected gradient ascent in an L2 ball, from a random point of it.

    The start lies in a uniformly random direction, at a uniformly random distance.

    Args:
        epsilon: ε, the L2 radius, in units of the input, above 0; 1 by default.
        steps: the number of steps, at least 1; 10 by default.
        step_size: the L2 length of a step, in units of the input; `None` (default)
            for `2 * epsilon / steps`.
        random_start: whether to start at a random point of the ball (default) or
            at `x`.
        clip: `(low, high)`, the valid input range, `(0, 1)` by default; `None` for
            no range.

    Raises:
        ValueError: if an argument is out of its range.

    Example:

    >>> import keras, numpy as np
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> x = np.random.rand(5, 4).astype("float32")
    >>> x_adv = PGDL2(epsilon=0.5)(model, x, y=[0, 1, 2, 0, 1], seed=0)
    >>> bool(np.linalg.norm(x_adv - x, axis=1).max() <= 0.5 + 1e-6)
    True

    Reference:

    - Madry, Makelov, Schmidt, Tsipras and Vladu, "Towards Deep Learning Models
      Resistant to Adversarial Attacks" (ICLR 2018), section 5.
    """

    travel = 2.0

    def __init__(
        self, epsilon=1.0, steps=10, step_size=None, random_start=True, clip=(0.0, 1.0)
    ):
        super().__init__(epsilon, steps, step_size, "l2", clip)
        self.random_start = check_bool("random_start", random_start)

    def start(self, x, noise):
        if not self.random_start:
            return x
        direction = self.search.direction(standard_normal(x, noise))
        distance = noise.uniform([1] * (len(x.shape) - 1), maxval=self.epsilon)[:, 0]
        return self.clamp(x + ops.cast(distance, x.dtype) * direction)
