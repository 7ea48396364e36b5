"""What a sequential test does at a given agreement, exactly."""

import io

import numpy as np
from rich.console import Console
from rich.table import Table

from keras_probcert.sequential.stopping_law import stopping_law

DECISIONS = ("certify", "reject", "futile", "undecided")
MOST_STATES = 200_000


def operating_characteristics(
    certify,
    reject,
    agreement=None,
    futile=False,
    quantiles=(),
    class_probabilities=None,
):
    """Decisions and samples of a test, exactly.

    Votes agree or disagree with one given class, each with probability
    `agreement` or 1 − `agreement`; or, with `class_probabilities`, they fall on
    several classes and are counted against the leading one. Nothing is
    simulated (see `keras_probcert.sequential.stopping_law`).

    Args:
        certify: nondecreasing int array of length `max_samples + 1`: certify
            after n votes if d ≤ `certify[n]`.
        reject: nondecreasing int array of the same length: reject if
            d ≥ `reject[n]`.
        agreement: a float in [0, 1], or an array of them.
        futile: whether a stream stops that can no longer be certified.
        quantiles: probabilities in (0, 1) whose quantiles of the number of
            samples are wanted.
        class_probabilities: the probabilities of all classes, adding up to 1,
            in place of `agreement` and `quantiles`. Exact too; where kappa is
            near ½ and the classes are many, the states may be too many.

    Returns:
        A dict of floats, or of float64 arrays of the shape of `agreement`:
        `certify`, `reject`, `futile`, `undecided` (probabilities),
        `expected_samples`, and, with `quantiles`, `sample_quantiles` with one
        more axis.

    Raises:
        ValueError: if a probability is out of its range, or there are
            200,000 states.

    Example:

    Ten votes, all of which must agree, each with probability 0.9:

    >>> certify, reject = np.full(11, -1), np.arange(1, 12)
    >>> certify[10] = 0
    >>> found = operating_characteristics(certify, reject, agreement=0.9)
    >>> bool(np.isclose(found["certify"], 0.9**10))
    True
    """
    test = Times(certify, reject, futile)
    if class_probabilities is not None:
        if agreement is not None or len(quantiles):
            raise ValueError(
                "`agreement` and `quantiles` must not be given beside "
                "`class_probabilities`."
            )
        return _with_classes(test, class_probabilities)
    p = np.asarray(agreement, np.float64)
    if not ((0 <= p) & (p <= 1)).all():
        raise ValueError(
            f"`agreement` must lie in [0, 1]. Received: agreement={agreement}"
        )
    if not all(0 < quantile < 1 for quantile in quantiles):
        raise ValueError(f"`quantiles` must lie in (0, 1). Received: {quantiles}")
    rows = []
    for value in p.ravel():
        law = test.law(1.0 - value)
        row = test.decisions(law)
        row["expected_samples"] = expected_samples(law, 1.0 - value)
        if quantiles:
            row["sample_quantiles"] = [
                test.quantile(1.0 - value, law, level) for level in quantiles
            ]
        rows.append(row)
    if p.shape == ():
        return rows[0]
    return {
        name: np.reshape([row[name] for row in rows], p.shape + np.shape(value))
        for name, value in rows[0].items()
    }


class Times:
    """The boundaries as times, with futility as more rejecting."""

    def __init__(self, certify, reject, futile):
        certify, reject = np.asarray(certify), np.asarray(reject)
        self.horizon = len(certify) - 1
        self.certify_times = np.searchsorted(certify, np.arange(certify[-1] + 1))
        reach = min(reject[-1], self.horizon + 1)
        until = np.searchsorted(reject, np.arange(reach), side="right") - 1
        self.hopeless = max(len(self.certify_times), 1)
        # Up to when reaching the hopeless number of disagreements rejects.
        self.rejects_hopeless = self.horizon
        if futile and self.hopeless < len(until):
            self.rejects_hopeless = until[self.hopeless]
            until = until[: self.hopeless]
        self.reject_until = until

    def law(self, q, looks=(), **kwargs):
        looks = [*looks, max(self.rejects_hopeless, 1)]
        return stopping_law(
            self.certify_times,
            self.reject_until,
            self.horizon,
            q,
            looks=looks,
            **kwargs,
        )

    def decisions(self, law):
        hopeless = law.times > self.rejects_hopeless
        return {
            "certify": float(law.certified.sum()),
            "reject": float(law.rejected[~hopeless].sum()),
            "futile": float(law.rejected[hopeless].sum()),
            "undecided": float(law.undecided.sum()),
        }

    def quantile(self, q, law, level):
        """The least n with P(N ≤ n) ≥ level."""
        if law.alive[-1] > 1 - level:
            return float(self.horizon)
        i = int(np.argmax(law.alive <= 1 - level))
        before = law.times[i - 1] if i else 0
        law = self.law(q, looks=np.arange(before + 1, law.times[i] + 1))
        return float(law.times[np.argmax(law.alive <= 1 - level)])


