"""Where a stream of votes stops, by dynamic programming over the boundaries.

The state after n votes is the number d of disagreeing ones among the streams
that go on. Both boundaries are nondecreasing, so it is enough to look where one
of them steps. Certifying: a stream that goes on has more than `certify[n]`
disagreements, later votes only add to them, so it can be certified only where
`certify` steps up. Rejecting: while `reject` stands at r, a stream has been
rejected if and only if it has r disagreements or more at the end of that
stretch. Between two looks the state is convolved with a binomial law; nothing
is subtracted, so nothing cancels.

**Two classes.** A predictor counts the votes that disagree with the leading
class. With two classes of probabilities 1 − q and q that is the smaller of the
two counts, a folded walk: a tie stays a tie after either vote. Exchanging the
classes maps the streams that stop at (n, d) onto each other, so their
probability is that of one leader times \\(1 + (q/(1-q))^{n-2d}\\).
"""

import dataclasses
import math

import numpy as np
from scipy import stats

# States below it are dropped; what was dropped at the most is added up and checked.
NEGLIGIBLE = 1e-200
# Where only the sum of an error is wanted, which is no less than 1e-15. (What is cut
# of the laws of the votes between two looks is not added up: 1e-28 in all.)
NEGLIGIBLE_IN_ERRORS = 1e-40


@dataclasses.dataclass(frozen=True)
class StoppingLaw:
    """Where streams stop, as probabilities (see `stopping_law`).

    Attributes:
        times: int64 `(looks,)`, the numbers of votes that were looked at.
        certified: `(certify_times,)`: certified with d disagreements.
        rejected: `(looks,)`: rejected after the last look, up to this one.
        levels: int64 `(looks,)`: with how many disagreements.
        alive: `(looks,)`: streams that go on after each look.
        undecided: `(d,)`: streams at the horizon, by their disagreements.
        states: by the number of votes, the state after each look that was asked
            for, `(lowest d, probabilities)`, or `None`.
    """

    times: np.ndarray
    certified: np.ndarray
    rejected: np.ndarray
    levels: np.ndarray
    alive: np.ndarray
    undecided: np.ndarray
    states: dict | None

    def expected_disagreements(self):
        """E[disagreements at the stop]: q E[N] for one class (Wald)."""
        return float(
            self.certified @ np.arange(len(self.certified))
            + self.rejected @ self.levels
            + self.undecided @ np.arange(len(self.undecided))
        )


