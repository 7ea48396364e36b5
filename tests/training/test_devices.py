"""Two devices train every method to the weights of one, on both backends."""

import os
import pathlib
import subprocess
import sys

import pytest

from keras_probcert import training

SCRIPT = pathlib.Path(__file__).parent / "train_on_devices.py"


@pytest.mark.slow
@pytest.mark.tensorflow
@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_two_devices_train_to_the_same_weights(backend):
    pytest.importorskip(backend)
    run = subprocess.run(
        [sys.executable, "-W", "ignore", str(SCRIPT)],
        env={
            **os.environ,
            "KERAS_BACKEND": backend,
            # Most of the time goes into compiling what runs once.
            "XLA_FLAGS": "--xla_backend_optimization_level=0",
        },
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    for name in training.METHODS:
        assert f"{name} the same" in run.stdout
