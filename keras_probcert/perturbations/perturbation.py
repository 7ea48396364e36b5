"""The contract of every perturbation."""

import math

import keras
from keras import ops

from keras_probcert.perturbations.noise import Noise
from keras_probcert.seeds import resolve_seed
from keras_probcert.validation import check_inputs


class Perturbation:
    """A vicinity B(x) of an input together with a law to draw from it.

    Called on a batch, it returns one perturbed copy of each row, drawn
    independently and inside `clip`. The copy of a row depends on the row and
    its seed alone, not on the other rows.

    Subclasses implement `sample`, and `get_config` where they have arguments of
    their own.

    Args:
        clip: `(low, high)`, the valid input range, into which every copy is
            brought; `None` for no range.

    Raises:
        ValueError: if `clip` is not an increasing pair of finite numbers.

    Example:

    >>> import numpy as np
    >>> x = np.full((2, 4), 0.5, "float32")
    >>> t = LInf(0.1)(x, seed=0)
    >>> bool(abs(np.asarray(t) - x).max() <= 0.1)
    True
    """

    def __init__(self, clip=(0.0, 1.0)):
        if clip is not None:
            try:
                low, high = (float(end) for end in clip)
            except (TypeError, ValueError):
                low = high = math.nan
            if isinstance(clip, str):
                low = high = math.nan
            if not (math.isfinite(low) and math.isfinite(high) and low < high):
                raise ValueError(
                    "`clip` must be a pair (low, high) with low < high, or None. "
                    f"Received: clip={clip}"
                )
            clip = (low, high)
        self.clip = clip

    def __call__(self, x, seed=None):
        """One perturbed copy of each row.

        Args:
            x: float array or tensor, `(rows, …)`, inside `clip`.
            seed: `None` for fresh noise, an int, or one int32 seed a row,
                `(rows, 2)` (see `row_seeds`).

        Returns:
            A tensor of the shape of `x`, float32.

        Raises:
            ValueError: if `x` is empty, has no floating-point dtype, or a value
                that is NaN, infinite or outside `clip`.
        """
        x = ops.convert_to_tensor(check_inputs(x, self.clip), dtype="float32")
        rows = x.shape[0] if x.shape[0] is not None else ops.shape(x)[0]
        return self.sample(x[:, None], Noise(resolve_seed(seed, rows), 1))[:, 0]

    def sample(self, x, noise):
        """Perturbed copies of each row.

        Args:
            x: float32 tensor, `(rows, 1, …)`, or `(rows, copies, …)` where the
                copies differ already.
            noise: the `Noise` to draw from.

        Returns:
            A float32 tensor, `(rows, noise.num_copies, …)`.
        """
        raise NotImplementedError

    def check_shape(self, shape):
        """Checks that rows of `shape` can be perturbed; any can, by default.

        Raises:
            ValueError: if they cannot.
        """

    def clamp(self, x):
        """`x` brought into `clip`, coordinate by coordinate."""
        return x if self.clip is None else ops.clip(x, *self.clip)

    def get_config(self):
        return {"clip": self.clip}

    @classmethod
    def from_config(cls, config):
        return cls(**config)

    def __repr__(self):
        arguments = ", ".join(f"{k}={v!r}" for k, v in self.get_config().items())
        return f"{type(self).__name__}({arguments})"


def get(perturbation):
    """`perturbation` itself, checked, or deserialized from its config."""
    if isinstance(perturbation, dict):
        perturbation = keras.saving.deserialize_keras_object(perturbation)
    if not isinstance(perturbation, Perturbation):
        raise ValueError(
            "`perturbation` must be a keras_probcert.Perturbation, such as "
            f"LInf(8 / 255). Received: {perturbation!r}"
        )
    return perturbation
