"""TI-FGSM: gradients smoothed over shifts."""

import numpy as np
from keras import ops

from keras_probcert.attacks.difgsm import DIFGSM
from keras_probcert.attacks.separable import separable
from keras_probcert.validation import check_choice, check_integer, check_number


class TIFGSM(DIFGSM):
    r"""The translation-invariant attack, on diverse inputs.

    DI-FGSM whose gradients are smoothed by a kernel, each channel alone, with zeros
    beyond the border.

    Args:
        epsilon: ε, the L∞ radius, in units of the input, above 0; 8/255 by default.
        steps: the number of steps, at least 1; 10 by default.
        step_size: the length of a step in every coordinate, in units of the input;
            `None` (default) for `2.5 * epsilon / steps`.
        decay: μ of the momentum, at least 0; 0 (default) for none.
        kernel: `"gaussian"` (default), `"uniform"` or `"linear"`.
        kernel_size: the kernel's height and width, at least 1; 15 by default.
        deviations: how many standard deviations a Gaussian kernel reaches, at least
            0; 3 by default.
        resize_rate: the smallest size, as a part of the height and the width, in
            (0, 1); 0.9 by default.
        probability: how often an image is shrunk, in (0, 1]; 0.5 by default.
        random_start: whether to start at a uniformly random point of the ball or
            at `x` (default).
        clip: `(low, high)`, the valid input range, `(0, 1)` by default; `None` for
            no range.

    Raises:
        ValueError: if an argument is out of its range.

    Example:

    >>> import keras, numpy as np
    >>> flatten, dense = keras.layers.Flatten(), keras.layers.Dense(3)
    >>> model = keras.Sequential([keras.Input((6, 6, 3)), flatten, dense])
    >>> x = np.random.rand(5, 6, 6, 3).astype("float32")
    >>> x_adv = TIFGSM(epsilon=0.1)(model, x, y=[0, 1, 2, 0, 1], seed=0)
    >>> bool(np.abs(x_adv - x).max() <= 0.1 + 1e-6)
    True

    Reference:

    - Dong, Pang, Su and Zhu, "Evading Defenses to Transferable Adversarial Examples
      by Translation-Invariant Attacks" (CVPR 2019), section 3.2.
    """

    def __init__(
        self,
        epsilon=8 / 255,
        steps=10,
        step_size=None,
        decay=0.0,
        kernel="gaussian",
        kernel_size=15,
        deviations=3.0,
        resize_rate=0.9,
        probability=0.5,
        random_start=False,
        clip=(0.0, 1.0),
    ):
        super().__init__(
            *(epsilon, steps, step_size, decay),
            *(resize_rate, probability, random_start, clip),
        )
        check_choice("kernel", kernel, ("gaussian", "uniform", "linear"))
        size = check_integer("kernel_size", kernel_size)
        reach = check_number("deviations", deviations)
        # From -1 to 1; all kernels are products of a row and a column.
        place = np.linspace(-1, 1, size) if size > 1 else np.zeros(1)
        if kernel == "gaussian":
            weights = np.exp(-((reach * place) ** 2) / 2)
        elif kernel == "linear":
            weights = 1 - np.abs(place) * (size - 1) / (size + 1)
        else:
            weights = np.ones(size)
        self.kernel = weights / weights.sum()

    def gradient(self, value, point, memory, noise):
        gradient, memory = super().gradient(value, point, memory, noise)
        vertical, horizontal = (
            ops.convert_to_tensor(smoothing(self.kernel, length), dtype=point.dtype)
            for length in point.shape[1:3]
        )
        return separable(gradient, vertical, horizontal), memory


def smoothing(kernel, length):
    """The matrix that convolves a signal with `kernel`, zeros beyond its ends."""
    middle = (len(kernel) - 1) // 2
    return sum(w * np.eye(length, k=i - middle) for i, w in enumerate(kernel))
