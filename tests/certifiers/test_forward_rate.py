"""The rate of full passes: a number, for any certifier, and bad input."""

import keras
import numpy as np
import pytest

from keras_probcert import CertifiedPredictor, LInf, SmoothedClassifier, forward_rate
from keras_probcert.certifiers.forward_rate import FullPasses


def dense():
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])


def test_every_copy_votes():
    certified = CertifiedPredictor(dense(), LInf(0.1), kappa=0.1, forward_batch_size=32)
    x = np.full((4, 3), 0.5, "float32")
    votes = FullPasses(certified).predict(x, verbose=0, seed=0)["votes"]
    assert votes.sum() == 4 * 16


@pytest.mark.parametrize("kind", [CertifiedPredictor, SmoothedClassifier])
def test_rate(kind):
    arguments = {"kappa": 0.1} if kind is CertifiedPredictor else {}
    noise = LInf(0.1) if kind is CertifiedPredictor else 0.25
    certified = kind(dense(), noise, forward_batch_size=32, **arguments)
    assert 0 < forward_rate(certified, seconds=0.01) < 1e9


def test_bad_input():
    with pytest.raises(ValueError, match="`certified` must be a certifier"):
        forward_rate(dense())
    any_size = keras.Sequential(
        [keras.Input((None, 3)), keras.layers.GlobalMaxPool1D(), keras.layers.Dense(2)]
    )
    certified = CertifiedPredictor(any_size, LInf(0.1), kappa=0.1)
    with pytest.raises(ValueError, match="`x` must be given"):
        forward_rate(certified)
    with pytest.raises(ValueError, match="clip"):
        forward_rate(certified, np.full((1, 5, 3), 2.0, "float32"))
    with pytest.raises(ValueError, match="`seconds` must be"):
        forward_rate(certified, seconds=-1)
