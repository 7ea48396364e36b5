"""Statistics of results over a test set."""

import math
from typing import NamedTuple

import numpy as np
from scipy import stats

from keras_probcert.validation import check_choice, check_fraction, check_labels


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
        ValueError: if `successes` has more than one dimension or holds anything but
            True and False, or `level` is out of its range.

    Example:

    >>> success_rate([True, True, True, False])
    0.75 [0.1941, 0.9937] (3 of 4)

    Reference:

    - Clopper and Pearson, "The use of confidence or fiducial limits illustrated
      in the case of the binomial", Biometrika 26 (1934).
    """
    level = check_fraction("level", level)
    successes = _flags("successes", successes)
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
        ValueError: if the arrays are empty, differ in shape or hold anything but
            True and False, or `level` is out of its range.

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
    first, second = _flags("first", first), _flags("second", second)
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


def certified_accuracy(results, y, radii):
    r"""The share of rows that are certified as their true class at each radius.

    \[\frac1N \sum_i 1[\text{label}_i = y_i \text{ and } R_i \ge r].\]

    A radius R is a promise about the open ball, so a row of radius R = r withstands
    every change of a norm less than r: R ≥ r is what the accuracy against such
    changes counts, and what the field's curves show. Rows that are abstained on
    (label −1) are never right. At r = 0 this is the share of rows that are right
    with any radius.

    Args:
        results: what `SmoothedClassifier.predict` gives: a dict with `label`, int
            `(rows,)`, −1 where abstained, and `radius`, float `(rows,)`.
        y: the true classes `(rows,)`, or one-hot `(rows, classes)`.
        radii: a radius or an array of them, in the units of `radius`, at least 0.

    Returns:
        float64 of the shape of `radii`.

    Raises:
        ValueError: if `results` lacks a name or has the `guarantee` "heuristic", `y`
            does not fit, or a radius is negative or not finite.

    Example:

    >>> results = {"label": np.array([0, 1, -1, 1]),
    ...            "radius": np.array([0.5, 1.5, 0.0, 2.0])}
    >>> certified_accuracy(results, [0, 1, 0, 0], [0.0, 0.5, 1.0]).tolist()
    [0.5, 0.5, 0.25]

    Reference:

    - Cohen, Rosenfeld and Kolter, "Certified Adversarial Robustness via Randomized
      Smoothing" (ICML 2019), section 4.
    """
    radii = np.asarray(radii, np.float64)
    if not (np.isfinite(radii) & (radii >= 0)).all():
        raise ValueError(
            f"`radii` must be finite and at least 0. Received: radii={radii}"
        )
    right, radius = _right_with_radius(results, y)
    holds = right & (radius >= radii[..., None])
    return holds.mean(axis=-1)


def average_certified_radius(results, y, over="all"):
    r"""The mean radius of the rows that are certified as their true class (ACR).

    \[\text{ACR} = \frac1N \sum_i R_i \cdot 1[\text{label}_i = y_i]\]

    over all N rows: a row that is wrong or abstained on counts as 0. That is the
    area under the curve of `certified_accuracy`. With `over="correct"` the same sum
    is divided by the number of rows that are right instead: it then says nothing of
    how many those are, and grows when a model gives up its difficult rows.

    Args:
        results, y: see `certified_accuracy`.
        over: `"all"` (default) or `"correct"`.

    Returns:
        A float; NaN for `"correct"` where no row is right.

    Raises:
        ValueError: if `results` lacks a name or has the `guarantee` "heuristic", `y`
            does not fit, or `over` is something else.

    Example:

    >>> results = {"label": np.array([0, 1, -1, 1]),
    ...            "radius": np.array([0.5, 1.5, 0.0, 2.0])}
    >>> y = [0, 1, 0, 0]
    >>> average_certified_radius(results, y)
    0.5
    >>> average_certified_radius(results, y, over="correct")
    1.0

    Reference:

    - Zhai et al., "MACER: Attack-free and Scalable Robust Training via Maximizing
      Certified Radius" (ICLR 2020), section 3.
    """
    check_choice("over", over, ("all", "correct"))
    right, radius = _right_with_radius(results, y)
    if over == "all":
        return float((radius * right).mean())
    return float(radius[right].mean()) if right.any() else math.nan


def abstention_rate(results):
    """The share of rows that are abstained on.

    Args:
        results: a dict with `label`, int `(rows,)`, −1 where abstained.

    Returns:
        A float.

    Raises:
        ValueError: if `results` lacks `label`, or it is empty.

    Example:

    >>> abstention_rate({"label": np.array([0, 1, -1, 1])})
    0.25
    """
    return float((_column(results, "label") == -1).mean())


def _flags(name, values):
    """`values` as a bool array: a decision's number, say, is neither yes nor no."""
    values = np.asarray(values)
    if values.size and not np.isin(values, (0, 1)).all():
        raise ValueError(
            f"`{name}` must be an array of True and False. "
            f"Received: dtype={values.dtype}, values such as {values.ravel()[0]!r}"
        )
    return values.astype(bool)


def check_certificates(results):
    """Checks that radii are not of a kind that proves nothing."""
    if isinstance(results, dict) and "heuristic" in results.get("guarantee", ()):
        raise ValueError(
            "`results` must be certificates. Received: radii whose `guarantee` is "
            "'heuristic'"
        )


def _right_with_radius(results, y):
    """Whether each row is certified as its class, and its radius in float64."""
    check_certificates(results)
    label, radius = _column(results, "label"), _column(results, "radius")
    y = np.asarray(y)
    # Only the classes that occur are known here.
    units = y.shape[1] if y.ndim == 2 else 1
    num_classes = units if units > 1 else int(max(y.max(initial=0), label.max())) + 1
    y = check_labels(y, len(label), num_classes)
    certified = np.asarray(results.get("certified", True), bool)
    return (label == y) & certified, radius.astype(np.float64)


def _column(results, name):
    if not isinstance(results, dict) or name not in results:
        raise ValueError(
            f"`results` must be a dict with '{name}', as "
            "`SmoothedClassifier.predict` gives it. "
            f"Received: {list(results) if isinstance(results, dict) else results!r}"
        )
    column = np.asarray(results[name])
    if column.ndim != 1 or not column.size:
        raise ValueError(
            f"`results['{name}']` must be a non-empty array of shape (rows,). "
            f"Received: shape {column.shape}"
        )
    return column
