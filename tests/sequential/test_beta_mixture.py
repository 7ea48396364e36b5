"""The beta-mixture test: its evidence, its boundaries, and its errors, exactly."""

import math

import numpy as np
import pytest
from scipy import integrate, special, stats

from keras_probcert import BetaMixtureTest
from keras_probcert.sequential.evidence import (
    log_evidence_above,
    log_evidence_below,
    log_threshold_below,
    widest_bar,
)


def integrated(n, d, bar, a, b, low, high):
    """log of the mixture of likelihood ratios over a cut Beta(a, b), by quad."""

    def log_ratio(q):
        return (
            special.xlogy(d, q / bar)
            + (n - d) * np.log1p(-q)
            - (n - d) * np.log1p(-bar)
        )

    peak = min(max(d / n, low), high)
    top = log_ratio(peak)
    width = math.sqrt(max(d, 1) + 1) / n
    cuts = [low, *(np.clip(peak + width * np.array([-8, -2, 2, 8]), low, high)), high]

    def quad(function):
        # q = u² takes the singularity of q^(a - 1) at 0 away.
        return sum(
            integrate.quad(
                lambda u: (
                    2 * u ** (2 * a - 1) * (1 - u * u) ** (b - 1) * function(u * u)
                ),
                math.sqrt(left),
                math.sqrt(right),
                epsabs=0,
                epsrel=1e-10,
            )[0]
            for left, right in zip(cuts, cuts[1:], strict=False)
            if left < right
        )

    mixture = quad(lambda q: np.exp(log_ratio(q) - top))
    return math.log(mixture / quad(lambda q: 1.0)) + top


def random_states(num, seed):
    rng = np.random.default_rng(seed)
    n = np.exp(rng.uniform(0, np.log(3000), num)).astype(int)
    return n, (n * rng.beta(0.4, 1.5, num)).astype(int), rng


def test_evidence_below_is_the_integral():
    n, d, rng = random_states(60, 1)
    bar, kappa = rng.uniform(0.001, 0.5, 60), rng.uniform(0.001, 0.5, 60)
    for i in range(60):
        want = integrated(n[i], d[i], bar[i], 0.5, 0.5 / kappa[i], 0.0, bar[i])
        got = log_evidence_below(n[i], d[i], bar[i], kappa[i])
        if got == -np.inf:  # a mass below 1e-300, which is never evidence
            assert want < 0
        else:
            assert got == pytest.approx(want, rel=1e-8, abs=1e-8)


def test_evidence_above_is_the_integral():
    n, d, rng = random_states(60, 2)
    bar = rng.uniform(0.001, 0.6, 60)
    for i in range(60):
        want = integrated(n[i], d[i], bar[i], 1.0, 1.0, bar[i], 1.0)
        got = log_evidence_above(n[i], d[i], bar[i])
        if got == -np.inf:
            assert want < 0
        else:
            assert got == pytest.approx(want, rel=1e-8, abs=1e-8)


@pytest.mark.parametrize("bar", [0.01, 0.3, 0.5])
def test_evidence_has_mean_one_at_the_bar_and_less_beyond(bar):
    d = np.arange(201)
    below = log_evidence_below(200, d, bar, 0.05)
    above = log_evidence_above(200, d, bar)

    def mean(evidence, q):
        return np.exp(evidence + stats.binom.logpmf(d, 200, q)).sum()

    assert mean(below, bar) == pytest.approx(1, abs=1e-9)
    assert mean(above, bar) == pytest.approx(1, abs=1e-9)
    assert mean(below, bar * 1.2) < 1
    assert mean(above, bar * 0.8) < 1


@pytest.mark.parametrize("alpha", [0.001, 0.05, 0.5, 0.9])
def test_threshold_covers_the_second_class_at_every_bar(alpha):
    """c is 1/alpha (1 + largest exchange factor), which grows with the bar."""
    bars = np.linspace(1e-4, 0.5, 2000)
    looks = math.log(1 / alpha) / -np.log1p(-bars)
    log_factor = (1 - 2 * bars) * looks * np.log(bars / (1 - bars))
    assert (np.diff(log_factor) > 0).all()
    factor = np.exp(log_factor)
    for kappa in (0.01, 0.25, 0.3, 0.5):
        assert widest_bar(kappa) == max(kappa, 0.25)
        enough = np.log((1 + factor[bars <= widest_bar(kappa)]) / alpha)
        threshold = log_threshold_below(kappa, alpha)
        assert (enough <= threshold + 1e-12).all()
        assert threshold <= enough.max() + 1e-2
    assert log_threshold_below(0.5, alpha) == pytest.approx(math.log(2 / alpha))


# kappa, alpha, samples beyond the least, disagreements looked at.
SETTINGS = [
    (0.5, 0.05, 40, 50),
    (0.5, 0.9, 30, 40),
    (0.3, 0.5, 50, 60),
    (0.05, 0.05, 200, 60),
    (0.05, 0.5, 150, 60),
    (0.001, 0.9, 300, 12),
    (0.001, 0.05, 30, 20),
]


