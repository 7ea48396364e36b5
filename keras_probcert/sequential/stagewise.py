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

F is taken from the laws with one boundary switched off:
\(P(\text{certified by } t)\) with rejecting off, and for streams that are stopped
above the union bound
\(1 - P(\text{rejected before}) + P(\text{certified})\) with certifying off in its
first part. Both are at least the probability they stand for, and fall with q as
well. (The first kind holds with skipped looks too; the second needs every look.)
Stopping times that lie close to each other share a bound.

The laws are calculated at reference values of q that are close enough for the
number of disagreements, and re-weighted between them: the number of streams of
votes that lead to (n, d) is the same at every q.

**Two classes.** Disagreements are those of the leader. The lower bound takes
the worst case, two classes 1 − q and q, and is 0 unless it is above ½. The upper
bound is about one class: its own disagreements are at least the leader's.
"""

import math

import numpy as np

from keras_probcert.sequential.stopping_law import stopping_law

STAGES = 256
# The most numbers in one of the tables that are summed.
TABLE = 4_000_000
BISECTIONS = 32
# The least disagreement that bounds tell from none, relative to the bar's.
LEAST = 5e-4


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
        bar = 1 - test.kappa
        self.stopped_by = self._stages()
        self._laws = [_Laws(self, q) for q in _references(test.kappa, test.max_samples)]
        self._at_bar = [law.q for law in self._laws].index(test.kappa)

        certified, undecided = self._certified(), self._undecided()
        stopped = self._stopped()
        # Only a certificate may claim the bar, and only a rejection deny it.
        for bounds in (undecided, stopped):
            bounds[0] = np.minimum(bounds[0], bar)
        futile = self.stopped_by > self._rejects_up_to()
        stopped[1] = np.where(futile, np.maximum(stopped[1], bar), stopped[1])
        undecided[1] = np.maximum(undecided[1], bar)
        proven = certified[2] <= test.alpha
        self.certified = self._rounded(certified, proven)
        self.undecided = self._rounded(undecided)
        self.stopped = self._rounded(stopped)
        for shared in (self.certified, self.undecided, self.stopped, self.stopped_by):
            shared.setflags(write=False)
        # Tests with the same boundaries share this, and it outlives the first.
        del self._laws, self._test

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

    # --- the bounds, each as a row of lower, upper, p-value ---

    def _certified(self):
        test = self._test
        times = test.certify_times.astype(np.int64)
        stages, place = _thinned(np.arange(len(times)))
        first = np.concatenate([[0], stages[:-1] + 1])
        stage = np.searchsorted(self.stopped_by, times[first])

        def at_most(law, q, rows):
            return law.certified_by(q, stages[rows])

        def at_least(law, q, rows):
            before = law.certified_by(q, first[rows] - 1, two_classes=False)
            return 2 - before - law.rejecting.alive(q, stage[rows])

        return self._invert(at_most, at_least, len(stages))[:, place]

    def _undecided(self):
        first = len(self._test.certify_times)
        if self._reach <= first:
            return np.array([[0.0], [1.0], [1.0]])
        stages, place = _thinned(np.arange(first, self._reach))
        fewest = np.concatenate([[first], stages[:-1] + 1])
        last = np.full(len(stages), len(self.stopped_by) - 1)

        def at_most(law, q, rows):
            return law.certified_or_left(q, stages[rows])

        def at_least(law, q, rows):
            return 1 - law.rejecting.alive(q, last[rows], fewest[rows])

        return self._invert(at_most, at_least, len(stages))[:, place]

    def _stopped(self):
        stages = np.arange(len(self.stopped_by))
        every = np.full(len(stages), len(self._test.certify_times) - 1)

        def at_most(law, q, rows):
            # Not rejected before: it goes on at the end of the stage before.
            goes_on = law.rejecting_leader.alive(q, stages[rows] - 1)
            return goes_on + law.certified_by(q, every[rows])

        def at_least(law, q, rows):
            return 1 - law.rejecting.alive(q, stages[rows])

        return self._invert(at_most, at_least, len(stages))

    def _invert(self, at_most, at_least, count):
        """Lower bounds, upper bounds and p-values of `count` stops."""
        rows = np.arange(count)
        references = np.array([law.q for law in self._laws])

        def at_references(function):
            return np.stack(
                [function(law, np.full(count, law.q), rows) for law in self._laws]
            )

        # Falling with q: the least q at which it is at most alpha, from above.
        values = at_references(at_most)
        reached = values <= self._test.alpha
        place = np.where(reached.any(axis=0), reached.argmax(axis=0), -1)
        high = np.where(place < 0, 1.0, references[place])
        low = np.where(place < 1, high, references[place - 1])
        below = self._bisect(at_most, self._test.alpha, low, high, place, last=False)
        # Rising with q: the largest q at which it is at most beta, from below.
        reached = at_references(at_least) <= self._test.beta
        place = np.where(
            reached.any(axis=0), len(references) - 1 - reached[::-1].argmax(axis=0), -1
        )
        low = np.where(place < 0, 0.0, references[place])
        beyond = np.minimum(place + 1, len(references) - 1)
        high = np.where(place < 0, 0.0, references[beyond])
        above = self._bisect(at_least, self._test.beta, low, high, place, last=True)
        return np.stack([1 - below, 1 - above, values[self._at_bar]])

    def _bisect(self, function, level, low, high, place, last):
        """The end of each bracket that is at most `level`, after bisection."""
        low, high = low.copy(), high.copy()
        for k in np.unique(place[high > low]):
            rows = np.flatnonzero((place == k) & (high > low))
            a, b = low[rows], high[rows]
            for _ in range(BISECTIONS):
                middle = np.sqrt(a * b)
                holds = function(self._laws[k], middle, rows) <= level
                up = holds == last
                a, b = np.where(up, middle, a), np.where(up, b, middle)
            low[rows], high[rows] = a, b
        return low if last else high

    def _rounded(self, bounds, proven=None):
        """Outward to float32, but above the bar exactly where it is proven.

        Float32 may be coarser than the distance to the bar; there a proven bound
        is the least float32 above the bar.
        """
        lower, upper, p_value = bounds
        bar = 1 - self._test.kappa
        lower = np.where(lower > 0.5, np.clip(lower, 0, 1), 0.0)
        rounded = np.nextafter(lower.astype(np.float32), np.float32(0))
        upper = np.nextafter(np.minimum(upper, 1).astype(np.float32), np.float32(1))
        p_value = np.nextafter(np.minimum(p_value, 1).astype(np.float32), np.float32(1))
        if proven is not None:
            least = np.float32(bar)
            if least <= bar:
                least = np.nextafter(least, np.float32(1))
            rounded = np.where(proven, np.maximum(rounded, least), rounded)
            alpha = np.float32(self._test.alpha)
            if alpha > self._test.alpha:
                alpha = np.nextafter(alpha, np.float32(0))
            p_value = np.where(proven, np.minimum(p_value, alpha), p_value)
        return np.stack([rounded, upper, p_value], axis=1).astype(np.float32)


def _references(kappa, horizon):
    """Disagreements q, increasing, with kappa among them and ½ the last.

    Neighbours differ by half at most, and by less where counts are so large that
    re-weighting would reach into tails that were dropped.
    """
    step = math.log(1 + 0.5 * min(1.0, math.sqrt(3000 / (kappa * horizon + 1))))
    below = kappa * np.exp(-step * np.arange(int(math.log(1 / LEAST) / step), 0, -1))
    count = math.ceil(math.log(0.5 / kappa) / step)
    above = np.geomspace(kappa, 0.5, count + 1)[1:] if count else []
    return [*below.tolist(), kappa, *map(float, above)]


class _Laws:
    """The laws of a test at one q, each with one boundary switched off."""

    def __init__(self, bounds, q):
        test = bounds._test
        self.q = q
        self._times = test.certify_times.astype(np.int64)
        reach = max(bounds._reach, bounds._hopeless)
        self._certifying, self._certifying_one = (
            stopping_law(
                self._times, np.zeros(reach, np.int64), test.max_samples, q, two_classes
            )
            for two_classes in (True, False)
        )
        self._horizon = test.max_samples
        self.rejecting, self.rejecting_leader = (
            _Alive(
                stopping_law(
                    [],
                    test.reject_until[: bounds._reach],
                    test.max_samples,
                    q,
                    two_classes,
                    looks=bounds.stopped_by,
                    keep_states=True,
                ),
                bounds.stopped_by,
                q,
                two_classes,
            )
            for two_classes in (False, True)
        )

    def certified_by(self, q, last, two_classes=True):
        """P(certified with at most `last` disagreements), rejecting off."""
        d = np.arange(len(self._times))
        at_bar = self._certifying if two_classes else self._certifying_one
        law = _likelihood(at_bar.certified, self._times, d, self.q, q, two_classes)
        return np.where(d <= last[:, None], law, 0.0).sum(axis=1)

    def certified_or_left(self, q, most):
        """P(certified, or undecided with at most `most` disagreements)."""
        left = self._certifying.undecided[len(self._times) :]
        weights = np.append(self._certifying.certified, left)
        n = np.append(self._times, np.full(len(left), self._horizon))
        d = np.arange(len(weights))
        law = _likelihood(weights, n, d, self.q, q, True)
        return np.where(d <= most[:, None], law, 0.0).sum(axis=1)


class _Alive:
    """Streams that go on after each stage, at any disagreement."""

    def __init__(self, law, stages, bar, two_classes):
        states = [law.states[n] for n in stages.tolist()]
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
    """Probabilities at each q of what has probability `weights` at q = `bar`."""
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
