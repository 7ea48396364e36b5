r"""Bounds on the agreement at the stop, in stagewise order.

Order the ways to stop by what they say for the agreement: certified early, …,
certified late; undecided with few, …, with many disagreements; stopped late, …,
stopped early, as rejected or futile. The probability F(q) of stopping at s or
before it in this order falls with the disagreement q. The lower bound at s is
1 − q for the q with \(F_s(q) = \alpha\): a true agreement p lies below it only
where \(F_s(1 - p) < \alpha\), and that is so at no more than \(\alpha\) of the
stops. The upper bound is the mirror image at beta. What these bounds invert is
the test itself, so a stream is certified exactly when its lower bound is above
1 − kappa; an interval for a fixed number of votes would not hold its level, and
an interval for every stopping rule could contradict the decision.

Looks may be skipped, and a rejected stream may be one that would have been
certified, so F is taken from the laws with one boundary switched off:
\(P(\text{certified by } t)\) with rejecting off, and with certifying off in its
place the union bound \(1 - P(\text{rejected before}) + P(\text{certified})\).
Both are at least the probability they stand for, and fall with q as well.
Stopping times that lie close to each other share a bound.

**Two classes.** Disagreements are those of the leader. The lower bound takes
the worst case, two classes 1 − q and q, and is 0 unless it is above ½. The upper
bound is about one class: its own disagreements are at least the leader's.
"""

import functools

import numpy as np

from keras_probcert.sequential.stopping_law import stopping_law

STAGES = 256
# The most numbers in one of the tables that are summed.
TABLE = 4_000_000
BISECTIONS = 40


