"""VNI-FGSM: variance tuning on Nesterov's momentum."""

from keras_probcert.attacks.nifgsm import NIFGSM
from keras_probcert.attacks.vmifgsm import VMIFGSM


class VNIFGSM(VMIFGSM, NIFGSM):
    r"""NI-FGSM with variance tuning: VMI-FGSM with the gradient taken ahead.

    Args:
        epsilon: ε, the L∞ radius, in units of the input, above 0; 8/255 by default.
        steps: the number of steps, at least 1; 10 by default.
        step_size: the length of a step in every coordinate, in units of the input;
            `None` (default) for `2.5 * epsilon / steps`.
        decay: μ of the momentum, at least 0; 1 by default.
        samples: N, the number of points around, at least 1; 5 by default.
        beta: β, how far they lie in units of ε, at least 0; 1.5 by default.
        clip: `(low, high)`, the valid input range, `(0, 1)` by default; `None` for
            no range.

    Raises:
        ValueError: if an argument is out of its range.

    Example:

    >>> import keras, numpy as np
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> x = np.random.rand(5, 4).astype("float32")
    >>> x_adv = VNIFGSM(epsilon=0.1)(model, x, y=[0, 1, 2, 0, 1], seed=0)

    Reference:

    - Wang and He, "Enhancing the Transferability of Adversarial Attacks through
      Variance Tuning" (CVPR 2021), section 3.3.
    """
