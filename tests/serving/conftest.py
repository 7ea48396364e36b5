"""A tiny served model, and the scripts of examples/serving as modules."""

import importlib.util
import pathlib
import sys

import keras
import numpy as np
import pytest

from keras_probcert import CertifiedPredictor, LInf

SERVING = pathlib.Path(__file__).parents[2] / "examples" / "serving"


def script(name):
    spec = importlib.util.spec_from_file_location(name, SERVING / f"{name}.py")
    # Dataclasses look up their module.
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def load():
    return script("load")


@pytest.fixture(scope="session")
def client():
    return script("client")


@pytest.fixture(scope="session")
def saved_model(tmp_path_factory):
    """Class 1 where the first coordinate is above ½, in passes of 64 copies."""
    tf = pytest.importorskip("tensorflow")
    base = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    weights = np.array([[0, 8, 0], [0, 0, 0]], "float32"), np.array([0, -4, -9.0])
    base.set_weights(weights)
    perturbation = LInf(0.2, clip=(0, 1))
    certified = CertifiedPredictor(
        base, perturbation, kappa=0.05, alpha=0.05, forward_batch_size=64
    )
    folder = tmp_path_factory.mktemp("served") / "1"
    certified.export(folder, invalid="refuse")
    served = tf.saved_model.load(folder)
    one = tf.ones((1,), tf.int32)
    served.signatures["seeded_budgeted"](  # The first call is slower than others.
        inputs=tf.ones((1, 2)),
        seed=tf.zeros((1, 2), tf.int32),
        max_samples=one,
        max_passes=one,
    )
    return folder, served


@pytest.fixture
def signature(saved_model):
    return saved_model[1].signatures["seeded_budgeted"]


@pytest.fixture
def easy():
    """Every copy votes alike."""
    return np.random.default_rng(0).uniform(0.75, 1, (20, 2)).astype("float32")


@pytest.fixture
def hardest():
    """Copies disagree where their noise exceeds 0.179: one in twenty, the bar."""
    return np.array([[0.321, 0.5]], "float32")
