"""Bounds on the agreement: inversion, coverage (exactly), tables at the stops."""

import functools
import math

import numpy as np
import pytest

from keras_probcert import BetaMixtureTest
from keras_probcert.sequential import confidence_bounds
from keras_probcert.sequential.confidence_sequence import (
    log_evidence_above,
    log_evidence_below,
    log_threshold_below,
)


@pytest.mark.parametrize("kappa, alpha", [(0.01, 0.01), (0.05, 0.05), (0.4, 0.2)])
def test_bounds_invert_the_evidence(kappa, alpha):
    """On a fine grid of bars, the excluded ones are those beyond the bound."""
    rng = np.random.default_rng(0)
    n = np.exp(rng.uniform(0, np.log(5000), 40)).astype(int)
    d = (n * rng.beta(0.3, 3, 40)).astype(int)
    lower, upper = confidence_bounds(n, d, kappa, alpha)
    widest = max(kappa, 0.25)
    bars = np.concatenate([np.geomspace(1e-5, widest, 500), [widest]])
    proven = log_evidence_below(n[:, None], d[:, None], bars, kappa)
    proven = proven >= log_threshold_below(kappa, alpha)
    bars_above = np.linspace(1e-4, 1 - 1e-4, 700)
    above = log_evidence_above(n[:, None], d[:, None], bars_above) >= -math.log(alpha)
    clear = 1e-9
    for i in range(40):
        excluded = bars[proven[i]]
        if len(excluded):
            assert lower[i] >= 1 - excluded.min() - clear
            assert (proven[i] == (bars >= 1 - lower[i] - clear)).all()
        else:
            assert lower[i] == 0
        assert (above[i] == (bars_above <= 1 - upper[i] + clear)).all()
    assert (lower > 0).any() and (lower == 0).any()
    assert (upper < 1).any() and (lower <= 1 - d / n).all()
    assert (upper >= 1 - d / n).all()


def test_bounds_keep_shapes():
    lower, upper = confidence_bounds(np.full((2, 3), 100), 1, 0.05, 0.05)
    assert lower.shape == upper.shape == (2, 3)
    lower, upper = confidence_bounds(100, 1, 0.05, 0.05)
    assert lower.shape == upper.shape == ()
    test = BetaMixtureTest(0.05, 0.05, max_samples=600)
    assert test.confidence_bounds(100, 1) == (lower, upper)


@functools.cache
def test_600():
    return BetaMixtureTest(kappa=0.05, alpha=0.05, max_samples=600)


test_600.__test__ = False


def stops(p, fold):
    """Where streams stop: `{decision: probabilities by (n, d)}`, exactly.

    The state is the number of votes against a class that has probability p;
    folded, d counts the votes against the leading one of two classes.
    """
    certify, reject = test_600().boundaries()
    horizon = test_600().max_samples
    shape = (horizon + 1, horizon + 1)
    ends = {name: np.zeros(shape) for name in ("certify", "reject", "undecided")}
    alive = np.ones(1)
    for n in range(1, horizon + 1):
        following = np.append(alive * p, 0.0)
        following[1:] += alive * (1 - p)
        d = np.arange(n + 1)
        d = np.minimum(d, n - d) if fold else d
        certified, rejected = d <= certify[n], d >= reject[n]
        np.add.at(ends["certify"][n], d[certified], following[certified])
        np.add.at(ends["reject"][n], d[rejected], following[rejected])
        alive = np.where(certified | rejected, 0.0, following)
    np.add.at(ends["undecided"][n], d, alive)
    return ends


def reachable():
    ends = stops(0.75, fold=True)
    return {name: np.argwhere(mass > 0).T for name, mass in ends.items()}


def bounds_at(decision, n, d):
    """What a device reads from the three tables."""
    certified, rejected, undecided = test_600().stop_bounds
    if decision == "undecided":
        return undecided[d].T
    return {"certify": certified, "reject": rejected}[decision][n].T


