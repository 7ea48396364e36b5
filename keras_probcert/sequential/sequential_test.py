"""The contract of every test on a stream of votes."""

import functools
import math

import numpy as np

from keras_probcert.sequential.operating_characteristics import (
    operating_characteristics,
    summary,
)
from keras_probcert.sequential.plot import plot
from keras_probcert.sequential.stagewise import StopBounds
from keras_probcert.validation import check_fraction, check_integer

LARGEST_HORIZON = 10**7


class _Bounded:
    """A test as `StopBounds` see it; equal where they cannot tell two apart."""

    def __init__(self, test):
        self.test = test
        self._seen = (
            *(test.kappa, test.alpha, test.beta, test.max_samples, test.futile),
            *(test.certify_times.tobytes(), test.reject_until.tobytes()),
        )

    def __eq__(self, other):
        return self._seen == other._seen

    def __hash__(self):
        return hash(self._seen)


@functools.lru_cache(maxsize=32)
def _stop_bounds(bounded):
    """Seconds of work, and predictors of the same test share it."""
    bounds = StopBounds(bounded.test)
    del bounded.test
    return bounds


class SequentialTest:
    """Decides from a stream of votes whether they agree often enough.

    After n votes, d of them against the leading class, the test may certify
    (the agreement is above 1 − kappa), reject (it is below), or go on. The
    first crossing decides. A stream that can no longer be certified, because it
    has more disagreements than `certify` allows at the horizon, may be stopped
    as futile; rejecting wins at the same n. After `max_samples` votes a stream
    is undecided.

    A test is two nondecreasing integer arrays, computed once on the host in
    float64, and a device need only compare integers. Subclasses say in
    `certifies(n, d)` and `rejects(n, d)` what stops. Both must be monotone: what
    certifies at (n, d) also certifies with fewer disagreements or with more
    agreeing votes, and the mirror image for rejecting. Or they give
    `_certify_times()` and `_reject_until()` themselves.

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
        beta: the level of rejecting, in (0, 1); alpha by default.
        futile: whether to stop a stream that can no longer be certified, `True`
            by default. It changes no certificate: certifying gets no credit.

    Raises:
        ValueError: if an argument is out of its range, or `max_samples` is too
            small to certify even unanimous votes.

    Example:

    What every test offers, here that of 100 votes (the last three cannot change what
    97 that agree have shown):

    >>> test = ClopperPearsonTest(kappa=0.1, alpha=0.01, max_samples=100)
    >>> test.min_samples
    97
    >>> bool(test.operating_characteristics(0.9)["certify"] <= 0.01)
    True
    """

    def __init__(
        self, kappa=0.01, alpha=0.01, max_samples=None, beta=None, futile=True
    ):
        self.kappa = check_fraction("kappa", kappa, high=0.5, closed=True)
        self.alpha = check_fraction("alpha", alpha)
        self.beta = self.alpha if beta is None else check_fraction("beta", beta)
        if not isinstance(futile, bool):
            raise ValueError(f"`futile` must be True or False. Received: {futile!r}")
        self.futile = futile
        if max_samples is None:
            if self._least_horizon > LARGEST_HORIZON:
                raise ValueError(
                    f"`kappa` must be larger: at kappa={self.kappa}, "
                    f"alpha={self.alpha} unanimous votes certify only after more "
                    f"than {LARGEST_HORIZON}. Received: kappa={kappa}"
                )
            max_samples = self._default_horizon()
        self.max_samples = check_integer("max_samples", max_samples)
        if self.max_samples > LARGEST_HORIZON:
            raise ValueError(
                f"`max_samples` must be at most {LARGEST_HORIZON}. "
                f"Received: max_samples={max_samples}"
            )
        if self.max_samples < self._least_horizon:
            raise ValueError(
                f"`max_samples` must be at least {self._least_horizon}, the number of "
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
    def _least_horizon(self):
        """The least horizon at which unanimous votes certify."""
        return int(self._first_certified(np.array([0]), LARGEST_HORIZON * 100)[0])

    @property
    def min_samples(self):
        """The number of unanimous votes that certify."""
        return int(self.certify_times[0])

    @functools.cached_property
    def certify_times(self):
        """For d = 0, 1, …: the least n that certifies with d disagreements.

        An int32 array, as long as certifying is possible by `max_samples`.
        """
        return _frozen(np.maximum.accumulate(self._certify_times()))

    @functools.cached_property
    def reject_until(self):
        """For d = 0, 1, …: the last n that rejects with d disagreements, or 0.

        An int32 array; more disagreements than its length always reject.
        """
        until = np.maximum.accumulate(self._reject_until())
        shared = min(len(until), len(self.certify_times))
        if (until[:shared] >= self.certify_times[:shared]).any() or shared < len(
            self.certify_times
        ):
            raise ValueError(
                f"{type(self).__name__} would both certify and reject at "
                f"kappa={self.kappa}, alpha={self.alpha}"
            )
        return _frozen(until)

    def _certify_times(self):
        most = _largest(
            lambda d: self.certifies(np.full_like(d, self.max_samples), d),
            np.array([0]),
            np.array([self.max_samples]),
        )[0]
        return self._first_certified(np.arange(most + 1), self.max_samples)

    def _reject_until(self):
        # The label is the majority's, so at most n − 1 votes disagree with it
        # (n, if no copy ever votes; those are rejected one vote later).
        horizon = self.max_samples
        d = np.arange(horizon + 1)
        possible = self.rejects(np.full_like(d, horizon), d)
        d = d[: possible.argmax()] if possible.any() else d
        last = _largest(lambda n: self.rejects(n, d), d + 1, np.full_like(d, horizon))
        return np.where(self.rejects(d + 1, d), last, 0)

    def boundaries(self):
        """The two boundaries the test is.

        Returns:
            `(certify, reject)`, int32 arrays of length `max_samples + 1`,
            nondecreasing, indexed by the number of votes n: certify if the
            disagreeing votes are at most `certify[n]` (−1: never), reject if
            they are at least `reject[n]` (larger than n: never).

        Raises:
            ValueError: if the boundaries overlap.

        Example:

        >>> test = ExactTest(kappa=0.05, alpha=0.05, max_samples=2000)
        >>> certify, reject = test.boundaries()
        >>> bool(certify[test.min_samples] == 0)
        True
        """
        return self._boundaries

    @functools.cached_property
    def _boundaries(self):
        n = np.arange(self.max_samples + 1)
        certify = np.searchsorted(self.certify_times, n, side="right") - 1
        reject = np.maximum(np.searchsorted(self.reject_until, n, side="left"), 1)
        return _frozen(certify), _frozen(reject)

    @functools.cached_property
    def stop_bounds(self):
        """Bounds on the agreement and p-values at every way a stream can stop.

        See `keras_probcert.sequential.stagewise.StopBounds`.
        """
        return _stop_bounds(_Bounded(self))

    def operating_characteristics(
        self, agreement=None, futile=None, quantiles=(), class_probabilities=None
    ):
        """What the test does at a true agreement, exactly.

        Votes are counted against the class whose agreement is given. A predictor
        counts against the leading class, which is another one only early on, or
        where the agreement is near or below ½; `class_probabilities` is for that.

        Args:
            agreement: the probability that a vote agrees, in [0, 1], or an array
                of them.
            futile: whether streams stop as futile; as the test does by default.
            quantiles: probabilities in (0, 1) whose quantiles of the number of
                samples are wanted.
            class_probabilities: the probabilities of all classes, in place of
                `agreement`.

        Returns:
            A dict of floats, or of float64 arrays: `certify`, `reject`,
            `futile` and `undecided`, the probabilities of the decisions,
            `expected_samples`, and with `quantiles` `sample_quantiles`, with
            one more axis.

        Raises:
            ValueError: if an agreement or a quantile is out of its range.

        Example:

        >>> test = ExactTest(kappa=0.05, alpha=0.05, max_samples=2000)
        >>> test.operating_characteristics(0.95)["certify"] <= 0.05
        True
        """
        futile = self.futile if futile is None else futile
        return operating_characteristics(
            *self.boundaries(), agreement, futile, quantiles, class_probabilities
        )

    def summary(self, agreements=None, print_fn=None):
        """Prints the operating characteristics as a table.

        Args:
            agreements: true agreements in [0, 1]; by default a spread around
                1 − kappa.
            print_fn: what prints the text, `print` by default.
        """
        if agreements is None:
            agreements = self.default_agreements()
        (print_fn or print)(summary(self, agreements))

    def default_agreements(self):
        """Agreements from 1 down, a spread around 1 − kappa: float64 array."""
        odds = np.array([0, 0.01, 0.1, 0.3, 0.5, 0.7, 1, 1.3, 2, 5, 10])
        return np.unique(1 - np.minimum(odds * self.kappa, 1))[::-1]

    def plot(self, agreements=None):
        """Draws boundaries, expected samples and decisions.

        Args:
            agreements: true agreements in [0, 1], increasing; by default 60 of
                them around 1 − kappa.

        Returns:
            A `matplotlib.figure.Figure`.

        Raises:
            ImportError: without matplotlib (the extra `plots`).
        """
        return plot(self, agreements)

    def get_config(self):
        return {
            "kappa": self.kappa,
            "alpha": self.alpha,
            "max_samples": self.max_samples,
            "beta": self.beta,
            "futile": self.futile,
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

        least = self._least_horizon
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


def _frozen(array):
    array = np.asarray(array).astype(np.int32)
    array.setflags(write=False)
    return array
