"""What every sequential test promises, and what it refuses."""

import json

import keras
import numpy as np
import pytest
from scipy import stats

from keras_probcert import (
    SPRT,
    Algorithm2Test,
    BetaMixtureTest,
    BettingTest,
    ClopperPearsonTest,
    ExactTest,
    SequentialTest,
    UnionBoundTest,
)

TESTS = [
    ExactTest,
    Algorithm2Test,
    BetaMixtureTest,
    BettingTest,
    ClopperPearsonTest,
    SPRT,
    UnionBoundTest,
]
# Their boundaries do not depend on the horizon.
WITHOUT_HORIZON = [BetaMixtureTest, BettingTest, SPRT, UnionBoundTest]
every = pytest.mark.parametrize("Test", TESTS)
SETTINGS = [
    (0.5, 0.05),
    (0.5, 0.4),
    (0.3, 0.2),
    (0.05, 0.05),
    (0.01, 0.3),
    (0.001, 0.4),
]


@every
@pytest.mark.parametrize("kappa, alpha", SETTINGS)
def test_boundaries(Test, kappa, alpha):
    horizon = Test(kappa, alpha, max_samples=10**6)._least_horizon + 500
    test = Test(kappa, alpha, max_samples=horizon)
    try:
        certify, reject = test.boundaries()
    except ValueError as error:
        # At such levels both tails of a binomial test may reject at once.
        assert "both certify and reject" in str(error)
        assert Test in (Algorithm2Test, ClopperPearsonTest) and alpha >= 0.2
        return
    least = test.min_samples
    for boundary in (certify, reject):
        assert boundary.dtype == np.int32 and boundary.shape == (horizon + 1,)
        assert (np.diff(boundary) >= 0).all()
        with pytest.raises(ValueError, match="read-only"):
            boundary[0] = 5
    assert (certify < reject).all()
    # Each further vote adds at most one disagreement, so a stream that is
    # certified at n has exactly certify[n] of them.
    assert np.diff(certify[:-1]).max() <= 1 or Test is ExactTest
    assert (certify[:least] == -1).all() and certify[least] == 0
    # A stream's first vote agrees with its own label: it neither certifies
    # (but at a least number of 1) nor rejects.
    assert reject.min() >= 1
    times = test.certify_times
    assert times[0] == least and len(times) == certify[-1] + 1
    for d, n in enumerate(times):
        assert certify[n] >= d and certify[n - 1] < d
    for d, n in enumerate(test.reject_until[test.reject_until < horizon]):
        assert reject[n + 1] > d
        assert n == 0 or reject[n] <= d


@pytest.mark.parametrize("Test", [Algorithm2Test, *WITHOUT_HORIZON])
def test_a_longer_horizon_changes_nothing_before_its_end(Test):
    short = Test(0.05, 0.05, max_samples=300).boundaries()
    long = Test(0.05, 0.05, max_samples=900).boundaries()
    np.testing.assert_array_equal(short[0], long[0][:301])
    # Whether to reject is read from later counts, which the end cuts off
    # where fewer than n votes could not disagree.
    reachable = np.arange(301) > short[1]
    np.testing.assert_array_equal(short[1][reachable], long[1][:301][reachable])
    assert reachable.sum() > 250


@every
def test_config_round_trip(Test):
    test = Test(0.3, 0.1, max_samples=200, beta=0.05, futile=False)
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(test)))
    again = keras.saving.deserialize_keras_object(config)
    assert type(again) is Test and repr(again) == repr(test)
    assert again.get_config() == test.get_config()
    stated = {"kappa": 0.3, "alpha": 0.1, "max_samples": 200, "beta": 0.05}
    assert stated.items() <= again.get_config().items() and not again.futile
    np.testing.assert_array_equal(again.boundaries(), test.boundaries())


@every
def test_defaults(Test):
    test = Test()
    assert (test.kappa, test.alpha) == (0.01, 0.01)
    assert test.beta == 0.01 and test.futile
    # By the votes at the horizon alone; Algorithm 2 may have rejected before.
    horizon, most = test.max_samples, test.boundaries()[0][-1]
    least = 0.98 if Test in (ExactTest, UnionBoundTest) else 0.99
    assert stats.binom.cdf(most, horizon, 0.007) >= least


