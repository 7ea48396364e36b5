"""VMI-FGSM: momentum on gradients tuned by their variance around a point."""

from keras import ops

from keras_probcert import backend
from keras_probcert.attacks.gradient_attack import mean_gradient
from keras_probcert.attacks.mifgsm import MIFGSM
from keras_probcert.validation import check_integer, check_number


class VMIFGSM(MIFGSM):
    r"""MI-FGSM with variance tuning.

    To the gradient is added how much, at the step before, the mean gradient over N
    points around differed from the gradient. The points are uniform in a cube that
    reaches βε in every coordinate.

    Args:
        epsilon: ε, the L∞ radius, in units of the input, above 0; 8/255 by default.
        steps: the number of steps, at least 1; 10 by default.
        step_size: the length of a step in every coordinate, in units of the input;
            `None` (default) for `2.5 * epsilon / steps`.
        decay: μ of the momentum, at least 0; 1 by default.
        samples: N, at least 1; 5 by default.
        beta: β, at least 0; 1.5 by default.
        clip: `(low, high)`, the valid input range, `(0, 1)` by default; `None` for
            no range.

    Raises:
        ValueError: if an argument is out of its range.

    Example:

    >>> import keras, numpy as np
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> x = np.random.rand(5, 4).astype("float32")
    >>> x_adv = VMIFGSM(epsilon=0.1)(model, x, y=[0, 1, 2, 0, 1], seed=0)

    Reference:

    - Wang and He, "Enhancing the Transferability of Adversarial Attacks through
      Variance Tuning" (CVPR 2021), algorithm 1.
    """

    def __init__(
        self,
        epsilon=8 / 255,
        steps=10,
        step_size=None,
        decay=1.0,
        samples=5,
        beta=1.5,
        clip=(0.0, 1.0),
    ):
        super().__init__(epsilon, steps, step_size, decay, clip)
        self.samples = check_integer("samples", samples)
        self.beta = check_number("beta", beta)

    def memory(self, x):
        return (*super().memory(x), ops.zeros_like(x))

    def gradient(self, value, point, memory, noise):
        velocity, variance = memory
        here, _ = super().gradient(value, point, memory, noise)
        reach = self.beta * self.epsilon
        away = noise.uniform((self.samples, *point.shape[1:]), -reach, reach)[:, 0]

        def around(index):
            near = point + ops.cast(ops.take(away, index, axis=1), point.dtype)
            return backend.input_gradient(value, near)

        mean = mean_gradient(around, self.samples, point)
        return here + variance, (velocity, mean - here)
