"""Generalized Gaussian noise: its law, truncated or not.

Every Kolmogorov-Smirnov test alarms falsely with probability 1e-9 (the draws are
fixed, so they pass or fail for good).
"""

import json

import keras
import numpy as np
import pytest
from keras import ops
from scipy import special, stats

from keras_probcert import row_seeds
from keras_probcert.perturbations import GeneralizedGaussian, Noise
from keras_probcert.perturbations.generalized_gaussian import _log_quantiles

# Dimension, k, and the largest norm in units of σ. The shape of the Gamma law, d/2 − k,
# is 12, 2, ½, ¼ and 1.
LAWS = [(784, 380, None), (4, 0, None), (4, 1.5, None), (4, 1.75, 1.0), (6, 2, 2.0)]


def draw(dimension, k, truncate, sigma=0.5, num_copies=10_000):
    truncate = None if truncate is None else sigma * truncate
    noise = Noise(row_seeds(31, 10), num_copies)
    copies = GeneralizedGaussian(sigma, k, truncate=truncate).sample(
        ops.zeros((10, 1, dimension)), noise
    )
    assert tuple(copies.shape) == (10, num_copies, dimension)
    return ops.convert_to_numpy(copies).astype(np.float64).reshape(-1, dimension)


@pytest.mark.parametrize("dimension, k, truncate", LAWS)
def test_law_of_norm_and_direction(dimension, k, truncate, sigma=0.5):
    # 100,000 draws, of large inputs fewer: 10^5 · 784 normals take seconds.
    z = draw(dimension, k, truncate, num_copies=10_000 if dimension < 100 else 1000)
    law = stats.gamma(
        dimension / 2 - k, scale=2 * sigma**2 * dimension / (dimension - 2 * k)
    )
    squares = (z**2).sum(axis=1)
    mass = 1.0 if truncate is None else law.cdf((sigma * truncate) ** 2)
    if truncate is not None:
        assert squares.max() <= (sigma * truncate) ** 2 * (1 + 1e-6)
    assert (
        stats.kstest(squares, lambda s: np.minimum(law.cdf(s) / mass, 1)).pvalue > 1e-9
    )
    # A coordinate of a uniform direction.
    half = (dimension - 1) / 2
    cosine = z[:, 0] / np.sqrt(squares)
    assert stats.kstest((1 + cosine) / 2, stats.beta(half, half).cdf).pvalue > 1e-9
    # Norm and direction are independent: a correlation of 7 sigma, 1e-11.
    correlation = np.corrcoef(cosine, stats.rankdata(squares))[0, 1]
    assert abs(correlation) < 7 / np.sqrt(len(z))


def test_norms_of_a_hundred_thousand_large_inputs():
    """The norms alone of 784 coordinates: the rest is normal noise."""
    perturbation = GeneralizedGaussian(0.5, 380)
    t = ops.convert_to_numpy(
        perturbation._root(Noise(row_seeds(3, 10), 10_000), 784, 1.0)
    ).astype(np.float64)
    assert stats.kstest(t.ravel() ** 2, stats.gamma(12).cdf).pvalue > 1e-9


@pytest.mark.parametrize("k", [0, 380])
def test_sigma_is_the_standard_deviation_of_a_coordinate(k, sigma=0.25):
    squares = (draw(784, k, None, sigma, num_copies=200) ** 2).sum(axis=1) / 784
    # The Gamma law of shape a has a standard deviation of 1/√a of its mean; 7 sigma
    # of the mean of 2,000: 1e-11.
    spread = 1 / np.sqrt((392 - k) * len(squares))
    assert squares.mean() == pytest.approx(sigma**2, rel=7 * spread)


