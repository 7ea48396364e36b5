"""Double sampling: the radius that probabilities under two noises certify."""

import functools
import math

import numpy as np
from scipy import optimize, special

from keras_probcert.perturbations.generalized_gaussian import scale_of
from keras_probcert.validation import check_fraction, check_integer, check_number

# Panels of the quadrature end at these quantiles of the Gamma law, on both sides.
_QUANTILES = np.array([1e-18, 1e-13, 1e-9, 1e-6, 1e-4, 0.01, 0.1, 0.3])
# Nodes a panel: of the search, of the answer, and of the check of the answer.
_COARSE, _FINE, _FINEST = 8, 24, 48
# Where the logarithm of a multiplier is looked for.
_RANGE = (-60.0, 3000.0)
# The relative error that SciPy's special functions are granted.
_ROUNDING = 1e-9


class DoubleSampling:
    r"""The certificate of double-sampling randomized smoothing.

    P is generalized Gaussian noise, Q the same with a smaller σ or truncated. If the
    base answers class A with probability at least `first` under P around x and at
    least `second` under Q, then A keeps more than ½ under P around every x + δ with
    \(\|\delta\|_2 <\) `radius(first, second)`.

    What a base can do at worst at \(\|\delta\| = r\) is the minimum of
    \(P_\delta(f)\) over all \(f: R^d \to [0, 1]\) with \(P(f) \ge P_A\) and
    \(Q(f) \ge Q_A\). Every pair \(\lambda_1, \lambda_2 \ge 0\) bounds it from below:

    \[P_\delta(f) \ge P_\delta(S) - \lambda_1 (P(S) - P_A) - \lambda_2 (Q(S) - Q_A),
    \quad S = \{z : p(z - \delta) < \lambda_1 p(z) + \lambda_2 q(z)\},\]

    and the best pair, at which both brackets vanish or the multiplier does, attains
    it. S is a cap of every sphere around 0, so the three probabilities are integrals
    over one Gamma variable of distribution functions of a Beta law.

    Larger shifts are never easier. \(h = \lambda_1 p + \lambda_2 q\) falls with the
    norm, so of two points that mirror each other in the plane through δ's end,
    perpendicular to it, the one nearer to 0 is in S if the other is: moving δ on can
    only lessen \(P_\delta(S)\). So a bound above ½ at distance r holds for every
    shorter δ too. Upper bounds on \(P_A\) and \(Q_A\) could only enter with negative
    multipliers, for which this argument fails; they are not needed.

    Rounding is outward: only the multipliers come from a search; with them the
    right side is computed on two grids, and their difference (ten times) and 10⁻⁹ of
    the size of its terms are subtracted. What the grids leave out of the tails would
    only increase it. The radius is never below the Neyman-Pearson radius of `first`,
    which needs no Q. A bound of 1 is taken for 1 − 2⁻⁵³ (but under truncated noise).

    Args:
        sigma: σ of P, the standard deviation of a coordinate, more than 0.
        k: the exponent of both, at least 0 and less than `dimension / 2`; 0 is
            Gaussian noise.
        dimension: d, the number of coordinates, at least 2.
        second_sigma: σ of Q, in (0, σ). Either this or
        truncate: T, in units of the input: Q is P, given that the norm is at most T.

    Raises:
        ValueError: if an argument is out of its range.

    Example:

    >>> pair = DoubleSampling(sigma=0.5, k=380, dimension=784, second_sigma=0.4)
    >>> alone, both = pair.neyman_pearson_radius(0.99), pair.radius(0.99, 0.9999)
    >>> round(alone, 2), round(both, 2)
    (1.13, 1.6)

    Reference:

    - Li, Zhang, Xie and Li, "Double Sampling Randomized Smoothing" (ICML 2022),
      theorems 2 and 3.
    """

    def __init__(self, sigma, k, dimension, second_sigma=None, truncate=None):
        self.sigma = check_positive("sigma", sigma)
        self.k = check_number("k", k)
        self.dimension = check_integer("dimension", dimension, least=2)
        # All lengths below are in units of σ', and t is half a squared norm.
        self._scale = scale_of(self.sigma, self.k, self.dimension)
        self._shape = self.dimension / 2 - self.k
        if (second_sigma is None) == (truncate is None):
            raise ValueError(
                "Either `second_sigma` or `truncate` must be given. "
                f"Received: second_sigma={second_sigma}, truncate={truncate}"
            )
        self._limit = None
        if truncate is not None:
            truncate = check_positive("truncate", truncate)
            self._limit = (truncate / self._scale) ** 2 / 2
            self._share = float(special.gammainc(self._shape, self._limit))
            if not 1e-9 <= self._share < 1:
                raise ValueError(
                    "`truncate` must leave the noise a probability of at least 1e-9 "
                    f"and less than 1. Received: truncate={truncate}, which leaves "
                    f"{self._share:.3g}"
                )
        else:
            second_sigma = check_fraction("second_sigma", second_sigma, self.sigma)
            self._ratio = second_sigma / self.sigma
        self.second_sigma, self.truncate = second_sigma, truncate
        self._alone = {}

    def radius(self, first, second):
        """The largest certified radius, rounded down, in units of the input.

        Args:
            first: a lower bound on the class's probability under P, in [0, 1].
            second: the same under Q.

        Returns:
            A float: 0 if `first` is at most ½, and never less than
            `neyman_pearson_radius(first)`.
        """
        misses = self._misses(first, second)
        alone = self.neyman_pearson_radius(first)
        if alone == 0:
            return alone
        return max(alone, self._search(*misses, alone / self._scale))

    def neyman_pearson_radius(self, first):
        """The radius that `first` certifies alone, rounded down, as `radius`."""
        miss, _ = self._misses(first, 0.0)
        if miss >= 0.5:
            return 0.0
        if self.k == 0:
            return -self.sigma * float(special.ndtri(miss)) * (1 - _ROUNDING)
        if miss not in self._alone:
            self._alone[miss] = self._search(miss, 1.0, 0.0)
        return self._alone[miss]

    def _misses(self, first, second):
        """What the bounds leave to other classes under P and under Q."""
        least = 2.0**-53
        return (
            max(1 - _probability("first", first), least),
            # The support of truncated noise may lie in one class altogether.
            max(1 - _probability("second", second), 0 if self._limit else least),
        )

    def lower_bound(self, radius, first, second):
        """A lower bound on the class's probability at distance `radius`.

        Args:
            radius: r, in units of the input, more than 0.
            first, second: lower bounds on its probabilities under P and Q around the
                input, in [0, 1].

        Returns:
            A float, rounded down: the class stays the most likely where it is more
            than ½. It does not increase with the radius.
        """
        radius = check_positive("radius", radius) / self._scale
        misses = self._misses(first, second)
        return self._rounded_bound(radius, self._multipliers(radius, *misses), *misses)

    def _search(self, miss, second_miss, low):
        """The largest r in [low, ∞) with a bound above ½, in units of the input."""
        step = 1e-4 * self.sigma / self._scale

        def excess(r):
            multipliers = self._multipliers(r, miss, second_miss)
            return self._bound(r, multipliers, miss, second_miss, _FINE)[0] - 0.5

        high = low + step
        if excess(high) <= 0:
            return low * self._scale
        beyond = 0.1 * self.sigma / self._scale
        while excess(high + beyond) > 0:
            high, beyond = high + beyond, 2 * beyond
        found = optimize.brentq(excess, high, high + beyond, xtol=step / 4)
        # What the roundings leave of it.
        while found > low:
            multipliers = self._multipliers(found, miss, second_miss)
            if self._rounded_bound(found, multipliers, miss, second_miss) > 0.5:
                return found * self._scale * (1 - _ROUNDING)
            found, step = found - step, 2 * step
        return low * self._scale

    def _multipliers(self, r, miss, second_miss):
        """log λ₁ and log λ₂ of the best bound, nearly."""

        def first_excess(one, two):
            return self._outside(r, (one, two), _COARSE) - miss

        def second_excess(one, two):
            return self._outside_of_second(r, (one, two), _COARSE) - second_miss

        never = -math.inf
        highest = _root(lambda one: first_excess(one, never), *_RANGE)
        if second_excess(highest, never) <= 0:
            return highest, never
        highest_two = _root(lambda two: second_excess(never, two), *_RANGE)
        if first_excess(never, highest_two) <= 0:
            return never, highest_two

        def one_of(two):
            return _root(lambda one: first_excess(one, two), highest - 60, highest)

        two = _root(
            lambda two: second_excess(one_of(two), two), highest_two - 60, highest_two
        )
        return one_of(two), two

    def _rounded_bound(self, r, multipliers, *misses):
        value, size = self._bound(r, multipliers, *misses, _FINE)
        check, _ = self._bound(r, multipliers, *misses, _FINEST)
        if not math.isfinite(value + check):
            return 0.0
        return min(value, check) - 10 * abs(value - check) - _ROUNDING * size

    def _bound(self, r, multipliers, miss, second_miss, order):
        """The bound of two multipliers, and the sum of the sizes of its terms."""
        terms = [self._shifted(r, multipliers, order)]
        # What S leaves out, not what it holds: exact where that is nearly nothing.
        for log_multiplier, outside, allowed in (
            (multipliers[0], self._outside, miss),
            (multipliers[1], self._outside_of_second, second_miss),
        ):
            if log_multiplier > -math.inf:
                missed = outside(r, multipliers, order)
                terms += (
                    _times(log_multiplier, missed, math.exp(700.0)),
                    -_times(log_multiplier, allowed, math.inf),
                )
        return math.fsum(terms), math.fsum(map(abs, terms))

    def _outside(self, r, multipliers, order):
        """1 − P(S)."""
        t, weights = self._nodes(order)
        return float(weights @ self._missed(t, r, multipliers))

    def _outside_of_second(self, r, multipliers, order):
        """1 − Q(S)."""
        t, weights = self._nodes(order)
        if self._limit is None:
            return float(weights @ self._missed(self._ratio**2 * t, r, multipliers))
        inside = t <= self._limit
        missed = self._missed(t[inside], r, multipliers)
        return float(weights[inside] @ missed) / self._share

    def _missed(self, t, r, multipliers):
        """The part of each sphere around 0 that is not in S."""
        v = self._solve(self._fall(t) - self._log_level(t, multipliers))
        cosine = (t - v + r**2 / 2) / (r * np.sqrt(2 * t))
        return self._cap(-cosine)

    def _shifted(self, r, multipliers, order):
        """P_δ(S)."""
        splits = ()
        if self._limit is not None:
            # Where the boundary of S meets the sphere of radius T.
            levels = self._log_level(np.array([0.0, math.inf]), multipliers)
            splits = self._solve(self._fall(self._limit) - levels)
        t, weights = self._nodes(order, *splits)
        cosine = (self._boundary(t, multipliers) - t - r**2 / 2) / (r * np.sqrt(2 * t))
        return float(weights @ self._cap(cosine))

    def _boundary(self, t, multipliers):
        """Half the squared norm up to which points are in S, on spheres around δ."""
        fall = self._fall(t)
        if self._limit is not None:
            inner, outer = (
                self._solve(fall + self._log_level(t, multipliers))
                for t in (0.0, math.inf)
            )
            return np.where(outer > self._limit, outer, np.minimum(inner, self._limit))
        # The level only falls, so that it lies between those of P alone and of t = 0.
        low = self._solve(fall + multipliers[0])
        high = self._solve(fall + self._log_level(0.0, multipliers))
        for _ in range(60):
            middle = (low + high) / 2
            inside = self._fall(middle) - self._log_level(middle, multipliers) < fall
            low, high = np.where(inside, middle, low), np.where(inside, high, middle)
        return low

    def _fall(self, t):
        """−log p, up to a constant."""
        return t + special.xlogy(self.k, t)

    def _solve(self, fall):
        """The t of `_fall(t) == fall`."""
        if self.k == 0:
            return np.maximum(fall, 0.0)
        return self.k * special.wrightomega(fall / self.k - math.log(self.k))

    def _log_level(self, t, multipliers):
        """log(λ₁ + λ₂ q/p)."""
        one, two = multipliers
        if self._limit is None:
            log_ratio = -2 * self._shape * math.log(self._ratio) - t * (
                1 / self._ratio**2 - 1
            )
        else:
            log_ratio = np.where(t <= self._limit, -math.log(self._share), -math.inf)
        return np.logaddexp(one, two + log_ratio)

    def _cap(self, cosine):
        """The part of a sphere whose cosine with an axis is below `cosine`."""
        half = (self.dimension - 1) / 2
        return special.betainc(half, half, np.clip((1 + cosine) / 2, 0.0, 1.0))

    def _nodes(self, order, *splits):
        """Nodes and weights of expectations over the Gamma law of t."""
        fixed = () if self._limit is None else (self._limit,)
        return _gamma_nodes(self._shape, order, (*fixed, *map(float, splits)))