@pytest.mark.parametrize("kappa, alpha, more, most", SETTINGS)
def test_boundaries_are_the_test(kappa, alpha, more, most):
    least = BetaMixtureTest(kappa, alpha, max_samples=10**6).min_samples
    test = BetaMixtureTest(kappa, alpha, max_samples=least + more)
    certify, reject = test.boundaries()
    horizon = test.max_samples
    assert certify.dtype == reject.dtype == np.int32
    assert certify.shape == reject.shape == (horizon + 1,)
    n, d = np.mgrid[1 : horizon + 1, : most + 1]
    # At most n - 1 votes disagree with the majority's label.
    n, d = n[d < n], d[d < n]
    certifies, rejects = test.certifies(n, d), test.rejects(n, d)
    np.testing.assert_array_equal(d <= certify[n], certifies)
    np.testing.assert_array_equal(d >= reject[n], rejects)
    assert certifies.any() and rejects.any() and not (certifies & rejects).any()
    assert certify[0] == -1 and certify[least - 1] == -1 and certify[least] == 0


def unanimous(kappa, alpha):
    """The least n of unanimous votes that certify, counted one by one."""
    n = np.arange(1, 6000)
    evidence = log_evidence_below(n, np.zeros_like(n), kappa, kappa)
    return int(n[evidence >= log_threshold_below(kappa, alpha)][0])


@pytest.mark.parametrize(
    "kappa, alpha", [(0.5, 0.05), (0.05, 0.05), (0.01, 0.01), (0.001, 0.05)]
)
def test_min_samples(kappa, alpha):
    least = unanimous(kappa, alpha)
    assert BetaMixtureTest(kappa, alpha, max_samples=least).min_samples == least
    # No valid test can do with fewer than the limit.
    assert least >= math.log(alpha) / math.log1p(-kappa)
    with pytest.raises(ValueError) as error:
        BetaMixtureTest(kappa, alpha, max_samples=least - 1)
    assert f"`max_samples` must be at least {least}," in str(error.value)
    assert f"Received: max_samples={least - 1}" in str(error.value)


def test_the_stated_544_samples():
    assert BetaMixtureTest(0.01, 0.01).min_samples == 544


@pytest.mark.parametrize("kappa", [0.5, 0.45, 0.3, 0.1, 0.05, 0.01])
@pytest.mark.parametrize("alpha", [0.05, 0.01])
def test_errors_of_a_given_class_are_at_most_alpha(kappa, alpha):
    test = BetaMixtureTest(kappa, alpha)
    at_bar = test.operating_characteristics(1 - kappa)
    assert 0 < at_bar["certify"] <= alpha
    assert 0 < at_bar["reject"] <= alpha
    power = test.operating_characteristics(1 - 0.7 * kappa)
    # The default horizon promises .99 by its last look alone.
    assert power["certify"] >= 0.99


def folded_error(test, probability):
    """P(certified with whatever label) for classes (p, 1 - p), exactly.

    The state is the number of votes for the first class; the label is the
    majority's.
    """
    certify, reject = test.boundaries()
    alive, certified = np.array([1.0]), 0.0
    for n in range(1, test.max_samples + 1):
        following = np.append(alive * (1 - probability), 0)
        following[1:] += alive * probability
        disagreements = np.minimum(np.arange(n + 1), n - np.arange(n + 1))
        certified += following[disagreements <= certify[n]].sum()
        stop = (disagreements <= certify[n]) | (disagreements >= reject[n])
        alive = np.where(stop, 0, following)
    return certified


@pytest.mark.parametrize("kappa", [0.3, 0.4, 0.45, 0.49, 0.5])
@pytest.mark.parametrize("alpha", [0.05, 0.2])
def test_error_with_the_label_chosen_by_the_votes(kappa, alpha):
    test = BetaMixtureTest(kappa, alpha, max_samples=1500)
    error = folded_error(test, 1 - kappa)
    assert error <= alpha
    # Both classes count: more than the first alone, and not vacuously little.
    alone = test.operating_characteristics(1 - kappa)["certify"]
    assert alone <= error + 1e-12
    assert error > alpha / 4
    if kappa == 0.5:
        assert error == pytest.approx(2 * alone, rel=0.05)


@pytest.mark.parametrize(
    "probabilities", [(0.55, 0.45, 0), (0.55, 0.3, 0.15), (0.4, 0.3, 0.3)]
)
def test_error_with_three_classes(probabilities):
    """Exact, over the counts of two of the classes."""
    test = BetaMixtureTest(kappa=0.45, alpha=0.2, max_samples=120)
    certify, reject = test.boundaries()
    alive, certified = np.ones((1, 1)), 0.0
    for n in range(1, test.max_samples + 1):
        following = np.zeros((n + 1, n + 1))
        following[1:, :-1] += alive * probabilities[0]
        following[:-1, 1:] += alive * probabilities[1]
        following[:-1, :-1] += alive * probabilities[2]
        a, b = np.mgrid[: n + 1, : n + 1]
        disagreements = n - np.maximum(np.maximum(a, b), n - a - b)
        certified += following[disagreements <= certify[n]].sum()
        stop = (disagreements <= certify[n]) | (disagreements >= reject[n])
        alive = np.where(stop, 0, following)
    assert 0 < certified <= 0.2


@pytest.mark.parametrize(
    "kappa, alpha", [(0.5, 0.05), (0.3, 0.01), (0.05, 0.05), (0.01, 0.01)]
)
def test_default_horizon(kappa, alpha):
    test = BetaMixtureTest(kappa, alpha)
    horizon = test.max_samples
    digits = str(horizon).rstrip("0")
    assert len(digits) <= 2

    def power(n):
        return stats.binom.cdf(
            BetaMixtureTest(kappa, alpha, n).boundaries()[0][-1], n, 0.7 * kappa
        )

    assert power(horizon) >= 0.99
    # Least, up to the search's grid (5 %) and two digits (10 %).
    assert power(int(horizon / 1.16)) < 0.99
