"""The L0 ball."""

import math

import keras
from keras import ops

from keras_probcert.perturbations.perturbation import Perturbation
from keras_probcert.validation import check_integer


@keras.saving.register_keras_serializable(package="keras_probcert")
class L0(Perturbation):
    """Uniform in the L0 ball: `epsilon` coordinates take any valid value.

    Which coordinates is uniform among all sets of `epsilon`; their new values
    are uniform in `clip`. (Copies with fewer changed coordinates are in the
    ball too, and have probability 0 under its uniform law.) A channel of a
    pixel is a coordinate.

    Args:
        epsilon: how many coordinates change, an integer of at least 0 and at
            most the number of coordinates of an input.
        clip: `(low, high)`, the valid input range, `(0, 1)` by default. It is
            the range of the new values, so it cannot be `None`.

    Raises:
        ValueError: if an argument is out of its range.

    Example:

    >>> import numpy as np
    >>> x = np.zeros((1, 8, 8, 1), "float32")
    >>> int((np.asarray(L0(3)(x, seed=0)) != x).sum())
    3
    """

    def __init__(self, epsilon, clip=(0.0, 1.0)):
        if clip is None:
            raise ValueError(
                "`clip` must be a pair (low, high): L0 draws new values from it. "
                "Received: clip=None"
            )
        super().__init__(clip)
        self.epsilon = check_integer("epsilon", epsilon, least=0)

    def sample(self, x, noise):
        shape = x.shape[2:]
        size = math.prod(shape)
        if self.epsilon > size:
            raise ValueError(
                "`epsilon` of L0 must be at most the number of coordinates of an "
                f"input, {size}. Received: epsilon={self.epsilon}"
            )
        keys = noise.uniform((size,))
        x = ops.broadcast_to(ops.reshape(x, (-1, x.shape[1], size)), ops.shape(keys))
        if self.epsilon == 0:
            return ops.reshape(x, (-1, noise.num_copies, *shape))
        values = self.clamp(noise.uniform((self.epsilon,), *self.clip))
        # The places of the largest keys are a uniform set, and distinct even
        # where keys tie.
        _, places = ops.top_k(keys, self.epsilon)
        copies = ops.reshape(x, (-1, size))
        index = ops.repeat(ops.arange(ops.shape(copies)[0]), self.epsilon)
        index = ops.stack([index, ops.reshape(places, (-1,))], axis=-1)
        copies = ops.scatter_update(copies, index, ops.reshape(values, (-1,)))
        return ops.reshape(copies, (-1, noise.num_copies, *shape))

    def get_config(self):
        return {"epsilon": self.epsilon, **super().get_config()}
