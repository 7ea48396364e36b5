r"""What it costs to certify a data set: votes, time and workers.

At a disagreement q, a test takes N votes: its mean, its spread and the decisions are
exact (`keras_probcert.sequential.operating_characteristics`). Over a data set, q has a
law (`keras_probcert.sequential.disagreement`), and the expected votes of a row are

\[E[N] = \int E[N \mid q] \, dF(q).\]

The integrand is nearly flat around q = 0, where F may have almost all of its mass, and
has a peak near kappa, as narrow as (κ·horizon)^(-1/2). So it is calculated at points
that are dense around kappa, interpolated in log q, and summed over cells small enough
for it to be constant, whose probabilities under F are exact.
"""

import dataclasses
import functools
import math

import numpy as np
from scipy.interpolate import PchipInterpolator

from keras_probcert.sequential.disagreement import law_of_share, posterior
from keras_probcert.sequential.operating_characteristics import (
    DECISIONS,
    Times,
    expected_samples,
)
from keras_probcert.sequential.sequential_test import SequentialTest
from keras_probcert.validation import check_fraction, check_integer, check_number

# Disagreements below this share of kappa cost what unanimous votes do.
LEAST = 1e-3
CELLS = 2000


@dataclasses.dataclass(frozen=True)
class CertificationPlan:
    """What certifying a data set is expected to take (see `plan_certification`).

    Attributes:
        rows: inputs.
        votes_per_row: expected votes of an input.
        votes: expected votes in all.
        votes_deviation: the standard deviation of `votes`: what the rows' chance
            adds, and what the pilot leaves open.
        certified, rejected, futile, undecided: expected shares of the rows.
        rate: votes a second of one worker, or `None`.
        workers: workers, at most one a row.
        hours: the time that these take, or `None` without a rate.
        workers_needed: for the hours that were asked for, or `None`.

    Example:

    >>> plan = CertificationPlan(
    ...     rows=10, votes_per_row=600.0, votes=6000.0, votes_deviation=90.0,
    ...     certified=0.9, rejected=0.1, futile=0.0, undecided=0.0,
    ...     rate=3000.0, workers=1, hours=2 / 3600, workers_needed=None,
    ... )
    >>> plan.seconds
    2.0
    """

    rows: int
    votes_per_row: float
    votes: float
    votes_deviation: float
    certified: float
    rejected: float
    futile: float
    undecided: float
    rate: float | None
    workers: int
    hours: float | None
    workers_needed: int | None

    @property
    def seconds(self):
        """The time that one worker takes, or `None` without a rate."""
        return None if self.rate is None else self.votes / self.rate

    def lines(self):
        """What there is to say, as `(what, how much)` of text."""
        lines = [
            ("rows", f"{self.rows:,}"),
            ("votes a row", f"{self.votes_per_row:,.4g}"),
            ("votes", f"{self.votes:,.4g} ± {self.votes_deviation:,.2g}"),
        ]
        for name in ("certified", "rejected", "futile", "undecided"):
            lines.append((f"share {name}", f"{getattr(self, name):.4f}"))
        if self.rate is not None:
            lines.append(("votes a second on one worker", f"{self.rate:,.4g}"))
            lines.append(("time on one worker", _duration(self.seconds)))
            if self.workers > 1:
                share = _duration(3600 * self.hours)
                lines.append((f"time on {self.workers} workers", share))
        if self.workers_needed is not None:
            lines.append(("workers needed", f"{self.workers_needed:,}"))
        return lines

    def __str__(self):
        lines = self.lines()
        width = max(len(what) for what, _ in lines)
        return "\n".join(f"{what:{width}}  {much}" for what, much in lines)


