"""The balls: laws of 100,000 draws, the valid input range, and the centre.

Every Kolmogorov-Smirnov or chi-square test alarms falsely with probability 1e-9;
there are fewer than 100 of them (the draws are fixed, so they pass or fail for
good).
"""

import numpy as np
import pytest
from keras import ops
from scipy import stats

from keras_probcert import L0, L1, L2, LInf, row_seeds
from keras_probcert.perturbations import Noise

LEVEL = 1e-9
SHAPES = [(2,), (3,), (50,), (5, 5, 2)]
ORDERS = [(LInf, np.inf), (L2, 2), (L1, 1)]


def draw(perturbation, x, num_rows=10, num_copies=10_000, seed=11):
    """Copies of one input, float64 `(num_rows * num_copies, size)`."""
    rows = ops.convert_to_tensor(np.broadcast_to(x, (num_rows, 1, *x.shape)))
    copies = perturbation.sample(rows, Noise(row_seeds(seed, num_rows), num_copies))
    assert tuple(copies.shape) == (num_rows, num_copies, *x.shape)
    return ops.convert_to_numpy(copies).astype(np.float64).reshape(-1, x.size)


def ks(values, cdf):
    return stats.kstest(values, cdf).pvalue


def coordinate_cdf(order, d):
    """The law of one coordinate of a uniform point of the unit ball."""
    if order == np.inf:
        return stats.uniform(-1, 2).cdf
    if order == 2:
        return stats.beta((d + 1) / 2, (d + 1) / 2, loc=-1, scale=2).cdf
    half = stats.beta(1, d).cdf
    return lambda c: 0.5 + 0.5 * np.sign(c) * half(np.abs(c))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("ball, order", ORDERS)
