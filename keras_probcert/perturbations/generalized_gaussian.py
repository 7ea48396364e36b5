"""Generalized Gaussian noise: a uniform direction, and a radius of a wider law."""

import functools
import math

import keras
import numpy as np
from keras import ops
from scipy import special

from keras_probcert.perturbations.perturbation import Perturbation
from keras_probcert.validation import check_number

# The exponential noise ends at 22.9.
_END, _INTERVALS = 23.0, 4096


@keras.saving.register_keras_serializable(package="keras_probcert")
class GeneralizedGaussian(Perturbation):
    r"""Noise of a density \(\propto \|z\|^{-2k} e^{-\|z\|^2 / (2\sigma'^2)}\).

    \(\sigma' = \sigma\sqrt{d / (d - 2k)}\) makes σ the standard deviation of each of
    the d coordinates. The direction is uniform and
    \(\|z\|^2 / (2\sigma'^2)\) has the Gamma law of shape d/2 − k: the smaller that
    is, the more the norm varies. k = 0 is Gaussian noise.

    The norm comes from the inverse of the law's distribution function, interpolated
    between 4,097 points: to about 10⁻⁶ of the norm, the rounding of float32. Norms of
    both tails of probability 10⁻¹⁰ are never drawn.

    Args:
        sigma: σ, in units of the input, at least 0 (without `truncate`: with it, σ
            is that of the noise before it is truncated).
        k: the exponent, at least 0 and less than half the number of coordinates; 380
            for MNIST and 1530 for CIFAR-10 in the paper.
        clip: `(low, high)`, the range into which copies are brought; `None` (default)
            for no range.
        truncate: T, in units of the input, more than 0: the noise given that its norm
            is at most T. `None` (default) for no truncation.

    Raises:
        ValueError: if an argument is out of its range, which for `k` and `truncate`
            depends on the shape of the input.

    Example:

    >>> import numpy as np
    >>> x = np.zeros((1000, 28, 28, 1), "float32")
    >>> z = np.asarray(GeneralizedGaussian(0.5, k=380)(x, seed=0))
    >>> round(float(np.std(z)), 1)
    0.5

    Reference:

    - Li, Zhang, Xie and Li, "Double Sampling Randomized Smoothing" (ICML 2022),
      definition 2; Zhang et al., "Black-Box Certification with Randomized Smoothing"
      (NeurIPS 2020).
    """

    def __init__(self, sigma, k, clip=None, truncate=None):
        super().__init__(clip)
        self.sigma = check_number("sigma", sigma)
        self.k = check_number("k", k)
        if truncate is not None:
            truncate = check_number("truncate", truncate)
            if not truncate > 0:
                raise ValueError(
                    f"`truncate` must be more than 0, or None. Received: {truncate=}"
                )
        self.truncate = truncate

    def sample(self, x, noise):
        row = x.shape[2:]
        dimension = math.prod(row)
        scale = scale_of(self.sigma, self.k, dimension)
        direction = noise.normal((dimension,))
        length = ops.sqrt(ops.sum(direction**2, axis=-1, keepdims=True))
        factor = scale * math.sqrt(2) * self._root(noise, dimension, scale)
        if self.truncate is not None:
            factor = ops.minimum(factor, self.truncate)
        z = direction * (factor / ops.maximum(length, 1e-30))
        return self.clamp(x + ops.reshape(z, (-1, noise.num_copies, *row)))

    def _root(self, noise, dimension, scale):
        """√t of a Gamma variable t, `(rows, num_copies, 1)`."""
        share = 1.0
        if self.truncate is not None and self.sigma > 0:
            limit = self.truncate**2 / (2 * scale**2)
            share = float(special.gammainc(dimension / 2 - self.k, limit))
            if share < 1e-9:
                raise ValueError(
                    "`truncate` must leave the noise a probability of at least 1e-9. "
                    f"Received: truncate={self.truncate}, which leaves {share:.3g}"
                )
        logs, slopes = _log_quantiles(dimension / 2 - self.k, share)
        # A Laplace variable reaches both tails with float32's relative precision.
        sign = ops.where(noise.uniform((1,)) < 0.5, -1.0, 1.0)
        place = (sign * noise.exponential((1,)) + _END) * (_INTERVALS / (2 * _END))
        left = ops.clip(ops.cast(place, "int32"), 0, _INTERVALS - 1)
        u = place - ops.cast(left, "float32")

        def at(table, index):
            return ops.take(ops.convert_to_tensor(table), index)

        # Hermite's cubic through values and slopes at both ends.
        a, b = at(logs, left), at(logs, left + 1)
        slope_a, slope_b = at(slopes, left), at(slopes, left + 1)
        step = b - a
        curve = (slope_a - step) * (1 - u) - (slope_b - step) * u
        return ops.exp(0.5 * (a + u * step + u * (1 - u) * curve))

    def norm_quantile(self, probability, dimension):
        """The norm that noise without `truncate` stays within with a probability.

        Args:
            probability: in (0, 1).
            dimension: the number of coordinates.
        """
        t = special.gammaincinv(dimension / 2 - self.k, probability)
        return scale_of(self.sigma, self.k, dimension) * math.sqrt(2 * t)

    def get_config(self):
        return {
            "sigma": self.sigma,
            "k": self.k,
            **super().get_config(),
            "truncate": self.truncate,
        }


def scale_of(sigma, k, dimension):
    """σ' of the generalized Gaussian noise of standard deviation `sigma`.

    Raises:
        ValueError: if `k` is not less than half the dimension.
    """
    if not 2 * k < dimension:
        raise ValueError(
            f"`k` must be less than half the number of coordinates, {dimension}. "
            f"Received: k={k}"
        )
    return sigma * math.sqrt(dimension / (dimension - 2 * k))


@functools.lru_cache(maxsize=64)
def _log_quantiles(shape, share):
    """log t(w) and its slopes on the grid of w, float32.

    t(w) is the Gamma quantile of `share` times the Laplace distribution function at w.
    """
    w = np.linspace(-_END, _END, _INTERVALS + 1)
    half = 0.5 * np.exp(-np.abs(w))
    lower = special.gammaincinv(shape, share * half)
    upper = special.gammainccinv(shape, 1 - share + share * half)
    t = np.where(w < 0, lower, upper)
    log_density = special.xlogy(shape, t) - t - special.gammaln(shape)
    slopes = share * half * np.exp(-log_density)
    step = 2 * _END / _INTERVALS
    return np.log(t).astype("float32"), (slopes * step).astype("float32")
