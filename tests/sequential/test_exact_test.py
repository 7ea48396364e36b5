"""The exact test: errors to the last digit, samples, power, and what it refuses."""

import time

import keras
import numpy as np
import pytest
from scipy import stats

from keras_probcert import BetaMixtureTest, BettingTest, ExactTest
from keras_probcert.sequential.exact_test import _boundaries_in_time
from keras_probcert.sequential.optimal_stopping import (
    error_of_certifying,
    error_of_rejecting,
    optimal_stopping,
)

SETTINGS = [(k, a) for k in (0.1, 0.01, 0.001) for a in (0.05, 0.01, 0.001)]


def stated(kappa, alpha, **arguments):
    horizon = round(300 / kappa)
    return ExactTest(kappa, alpha, horizon, futile=False, **arguments)


@pytest.mark.parametrize("kappa, alpha", SETTINGS)
def test_errors_are_spent_and_no_more(kappa, alpha):
    """By a look after each vote, and with either boundary switched off."""
    test = stated(kappa, alpha)
    at_bar = test.operating_characteristics(1 - kappa)
    assert 0.9 * alpha <= at_bar["certify"] <= alpha
    assert 0.9 * alpha <= at_bar["reject"] <= alpha
    alone = error_of_certifying(
        test.certify_times, test.max_samples, kappa, two_classes=True
    )
    assert 0.99 * alpha <= alone <= alpha * (1 - 1e-9)
    certify, reject = test.boundaries()
    assert (np.diff(certify) >= 0).all() and (np.diff(reject) >= 0).all()
    # Below the bar and above it, errors are smaller still.
    assert test.operating_characteristics(1 - 1.01 * kappa)["certify"] < alpha
    assert test.operating_characteristics(1 - 0.99 * kappa)["reject"] < alpha


@pytest.mark.parametrize("kappa", [0.3, 0.4, 0.45, 0.49, 0.5])
def test_two_classes(kappa):
    """The folded walk, vote by vote: the leader of the votes is certified."""
    horizon, alpha = 600, 0.05
    test = ExactTest(kappa, alpha, horizon, futile=False)
    certify, reject = test.boundaries()
    errors = {}
    for rejecting in (False, True):
        state, error = np.ones(1), 0.0
        for n in range(1, horizon + 1):
            state = np.append(state * (1 - kappa), 0) + np.append(0, state * kappa)
            d = np.minimum(np.arange(n + 1), n - np.arange(n + 1))
            error += state[d <= certify[n]].sum()
            stops = (d <= certify[n]) | (rejecting & (d >= reject[n]))
            state = np.where(stops, 0, state)
        errors[rejecting] = error
    assert 0.97 * alpha < errors[False] <= alpha
    assert errors[True] <= errors[False]
    both = test.operating_characteristics(class_probabilities=(1 - kappa, kappa))
    assert both["certify"] == pytest.approx(errors[True], abs=1e-12)


@pytest.mark.parametrize("kappa, alpha", [(0.1, 0.05), (0.1, 0.001), (0.05, 0.01)])
def test_simulated_streams(kappa, alpha):
    """10⁶ streams, within 5.5 standard errors: a false alarm in 8e-8 of the seeds."""
    test = stated(kappa, alpha)
    exact = test.operating_characteristics(1 - kappa)
    streams, rng = 1_000_000, np.random.default_rng(2)
    certify, reject = test.boundaries()
    counts = {"certify": 0, "reject": 0}
    # Streams with as many disagreements are alike, so their number is enough.
    alike = np.zeros(test.max_samples + 1, np.int64)
    alike[0] = streams
    # A step is the votes up to the next one at which a boundary moves.
    steps = np.union1d(test.certify_times, test.reject_until[test.reject_until > 0])
    before = 0
    for n in np.append(steps[steps < test.max_samples], test.max_samples):
        more = np.arange(min(n - before, 60) + 1)
        law = stats.binom.pmf(more, n - before, kappa)
        here = np.flatnonzero(alike)
        drawn = rng.multinomial(alike[here], law / law.sum())
        alike[:] = 0
        np.add.at(alike, here[:, None] + more, drawn)
        counts["certify"] += int(alike[: certify[n] + 1].sum())
        counts["reject"] += int(alike[reject[n] :].sum())
        alike[: certify[n] + 1] = alike[reject[n] :] = 0
        before = n
    assert sum(counts.values()) + alike.sum() == streams
    for name, count in counts.items():
        error = np.sqrt(exact[name] * (1 - exact[name]) / streams)
        assert abs(count / streams - exact[name]) < 5.5 * error, name


