"""DI-FGSM: gradients through random resizing and padding."""

from keras import ops

from keras_probcert.attacks.mifgsm import MIFGSM
from keras_probcert.attacks.separable import separable
from keras_probcert.validation import check_bool, check_fraction


class DIFGSM(MIFGSM):
    r"""The diverse inputs iterative fast gradient sign method.

    At each step, with some probability, an image is shrunk to a random size
    (bilinear) and put at a random place on black; the gradient flows through.
    Black is 0, wherever `clip` lies. Every row draws its own size and place.

    Args:
        epsilon: ε, the L∞ radius, in units of the input, above 0; 8/255 by default.
        steps: the number of steps, at least 1; 10 by default.
        step_size: the length of a step in every coordinate, in units of the input;
            `None` (default) for `2.5 * epsilon / steps`.
        decay: μ of the momentum, at least 0; 0 (default) for none.
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
    >>> x_adv = DIFGSM(epsilon=0.1)(model, x, y=[0, 1, 2, 0, 1], seed=0)
    >>> bool(np.abs(x_adv - x).max() <= 0.1 + 1e-6)
    True

    Reference:

    - Xie, Zhang, Zhou, Bai, Wang, Ren and Yuille, "Improving Transferability of
      Adversarial Examples with Input Diversity" (CVPR 2019), section 3.3.
    """

    needs_images = True

    def __init__(
        self,
        epsilon=8 / 255,
        steps=10,
        step_size=None,
        decay=0.0,
        resize_rate=0.9,
        probability=0.5,
        random_start=False,
        clip=(0.0, 1.0),
    ):
        super().__init__(epsilon, steps, step_size, decay, clip)
        self.resize_rate = check_fraction("resize_rate", resize_rate)
        self.probability = check_fraction("probability", probability, closed=True)
        self.random_start = check_bool("random_start", random_start)

    def value(self, model, point, y, x, clean, noise):
        return super().value(model, self._diverse(point, noise), y, x, clean, noise)

    def _diverse(self, x, noise):
        chosen, size, top, left = ops.unstack(noise.uniform((4,))[:, 0], axis=1)
        chosen = chosen < self.probability

        def matrix(length, place):
            least = max(1, int(self.resize_rate * length))
            # At full size there is one place, and the matrix is the identity.
            new = ops.where(chosen, least + ops.floor(size * (length - least)), length)
            return resizing(length, new, ops.floor(place * (length - new)))

        vertical, horizontal = matrix(x.shape[1], top), matrix(x.shape[2], left)
        return separable(x, ops.cast(vertical, x.dtype), ops.cast(horizontal, x.dtype))


def resizing(length, size, offset):
    """Matrices that shrink signals bilinearly and put them on zeros.

    Args:
        length: int, the length of a signal.
        size: float32 tensor `(rows,)`, the lengths to shrink to.
        offset: float32 tensor `(rows,)`, where the shrunken signals begin.

    Returns:
        A tensor, `(rows, length, length)`.
    """
    index = ops.arange(length, dtype="float32")
    place = index[None] - offset[:, None]
    # The centres of the cells of both grids span the same range.
    source = (place + 0.5) * (length / size[:, None]) - 0.5
    distance = ops.abs(ops.clip(source, 0, length - 1)[:, :, None] - index)
    inside = ops.logical_and(place >= 0, place < size[:, None])
    return ops.where(inside[:, :, None], ops.maximum(1.0 - distance, 0.0), 0.0)