@pytest.mark.parametrize(
    "shape, share", [(12, 1.0), (0.25, 1.0), (392, 1.0), (12, 0.2)]
)
def test_interpolation_between_the_quantiles(shape, share):
    logs, slopes = (table.astype(np.float64) for table in _log_quantiles(shape, share))
    # Half way between the nodes, Hermite's cubic.
    found = (logs[:-1] + logs[1:]) / 2 + (slopes[:-1] - slopes[1:]) / 8
    w = np.linspace(-23, 23, 4097)
    w = (w[:-1] + w[1:]) / 2
    half = 0.5 * np.exp(-abs(w))
    exact = np.where(
        w < 0,
        special.gammaincinv(shape, share * half),
        special.gammainccinv(shape, 1 - share + share * half),
    )
    # log t; float32 has 24 bits of up to 98.
    np.testing.assert_allclose(found, np.log(exact), rtol=1e-7, atol=1e-6)


def test_clamped_and_without_noise():
    x = np.full((3, 5), 0.5, "float32")
    copies = ops.convert_to_numpy(GeneralizedGaussian(3.0, 1, clip=(0, 1))(x, seed=0))
    free = ops.convert_to_numpy(GeneralizedGaussian(3.0, 1)(x, seed=0))
    np.testing.assert_array_equal(copies, free.clip(0, 1))
    assert (free != copies).any()
    np.testing.assert_array_equal(
        ops.convert_to_numpy(GeneralizedGaussian(0, 1, truncate=0.1)(x, seed=0)), x
    )


@pytest.mark.parametrize("truncate", [None, 0.7])
def test_a_copy_depends_on_its_seed_and_index_alone(truncate):
    perturbation = GeneralizedGaussian(0.5, 2, truncate=truncate)
    x, seeds = np.random.default_rng(0).random((4, 1, 3, 3, 1)), row_seeds(1, 4)
    x = x.astype("float32")

    def copies(rows, number, first):
        noise = Noise(seeds[rows], number, first)
        return ops.convert_to_numpy(
            perturbation.sample(ops.convert_to_tensor(x[rows]), noise)
        )

    full = copies(slice(0, 4), 5, 0)
    assert len(np.unique(full.reshape(20, -1), axis=0)) == 20
    alone = copies(slice(2, 3), 2, 3)
    np.testing.assert_allclose(alone[0], full[2, 3:], rtol=0, atol=1e-6)


@pytest.mark.tensorflow
def test_same_copies_under_xla():
    import tensorflow as tf

    perturbation = GeneralizedGaussian(0.5, 2, truncate=2.0)
    x, seeds = np.zeros((7, 3, 3, 1), "float32"), row_seeds(1, 7)
    traced = tf.function(lambda x, seeds: perturbation(x, seeds), jit_compile=True)
    np.testing.assert_allclose(
        traced(x, seeds).numpy(), perturbation(x, seeds).numpy(), rtol=0, atol=1e-5
    )


def test_config_round_trip():
    perturbation = GeneralizedGaussian(0.5, 2, clip=(0, 1), truncate=0.5)
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(perturbation)))
    again = keras.saving.deserialize_keras_object(config)
    assert again.get_config() == perturbation.get_config()


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf"), "1", True, None])
@pytest.mark.parametrize("name", ["sigma", "k"])
def test_bad_amounts(name, value):
    with pytest.raises(ValueError, match=f"`{name}` must be .*{name}={value!r}"):
        GeneralizedGaussian(**{"sigma": 1.0, "k": 1, name: value})


def test_bad_k_and_truncation():
    x = np.zeros((2, 8), "float32")
    for k in (4, 4.5, 380):
        with pytest.raises(ValueError, match=f"`k` must be less than half.* 8.*k={k}"):
            GeneralizedGaussian(1.0, k)(x, seed=0)
    for truncate in (0, -1, "1", float("nan")):
        with pytest.raises(ValueError, match="`truncate` must be"):
            GeneralizedGaussian(1.0, 1, truncate=truncate)
    with pytest.raises(ValueError, match="`truncate` must leave.*truncate=0.001"):
        GeneralizedGaussian(1.0, 1, truncate=0.001)(x, seed=0)
