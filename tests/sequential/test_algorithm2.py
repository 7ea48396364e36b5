"""Algorithm 2, against SciPy's binomial test at every look and the stated errors."""

import numpy as np
import pytest
from scipy import stats

from keras_probcert import Algorithm2Test


def naive(votes, kappa, alpha):
    """Algorithm 2 as the paper means it: (decision, samples)."""
    counts = {}
    for n, vote in enumerate(votes, start=1):
        counts[vote] = counts.get(vote, 0) + 1
        agree = max(counts.values())
        for decision, alternative in (("certify", "greater"), ("reject", "less")):
            test = stats.binomtest(agree, n, 1 - kappa, alternative=alternative)
            if test.pvalue < alpha:
                return decision, n
    return "undecided", len(votes)


def by_boundaries(votes, test):
    certify, reject = test.boundaries()
    for n in range(1, len(votes) + 1):
        d = n - np.bincount(votes[:n]).max()
        if d <= certify[n]:
            return "certify", n
        if d >= reject[n]:
            return "reject", n
    return "undecided", len(votes)


@pytest.mark.parametrize(
    "kappa, alpha, horizon", [(0.1, 0.04, 60), (0.3, 0.1, 40), (0.5, 0.03, 40)]
)
def test_decisions_are_those_of_a_loop_of_binomial_tests(kappa, alpha, horizon):
    test = Algorithm2Test(kappa, alpha, max_samples=horizon)
    rng = np.random.default_rng(0)
    seen = set()
    for stream in range(45):
        top = [1, 1 - kappa, 0.34][stream % 3]
        votes = rng.choice(3, size=horizon, p=[top, (1 - top) / 2, (1 - top) / 2])
        decision = by_boundaries(votes, test)
        assert decision == naive(votes, kappa, alpha)
        seen.add(decision[0])
    assert {"certify", "reject"} <= seen


def test_boundaries_are_the_binomial_tails():
    test = Algorithm2Test(0.05, 0.02, max_samples=150)
    certify, reject = test.boundaries()
    n, d = np.mgrid[1:151, :150]
    n, d = n[d < n], d[d < n]
    tail = stats.binom.cdf(d, n, 0.05)
    np.testing.assert_array_equal(d <= certify[n], tail < 0.02)
    np.testing.assert_array_equal(
        (d >= reject[n]), stats.binom.sf(d - 1, n, 0.05) < 0.02
    )


def test_error_and_expected_samples_as_stated():
    test = Algorithm2Test(kappa=0.01, alpha=0.01, max_samples=30_000)
    assert test.min_samples == 459
    p = [0.99, 1, 0.9999, 0.999, 0.997, 0.995, 0.98, 0.95, 0.9, 0.7]
    exact = test.operating_characteristics(p)
    assert exact["certify"][0] == pytest.approx(0.102, abs=5e-4)
    assert exact["certify"][1] == 1
    samples = exact["expected_samples"][1:]
    assert samples[0] == 459
    stated = [459, 468, 568, 934, 1800, 692, 82, 27]
    np.testing.assert_allclose(samples[:-1], stated, rtol=0, atol=5)
    np.testing.assert_allclose(samples[:2], stated[:2], rtol=0, atol=0.5)
    assert samples[-1] == pytest.approx(6.8, abs=0.05)


def test_the_error_exceeds_alpha_and_grows_with_the_horizon():
    errors = [
        Algorithm2Test(0.05, 0.05, horizon).operating_characteristics(0.95)["certify"]
        for horizon in (59, 500, 2000)
    ]
    assert errors[0] == pytest.approx(0.95**59)  # one look certifies
    assert errors[0] < 0.05 < errors[1] < errors[2]


def test_overlapping_decisions_are_refused():
    # Above one half both binomial tests may reject at once.
    with pytest.raises(ValueError, match="both certify and reject at kappa=0.3"):
        Algorithm2Test(0.3, 0.6, max_samples=100).boundaries()