def test_samples_and_power():
    """What kappa = alpha = beta = 0.01 costs, and that little power is lost."""
    test = ExactTest(0.01, 0.01, 30_000, futile=False)
    limits = {1: 535, 0.9999: 550, 0.999: 733, 0.997: 1470, 0.995: 3480}
    limits |= {0.98: 1520, 0.95: 127, 0.9: 36.5}
    exact = test.operating_characteristics(list(limits))
    assert (exact["expected_samples"] <= list(limits.values())).all()
    power = test.operating_characteristics([0.993, 0.992, 0.987])
    assert power["certify"][0] >= 0.97 and power["certify"][1] >= 0.45
    assert power["reject"][2] >= 0.85


@pytest.mark.parametrize("kappa, alpha", SETTINGS)
def test_fewer_samples_than_other_valid_tests(kappa, alpha):
    horizon = round(300 / kappa)
    exact = stated(kappa, alpha)
    spread = 1 - kappa * np.array([0, 0.01, 0.1, 0.3, 0.5, 2, 5])
    samples = exact.operating_characteristics(spread)["expected_samples"]
    for other in (BetaMixtureTest, BettingTest):
        theirs = other(kappa, alpha, horizon, futile=False)
        theirs = theirs.operating_characteristics(spread)["expected_samples"]
        assert (samples < theirs * 1.001).all()
        assert samples.sum() < 0.99 * theirs.sum()


def test_skipped_looks_certify_no_more():
    """Looking at every 16th vote, or at random, keeps the error."""
    test = ExactTest(0.05, 0.05, 1500)
    certify, _ = test.boundaries()
    rng = np.random.default_rng(0)
    for looked in (np.arange(1501) % 16 == 0, rng.random(1501) < 0.1):
        state, error = np.ones(1), 0.0
        for n in range(1, 1501):
            state = np.append(state * 0.95, 0) + np.append(0, state * 0.05)
            if looked[n]:
                error += state[: certify[n] + 1].sum()
                state[: certify[n] + 1] = 0
        assert 0 < error <= 0.05


def test_focus_moves_samples():
    plain = ExactTest(0.05, 0.05, 2000)
    focused = ExactTest(0.05, 0.05, 2000, focus=1.0)
    assert focused.min_samples < plain.min_samples
    at_bar = focused.operating_characteristics(0.95)
    assert at_bar["certify"] <= 0.05 and at_bar["reject"] <= 0.05
    focused = ExactTest(0.05, 0.05, 2000, focus=0.975)
    samples = [
        test.operating_characteristics(0.975)["expected_samples"]
        for test in (focused, plain)
    ]
    assert samples[0] < samples[1]


def test_beta():
    loose, tight = (ExactTest(0.05, 0.05, 2000, beta=b) for b in (0.1, 0.01))
    for test, beta in ((loose, 0.1), (tight, 0.01)):
        assert 0.9 * beta < test.operating_characteristics(0.95)["reject"] <= beta
    samples = [
        test.operating_characteristics(0.9)["expected_samples"]
        for test in (loose, tight)
    ]
    assert samples[0] < samples[1]


def test_tiny_kappa_and_alpha():
    """kappa = alpha = 1e-4, the smallest of the paper's appendix."""
    test = ExactTest(1e-4, 1e-4, 1_500_000)
    at_bar = test.operating_characteristics(1 - 1e-4)
    assert 0.9e-4 <= at_bar["certify"] <= 1e-4
    assert 92_099 <= test.min_samples <= 125_000
    assert test.operating_characteristics(1)["certify"] == 1


@pytest.mark.parametrize("kappa, alpha", [(0.05, 0.05), (0.5, 0.05), (0.2, 0.6)])
def test_least_horizon(kappa, alpha):
    least = 1
    while (1 - kappa) ** least + kappa**least > alpha:
        least += 1
    test = ExactTest(kappa, alpha, max_samples=least)
    assert test.min_samples == least
    at_bar = test.operating_characteristics(class_probabilities=(1 - kappa, kappa))
    assert at_bar["certify"] <= alpha
    with pytest.raises(ValueError, match=f"must be at least {least}.*{least - 1}$"):
        ExactTest(kappa, alpha, max_samples=least - 1)


