"""SI-NI-FGSM: Nesterov's momentum, over copies of smaller scale."""

from keras import ops

from keras_probcert.attacks.gradient_attack import mean_gradient
from keras_probcert.attacks.nifgsm import NIFGSM
from keras_probcert.validation import check_integer


class SINIFGSM(NIFGSM):
    r"""NI-FGSM on the mean loss over scaled copies of the input.

    The loss is \(\frac{1}{m} \sum_{i=0}^{m-1} \ell(2^{-i} x', y)\).

    Args:
        epsilon: ε, the L∞ radius, in units of the input, above 0; 8/255 by default.
        steps: the number of steps, at least 1; 10 by default.
        step_size: the length of a step in every coordinate, in units of the input;
            `None` (default) for `2.5 * epsilon / steps`.
        decay: μ of the momentum, at least 0; 1 by default.
        scales: m, the number of copies, at least 1; 5 by default.
        clip: `(low, high)`, the valid input range, `(0, 1)` by default; `None` for
            no range.

    Raises:
        ValueError: if an argument is out of its range.

    Example:

    >>> import keras, numpy as np
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> x = np.random.rand(5, 4).astype("float32")
    >>> x_adv = SINIFGSM(epsilon=0.1)(model, x, y=[0, 1, 2, 0, 1])

    Reference:

    - Lin, Song, He, Wang and Hopcroft, "Nesterov Accelerated Gradient and Scale
      Invariance for Adversarial Attacks" (ICLR 2020), algorithm 1.
    """

    def __init__(
        self,
        epsilon=8 / 255,
        steps=10,
        step_size=None,
        decay=1.0,
        scales=5,
        clip=(0.0, 1.0),
    ):
        super().__init__(epsilon, steps, step_size, decay, clip)
        self.scales = check_integer("scales", scales)

    def gradient(self, value, point, memory, noise):
        gradient = super().gradient

        def at_scale(index):
            scale = ops.power(ops.cast(0.5, point.dtype), ops.cast(index, point.dtype))
            return gradient(lambda x: value(scale * x), point, memory, noise)[0]

        return mean_gradient(at_scale, self.scales, point), memory
