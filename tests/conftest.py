"""Test set-up: the backend, and real data where it is.

The tests run on the backend that `KERAS_BACKEND` names. With
`KERAS_PROBCERT_BLOCK=tensorflow`, importing TensorFlow fails, as on a machine
that does not have it.
"""

import importlib.abc
import os
import sys

BLOCKED = tuple(filter(None, os.environ.get("KERAS_PROBCERT_BLOCK", "").split(",")))


class Blocker(importlib.abc.MetaPathFinder):
    """Finds nothing where something is; Keras reads `None` in `sys.modules`."""

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"{name} is blocked", name=name)


sys.meta_path.insert(0, Blocker())

import keras  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402

# What takes minutes in one test starts first, so that no worker ends alone with it:
# at both ends of what two workers halve.
LONGEST = ("test_jax.py", "test_devices.py")


@pytest.hookimpl(trylast=True)  # Once `-m` has chosen.
def pytest_collection_modifyitems(items):
    long = [item for item in items if item.path.name in LONGEST]
    rest = [item for item in items if item.path.name not in LONGEST]
    middle = len(rest) // 2
    items[:] = long[::2] + rest[:middle] + long[1::2] + rest[middle:]
    backend = keras.backend.backend()
    if backend == "tensorflow":
        return
    skip = pytest.mark.skip(reason=f"needs TensorFlow, the backend is {backend}")
    for item in items:
        if "tensorflow" in item.keywords:
            item.add_marker(skip)


@pytest.fixture(autouse=True)
def fixed_seed():
    """Keras' global seed, the same before every test."""
    keras.utils.set_random_seed(0)


@pytest.fixture
def image_batch():
    """Eight random images in [0, 1] and labels of ten classes."""
    rng = np.random.default_rng(0)
    return rng.random((8, 6, 6, 1), np.float32), rng.integers(0, 10, 8)


@pytest.fixture(scope="session")
def mnist():
    """The first 1,000 training and 200 test images of MNIST, or a skip."""
    tfds = pytest.importorskip("tensorflow_datasets")

    def load(split):
        images, labels = tfds.as_numpy(
            tfds.load(
                "mnist", split=split, batch_size=-1, as_supervised=True, download=False
            )
        )
        return images.astype("float32") / 255, labels.astype("int32")

    try:
        return load("train[:1000]"), load("test[:200]")
    except (AssertionError, FileNotFoundError, ValueError) as error:
        pytest.skip(f"MNIST is not where TFDS_DATA_DIR points: {error}")