def test_default_horizon_has_the_stated_power():
    for kappa, alpha in ((0.01, 0.01), (0.05, 0.05)):
        test = ExactTest(kappa, alpha)
        most = len(test.certify_times) - 1
        power = stats.binom.cdf(most, test.max_samples, 0.7 * kappa)
        assert power > 0.985


def test_calculated_once():
    first = ExactTest(0.07, 0.02, 900)
    first.boundaries()
    begin = time.perf_counter()
    again = ExactTest(0.07, 0.02, 900)
    assert again.certify_times is not None
    assert time.perf_counter() - begin < 0.1
    assert _boundaries_in_time.cache_info().hits > 0


def test_config():
    test = ExactTest(0.1, 0.05, 200, beta=0.02, futile=False, focus=0.99)
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(test)
    )
    assert again.get_config() == test.get_config()
    np.testing.assert_array_equal(again.boundaries(), test.boundaries())


@pytest.mark.parametrize("focus", [0, -1, 1.01, "1", float("nan")])
def test_bad_focus(focus):
    with pytest.raises(ValueError, match="`focus` must be a number in"):
        ExactTest(0.1, 0.1, 100, focus=focus)


def test_the_shape_alone_is_nearly_calibrated():
    """The backward induction meets both levels before anything is moved."""
    certify, reject = optimal_stopping(0.02, 0.02, 0.02, 10_000)
    assert (certify[1:] >= certify[:-1]).all() and (reject[1:] >= reject[:-1]).all()
    times = np.ceil(certify)
    error = error_of_certifying(times[times <= 10_000], 10_000, 0.02)
    assert error == pytest.approx(0.02, rel=0.1)


@pytest.mark.parametrize("alpha", [0.1, 0.2, 0.4, 0.7])
def test_large_levels(alpha):
    """No setting is worse than a mixture that knows nothing of the horizon."""
    for kappa, horizon in ((0.01, 3000), (0.2, 300)):
        test, other = (
            Test(kappa, alpha, horizon, futile=False)
            for Test in (ExactTest, BetaMixtureTest)
        )
        at_bar = test.operating_characteristics(1 - kappa)
        assert at_bar["certify"] <= alpha and at_bar["reject"] <= alpha
        assert test.min_samples <= other.min_samples


@pytest.mark.parametrize(
    "kappa, alpha, stretch",
    [
        (kappa, alpha, stretch)
        for kappa, alpha in ((0.5, 0.05), (0.1, 0.5), (1e-3, 0.3), (1e-4, 0.05))
        for stretch in (1, 1.02, 1.2, 3)
    ]
    + [(1e-5, 0.05, 1.001), (1e-6, 0.5, 2.5), (0.01, 0.9, 40), (0.2, 0.98, 9)],
)
def test_short_horizons_and_large_levels(kappa, alpha, stretch):
    """Whatever the design finds, the errors are held: of the final boundaries."""
    least = ExactTest(kappa, alpha, max_samples=10**7)._least_horizon
    horizon = int(least * stretch)
    test = ExactTest(kappa, alpha, horizon)
    alone = error_of_certifying(test.certify_times, horizon, kappa, two_classes=True)
    assert alone <= alpha
    assert error_of_rejecting(test.reject_until, horizon, kappa) <= alpha
    assert least <= test.min_samples <= horizon


@pytest.mark.parametrize("name", ["alpha", "beta"])
def test_levels_beyond_float64_are_refused(name):
    with pytest.raises(ValueError, match=f"`{name}` must be at least 1e-15"):
        ExactTest(**{"kappa": 0.01, "max_samples": 60_000, name: 1e-20})


@pytest.mark.parametrize("kappa", [1e-9, 1e-12, 1e-17])
def test_endless_kappa(kappa):
    with pytest.raises(ValueError, match="`kappa` must be larger: at kappa="):
        ExactTest(kappa)
    with pytest.raises(ValueError, match="`max_samples` must be at least"):
        ExactTest(kappa, 0.01, 1000)