_legendre = functools.lru_cache(np.polynomial.legendre.leggauss)


@functools.lru_cache(maxsize=256)
def _edges(shape):
    return np.log(
        np.concatenate(
            [
                special.gammaincinv(shape, _QUANTILES),
                special.gammainccinv(shape, _QUANTILES[::-1]),
            ]
        )
    )


@functools.lru_cache(maxsize=64)
def _gamma_nodes(shape, order, splits):
    """Gauss and Legendre's nodes in log t, in panels that also end at `splits`."""
    edges = _edges(shape)
    inner = [math.log(t) for t in splits if t > 0]
    inner = [y for y in inner if edges[0] < y < edges[-1]]
    edges = np.unique(np.concatenate([edges, inner]))
    x, weights = _legendre(order)
    half = np.diff(edges)[:, None] / 2
    y = (edges[:-1, None] + half * (1 + x)).ravel()
    t = np.exp(y)
    density = np.exp(shape * y - t - special.gammaln(shape))
    return t, (half * weights).ravel() * density


def _times(log_multiplier, probability, beyond):
    """Their product; `beyond` where it is no longer a number."""
    # What nearly underflows has lost its digits; without it the bound is lower.
    if probability < 1e-290:
        return 0.0
    exponent = log_multiplier + math.log(probability)
    return math.exp(exponent) if exponent < 700 else beyond


def _root(function, low, high):
    """Where a falling function crosses 0, or the end of the range nearest to it."""
    if function(low) <= 0:
        return low
    if function(high) >= 0:
        return high
    return optimize.brentq(function, low, high, xtol=1e-6)


def check_positive(name, value):
    if not check_number(name, value) > 0:
        raise ValueError(f"`{name}` must be more than 0. Received: {name}={value}")
    return float(value)


def _probability(name, value):
    value = check_number(name, value)
    if value > 1:
        raise ValueError(f"`{name}` must be at most 1. Received: {name}={value}")
    return value
