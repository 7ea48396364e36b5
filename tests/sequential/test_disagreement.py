"""Laws of disagreement against independent quadrature and simulated votes."""

import numpy as np
import pytest
from scipy import special

from keras_probcert.sequential.disagreement import (
    MARGIN,
    PRIOR_DEVIATION,
    law_of_share,
    posterior,
)


def simulated(rng, rate, shape, rows, most=1500):
    """Disagreements and votes; who disagrees early stops early."""
    margin = MARGIN * (rng.exponential(size=rows) / rate) ** (1 / shape)
    q = special.ndtr(-margin)
    n = np.where(rng.binomial(50, q) > 5, 50, most)
    return np.where(n == 50, rng.binomial(50, q), rng.binomial(most, q)), n


@pytest.mark.parametrize("share, kappa", [(0.96, 0.01), (0.5, 0.3), (1e-3, 1e-4)])
def test_a_share_is_what_it_says(share, kappa):
    cells = law_of_share(share, kappa).between([0, kappa / 3, kappa, 0.5, 1])
    assert cells.shape == (1, 4)
    assert cells.sum() == pytest.approx(1, abs=1e-12)
    assert cells[0, :2].sum() == pytest.approx(share, rel=1e-9)
    assert cells[0, 3] == 0


def test_posterior_equals_quadrature():
    """Over the margin by Gauss-Legendre, on a grid of its own."""
    rng = np.random.default_rng(0)
    d, n = simulated(rng, 0.1, 1.3, 300)
    t, w = np.polynomial.legendre.leggauss(400)
    t, w = 5 * (t + 1), 5 * w
    q = special.ndtr(-t)[:, None]
    likelihood = np.exp(special.xlogy(d, q) + special.xlog1py(n - d, -q))
    beyond = np.exp(special.xlogy(d, 1e-300) + n * 0.0)
    log_rate, log_shape = np.mgrid[-5:1:90j, -1.5:1.5:90j].reshape(2, -1, 1)
    rate, shape = np.exp(log_rate), np.exp(log_shape)
    density = rate * shape / MARGIN * (t / MARGIN) ** (shape - 1)
    density *= np.exp(-rate * (t / MARGIN) ** shape)
    left = np.exp(-rate * (10 / MARGIN) ** shape)
    logs = np.log((density * w) @ likelihood + left * beyond).sum(axis=1)
    logs += (0.5 * log_rate - 0.5 * (log_shape / PRIOR_DEVIATION) ** 2)[:, 0]
    weights = np.exp(logs - logs.max())
    weights /= weights.sum()
    found = posterior(d, n)
    assert found.weights.sum() == pytest.approx(1)
    for values, mine in ((log_rate, found.rate), (log_shape, found.shape)):
        values, mine = values[:, 0], np.log(mine)
        mean, my_mean = weights @ values, found.weights @ mine
        deviation = np.sqrt(weights @ (values - mean) ** 2)
        my_deviation = np.sqrt(found.weights @ (mine - my_mean) ** 2)
        assert my_mean == pytest.approx(mean, abs=0.05 * deviation)
        assert my_deviation == pytest.approx(deviation, rel=0.05)


@pytest.mark.parametrize("rate, shape", [(0.05, 1.0), (0.5, 1.5)])
def test_posterior_finds_the_law(rate, shape):
    """6 standard deviations: a false alarm in less than 1e-6 of the seeds."""
    found = posterior(*simulated(np.random.default_rng(1), rate, shape, 3000))
    for true, mine in ((rate, found.rate), (shape, found.shape)):
        mean = found.weights @ np.log(mine)
        deviation = np.sqrt(found.weights @ (np.log(mine) - mean) ** 2)
        assert 0 < deviation < 0.2
        assert abs(mean - np.log(true)) < 6 * deviation


def test_unanimous_votes_leave_something_possible():
    found = posterior(np.zeros(100, int), np.full(100, 528))
    robust = found.weights @ found.between([0, 0.01])[:, 0]
    assert 0.98 < robust < 1


def test_no_vote_agrees_with_another():
    found = posterior(np.full(3, 2), np.full(3, 4))
    assert np.isfinite(found.weights).all()
    assert found.weights @ found.between([0, 0.01])[:, 0] < 0.5
