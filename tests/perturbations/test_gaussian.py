"""Gaussian noise: its law, and the valid input range.

Every Kolmogorov-Smirnov test alarms falsely with probability 1e-9 (the draws
are fixed, so they pass or fail for good).
"""

import numpy as np
import pytest
from keras import ops
from scipy import stats

from keras_probcert import Gaussian, row_seeds
from keras_probcert.perturbations import Noise


def draw(perturbation, x, num_rows=10, num_copies=10_000):
    rows = ops.convert_to_tensor(np.broadcast_to(x, (num_rows, 1, *x.shape)))
    copies = perturbation.sample(rows, Noise(row_seeds(21, num_rows), num_copies))
    assert tuple(copies.shape) == (num_rows, num_copies, *x.shape)
    return ops.convert_to_numpy(copies).astype(np.float64).reshape(-1, x.size)


@pytest.mark.parametrize("shape", [(1,), (3,), (3, 3, 3)], ids=str)
def test_normal_around_the_input(shape):
    x = np.linspace(0, 1, int(np.prod(shape)), dtype="float32").reshape(shape)
    steps = draw(Gaussian(0.25, clip=None), x) - x.ravel()
    for place in {0, x.size // 2, x.size - 1}:
        assert stats.kstest(steps[:, place], stats.norm(0, 0.25).cdf).pvalue > 1e-9
    if x.size > 1:
        # At most 27 * 26 / 2 correlations of 7 sigma: 1e-9 in all.
        correlation = np.corrcoef(steps.T) - np.eye(x.size)
        assert np.abs(correlation).max() < 7 / np.sqrt(len(steps))


def test_clamped_to_the_range():
    x = np.float32([0.0, 0.02, 0.5, 1.0])
    copies = draw(Gaussian(0.3), x, num_copies=1000)
    free = draw(Gaussian(0.3, clip=None), x, num_copies=1000)
    assert (free < 0).any() and (free > 1).any()
    np.testing.assert_array_equal(copies, free.clip(0, 1))


def test_sigma_zero_gives_the_input_back():
    x = np.random.default_rng(0).random((4, 3)).astype("float32")
    copies = draw(Gaussian(0), x, num_copies=10)
    np.testing.assert_array_equal(copies, np.tile(x.ravel(), (100, 1)))
