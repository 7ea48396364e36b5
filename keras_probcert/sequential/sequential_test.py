"""The contract of every test on a stream of votes."""

import functools
import math

import numpy as np

from keras_probcert.sequential import confidence_sequence
from keras_probcert.sequential.operating_characteristics import (
    operating_characteristics,
)
from keras_probcert.validation import check_fraction, check_integer

LARGEST_HORIZON = 10**7


class SequentialTest:
    """Decides from a stream of votes whether they agree often enough.

    After n votes, d of them against the leading class, the test may certify
    (the agreement is above 1 − kappa), reject (it is below), or go on. The
    first crossing decides; after `max_samples` votes the stream is undecided.

    Subclasses say when in `certifies(n, d)` and `rejects(n, d)`. Both must be
    monotone: what certifies at (n, d) also certifies with fewer disagreements
    or with more agreeing votes, and the mirror image for rejecting. Then the
    test is two nondecreasing integer arrays, computed once on the host in
    float64, and a device need only compare integers.

    Args:
        kappa: the tolerated fraction of disagreeing perturbations, in (0, ½]:
            beyond ½ a certified class need not be the most likely one. 0.01 by
            default.
        alpha: the significance level, in (0, 1); 0.01 by default.
        max_samples: the horizon, votes a stream at the most. By default the
            least number (to two digits, rounded up) at which an agreement of
            `1 - 0.7 * kappa` is certified with probability at least 0.99 by
            the votes at the horizon alone (for alpha above 0.05 a noticeable
            share of such inputs has been rejected before).

    Raises:
        ValueError: if an argument is out of its range, or `max_samples` is too
            small to certify even unanimous votes.
    """

    def __init__(self, kappa=0.01, alpha=0.01, max_samples=None):
        self.kappa = check_fraction("kappa", kappa, high=0.5, closed=True)
        self.alpha = check_fraction("alpha", alpha)
        if max_samples is None:
            max_samples = self._default_horizon()
        self.max_samples = check_integer("max_samples", max_samples)
        if not self.certifies(np.array([self.max_samples]), np.array([0]))[0]:
            raise ValueError(
                f"`max_samples` must be at least {self.min_samples}, the number of "
                "unanimous votes this test needs to certify at "
                f"kappa={self.kappa}, alpha={self.alpha}. "
                f"Received: max_samples={max_samples}"
            )

    def certifies(self, num_samples, disagreements):
        """Whether to certify at (n, d), elementwise on int arrays."""
        raise NotImplementedError

    def rejects(self, num_samples, disagreements):
        """Whether to reject at (n, d), elementwise on int arrays."""
        raise NotImplementedError

    @functools.cached_property
    def min_samples(self):
        """The number of unanimous votes that certify."""
        return int(self._first_certified(np.array([0]), LARGEST_HORIZON * 100)[0])

    @functools.cached_property
    def certify_times(self):
        """For d = 0, 1, …: the least n that certifies with d disagreements.

        An int32 array, as long as certifying is possible by `max_samples`.
        """
        most = _largest(
            lambda d: self.certifies(np.full_like(d, self.max_samples), d),
            np.array([0]),
            np.array([self.max_samples]),
        )[0]
        times = self._first_certified(np.arange(most + 1), self.max_samples)
        return np.maximum.accumulate(times).astype(np.int32)

    def boundaries(self):
        """The two boundaries the test is.

        Returns:
            `(certify, reject)`, int32 arrays of length `max_samples + 1`,
            nondecreasing, indexed by the number of votes n: certify if the
            disagreeing votes are at most `certify[n]` (−1: never), reject if
            they are at least `reject[n]` (larger than n: never).

        Example:

        >>> test = BetaMixtureTest(kappa=0.05, alpha=0.05, max_samples=2000)
        >>> certify, reject = test.boundaries()
        >>> bool(certify[test.min_samples] == 0)
        True
        """
        return self._boundaries

    @functools.cached_property
    def _boundaries(self):
        horizon = self.max_samples
        n = np.arange(horizon + 1)
        certify = np.searchsorted(self.certify_times, n, side="right") - 1

        # The label is the majority's, so at most n − 1 votes disagree with it
        # (n, if no copy ever votes; those are rejected one vote later).
        d = np.arange(1, horizon)
        possible = self.rejects(np.full_like(d, horizon), d)
        d = d[: possible.argmax() + 1] if possible.any() else d
        last = _largest(lambda m: self.rejects(m, d), d + 1, np.full_like(d, horizon))
        last = np.where(self.rejects(d + 1, d), last, 0)
        last = np.maximum.accumulate(last)
        place = np.searchsorted(last, n, side="left")
        reject = np.append(d, horizon + 1)[place]
        if not (certify < reject).all():
            raise ValueError(
                f"{type(self).__name__} would both certify and reject at "
                f"kappa={self.kappa}, alpha={self.alpha}"
            )
        boundaries = certify.astype(np.int32), reject.astype(np.int32)
        for boundary in boundaries:
            boundary.setflags(write=False)
        return boundaries

    def confidence_bounds(self, num_samples, disagreements):
        """Bounds on the agreement from (n, d), whatever made the stream stop.

        Each holds with probability at least 1 − alpha at every stopping rule;
        see `confidence_sequence.confidence_bounds`.

        Args:
            num_samples: int array, n.
            disagreements: int array, d.

        Returns:
            `(lower, upper)`, float64 arrays. `lower` is 0 where it would not
            exceed min(1 − kappa, ¾).
        """
        return confidence_sequence.confidence_bounds(
            num_samples, disagreements, self.kappa, self.alpha
        )

    @functools.cached_property
    def stop_bounds(self):
        """The bounds on the agreement at every way a stream can stop.

        A stream is certified at n with `certify[n]` disagreements, rejected at
        n with `reject[n]`, or undecided at the horizon with d of them, so three
        tables hold all of `confidence_bounds` that a device needs.

        Returns:
            `(certified, rejected, undecided)`, float32 arrays of shape
            `(max_samples + 1, 2)`: lower and upper bound, by n, n and d. They
            are rounded outward, except that a lower bound above 1 − kappa stays
            above it.
        """
        certify, reject = self.boundaries()
        horizon = self.max_samples
        n = np.arange(horizon + 1)

        # What certifies crosses where the boundary steps.
        times = self.certify_times

        # Rejecting is possible at almost every n. Evaluate on a grid that holds
        # both ends of each step of the boundary, and round outward on it: the
        # upper bound of the next grid point, the lower bound of the last one.
        step = np.flatnonzero(np.diff(reject)) + 1
        count = int(math.log(horizon) / math.log(1.02)) + 1
        grid = np.concatenate(
            [n[1:256], 1.02 ** np.arange(count), step, step - 1, [horizon]]
        )
        grid = np.unique(np.clip(grid.astype(np.int64), 1, horizon))

        # At the horizon the disagreements lie between the boundaries.
        last = np.arange(certify[-1] + 1, min(reject[-1], horizon + 1))

        samples = np.concatenate([times, grid, np.full_like(last, horizon)])
        disagreements = np.concatenate(
            [np.arange(len(times)), np.minimum(reject[grid], grid), last]
        )
        at_times, at_grid, at_last = np.split(
            self._rounded_bounds(samples, disagreements),
            [len(times), len(times) + len(grid)],
        )
        certified = at_times[np.maximum(certify, 0)]
        after = np.searchsorted(grid, n, side="left")
        before = np.maximum(np.searchsorted(grid, n, side="right") - 1, 0)
        rejected = np.stack([at_grid[before, 0], at_grid[after, 1]], axis=1)
        undecided = np.tile(np.float32([0, 1]), (horizon + 1, 1))
        undecided[last] = at_last
        return certified, rejected, undecided

    def _rounded_bounds(self, num_samples, disagreements):
        lower, upper = self.confidence_bounds(num_samples, disagreements)
        rounded = np.nextafter(lower.astype(np.float32), np.float32(0))
        least = np.nextafter(np.float32(1 - self.kappa), np.float32(1))
        lower = np.where(lower > 1 - self.kappa, np.maximum(rounded, least), rounded)
        upper = np.nextafter(upper.astype(np.float32), np.float32(1))
        return np.stack([lower, upper], axis=1)

    def operating_characteristics(self, agreement):
        """What the test does at a true agreement, exactly.

        Votes are counted against the class whose agreement is given. A predictor
        counts against the leading class, which is another one only early on, or
        where the agreement is near or below ½.

        Args:
            agreement: the probability that a vote agrees, in [0, 1], or an
                array of them.

        Returns:
            A dict of floats, or of float64 arrays: `certify`, `reject` and
            `undecided`, the probabilities of the three decisions, and
            `expected_samples`.

        Example:

        >>> test = BetaMixtureTest(kappa=0.05, alpha=0.05, max_samples=2000)
        >>> test.operating_characteristics(0.95)["certify"] <= 0.05
        True
        """
        return operating_characteristics(*self.boundaries(), agreement)

    def get_config(self):
        return {
            "kappa": self.kappa,
            "alpha": self.alpha,
            "max_samples": self.max_samples,
        }

    @classmethod
    def from_config(cls, config):
        return cls(**config)

    def __repr__(self):
        arguments = ", ".join(f"{k}={v!r}" for k, v in self.get_config().items())
        return f"{type(self).__name__}({arguments})"

    def _first_certified(self, disagreements, horizon):
        """The least n ≤ horizon + 1 that certifies with d disagreements."""
        refused = _largest(
            lambda n: ~self.certifies(n, disagreements),
            disagreements,
            np.full_like(disagreements, horizon),
        )
        return refused + 1

    def _default_horizon(self):
        # Imported here because it is slow and only this line needs it.
        from tensorflow_probability.substrates import numpy as tfp

        least = int(self._first_certified(np.array([0]), LARGEST_HORIZON * 100)[0])
        steps = int(math.log(max(LARGEST_HORIZON / least, 2)) / math.log(1.05)) + 1
        horizons = (least * 1.05 ** np.arange(steps)).astype(np.int64)
        allowed = _largest(
            lambda d: self.certifies(horizons, d),
            np.zeros_like(horizons),
            horizons,
        )
        power = tfp.distributions.Binomial(
            total_count=horizons.astype(np.float64),
            probs=np.float64(0.7 * self.kappa),
        ).cdf(allowed.astype(np.float64))
        enough = power >= 0.99
        if not enough.any():
            raise ValueError(
                f"`max_samples` must be given: at kappa={self.kappa}, "
                f"alpha={self.alpha} the default would exceed {LARGEST_HORIZON} "
                f"samples (unanimous votes certify after {least}). "
                "Received: max_samples=None"
            )
        horizon = int(horizons[enough.argmax()])
        digits = max(len(str(horizon)) - 2, 0)
        return -(-horizon // 10**digits) * 10**digits


def _largest(holds, low, high):
    """The largest integers in [low, high] at which `holds`, by bisection.

    `holds` must be true up to some integer and false after it; `low` is the
    answer where it holds nowhere.
    """
    low, high = low.astype(np.int64), high.astype(np.int64)
    while (low < high).any():
        middle = (low + high + 1) // 2
        yes = holds(middle)
        low, high = np.where(yes, middle, low), np.where(yes, high, middle - 1)
    return low
