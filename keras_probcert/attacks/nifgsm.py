"""NI-FGSM: momentum that looks ahead."""

from keras_probcert.attacks.mifgsm import MIFGSM


class NIFGSM(MIFGSM):
    r"""MI-FGSM with Nesterov's gradient.

    The gradient is taken where the momentum leads, at \(x' + \alpha \mu g\) with
    step size α and momentum g.

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
    >>> x_adv = NIFGSM(epsilon=0.1)(model, x, y=[0, 1, 2, 0, 1])

    Reference:

    - Lin, Song, He, Wang and Hopcroft, "Nesterov Accelerated Gradient and Scale
      Invariance for Adversarial Attacks" (ICLR 2020), section 3.1.
    """

    def gradient(self, value, point, memory, noise):
        ahead = point + self.search.step_size * self.decay * memory[0]
        return super().gradient(value, ahead, memory, noise)
