"""The law of the stop against enumeration and a plain dynamic program."""

import itertools

import numpy as np
import pytest

from keras_probcert import BetaMixtureTest
from keras_probcert.sequential.stopping_law import stopping_law

BOUNDARIES = [
    ([3, 6, 9], [0, 2, 5, 9]),
    ([4, 7, 10, 12], [0, 0, 0, 3, 6]),
    ([5, 8], [0] * 20),
    ([], [0, 3, 6, 9]),
    ([11, 11, 11], [0, 0, 0]),
]


def enumerated(certify_times, reject_until, horizon, q, two_classes):
    certified = np.zeros(len(certify_times))
    rejected, undecided = np.zeros(horizon + 1), np.zeros(horizon + 1)
    for votes in itertools.product((0, 1), repeat=horizon):
        weight = q ** sum(votes) * (1 - q) ** (horizon - sum(votes))
        for n in range(1, horizon + 1):
            d = sum(votes[:n])
            d = min(d, n - d) if two_classes else d
            if d < len(certify_times) and n >= certify_times[d]:
                certified[d] += weight
                break
            if d >= len(reject_until) or n <= reject_until[d]:
                rejected[n] += weight
                break
        else:
            undecided[d] += weight
    return certified, rejected, undecided


@pytest.mark.parametrize("two_classes", [False, True])
@pytest.mark.parametrize("certify_times, reject_until", BOUNDARIES)
def test_equals_enumeration(certify_times, reject_until, two_classes):
    horizon = 12
    for q in (0.1, 0.3, 0.45, 0.5):
        arguments = (certify_times, reject_until, horizon, q, two_classes)
        certified, rejected, undecided = enumerated(*arguments)
        looks = np.arange(1, horizon + 1)
        for law in (stopping_law(*arguments), stopping_law(*arguments, looks=looks)):
            np.testing.assert_allclose(law.certified, certified, atol=1e-14)
            cells = np.concatenate([[0], law.times + 1])
            cells = [rejected[a:b].sum() for a, b in itertools.pairwise(cells)]
            np.testing.assert_allclose(law.rejected, cells, atol=1e-14)
            want = undecided[: len(law.undecided)]
            np.testing.assert_allclose(law.undecided, want, atol=1e-14)
            assert undecided[len(law.undecided) :].sum() == 0


@pytest.mark.parametrize("q", [0.0, 1e-4, 0.003, 0.02, 0.3, 0.9, 1.0])
def test_equals_a_vote_by_vote_program(q):
    test = BetaMixtureTest(0.02, 0.05, 3000)
    certify, reject = test.boundaries()
    law = stopping_law(test.certify_times, test.reject_until, 3000, q)
    state, certified, rejected, samples = np.ones(1), 0.0, 0.0, 0.0
    for n in range(1, 3001):
        samples += state.sum()
        state = np.append(state * (1 - q), 0) + np.append(0, state * q)
        d = np.arange(n + 1)
        certified += state[d <= certify[n]].sum()
        rejected += state[d >= reject[n]].sum()
        state = np.where((d > certify[n]) & (d < reject[n]), state, 0)
    assert law.certified.sum() == pytest.approx(certified, abs=1e-12)
    assert law.rejected.sum() == pytest.approx(rejected, abs=1e-12)
    assert law.undecided.sum() == pytest.approx(state.sum(), abs=1e-12)
    assert law.alive[-1] == pytest.approx(state.sum(), abs=1e-12)
    assert law.expected_disagreements() == pytest.approx(q * samples, rel=1e-11)


def test_starts_anywhere():
    """Stopping after 5 votes and starting again changes nothing."""
    arguments = ([40, 60, 90], [0, 5, 10, 20], 100)
    whole = stopping_law(*arguments, 0.04, looks=[8], keep_states=True)
    low, state = whole.states[8]
    rest = stopping_law(*arguments, 0.04, start=(8, low, state))
    np.testing.assert_allclose(rest.certified, whole.certified, rtol=1e-12)
    np.testing.assert_allclose(rest.undecided, whole.undecided, rtol=1e-12)
    assert rest.rejected.sum() == pytest.approx(whole.rejected[whole.times > 8].sum())


def test_small_probabilities_keep_their_digits():
    """Unanimous votes at kappa = 1e-4: (1 − q)^n to ten digits."""
    for q in (1e-4, 0.01):
        law = stopping_law([92_000], [0], 100_000, q)
        want = np.exp(92_000 * np.log1p(-q))
        assert law.certified[0] == pytest.approx(want, rel=1e-10)