def test_tables_at_every_reachable_stop():
    for table in test_600().stop_bounds:
        assert table.shape == (601, 2) and table.dtype == np.float32
    bar = np.float32(1 - 0.05)
    for decision, (n, d) in reachable().items():
        assert len(n) > 10
        lower, upper = bounds_at(decision, n, d)
        assert (0 <= lower).all() and (lower <= upper).all() and (upper <= 1).all()
        assert ((lower > bar) == (decision == "certify")).all()
        assert ((lower > 0.95) == (decision == "certify")).all()
        assert ((upper < 0.95) == (decision == "reject")).all()
        # Outward of the exact bounds, but by little where they are exact.
        exact_lower, exact_upper = test_600().confidence_bounds(n, d)
        one_step = exact_lower <= 1 - 0.05 + 1e-6
        assert (lower <= np.where(one_step, exact_lower + 2e-7, exact_lower)).all()
        assert (upper >= exact_upper).all()
        slack = 2e-2 if decision == "reject" else 3e-7
        assert (exact_lower - lower <= slack).all()
        assert (upper - exact_upper <= slack).all()


@pytest.mark.parametrize("fold", [False, True])
def test_coverage_at_the_stops(fold):
    """P(lower > p) and P(upper < p) are at most alpha, at every p."""
    worst = {"lower": 0.0, "upper": 0.0}
    for p in [0.5, 0.6, 0.75, 0.8, 0.9, 0.93, 0.94, 0.95, 0.96, 0.98, 0.995, 1.0]:
        above = below = 0.0
        for decision, mass in stops(p, fold).items():
            n, d = np.nonzero(mass)
            if not len(n):
                continue
            lower, upper = bounds_at(decision, n, d)
            above += mass[n, d][lower > p].sum()
            below += mass[n, d][upper < p].sum()
        assert above <= 0.05 and below <= 0.05
        worst = {
            "lower": max(worst["lower"], above),
            "upper": max(worst["upper"], below),
        }
    # Not vacuous: at the bar the bounds miss exactly when the test errs.
    assert worst["lower"] > 0.02 and worst["upper"] > 0.005


@pytest.mark.parametrize("fold", [False, True])
def test_coverage_at_every_time_at_once(fold):
    """P(a bound ever misses within 150 votes) is at most alpha."""
    horizon, alpha = 150, 0.05
    n, d = np.mgrid[1 : horizon + 1, : horizon + 1]
    inside = d <= (n // 2 if fold else n)
    lower, upper = np.zeros(n.shape), np.ones(n.shape)
    lower[inside], upper[inside] = confidence_bounds(n[inside], d[inside], 0.05, alpha)
    worst = 0.0
    for p in (0.5, 0.7, 0.76, 0.85, 0.93, 0.95, 0.97, 0.99):
        for misses in (lower > p, upper < p):
            alive, missed = np.ones(1), 0.0
            for step in range(1, horizon + 1):
                following = np.append(alive * p, 0.0)
                following[1:] += alive * (1 - p)
                state = np.arange(step + 1)
                state = np.minimum(state, step - state) if fold else state
                out = misses[step - 1, state]
                missed += following[out].sum()
                alive = np.where(out, 0.0, following)
            assert missed <= alpha
            worst = max(worst, missed)
    assert worst > alpha / 3


@pytest.mark.parametrize("kappa, alpha", [(0.3, 0.1), (0.5, 0.05)])
def test_certified_exactly_when_the_lower_bound_passes(kappa, alpha):
    test = BetaMixtureTest(kappa, alpha, max_samples=60)
    n, d = np.mgrid[1:61, :60]
    n, d = n[d < n], d[d < n]
    lower, upper = test.confidence_bounds(n, d)
    np.testing.assert_array_equal(lower > 1 - kappa, test.certifies(n, d))
    np.testing.assert_array_equal(upper < 1 - kappa, test.rejects(n, d))
