"""Seeds: one a row, repeatable alone."""

import numpy as np
import pytest

from keras_probcert import row_seeds
from keras_probcert.seeds import resolve_seed


@pytest.mark.parametrize("seed", [0, 7, 2**64 + 3, 2**128 - 1])
def test_any_row_can_be_repeated_alone(seed):
    seeds = row_seeds(seed, 1000)
    assert seeds.shape == (1000, 2) and seeds.dtype == np.int32
    for row in [*range(20), 41, 500, 998, 999]:
        np.testing.assert_array_equal(row_seeds(seed, 1, first_row=row)[0], seeds[row])
    for first in range(9):
        np.testing.assert_array_equal(
            row_seeds(seed, 30, first_row=first), seeds[first : first + 30]
        )


def test_far_rows():
    far = row_seeds(3, 8, first_row=10**15)
    np.testing.assert_array_equal(far[5], row_seeds(3, 1, first_row=10**15 + 5)[0])
    assert (far[0] != row_seeds(3, 1)[0]).any()


def test_all_differ():
    """Of 400,000 words of 64 bits two are equal with probability 4e-9."""
    words = [row_seeds(seed, 100_000).view(np.int64) for seed in (0, 1, 2, 2**64)]
    assert len(np.unique(words)) == 400_000


def test_every_bit_is_fair():
    """64 bits, 100,000 rows: 6.5 sigma each, 5e-9 in all."""
    words = row_seeds(1, 100_000).view(np.uint32)
    ones = (words[..., None] >> np.arange(32, dtype=np.uint32)) & 1
    deviation = (ones.mean(axis=0) - 0.5) / (0.5 / np.sqrt(100_000))
    assert np.abs(deviation).max() < 6.5


def test_no_seed_is_fresh():
    assert (row_seeds(None, 3) != row_seeds(None, 3)).any()


def test_numpy_integers_are_integers():
    np.testing.assert_array_equal(
        row_seeds(np.int64(7), np.int32(5), np.int64(2)), row_seeds(7, 5, 2)
    )


@pytest.mark.parametrize(
    "name, value, least",
    [
        ("seed", -1, 0),
        ("num_rows", 0, 1),
        ("num_rows", -3, 1),
        ("first_row", -1, 0),
    ],
)
def test_out_of_range(name, value, least):
    arguments = {"seed": 1, "num_rows": 5, "first_row": 0, name: value}
    with pytest.raises(
        ValueError, match=f"`{name}` must be at least {least}.*{name}={value}"
    ):
        row_seeds(**arguments)


@pytest.mark.parametrize("name", ["seed", "num_rows", "first_row"])
@pytest.mark.parametrize("value", [True, 1.0, "1", [1]], ids=repr)
def test_not_an_integer(name, value):
    arguments = {"seed": 1, "num_rows": 5, "first_row": 0, name: value}
    with pytest.raises(ValueError) as error:
        row_seeds(**arguments)
    assert f"`{name}` must be an integer" in str(error.value)
    assert f"Received: {name}={value!r}" in str(error.value)


def test_resolve_takes_seeds_as_they_are():
    seeds = row_seeds(1, 4)
    assert resolve_seed(seeds, 4) is seeds
    np.testing.assert_array_equal(resolve_seed(1, 4), seeds)
    with pytest.raises(ValueError, match=r"each of the 5 rows.*\(4, 2\)"):
        resolve_seed(seeds, 5)
