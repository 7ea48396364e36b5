"""Wald's test against his approximations, and what it refuses."""

import math

import numpy as np
import pytest

from keras_probcert import SPRT


def test_boundaries_are_straight_lines():
    test = SPRT(0.1, 0.05, 600, alternatives=(0.95, 0.8))
    n, d = np.mgrid[1:600, :200]
    ratio = (n - d) * math.log(0.95 / 0.9) + d * math.log(0.05 / 0.1)
    np.testing.assert_array_equal(test.certifies(n, d), ratio >= math.log(20))
    ratio = (n - d) * math.log(0.8 / 0.9) + d * math.log(0.2 / 0.1)
    np.testing.assert_array_equal(test.rejects(n, d), ratio >= math.log(20))


def test_samples_at_the_alternative_are_walds():
    """E[N] = (log(1/alpha) + overshoot) / KL; the overshoot is below one step."""
    test = SPRT(0.05, 0.01, 20_000, futile=False, alternatives=(0.975, 0.9))
    for agreement in test.alternatives:
        exact = test.operating_characteristics(agreement)["expected_samples"]
        q = 1 - agreement
        steps = [abs(math.log(q / 0.05)), abs(math.log(agreement / 0.95))]
        kl = q * math.log(q / 0.05) + agreement * math.log(agreement / 0.95)
        assert math.log(100) / kl * 0.97 < exact < (math.log(100) + max(steps)) / kl


def test_unanimous_alternative():
    test = SPRT(0.1, 0.05, 200, alternatives=(1, 0.5))
    assert test.min_samples == math.ceil(math.log(0.05) / math.log(0.9))
    assert len(test.certify_times) == 1


@pytest.mark.parametrize("alternatives", [(0.9, 0.8), (0.95, 0.9), (1.1, 0.5), (1, 0)])
def test_bad_alternatives(alternatives):
    with pytest.raises(ValueError, match="`alternatives` must be an agreement above"):
        SPRT(0.1, 0.05, 200, alternatives=alternatives)


@pytest.mark.parametrize("alternatives", [0.99, (0.99,), (0.99, 0.8, 0.7)])
def test_bad_pairs(alternatives):
    with pytest.raises(ValueError, match="`alternatives` must be a pair of agreements"):
        SPRT(0.1, 0.05, 200, alternatives=alternatives)
