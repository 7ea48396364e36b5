"""Random numbers for copies of rows, each row's from its own seed."""

import math

from keras import ops

from keras_probcert import backend


class Noise:
    """Random numbers of `num_copies` copies of each row.

    The random words of a copy are a function of its row's seed and its sample
    index alone: the same in any batch, on any worker or device, compiled or not,
    to the bit. So are uniform numbers on [0, 1); what goes through a logarithm
    or a cosine may differ in its last bit between compilers. (TensorFlow and JAX
    draw different words.)

    Each call draws from a stream of its own, so a perturbation may call as
    often as it needs, in a fixed order.

    Args:
        seeds: `(rows, 2)` int32, one seed a row.
        num_copies: Python int, copies of each row.
        first: the sample index of the first copy, an int32 scalar or `(rows,)`;
            0 by default.

    Example:

    >>> import numpy as np
    >>> noise = Noise(np.array([[1, 2], [3, 4]], "int32"), num_copies=5)
    >>> tuple(noise.uniform((28, 28, 1)).shape)
    (2, 5, 28, 28, 1)
    """

    def __init__(self, seeds, num_copies, first=0):
        self.seeds = ops.convert_to_tensor(seeds, dtype="int32")
        self.num_copies = num_copies
        rows = ops.shape(self.seeds)[0]
        self._first = ops.broadcast_to(ops.cast(first, "int32"), (rows,))
        self._stream = 0

    def _bits(self, size):
        self._stream += 1
        return backend.random_bits(
            self.seeds, self._first, self.num_copies, size, self._stream
        )

    def _shaped(self, values, shape):
        return ops.reshape(values, (-1, self.num_copies, *shape))

    def uniform(self, shape, minval=0.0, maxval=1.0):
        """Uniform from minval to maxval, `(rows, num_copies, *shape)`.

        On a grid of 2⁻²⁴ of the range; rounding may reach maxval where that is
        not 1.
        """
        bits = self._bits(math.prod(shape))
        # 24 bits fill a float32's mantissa, so 1 is never rounded up to.
        steps = ops.cast(ops.right_shift(bits, 8), "float32")
        values = steps * ((maxval - minval) * 2.0**-24) + minval
        return self._shaped(values, shape)

    def exponential(self, shape):
        """Standard exponential, `(rows, num_copies, *shape)`.

        From 32 bits: beyond 22.8 there is nothing (of probability 10⁻¹⁰).
        """
        bits = ops.cast(self._bits(math.prod(shape)), "float32")
        return self._shaped(-ops.log((bits + 0.5) * 2.0**-32), shape)

    def normal(self, shape):
        """Standard normal by Box and Muller, `(rows, num_copies, *shape)`.

        Beyond 6.7 standard deviations there is nothing (of probability 10⁻¹¹).
        """
        size = math.prod(shape)
        half = -(-size // 2)
        radius = ops.sqrt(2.0 * self.exponential((half,)))
        angle = self.uniform((half,), 0.0, 2.0 * math.pi)
        values = ops.concatenate(
            [radius * ops.cos(angle), radius * ops.sin(angle)], axis=-1
        )
        return self._shaped(values[..., :size], shape)