def stopping_law(
    certify_times,
    reject_until,
    horizon,
    q,
    two_classes=False,
    looks=(),
    keep_states=False,
    start=(0, 0, (1.0,)),
    negligible=NEGLIGIBLE,
):
    """The law of the stop, exactly.

    Args:
        certify_times: nondecreasing int array: d disagreements certify from
            `certify_times[d]` votes on, more than its length never do.
        reject_until: nondecreasing int array: d disagreements reject up to
            `reject_until[d]` votes; more than its length always do.
        horizon: the most votes.
        q: the probability that a vote disagrees, in [0, 1].
        two_classes: whether disagreements are counted against the leader of two
            classes of probabilities 1 − q and q, with q ≤ ½.
        looks: further numbers of votes to look at.
        keep_states: whether to keep the state after each of `looks`.
        start: `(n, lowest d, probabilities)` of the streams to begin with.
        negligible: the probability below which a state is dropped.

    Returns:
        A `StoppingLaw`.
    """
    certify_times = np.asarray(certify_times, np.int64)
    reject_until = np.asarray(reject_until, np.int64)
    single = min(_last_tie(q) if two_classes else 1, horizon)
    begin, low, state = start
    wanted = np.asarray(looks, np.int64).tolist() if keep_states else []
    times = np.unique(
        np.concatenate(
            [
                np.arange(1, single + 1),
                certify_times[certify_times <= horizon],
                reject_until[(0 < reject_until) & (reject_until < horizon)],
                np.asarray(looks, np.int64),
                [horizon],
            ]
        )
    )
    times = times[times > begin]
    certify = np.searchsorted(certify_times, times, side="right") - 1
    reject = np.searchsorted(reject_until, times, side="left")
    kernels = binomial_kernels(np.diff(times, prepend=begin), q, negligible)
    odds = q / (1 - q) if two_classes and q < 1 else 0.0

    certified, rejected = np.zeros(len(certify_times)), np.zeros(len(times))
    states = dict.fromkeys(wanted)
    state, lost, n = np.asarray(state, np.float64), 0.0, begin

    def unfolded(n, low, state):
        """The probability of the states of either leader."""
        if odds and (n - 2 * (low + len(state))) * math.log(odds) > -50:
            state = state * (1.0 + odds ** (n - 2.0 * (low + np.arange(len(state)))))
        return state

    looked = zip(
        times.tolist(), certify.tolist(), reject.tolist(), kernels, strict=True
    )
    for i, (n, certifies, rejects, (first, kernel)) in enumerate(looked):
        if not state.size:
            # Near q = ½ most times come after every stream has stopped.
            break
        if two_classes and n == 1:
            state = np.array([1.0 - q])
        elif two_classes and n <= single and 2 * (low + len(state) - 1) == n - 1:
            # After a tie either vote makes a leader.
            tie = state[-1]
            state = np.convolve(state, kernel)[:-1]
            state[-1] += tie * (1.0 - q)
        else:
            state = np.convolve(state, kernel)
            low += first

        if low + len(state) > rejects:
            above = max(rejects - low, 0)
            rejected[i] = unfolded(n, low + above, state[above:]).sum()
            state = state[:above]
        if low <= certifies:
            below = min(certifies + 1 - low, len(state))
            certified[low : low + below] += unfolded(n, low, state[:below])
            state, low = state[below:], low + below
        kept = np.flatnonzero(state > negligible)
        least, most = (int(kept[0]), int(kept[-1]) + 1) if kept.size else (0, 0)
        lost += (len(state) - (most - least)) * negligible
        state, low = state[least:most], low + least
        if n in states:
            states[n] = (low, unfolded(n, low, state))

    everyone = unfolded(n, low, state)
    undecided = np.concatenate([np.zeros(low), everyone])
    total = certified.sum() + rejected.sum() + undecided.sum()
    if not (abs(total - np.sum(start[2])) < 1e-9 and lost < 1e-30):
        raise RuntimeError(
            f"Probabilities must add up to 1. Received: {total}, {lost} of it dropped"
        )
    states = {n: state or (low, everyone) for n, state in states.items()}
    return StoppingLaw(
        times,
        certified,
        rejected,
        levels=reject,
        alive=_alive(times, certify_times, certified, rejected, undecided),
        undecided=undecided,
        states=states if keep_states else None,
    )


def _alive(times, certify_times, certified, rejected, undecided):
    """The streams that stop after each look: sums only, so nothing cancels."""
    stopped, reached = rejected.copy(), certify_times <= times[-1]
    place = np.searchsorted(times, certify_times[reached])
    np.add.at(stopped, place, certified[reached])
    return undecided.sum() + np.append(np.cumsum(stopped[:0:-1])[::-1], 0.0)


def _last_tie(q):
    """The number of votes after which no stream worth counting is near a tie."""
    if q > 0.49:
        return np.iinfo(np.int64).max
    # q n + 12 standard deviations + 30 < n / 2
    room = 0.5 - q
    root = (6 * math.sqrt(q * (1 - q)) + math.sqrt(36 * q * (1 - q) + 30 * room)) / room
    return int(root**2) + 1


def binomial_kernels(steps, q, negligible=0.0):
    """The law of the disagreements among each number of votes: (least, law)."""
    sizes, place = np.unique(steps, return_inverse=True)
    spread = 12 * np.sqrt(sizes * q * (1 - q)) + 30
    low = np.maximum(np.floor(sizes * q - spread), 0).astype(np.int64)
    high = np.minimum(np.ceil(sizes * q + spread), sizes).astype(np.int64)
    count = np.arange((high - low).max() + 1)
    law = stats.binom.pmf(low[:, None] + count, sizes[:, None], q)
    law[count > (high - low)[:, None]] = 0.0
    least = np.argmax(law > negligible, axis=1)
    most = len(count) - np.argmax(law[:, ::-1] > negligible, axis=1)
    laws = [
        (int(a + b), row[b:c])
        for a, b, c, row in zip(low, least, most, law, strict=True)
    ]
    return [laws[j] for j in place]
