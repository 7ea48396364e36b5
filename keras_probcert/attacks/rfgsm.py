"""R+FGSM: gradient steps after one random step."""

from keras import ops

from keras_probcert.attacks.gradient_attack import GradientAttack, standard_normal


class RFGSM(GradientAttack):
    r"""Steps of the sign of the gradient, the first of them of random signs.

    Starts at \(x + \alpha \cdot \mathrm{sign}\, N(0, 1)\), where α is the step size.

    Args:
        epsilon: ε, the L∞ radius, in units of the input, above 0; 8/255 by default.
        steps: the number of steps after the random one, at least 1; 10 by default.
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
    >>> x_adv = RFGSM(epsilon=0.1)(model, x, y=[0, 1, 2, 0, 1], seed=0)
    >>> bool(np.abs(x_adv - x).max() <= 0.1 + 1e-6)
    True

    Reference:

    - Tramèr, Kurakin, Papernot, Goodfellow, Boneh and McDaniel, "Ensemble
      Adversarial Training: Attacks and Defenses" (ICLR 2018), section 4.1.
    """

    def __init__(self, epsilon=8 / 255, steps=10, step_size=None, clip=(0.0, 1.0)):
        super().__init__(epsilon, steps, step_size, clip=clip)

    def start(self, x, noise):
        signs = ops.sign(standard_normal(x, noise))
        return self.clamp(x + self.search.step_size * signs)
