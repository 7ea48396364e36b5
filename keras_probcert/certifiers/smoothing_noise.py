"""The noises of randomized smoothing, and the radius that each certifies."""

import math

import numpy as np
from scipy import special

from keras_probcert.perturbations import Gaussian, Laplace, LInf
from keras_probcert.validation import check_choice, check_number

_NORMS = {"l1": 1.0, "l2": 2.0, "linf": math.inf}


class SmoothingNoise:
    r"""Noise of one standard deviation, and the radius it certifies in a norm.

    If the base answers class A on noisy copies of x with probability at least
    \(p_A\), and every other class with probability at most \(p_B\), then A stays the
    most likely answer on all \(x + \delta\) with \(\|\delta\|\) below
    `radius(quantile(p_A) - quantile(p_B), …)`.

    Args:
        sigma: the standard deviation of a coordinate, in units of the input, more
            than 0.
    """

    name = None
    """What `get_noise` knows it by."""

    norm = "l2"
    """The norm that the noise is made for."""

    def __init__(self, sigma):
        self.sigma = check_number("sigma", sigma)
        if not self.sigma > 0:
            raise ValueError(f"`sigma` must be more than 0. Received: sigma={sigma}")

    @property
    def perturbation(self):
        """Draws the noisy copies; they may leave the input range."""
        raise NotImplementedError

    def quantile(self, probability):
        """What differences are taken of, float64, increasing in the probability."""
        return probability

    def radius(self, gap, norm, dimension, ops=np):
        """The radius that a difference of quantiles certifies.

        Args:
            gap: `quantile(p_A) - quantile(p_B)`, more than 0.
            norm: p of the L_p norm, in [1, ∞].
            dimension: the number of coordinates of an input.
            ops: `keras.ops` where `gap` is a tensor.
        """
        own = _NORMS[self.norm]
        # ‖δ‖_own ≤ d^(1/own − 1/norm) ‖δ‖_norm, and without the factor if norm < own.
        exponent = min(0.0, 1 / norm - 1 / own)
        return self._own_radius(gap, ops) * dimension**exponent

    def _own_radius(self, gap, ops):
        raise NotImplementedError

    def get_config(self):
        """The arguments that make a certifier with this noise again."""
        return {"sigma": self.sigma, "noise": self.name}


class GaussianNoise(SmoothingNoise):
    r"""Gaussian noise: \(\frac\sigma2(\Phi^{-1}(p_A) - \Phi^{-1}(p_B))\) in L2.

    Reference:

    - Cohen, Rosenfeld and Kolter (ICML 2019), theorem 1. For other norms by
      \(\|\delta\|_2 \le d^{1/2-1/p}\|\delta\|_p\); for L∞ no noise is much better
      (Yang et al., ICML 2020, section 5).
    """

    name, norm = "gaussian", "l2"

    @property
    def perturbation(self):
        return Gaussian(self.sigma, clip=None)

    def quantile(self, probability):
        return special.ndtri(probability)

    def _own_radius(self, gap, ops):
        return self.sigma / 2 * gap


class UniformNoise(SmoothingNoise):
    r"""Uniform noise on \([-\lambda, \lambda]^d\), \(\lambda = \sqrt3\sigma\).

    The cubes around x and x + δ share \(\prod_i (1 - |\delta_i| / 2\lambda)\) of their
    volume, and no probability changes by more than the rest: \(\lambda(p_A - p_B)\)
    in L1, \(2\lambda(1 - (1 - (p_A - p_B)/2)^{1/d})\) in L∞.

    Reference:

    - Yang, Duan, Hu, Salman, Razenshteyn and Li, "Randomized Smoothing of All Shapes
      and Sizes" (ICML 2020), table 1.
    """

    name, norm = "uniform", "l1"

    @property
    def _half_width(self):
        return math.sqrt(3) * self.sigma

    @property
    def perturbation(self):
        return LInf(self._half_width, clip=None)

    def _own_radius(self, gap, ops):
        return self._half_width * gap

    def radius(self, gap, norm, dimension, ops=np):
        if norm == 1:
            return self._own_radius(gap, ops)
        # The L∞ ball holds the ball of every other norm.
        share = -ops.expm1(ops.log1p(-gap / 2) / dimension)
        in_linf = 2 * self._half_width * share
        return ops.maximum(super().radius(gap, norm, dimension, ops), in_linf)


class LaplaceNoise(SmoothingNoise):
    r"""Laplace noise of scale \(\lambda = \sigma/\sqrt2\).

    The density at x + δ is at most \(e^{\|\delta\|_1/\lambda}\) times that at x, so
    the probabilities of A's failing and of B grow by no more than that factor:
    \(-\lambda\log(1 - p_A + p_B)\) in L1.

    Reference:

    - Teng, Lee and Yuan, "L1 Adversarial Robustness Certificates: a Randomized
      Smoothing Approach" (2020); Yang et al. (ICML 2020), table 1.
    """

    name, norm = "laplace", "l1"

    @property
    def _scale(self):
        return self.sigma / math.sqrt(2)

    @property
    def perturbation(self):
        return Laplace(self._scale, clip=None)

    def _own_radius(self, gap, ops):
        return -self._scale * ops.log1p(-gap)


NOISES = {noise.name: noise for noise in (GaussianNoise, UniformNoise, LaplaceNoise)}


def get_noise(noise, sigma):
    """The noise of the name `noise` and standard deviation `sigma`."""
    return NOISES[check_choice("noise", noise, NOISES)](sigma)


def norm_order(norm):
    """p of an L_p norm given as `"l1"`, `"l2"`, `"linf"` or a number in [1, ∞].

    Raises:
        ValueError: if it is nothing of that.
    """
    if isinstance(norm, str) and norm in _NORMS:
        return _NORMS[norm]
    if isinstance(norm, (int, float)) and not isinstance(norm, bool) and norm >= 1:
        return float(norm)
    raise ValueError(
        "`norm` must be 'l1', 'l2', 'linf' or a number of at least 1. "
        f"Received: norm={norm!r}"
    )
