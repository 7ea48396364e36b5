"""Statistics of results over a test set."""

import math
from typing import NamedTuple

import numpy as np
from scipy import stats

from keras_probcert.validation import check_fraction


class Rate(NamedTuple):
    """A rate of successes with its confidence interval."""

    rate: float
    lower: float
    upper: float
    successes: int
    trials: int

    def __repr__(self):
        return (
            f"{self.rate:.4g} [{self.lower:.4g}, {self.upper:.4g}] "
            f"({self.successes} of {self.trials})"
        )


def success_rate(successes, level=0.95):
    """The rate of successes with its Clopper-Pearson interval.

    Args:
        successes: bool array `(rows,)`; it may be empty, which tells nothing: the
            rate is NaN and the interval [0, 1].
        level: the confidence level, in (0, 1); 0.95 by default. Each end errs with
            probability at most (1 − level)/2.

    Returns:
        A `Rate`.

    Raises:
        ValueError: if `successes` has more than one dimension, or `level` is out of
            its range.

    Example:

    >>> success_rate([True, True, True, False])
    0.75 [0.1941, 0.9937] (3 of 4)

    Reference:

    - Clopper and Pearson, "The use of confidence or fiducial limits illustrated
      in the case of the binomial", Biometrika 26 (1934).
    """
    level = check_fraction("level", level)
    successes = np.asarray(successes, bool)
    if successes.ndim != 1:
        raise ValueError(
            "`successes` must be an array of shape (rows,). "
            f"Received: shape {successes.shape}"
        )
    k, n = int(successes.sum()), len(successes)
    if n == 0:
        return Rate(math.nan, 0.0, 1.0, 0, 0)
    interval = stats.binomtest(k, n).proportion_ci(level, method="exact")
    return Rate(k / n, float(interval.low), float(interval.high), k, n)


class PairedDifference(NamedTuple):
    """A difference of two rates with its confidence interval."""

    difference: float
    lower: float
    upper: float


def paired_difference(first, second, level=0.95):
    """The difference of two success rates on the same test rows.

    The interval is Agresti and Min's: Wald's for paired proportions after half a
    row is added to each cell of the 2×2 table, which keeps its level near the
    nominal one when few rows differ.

    Args:
        first: bool array `(rows,)`, success of one method on each row.
        second: bool array `(rows,)`, success of the other on the same rows.
        level: the confidence level, in (0, 1); 0.95 by default.

    Returns:
        A `PairedDifference`: the rate of `first` minus that of `second`, and
        the interval's ends.

    Raises:
        ValueError: if the arrays are empty or differ in shape, or `level` is out
            of its range.

    Example:

    >>> paired_difference([True, True, False, True], [True, False, False, False])[0]
    0.5

    Reference:

    - Agresti and Min, "Simple improved confidence intervals for comparing
      matched proportions", Statistics in Medicine 24 (2005).
    """
    # Imported here because it is slow and only this function needs it.
    from tensorflow_probability.substrates import numpy as tfp

    level = check_fraction("level", level)
    first, second = np.asarray(first, bool), np.asarray(second, bool)
    if first.ndim != 1 or first.shape != second.shape or not first.size:
        raise ValueError(
            "`first` and `second` must be non-empty arrays of one shape (rows,). "
            f"Received: shapes {first.shape} and {second.shape}"
        )
    n = len(first) + 2
    only_first = (first & ~second).sum() + 0.5
    only_second = (second & ~first).sum() + 0.5
    middle = (only_first - only_second) / n
    variance = (only_first + only_second) / n - middle**2
    z = float(
        tfp.distributions.Normal(np.float64(0), np.float64(1)).quantile((1 + level) / 2)
    )
    half = z * math.sqrt(variance / n)
    return PairedDifference(
        float(first.mean() - second.mean()),
        max(-1.0, float(middle - half)),
        min(1.0, float(middle + half)),
    )