class StopBounds:
    """Lower bound, upper bound and p-value at every stop of a test.

    The agreement is the probability of the most likely class. With probability
    at least 1 − alpha it is at least the lower bound, and with probability at
    least 1 − beta at most the upper bound; the p-value, for the null hypothesis
    that no class is more likely than 1 − kappa, is at most u with probability at
    most u. All that holds for a test whose errors are at most alpha and beta; the
    bounds hold for any.

    Args:
        test: a `SequentialTest`.

    Attributes:
        certified: float32 `(d, 3)`: lower bound, upper bound and p-value of
            streams certified with d disagreements.
        undecided: float32 `(count, 3)`: of those undecided at the horizon with
            `len(certified)`, and more, disagreements.
        stopped: float32 `(stages, 3)`: of those rejected, or stopped as futile,
            after at most `stopped_by[stage]` votes.
        stopped_by: int32 `(stages,)`, increasing, up to the horizon.
    """

    def __init__(self, test):
        self._test = test
        self._hopeless = len(test.certify_times)
        self._reach = min(len(test.reject_until), test.max_samples)
        if test.futile:
            self._reach = min(self._reach, self._hopeless)
        self._bar = test.kappa

        self.stopped_by = self._stages()
        certified = self._certified()
        undecided = self._undecided()
        stopped = self._stopped()
        # Only a certificate may claim the bar, and only a rejection deny it.
        for bounds in (undecided, stopped):
            bounds[0] = np.minimum(bounds[0], 1 - self._bar)
        futile = self.stopped_by > self._rejects_up_to()
        stopped[1] = np.where(futile, np.maximum(stopped[1], 1 - self._bar), stopped[1])
        undecided[1] = np.maximum(undecided[1], 1 - self._bar)
        self.certified, self.undecided, self.stopped = (
            self._rounded(bounds) for bounds in (certified, undecided, stopped)
        )

    def _rejects_up_to(self):
        """The last time at which a stop above is a rejection, not futile."""
        until = self._test.reject_until
        if self._test.futile and self._hopeless < len(until):
            return until[self._hopeless]
        return self._test.max_samples

    def _stages(self):
        horizon = self._test.max_samples
        grid = np.unique(np.geomspace(1, horizon, STAGES).astype(np.int64))
        grid = np.union1d(np.arange(1, min(128, horizon)), grid)
        # No stage holds both rejected and futile streams.
        last = max(self._rejects_up_to(), 1)
        return np.union1d(grid, [last]).astype(np.int32)

    # --- the laws with one boundary off, at the bar ---

    @functools.cached_property
    def _certifying(self):
        return stopping_law(
            self._test.certify_times,
            np.zeros(max(self._reach, self._hopeless), np.int64),
            self._test.max_samples,
            self._bar,
            two_classes=True,
        )

    def _rejecting(self, two_classes):
        law = stopping_law(
            [],
            self._test.reject_until[: self._reach],
            self._test.max_samples,
            self._bar,
            two_classes=two_classes,
            looks=self.stopped_by,
            keep_states=True,
        )
        return _Alive(law, self.stopped_by, self._bar, two_classes)

    # --- the bounds, each as a row of lower, upper, p-value ---

    def _certified(self):
        test, law = self._test, self._certifying
        times = test.certify_times.astype(np.int64)
        stages, place = _thinned(np.arange(len(times)))
        weights = law.certified

        def by(q, last):
            """P(certified with at most `last` disagreements), a q for each."""
            d = np.arange(len(times))
            law = _likelihood(weights, times, d, self._bar, q, two_classes=True)
            return np.where(d <= last[:, None], law, 0.0).sum(axis=1)

        p_value = by(np.full(len(stages), self._bar), stages)
        high = np.where(p_value <= test.alpha, self._bar, 0.5)
        lower = 1 - _root_of_falling(
            lambda q: by(q, stages), test.alpha, len(stages), high
        )
        first = np.concatenate([[0], stages[:-1] + 1])
        rejecting = self._rejecting(two_classes=False)
        look = np.searchsorted(self.stopped_by, times[first])

        def at_least(q):
            before = by(q, first - 1)
            return 1 - before + 1 - rejecting.alive(q, look)

        upper = 1 - _root_of_rising(at_least, test.beta, len(stages), self._bar)
        return np.stack([lower, upper, p_value])[:, place]

    def _undecided(self):
        test, law = self._test, self._certifying
        first = len(test.certify_times)
        if self._reach <= first:
            return np.array([[0.0], [1.0], [1.0]])
        d = np.arange(first, self._reach)
        stages, place = _thinned(d)
        n = np.append(test.certify_times, np.full(len(d), test.max_samples))
        weights = np.zeros(first + len(d))
        weights[:first] = law.certified
        left = law.undecided[first : first + len(d)]
        weights[first : first + len(left)] = left
        states = np.arange(len(weights))

        def at_most(q):
            law = _likelihood(weights, n, states, self._bar, q, two_classes=True)
            return np.where(states <= stages[:, None], law, 0.0).sum(axis=1)

        lower = 1 - _root_of_falling(at_most, test.alpha, len(stages), 0.5)
        rejecting = self._rejecting(two_classes=False)
        fewest = np.concatenate([[first], stages[:-1] + 1])
        last = np.full(len(stages), len(self.stopped_by) - 1)
        upper = 1 - _root_of_rising(
            lambda q: 1 - rejecting.alive(q, last, fewest), test.beta, len(stages), 0.5
        )
        p_value = at_most(np.full(len(stages), self._bar))
        return np.stack([lower, upper, p_value])[:, place]

    def _stopped(self):
        test, law = self._test, self._certifying
        stages = len(self.stopped_by)
        both, one = self._rejecting(True), self._rejecting(False)
        times = test.certify_times.astype(np.int64)
        d = np.arange(len(times))

        def at_most(q):
            certified = _likelihood(law.certified, times, d, self._bar, q, True)
            # Not rejected before: alive at the end of the stage before.
            return both.alive(q, np.arange(stages) - 1) + certified.sum(axis=1)

        lower = 1 - _root_of_falling(at_most, test.alpha, stages, 0.5)
        upper = 1 - _root_of_rising(
            lambda q: 1 - one.alive(q, np.arange(stages)), test.beta, stages, 1.0
        )
        p_value = at_most(np.full(stages, self._bar))
        return np.stack([lower, upper, p_value])

    def _rounded(self, bounds):
        """Outward to float32; what is above the bar stays above it."""
        lower, upper, p_value = bounds
        bar = 1 - self._test.kappa
        proven = lower > bar
        lower = np.where(lower > 0.5, np.clip(lower, 0, 1), 0.0)
        least = np.nextafter(np.float32(bar), np.float32(1))
        rounded = np.nextafter(lower.astype(np.float32), np.float32(0))
        lower = np.where(proven, np.maximum(rounded, least), rounded)
        upper = np.nextafter(np.minimum(upper, 1).astype(np.float32), np.float32(1))
        p_value = np.nextafter(np.minimum(p_value, 1).astype(np.float32), np.float32(1))
        return np.stack([lower, upper, p_value], axis=1).astype(np.float32)