@every
@pytest.mark.parametrize("name", ["kappa", "alpha", "beta"])
@pytest.mark.parametrize("value", [0, -0.1, 1, 1.5, float("nan"), "0.1", True, "None"])
def test_fractions_out_of_range(Test, name, value):
    with pytest.raises(ValueError) as error:
        Test(**{name: value})
    assert str(error.value).startswith(f"`{name}` must be a number in (0, ")
    assert f"Received: {name}={value!r}" in str(error.value)


@every
@pytest.mark.parametrize("kappa", [0.5000001, 0.6, 0.99])
def test_kappa_above_one_half_is_refused(Test, kappa):
    with pytest.raises(ValueError, match=rf"in \(0, 0.5\].*kappa={kappa}"):
        Test(kappa=kappa)


@every
@pytest.mark.parametrize("value", [0, 1, "yes", None])
def test_futile_is_a_bool(Test, value):
    with pytest.raises(ValueError, match="`futile` must be True or False"):
        Test(0.5, 0.05, 100, futile=value)


@every
def test_endless_horizon(Test):
    with pytest.raises(ValueError, match="must be at most 10000000.*=10000001"):
        Test(0.5, 0.05, max_samples=10**7 + 1)


@pytest.mark.parametrize("Test", [t for t in TESTS if t is not Algorithm2Test])
@pytest.mark.parametrize("kappa, alpha", [(0.01, 0.01), (0.3, 0.05), (0.5, 0.05)])
def test_valid_tests_hold_both_levels(Test, kappa, alpha):
    """The label included: two classes (1 − kappa, kappa) are the worst case."""
    test = Test(kappa, alpha, max_samples=1500, futile=False)
    at_bar = test.operating_characteristics(1 - kappa)
    assert at_bar["certify"] <= alpha and at_bar["reject"] <= alpha
    both = test.operating_characteristics(class_probabilities=(1 - kappa, kappa))
    assert both["certify"] <= alpha


def test_expected_samples_are_those_stated():
    """The table of the documentation, kappa = alpha = 0.01, horizon 30,000."""
    agreement = [1, 0.9999, 0.999, 0.997, 0.995, 0.98, 0.95, 0.9, 0.7]
    stated = {
        ExactTest: [528, 545, 730, 1460, 3443, 1445, 122, 36, 10],
        Algorithm2Test: [459, 468, 568, 934, 1800, 692, 82, 27, 6.8],
        BettingTest: [851, 880, 1185, 2379, 5485, 2092, 177, 48, 8.8],
        UnionBoundTest: [1157, 1201, 1617, 3063, 6707, 2489, 225, 60, 9.8],
        BetaMixtureTest: [544, 561, 747, 1503, 3559, 2294, 183, 48, 8.4],
    }
    for Test, samples in stated.items():
        test = Test(0.01, 0.01, 30_000, futile=False)
        exact = test.operating_characteristics(agreement)["expected_samples"]
        np.testing.assert_allclose(exact, samples, rtol=0.005, atol=0.6)


@every
@pytest.mark.parametrize("value", [0, -5, 100.0, "100", True])
def test_bad_horizon(Test, value):
    with pytest.raises(ValueError, match=f"`max_samples` must.*max_samples={value!r}"):
        Test(0.5, 0.05, max_samples=value)


@every
def test_short_horizon_states_the_least(Test):
    least = Test(0.1, 0.05, max_samples=1000)._least_horizon
    assert Test(0.1, 0.05, max_samples=least).boundaries()[0][-1] == 0
    with pytest.raises(
        ValueError, match=f"`max_samples` must be at least {least},.*={least - 1}"
    ):
        Test(0.1, 0.05, max_samples=least - 1)


def test_no_default_horizon_where_it_would_be_endless():
    with pytest.raises(ValueError, match="`max_samples` must be given: at kappa=1e-05"):
        BetaMixtureTest(1e-5, 0.01)
    never = ClopperPearsonTest(0.5, 0.4, 3, beta=1e-6)
    assert (never.boundaries()[1] > np.arange(4)).all()


def test_a_test_must_say_when():
    with pytest.raises(NotImplementedError):
        SequentialTest(0.1, 0.1, max_samples=10)


class Overeager(SequentialTest):
    """Certifies and rejects at the same counts."""

    def certifies(self, num_samples, disagreements):
        return np.asarray(disagreements) * 2 <= num_samples

    def rejects(self, num_samples, disagreements):
        return np.asarray(disagreements) * 4 >= num_samples


def test_overlapping_boundaries_are_refused():
    test = Overeager(0.1, 0.1, max_samples=10)
    with pytest.raises(ValueError, match="Overeager would both certify and reject"):
        test.boundaries()
