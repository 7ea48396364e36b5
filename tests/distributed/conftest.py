"""A predictor and inputs of every kind, and what `predict` says of them."""

import functools

import keras
import numpy as np
import pytest

from keras_probcert import CertifiedPredictor, LInf, load_certificates, row_seeds

ROWS = 300


def make_predictor(perturbation=None, scale=8.0, **kwargs):
    """Agreement falls from 1 to ½ as the first coordinate nears ½."""
    base = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    kernel = np.array([[0, scale, 0], [0, 0, 0]], "float32")
    base.layers[0].set_weights([kernel, np.array([0, -scale / 2, -9], "float32")])
    settings = {"kappa": 0.05, "alpha": 0.05, "max_samples": 2000, **kwargs}
    return CertifiedPredictor(base, perturbation or LInf(0.2), **settings)


@functools.cache
def predictor():
    """One for many tests, which compiles once."""
    return make_predictor()


@pytest.fixture(name="make_predictor", scope="session")
def fixture_make_predictor():
    return make_predictor


@pytest.fixture(name="predictor", scope="session")
def fixture_predictor():
    return predictor()


@pytest.fixture(scope="session")
def data():
    x = np.random.default_rng(0).random((ROWS, 2), "float32")
    return x, (x[:, 0] > 0.5).astype("int64")


@pytest.fixture(scope="session")
def expected(data):
    return predictor().predict(data[0], seed=7, verbose=0)


@pytest.fixture(scope="session")
def assert_all_there(expected):
    """Checks that an output holds the certificates of the first rows, once each."""

    def check(output, rows=ROWS):
        found = load_certificates(output)
        np.testing.assert_array_equal(found["id"], np.arange(rows))
        for name, value in expected.items():
            np.testing.assert_array_equal(found[name], value[:rows], err_msg=name)
        np.testing.assert_array_equal(found["seed"], row_seeds(7, rows))
        return found

    return check
