"""Jitter: rescaled logits under noise, which hide no gradient."""

from keras import ops

from keras_probcert.attacks.gradient_attack import standard_normal
from keras_probcert.attacks.pgd import PGD
from keras_probcert.validation import check_number


class Jitter(PGD):
    r"""PGD on how far noisy, rescaled class probabilities are from the label.

    With logits \(z\), climbs

    \[\lVert \mathrm{softmax}(s\, z / \lVert z \rVert_\infty) + \sigma N(0, 1)
    - e_y \rVert_2^2,\]

    divided by \(\lVert x' - x \rVert_\infty\) once \(x'\) is misclassified.

    Args:
        epsilon: ε, the L∞ radius, in units of the input, above 0; 8/255 by default.
        steps: the number of steps, at least 1; 10 by default.
        step_size: the length of a step in every coordinate, in units of the input;
            `None` (default) for `2.5 * epsilon / steps`.
        scale: s, above 0; 10 by default.
        sigma: σ, the standard deviation of the noise, at least 0; 0.1 by default.
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
    >>> x_adv = Jitter(epsilon=0.1)(model, x, y=[0, 1, 2, 0, 1], seed=0)

    Reference:

    - Schwinn, Raab, Nguyen, Zanca and Eskofier, "Exploring Misclassifications of
      Robust Neural Networks to Enhance Adversarial Attacks" (Applied Intelligence
      2023), equation 8.
    """

    def __init__(
        self,
        epsilon=8 / 255,
        steps=10,
        step_size=None,
        scale=10.0,
        sigma=0.1,
        random_start=True,
        clip=(0.0, 1.0),
    ):
        super().__init__(epsilon, steps, step_size, random_start, clip)
        if check_number("scale", scale) == 0:
            raise ValueError(f"`scale` must be above 0. Received: scale={scale!r}")
        self.scale = scale
        self.sigma = check_number("sigma", sigma)

    def value(self, model, point, y, x, clean, noise):
        logits = model(point)
        size = ops.max(ops.abs(logits), axis=1, keepdims=True)
        p = ops.softmax(self.scale * logits / ops.where(size > 0, size, 1.0), axis=1)
        p = p + self.sigma * standard_normal(logits, noise)
        error = ops.square(p - ops.one_hot(y, logits.shape[1], dtype=p.dtype))
        axes = tuple(range(1, len(x.shape)))
        length = ops.cast(ops.max(ops.abs(point - x), axis=axes), p.dtype)
        wrong = ops.not_equal(ops.argmax(logits, axis=1), y)
        divided = ops.logical_and(wrong, length > 0)
        return ops.sum(error, axis=1) / ops.where(divided, length, 1.0)
