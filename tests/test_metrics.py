"""The paired difference against Agresti and Min's formula by hand."""

import numpy as np
import pytest
from scipy import stats

from keras_probcert.metrics import paired_difference, success_rate


def by_hand(table, level):
    """Agresti and Min (2005): Wald's interval with 1/2 added to each cell."""
    cells = np.asarray(table, float) + 0.5
    total = cells.sum()
    p12, p21 = cells[0, 1] / total, cells[1, 0] / total
    error = np.sqrt((p12 + p21 - (p12 - p21) ** 2) / total)
    z = stats.norm.ppf(1 - (1 - level) / 2)
    return p12 - p21 - z * error, p12 - p21 + z * error


def rows(table):
    """Rows of successes with these counts, in a mixed order."""
    first = np.repeat([1, 1, 0, 0], np.ravel(table)).astype(bool)
    second = np.repeat([1, 0, 1, 0], np.ravel(table)).astype(bool)
    order = np.random.default_rng(0).permutation(len(first))
    return first[order], second[order]


@pytest.mark.parametrize("level", [0.5, 0.95, 0.999])
@pytest.mark.parametrize(
    "table", [[[794, 86], [150, 570]], [[40, 3], [0, 7]], [[20, 0], [0, 5]]]
)
def test_equals_the_formula(table, level):
    first, second = rows(table)
    result = paired_difference(first, second, level)
    difference = (table[0][1] - table[1][0]) / np.sum(table)
    assert result.difference == pytest.approx(difference, abs=1e-12)
    assert result[1:] == pytest.approx(by_hand(table, level), abs=1e-9)
    assert result == (result.difference, result.lower, result.upper)


def test_the_approval_ratings():
    # Agresti's textbook table (Prime Minister's approval, n = 1,600): Wald's
    # interval is 0.04 ± 0.0187; half a row changes its fourth digit.
    result = paired_difference(*rows([[794, 150], [86, 570]]))
    assert result.difference == pytest.approx(0.04)
    assert result[1:] == pytest.approx((0.0213, 0.0587), abs=2e-4)


def test_exchanging_the_methods_changes_the_sign():
    first, second = rows([[4, 3], [1, 2]])
    one, other = paired_difference(first, second), paired_difference(second, first)
    assert one == pytest.approx((-other.difference, -other.upper, -other.lower))


def test_ends_stay_in_range():
    result = paired_difference([True] * 2, [False] * 2, level=0.9999)
    assert result.difference == 1 and result.upper == 1
    assert -1 <= result.lower < 1


def test_default_level():
    first, second = rows([[40, 3], [1, 7]])
    assert paired_difference(first, second) == paired_difference(first, second, 0.95)


@pytest.mark.parametrize(
    "first, second",
    [([], []), ([True], [True, False]), ([[True]], [[True]]), (True, True)],
)
def test_bad_arrays(first, second):
    with pytest.raises(ValueError, match="`first` and `second` must be non-empty"):
        paired_difference(first, second)


@pytest.mark.parametrize(
    "successes", [[2, 3, 4, 0], [np.nan, 0.0], [0.01, 1.0], ["False", "True"]]
)
def test_bad_successes(successes):
    with pytest.raises(ValueError, match="`successes` must be an array of True and"):
        success_rate(successes)
    with pytest.raises(ValueError, match="`second` must be an array of True and"):
        paired_difference([True] * len(successes), successes)


@pytest.mark.parametrize("level", [0, 1, 95, -0.1, "0.95", True, float("nan")])
def test_bad_level(level):
    with pytest.raises(ValueError, match=f"`level` must be a number.*level={level!r}"):
        paired_difference([True], [False], level)