class _Alive:
    """Streams that go on after each stage, at any disagreement."""

    def __init__(self, law, stages, bar, two_classes):
        places = np.searchsorted(law.times, stages)
        states = [law.states[i] for i in places]
        width = max([len(weights) for _, weights in states] + [1])
        self.low = np.array([low for low, _ in states])
        self.weights = np.zeros((len(states), width))
        for row, (_, weights) in zip(self.weights, states, strict=True):
            row[: len(weights)] = weights
        self.times, self.bar, self.two_classes = stages, bar, two_classes

    def alive(self, q, stage, below=None):
        """P(go on after a stage), with less than `below` disagreements.

        Args:
            q: float array `(rows,)`.
            stage: int array `(rows,)`; −1: before the first vote.
            below: int array `(rows,)`, or `None` for all.
        """
        d = self.low[stage][:, None] + np.arange(self.weights.shape[1])
        law = _likelihood(
            self.weights[stage],
            self.times[stage][:, None].astype(np.int64),
            d,
            self.bar,
            q,
            self.two_classes,
        )
        if below is not None:
            law = np.where(d < below[:, None], law, 0.0)
        return np.where(stage < 0, 1.0, np.minimum(law.sum(axis=1), 1.0))


def _likelihood(weights, n, d, bar, q, two_classes):
    """Probabilities at each q of what has probability `weights` at the bar.

    The number of streams of votes that lead to (n, d) is the same at every q.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        q = np.clip(q, 1e-300, 1 - 1e-16)[:, None]
        log_odds, log_bar_odds = (
            np.log(v) - np.log1p(-v) for v in (q, np.float64(bar))
        )
        log_ratio = d * (log_odds - log_bar_odds)
        log_ratio = log_ratio + n * (np.log1p(-q) - np.log1p(-bar))
        if two_classes:
            lead = np.maximum(n - 2.0 * d, 0)
            log_ratio += np.log1p(np.exp(np.minimum(lead * log_odds, 700)))
            log_ratio -= np.log1p(np.exp(lead * log_bar_odds))
        law = np.exp(np.minimum(np.log(weights) + log_ratio, 1.0))
    return np.where(weights > 0, law, 0.0)


def _thinned(values):
    """A few of the increasing values, and the first of those at or above each."""
    last = len(values) - 1
    stages = min(STAGES, last + 1, max(TABLE // (last + 1), 16))
    index = np.unique(np.linspace(0, last, stages).astype(np.int64))
    return values[index], np.searchsorted(index, np.arange(last + 1))


def _root_of_falling(function, level, rows, high):
    """For each row, the least q ≤ high with f(q) ≤ level, from above; else 1."""
    low, high = np.zeros(rows), np.full(rows, high, np.float64)
    reached = function(high) <= level
    for _ in range(BISECTIONS):
        middle = np.where(low > 0, np.sqrt(low * high), high / 64)
        yes = function(middle) <= level
        low, high = np.where(yes, low, middle), np.where(yes, middle, high)
    return np.where(reached, high, 1.0)


def _root_of_rising(function, level, rows, high):
    """For each row, the largest q ≤ high with f(q) ≤ level, from below."""
    low, high = np.zeros(rows), np.full(rows, high, np.float64)
    for _ in range(BISECTIONS):
        middle = np.where(low > 0, np.sqrt(low * high), high / 64)
        yes = function(middle) <= level
        low, high = np.where(yes, middle, low), np.where(yes, high, middle)
    return low