def expected_samples(law, q, begin=0, disagreements=0.0, mass=1.0):
    """Votes after `begin`, by Wald's identity."""
    if q == 0:
        alive = np.append(mass, law.alive)[:-1]
        return float(alive @ np.diff(law.times, prepend=begin))
    return (law.expected_disagreements() - disagreements) / q


def _with_classes(test, class_probabilities):
    """Every class counted until no leader can change, then one law a leader.

    To be overtaken, a leader must first be caught: half of the votes disagree.
    From the time on at which that many are rejected, leaders stay.
    """
    p = np.asarray(class_probabilities, np.float64)
    if p.ndim != 1 or len(p) < 2 or (p < 0).any() or abs(p.sum() - 1) > 1e-9:
        raise ValueError(
            "`class_probabilities` must hold at least two probabilities that add up "
            f"to 1. Received: class_probabilities={class_probabilities}"
        )
    n = np.arange(test.horizon + 1)
    certify = np.searchsorted(test.certify_times, n, side="right") - 1
    reject = np.searchsorted(test.reject_until, n, side="left")
    may_change = np.flatnonzero(2 * reject > n)
    settled = min(int(may_change[-1]) + 1, test.horizon)

    totals = dict.fromkeys((*DECISIONS, "expected_samples"), 0.0)
    counts, weights = np.zeros((1, len(p)), np.int64), np.ones(1)
    for n in range(1, settled + 1):
        totals["expected_samples"] += weights.sum()
        votes = np.eye(len(p), dtype=np.int64)[p > 0]
        counts = (counts[:, None] + votes).reshape(-1, len(p))
        weights = np.outer(weights, p[p > 0]).ravel()
        counts, place = np.unique(counts, axis=0, return_inverse=True)
        weights = np.bincount(place.ravel(), weights)
        d = n - counts.max(axis=1)
        certified, rejected = d <= certify[n], d >= reject[n]
        totals["certify"] += weights[certified].sum()
        why = "reject" if n <= test.rejects_hopeless else "futile"
        totals[why] += weights[rejected].sum()
        go_on = ~(certified | rejected)
        counts, weights = counts[go_on], weights[go_on]
        if len(weights) > MOST_STATES:
            raise ValueError(
                "`class_probabilities` has too many classes for this test: more than "
                f"{MOST_STATES} states. Received: {len(p)} classes"
            )
    leader, d = counts.argmax(axis=1), settled - counts.max(axis=1)
    if settled == test.horizon:
        totals["undecided"] += weights.sum()
        leader = leader[:0]
    for j in np.unique(leader):
        mine, q = leader == j, 1.0 - p[j]
        state = np.bincount(d[mine], weights[mine])
        law = test.law(q, start=(settled, 0, state))
        for name, value in test.decisions(law).items():
            totals[name] += value
        totals["expected_samples"] += expected_samples(
            law, q, settled, state @ np.arange(len(state)), state.sum()
        )
    return {name: float(value) for name, value in totals.items()}


def summary(test, agreements):
    """The operating characteristics of a test as a table of text."""
    results = test.operating_characteristics(
        np.asarray(agreements, np.float64), quantiles=(0.5, 0.99)
    )
    table = Table(title=repr(test))
    for column in ("agreement", *DECISIONS, "samples", "median", "99 %"):
        table.add_column(column, justify="right")
    for i, agreement in enumerate(agreements):
        median, most = results["sample_quantiles"][i]
        table.add_row(
            f"{agreement:.6g}",
            *(f"{results[name][i]:.4f}" for name in DECISIONS),
            f"{results['expected_samples'][i]:,.1f}",
            f"{median:,.0f}",
            f"{most:,.0f}",
        )
    text = io.StringIO()
    Console(file=text, width=100).print(table)
    return text.getvalue()