def plan_certification(
    test,
    rows,
    robust_share=None,
    agreement=None,
    pilot=None,
    rate=None,
    workers=None,
    hours=None,
):
    """Votes, time and workers that certifying a data set takes, before it is done.

    The test's cost at each agreement is exact. How agreements are spread over the
    inputs must be assumed, or learned from other inputs, and one of three arguments
    says which. Votes are counted as if against one fixed class, which differs from
    counting against the leading class only where both are few.

    Args:
        test: a `SequentialTest`, such as `CertifiedPredictor.test`.
        rows: the number of inputs.
        robust_share: the share of inputs that are expected to be robust (an
            agreement above 1 − kappa), in (0, 1). Margins are then taken to follow
            an exponential law.
        agreement: true agreements of inputs like these, a float array in [0, 1].
        pilot: votes on inputs like these: what `CertifiedPredictor.predict` gave
            for other rows, with whatever test. The law of margins is learned from
            them, and what they leave open counts in `votes_deviation`: about a
            tenth of the votes with 500 rows.
        rate: votes a second of one worker, as `forward_rate` measures it; without
            it nothing is said of time.
        workers: workers that share the rows evenly. By default as many as `hours`
            asks for, or 1.
        hours: the hours that are there.

    Returns:
        A `CertificationPlan`: the expected votes a row and in all, their standard
        deviation, the expected shares of the decisions, and the time.

    Raises:
        ValueError: if an argument is out of its range, not exactly one of
            `robust_share`, `agreement` and `pilot` is given, or `hours` without
            `rate`.

    Example:

    >>> test = ExactTest(kappa=0.05, alpha=0.05, max_samples=2000)
    >>> plan = plan_certification(test, 10_000, robust_share=0.9, rate=5000)
    >>> plan.votes > 10_000 * test.min_samples
    True
    >>> plan.hours == plan.votes / 5000 / 3600
    True
    >>> plan_certification(test, 10_000, robust_share=0.9, rate=50, hours=1).workers
    6

    Reference:

    - Berger and Wolpert, "The Likelihood Principle" (IMS Lecture Notes 6, 1988), for
      why votes of a stopped test may be used as they are.
    """
    if not isinstance(test, SequentialTest):
        raise ValueError(
            f"`test` must be a SequentialTest, an instance. Received: test={test!r}"
        )
    rows = check_integer("rows", rows)
    if rate is not None:
        rate = _positive("rate", rate)
    if workers is not None:
        workers = check_integer("workers", workers)
    if hours is not None:
        hours = _positive("hours", hours)
        if rate is None:
            raise ValueError("`rate` must be given with `hours`. Received: rate=None")
    given = {"robust_share": robust_share, "agreement": agreement, "pilot": pilot}
    given = [name for name, value in given.items() if value is not None]
    if len(given) != 1:
        raise ValueError(
            "Exactly one of `robust_share`, `agreement` and `pilot` must be given. "
            f"Received: {given or None}"
        )

    edges, costs = _costs(test)
    if agreement is not None:
        cells, weights = _counted(agreement, edges), np.ones(1)
    else:
        if pilot is not None:
            law = posterior(*_disagreements(pilot))
        else:
            robust_share = check_fraction("robust_share", robust_share)
            if test.kappa == 0.5:
                raise ValueError(
                    "`robust_share` needs a test of a kappa below 0.5, at which no "
                    f"input has a margin. Received: robust_share={robust_share}"
                )
            law = law_of_share(robust_share, test.kappa)
        cells, weights = law.between(edges), law.weights

    samples = cells @ costs["samples"]
    mean = float(weights @ samples)
    squares = costs["samples"] ** 2 + costs["deviation"] ** 2
    squares = float(weights @ cells @ squares)
    # How well the mean itself is known: by the laws that are left, or by the
    # scatter of the agreements around theirs.
    unknown = float(weights @ (samples - mean) ** 2)
    if agreement is not None:
        scatter = cells[0] @ (costs["samples"] - mean) ** 2
        unknown = float(scatter) / np.size(agreement)
    of_a_row = max(squares - mean**2 - unknown, 0.0)
    certified, rejected, futile, undecided = (
        float(weights @ cells @ costs[name]) for name in DECISIONS
    )
    needed = None
    if hours is not None:
        needed = min(math.ceil(rows * mean / rate / (3600 * hours)), rows)
    workers = min(workers or needed or 1, rows)
    return CertificationPlan(
        rows=rows,
        votes_per_row=mean,
        votes=rows * mean,
        votes_deviation=math.sqrt(rows * of_a_row + rows**2 * unknown),
        certified=certified,
        rejected=rejected,
        futile=futile,
        undecided=undecided,
        rate=rate,
        workers=workers,
        hours=None if rate is None else rows * mean / rate / workers / 3600,
        workers_needed=needed,
    )


