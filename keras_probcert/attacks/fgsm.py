"""FGSM: one step of the sign of the gradient."""

from keras_probcert.attacks.gradient_attack import GradientAttack


class FGSM(GradientAttack):
    r"""The fast gradient sign method.

    One step of length ε: \(x' = x + \epsilon \cdot \mathrm{sign} \nabla_x \ell(x, y)\).

    Args:
        epsilon: ε, the L∞ radius, in units of the input, above 0; 8/255 by default.
        clip: `(low, high)`, the valid input range, `(0, 1)` by default; `None` for
            no range.

    Raises:
        ValueError: if an argument is out of its range.

    Example:

    >>> import keras, numpy as np
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> x = np.random.rand(5, 4).astype("float32")
    >>> x_adv = FGSM(epsilon=0.1)(model, x, y=[0, 1, 2, 0, 1])
    >>> bool(np.abs(x_adv - x).max() <= 0.1 + 1e-6)
    True

    Reference:

    - Goodfellow, Shlens and Szegedy, "Explaining and Harnessing Adversarial
      Examples" (ICLR 2015), section 4.
    """

    def __init__(self, epsilon=8 / 255, clip=(0.0, 1.0)):
        super().__init__(epsilon, steps=1, step_size=epsilon, clip=clip)
