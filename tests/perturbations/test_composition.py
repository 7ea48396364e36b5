"""One perturbation after another."""

import numpy as np
import pytest
from keras import ops

from keras_probcert import L0, Composition, Gaussian, LInf, Rotation, row_seeds
from keras_probcert.perturbations import Noise


def test_equals_applying_by_hand():
    x = np.random.default_rng(0).random((5, 1, 6, 7, 2)).astype("float32")
    seeds = row_seeds(1, 5)
    parts = [Rotation(20), LInf(0.1), L0(3)]
    noise = Noise(seeds, 4, first=2)
    by_hand = ops.convert_to_tensor(x)
    for part in parts:
        by_hand = part.sample(by_hand, noise)
    composed = Composition(parts).sample(ops.convert_to_tensor(x), Noise(seeds, 4, 2))
    assert tuple(composed.shape) == (5, 4, 6, 7, 2)
    np.testing.assert_array_equal(
        ops.convert_to_numpy(composed), ops.convert_to_numpy(by_hand)
    )


def test_the_first_is_applied_first():
    # A rotation after the noise blends in black corners, before it does not.
    x = np.ones((20, 9, 9, 1), "float32")
    rotation, noise = Rotation(45, fill_value=0), L0(81)
    last = ops.convert_to_numpy(Composition([rotation, noise])(x, seed=0))
    first = ops.convert_to_numpy(Composition([noise, rotation])(x, seed=0))
    assert (last != 0).all()
    assert (first[:, 0, 0] == 0).any()


def test_each_part_has_noise_of_its_own():
    """Steps of both parts are uncorrelated; 5.5 sigma, 4e-8."""
    x = np.zeros((10, 5000), "float32")
    one = ops.convert_to_numpy(Gaussian(1, clip=None)(x, seed=0))
    both = Composition([Gaussian(1, clip=None)] * 2)(x, seed=0)
    second = ops.convert_to_numpy(both) - one
    assert second.std() == pytest.approx(1, abs=0.02)
    correlation = np.corrcoef(one.ravel(), second.ravel())[0, 1]
    assert abs(correlation) < 5.5 / np.sqrt(one.size)


def test_clip_is_that_of_the_parts():
    assert Composition([LInf(0.1, clip=(-1, 2)), L0(1, clip=(-1, 2))]).clip == (-1, 2)
    assert Composition([LInf(0.1, clip=None)]).clip is None
    nested = Composition([Composition([LInf(0.1)]), L0(1)])
    assert nested.clip == (0, 1)


def test_mixed_ranges_are_refused():
    with pytest.raises(ValueError, match=r"share one valid input range.*-1\.0, 1\.0"):
        Composition([LInf(0.1), LInf(0.1, clip=(-1, 1))])
    with pytest.raises(ValueError, match="share one valid input range.*None"):
        Composition([LInf(0.1), LInf(0.1, clip=None)])


@pytest.mark.parametrize("parts", [[], None, LInf(0.1), "LInf"])
def test_other_than_a_list_is_refused(parts):
    with pytest.raises(ValueError, match="`perturbations` must be a non-empty list"):
        Composition(parts)


def test_other_parts_are_refused():
    with pytest.raises(ValueError, match="must be a keras_probcert.Perturbation.*0.1"):
        Composition([LInf(0.1), 0.1])