def test_uniform_in_the_ball(ball, order, shape):
    epsilon, d = 0.3, int(np.prod(shape))
    steps = draw(ball(epsilon, clip=None), np.zeros(shape, "float32"))
    assert steps.shape == (100_000, d)
    norm = np.linalg.norm(steps, order, axis=1)
    assert norm.max() <= epsilon + 1e-6
    assert ks(norm / epsilon, lambda r: np.clip(r, 0, 1) ** d) > LEVEL
    for place in {0, d // 2, d - 1}:
        assert ks(steps[:, place] / epsilon, coordinate_cdf(order, d)) > LEVEL


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("ball, order", ORDERS)
def test_signs_are_fair_and_independent(ball, order, shape):
    steps = draw(ball(0.3, clip=None), np.zeros(shape, "float32"), seed=12)
    # All orthants of the first two and the last coordinate.
    places = sorted({0, 1, steps.shape[1] - 1})
    orthant = (steps[:, places] > 0) @ (2 ** np.arange(len(places)))
    counts = np.bincount(orthant, minlength=2 ** len(places))
    assert stats.chisquare(counts).pvalue > LEVEL


@pytest.mark.parametrize("ball, order", ORDERS)
def test_norm_and_direction_are_independent(ball, order):
    """Rank correlation of norm and share of a coordinate; 6 sigma, 2e-9 each."""
    steps = draw(ball(0.3, clip=None), np.zeros(3, "float32"), seed=13)
    norm = np.linalg.norm(steps, order, axis=1)
    share = np.abs(steps[:, 0]) / norm
    assert abs(stats.spearmanr(norm, share).statistic) < 6 / np.sqrt(len(norm))


@pytest.mark.parametrize("ball, order", ORDERS)
def test_clamped_copies_stay_in_the_range_and_the_ball(ball, order):
    x = np.array([0.0, 1.0, 0.004, 0.997, 0.5, 0.25], "float32")
    copies = draw(ball(0.4), x, num_copies=1000)
    assert copies.min() >= 0 and copies.max() <= 1
    assert np.linalg.norm(copies - x, order, axis=1).max() <= 0.4 + 1e-6
    free = draw(ball(0.4, clip=None), x, num_copies=1000)
    assert (free < 0).any() and (free > 1).any()
    np.testing.assert_array_equal(copies, free.clip(0, 1))


def test_linf_intersect_is_uniform_in_the_intersection():
    x = np.array([0.0, 0.1, 0.5, 0.8, 1.0], "float32")
    copies = draw(LInf(0.3, clip_mode="intersect"), x)
    low, high = np.maximum(x - 0.3, 0), np.minimum(x + 0.3, 1)
    assert copies.min() >= 0 and copies.max() <= 1
    assert (np.abs(copies - x) <= 0.3 + 1e-6).all()
    for i in range(5):
        law = stats.uniform(low[i], high[i] - low[i])
        assert ks(copies[:, i], law.cdf) > LEVEL
    # 10 correlations, 6 sigma: 2e-8 in all.
    correlation = np.corrcoef(copies.T) - np.eye(5)
    assert np.abs(correlation).max() < 6 / np.sqrt(len(copies))


def test_linf_intersect_without_a_range_is_the_ball():
    x = np.full(4, 0.9, "float32")
    np.testing.assert_array_equal(
        draw(LInf(0.3, clip=None, clip_mode="intersect"), x, num_copies=10),
        draw(LInf(0.3, clip=None), x, num_copies=10),
    )


@pytest.mark.parametrize("shape, epsilon", [((3,), 3), ((10,), 1), ((4, 3, 2), 3)])
def test_l0_changes_exactly_epsilon_coordinates(shape, epsilon):
    # -1 lies outside the values that are drawn, so a changed one never hides.
    x = np.full(shape, -1, "float32")
    copies = draw(L0(epsilon, clip=(0, 1)), x)
    changed = copies != -1
    assert (changed.sum(axis=1) == epsilon).all()
    if epsilon < x.size:
        # Counts of places drawn without replacement have the covariance of a
        # multinomial times this factor, which the statistic takes out.
        factor = (x.size - epsilon) / (x.size - 1)
        expected = len(copies) * epsilon / x.size
        statistic = ((changed.sum(axis=0) - expected) ** 2 / expected).sum() / factor
        assert stats.chi2(x.size - 1).sf(statistic) > LEVEL
    values = copies[changed].reshape(-1, epsilon)
    assert ks(values[:, 0], stats.uniform().cdf) > LEVEL
    assert ks(values[:, -1], stats.uniform().cdf) > LEVEL


def test_l0_takes_every_set_equally_often():
    copies = draw(L0(2, clip=(0, 1)), np.full(5, -1, "float32"), seed=14)
    sets = (copies != -1) @ (2 ** np.arange(5))
    _, counts = np.unique(sets, return_counts=True)
    assert len(counts) == 10
    assert stats.chisquare(counts).pvalue > LEVEL


def test_l0_values_fill_its_range_whatever_the_input():
    copies = draw(L0(2, clip=(-2, 3)), np.full(2, 3, "float32"))
    assert ks(copies.ravel(), stats.uniform(-2, 5).cdf) > LEVEL


@pytest.mark.parametrize(
    "perturbation",
    [LInf(0), LInf(0, clip_mode="intersect"), L2(0), L1(0), L0(0)],
    ids=repr,
)
def test_radius_zero_gives_the_input_back(perturbation):
    x = np.random.default_rng(0).random((3, 4, 2)).astype("float32")
    x[0, 0] = 0, 1
    copies = draw(perturbation, x, num_copies=10)
    np.testing.assert_array_equal(copies, np.tile(x.ravel(), (100, 1)))


class ExtremeNoise(Noise):
    """Noise whose every word is the lowest or the highest one."""

    word = 0

    def _bits(self, size):
        shape = (self.seeds.shape[0], self.num_copies, size)
        return ops.convert_to_tensor(np.full(shape, self.word, "uint32"))


@pytest.mark.parametrize("word", [0, 2**32 - 1])
@pytest.mark.parametrize("clip", [(0, 1), (-2.1179, 2.64), (-1e-3, 0.1)])
@pytest.mark.parametrize(
    "make, order",
    [
        *ORDERS,
        (lambda e, clip: LInf(e, clip, "intersect"), np.inf),
        (lambda e, clip: L0(3, clip), 0),
    ],
)
def test_extreme_words_stay_inside(make, order, clip, word):
    x = np.float32([clip[0], clip[1], 0.05, 0.07])
    noise = ExtremeNoise(np.zeros((1, 2), "int32"), 1)
    noise.word = word
    rows = ops.convert_to_tensor(x[None, None])
    copies = ops.convert_to_numpy(make(0.04, clip).sample(rows, noise))[0, 0]
    assert np.isfinite(copies).all()
    assert (np.float32(clip[0]) <= copies).all()
    assert (copies <= np.float32(clip[1])).all()
    limit = 3 if order == 0 else 0.04 + 1e-6
    assert np.linalg.norm(copies.astype(np.float64) - x, order) <= limit