@functools.lru_cache(maxsize=16)
def _costs(test):
    """Cells of the disagreement, and what the test does in each.

    Returns:
        `(edges, costs)`: float64 `(CELLS + 1,)` from 0 to 1, and a dict of float64
        `(CELLS,)`: the decisions' probabilities, the expected `samples` and their
        standard `deviation`.
    """
    kappa = test.kappa
    q = _points(kappa, test.max_samples)
    times = Times(*test.boundaries(), test.futile)
    found = [_at(times, value) for value in q]

    low, high = math.log(LEAST / 10), -math.log(kappa)
    edges = np.append(0, kappa * np.exp(np.linspace(low, high, CELLS)))
    edges[-1] = 1.0
    # The first is as good as 0.
    middle = np.append(0, np.sqrt(edges[1:-1] * edges[2:]))

    def place(q):
        return np.log(q + LEAST * kappa)

    costs = {}
    for name in found[0]:
        values = np.array([row[name] for row in found])
        values = np.log(values) if name == "samples" else values
        values = PchipInterpolator(place(q), values)(place(middle))
        costs[name] = np.exp(values) if name == "samples" else values
    return edges, costs


def _points(kappa, horizon):
    """Disagreements to calculate at: 0 to 1, dense around kappa."""
    end = -math.log(kappa)
    width = 1 / math.sqrt(kappa * horizon)
    reach = math.asinh(1 / width)
    near = width * np.sinh(np.linspace(-reach, reach, 2 * math.ceil(reach / 0.25) + 1))
    far = np.append(np.arange(math.log(LEAST), -1, 0.5), np.arange(1.5, end, 0.5))
    logs = np.union1d(near, far)
    return np.concatenate([[0], kappa * np.exp(logs[logs < end - 1e-9]), [1]])


def _at(times, q):
    """Decisions, expected votes and their deviation at a disagreement."""
    # When between two looks a stream was rejected is not known: the middle is taken.
    # The test's own looks may be far apart.
    looks = np.unique(np.geomspace(1, times.horizon, 300).astype(np.int64))
    law = times.law(q, looks=looks)
    samples = expected_samples(law, q)
    rejected_at = (law.times + 1 + np.append(0, law.times[:-1])) / 2
    squares = (
        law.certified @ times.certify_times.astype(np.float64) ** 2
        + law.rejected @ rejected_at**2
        + law.undecided.sum() * float(times.horizon) ** 2
    )
    deviation = math.sqrt(max(float(squares) - samples**2, 0.0))
    return {**times.decisions(law), "samples": samples, "deviation": deviation}


def _counted(agreement, edges):
    """The shares of the agreements in each cell, `(1, cells)`."""
    agreement = np.asarray(agreement, np.float64).ravel()
    if not agreement.size or not ((0 <= agreement) & (agreement <= 1)).all():
        raise ValueError(
            "`agreement` must hold at least one number, all of them in [0, 1]. "
            f"Received: agreement={agreement}"
        )
    places = np.searchsorted(edges, 1 - agreement, side="right") - 1
    places = np.minimum(places, len(edges) - 2)
    counts = np.bincount(places, minlength=len(edges) - 1)
    return counts[None] / len(agreement)


def _disagreements(pilot):
    """`(disagreements, num_samples)` of the rows that took votes."""
    if not isinstance(pilot, dict) or not {"votes", "num_samples"} <= set(pilot):
        raise ValueError(
            "`pilot` must be a dict with 'votes' and 'num_samples', as "
            "`CertifiedPredictor.predict` gives it. Received: "
            f"{list(pilot) if isinstance(pilot, dict) else type(pilot).__name__}"
        )
    votes, n = np.asarray(pilot["votes"]), np.asarray(pilot["num_samples"])
    if votes.ndim != 2 or n.shape != votes.shape[:1] or not (n > 0).any():
        raise ValueError(
            "`pilot` must hold 'votes' of shape (rows, classes) and 'num_samples' of "
            "shape (rows,), with votes in at least one row. Received: shapes "
            f"{votes.shape} and {n.shape}"
        )
    votes, n = votes[n > 0], n[n > 0]
    d = n - votes.max(axis=1)
    if (votes < 0).any() or (d < 0).any():
        raise ValueError(
            "`pilot` must hold counts: no vote below 0, and no more votes in a row "
            "than its 'num_samples'. Received: others"
        )
    return d, n


def _positive(name, value):
    value = check_number(name, value)
    if value == 0:
        raise ValueError(f"`{name}` must be above 0. Received: {name}={value!r}")
    return value


def _duration(seconds):
    if seconds < 120:
        return f"{seconds:.3g} s"
    if seconds < 7200:
        return f"{seconds / 60:.3g} min"
    return f"{seconds / 3600:,.4g} h"
