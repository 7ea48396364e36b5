"""Evidence and bounds valid at any stop: inversion, coverage (exactly)."""

import math

import numpy as np
import pytest
from scipy import integrate, stats

from keras_probcert import BetaMixtureTest
from keras_probcert.sequential import confidence_sequence, e_value
from keras_probcert.sequential.evidence import (
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
    lower, upper = confidence_sequence(n, d, kappa, alpha)
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
    lower, upper = confidence_sequence(np.full((2, 3), 100), 1, 0.05, 0.05)
    assert lower.shape == upper.shape == (2, 3)
    lower, upper = confidence_sequence(100, 1, 0.05, 0.05)
    assert lower.shape == upper.shape == ()


@pytest.mark.parametrize("fold", [False, True])
def test_coverage_at_every_time_at_once(fold):
    """P(a bound ever misses within 150 votes) is at most alpha."""
    horizon, alpha = 150, 0.05
    n, d = np.mgrid[1 : horizon + 1, : horizon + 1]
    inside = d <= (n // 2 if fold else n)
    lower, upper = np.zeros(n.shape), np.ones(n.shape)
    lower[inside], upper[inside] = confidence_sequence(
        n[inside], d[inside], 0.05, alpha
    )
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
    lower, upper = confidence_sequence(n, d, kappa, alpha)
    # The bounds take the widest bar's level for all bars.
    if kappa >= 0.25:
        np.testing.assert_array_equal(lower > 1 - kappa, test.certifies(n, d))
    np.testing.assert_array_equal(upper < 1 - kappa, test.rejects(n, d))


def test_e_value():
    """Against the integral, and its mean at the bar: at most 1 at any count."""
    kappa, n = 0.05, 80
    prior = stats.beta(0.5, 0.5 / kappa)
    for d in (0, 1, 5):
        mass, _ = integrate.quad(
            lambda q, d=d: prior.pdf(q) * q**d * (1 - q) ** (n - d), 0, kappa
        )
        want = mass / prior.cdf(kappa) / (kappa**d * (1 - kappa) ** (n - d))
        assert e_value(n, d, kappa) == pytest.approx(want, rel=1e-6)
    d = np.arange(n + 1)
    at_bar = stats.binom.pmf(d, n, kappa) @ e_value(np.full(n + 1, n), d, kappa)
    assert at_bar == pytest.approx(1.0, abs=1e-9)
    assert e_value(10**6, 0) == np.inf
    with pytest.raises(ValueError, match="`disagreements` must lie"):
        e_value(5, 6)
