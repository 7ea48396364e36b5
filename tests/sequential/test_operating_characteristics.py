"""Operating characteristics against enumeration and simulation."""

import itertools

import numpy as np
import pytest

from keras_probcert import Algorithm2Test, BetaMixtureTest
from keras_probcert.sequential import operating_characteristics


def first_crossing(votes, certify, reject):
    """(decision, samples); a vote is 1 where it disagrees."""
    disagreements = 0
    for n, vote in enumerate(votes, start=1):
        disagreements += vote
        if disagreements <= certify[n]:
            return "certify", n
        if disagreements >= reject[n]:
            return "reject", n
    return "undecided", len(votes)


def enumerated(certify, reject, p):
    """The same numbers from all 2^n streams of votes."""
    horizon = len(certify) - 1
    total = dict.fromkeys(("certify", "reject", "undecided", "expected_samples"), 0.0)
    for votes in itertools.product((0, 1), repeat=horizon):
        weight = p ** (horizon - sum(votes)) * (1 - p) ** sum(votes)
        decision, n = first_crossing(votes, certify, reject)
        total[decision] += weight
        total["expected_samples"] += weight * n
    return total


BOUNDARIES = [
    BetaMixtureTest(0.5, 0.2, max_samples=13).boundaries(),
    BetaMixtureTest(0.45, 0.6, max_samples=12).boundaries(),
    Algorithm2Test(0.3, 0.2, max_samples=13).boundaries(),
    ([-1] * 9, [9] * 9),
    ([-1, 0], [1, 1]),
    ([-1, -1, -1, 1, 1, 2], [1, 2, 3, 3, 3, 3]),
]


@pytest.mark.parametrize("certify, reject", BOUNDARIES)
def test_equals_enumeration(certify, reject):
    grid = [0.0, 0.2, 0.5, 0.55, 0.9, 1.0]
    together = operating_characteristics(certify, reject, np.reshape(grid, (2, 3)))
    for i, p in enumerate(grid):
        want = enumerated(certify, reject, p)
        exact = operating_characteristics(certify, reject, p)
        assert set(exact) == set(want)
        for name, value in want.items():
            assert isinstance(exact[name], float)
            assert exact[name] == pytest.approx(value, abs=1e-10)
            assert together[name].shape == (2, 3)
            assert together[name].flat[i] == pytest.approx(value, abs=1e-10)


def test_equals_simulation():
    """5 standard errors on 3 numbers: a false alarm in 6e-7 of the seeds."""
    test = BetaMixtureTest(kappa=0.1, alpha=0.1, max_samples=400)
    certify, reject = test.boundaries()
    p, streams = 0.93, 20_000
    votes = np.random.default_rng(7).random((streams, 400)) >= p
    disagreements = votes.cumsum(axis=1)
    certified = disagreements <= certify[1:]
    stopped = certified | (disagreements >= reject[1:])
    decided = stopped.any(axis=1)
    first = np.where(decided, stopped.argmax(axis=1), 399)
    is_certified = certified[np.arange(streams), first]
    exact = test.operating_characteristics(p)
    assert exact["certify"] > 0.1 and exact["undecided"] > 0.1
    for sample, value in (
        (is_certified, exact["certify"]),
        (decided & ~is_certified, exact["reject"]),
        (first + 1, exact["expected_samples"]),
    ):
        error = sample.std() / np.sqrt(streams)
        assert abs(sample.mean() - value) < 5 * error


@pytest.mark.parametrize("agreement", [-0.1, 1.1, float("nan"), [0.5, 2.0]])
def test_agreement_must_be_a_probability(agreement):
    test = BetaMixtureTest(0.5, 0.2, max_samples=13)
    with pytest.raises(ValueError) as error:
        test.operating_characteristics(agreement)
    assert "`agreement` must lie in [0, 1]" in str(error.value)
    assert f"Received: agreement={agreement}" in str(error.value)
