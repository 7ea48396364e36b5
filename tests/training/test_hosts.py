"""Two processes train to one process' weights, each on half of the rows."""

import os
import pathlib
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

SCRIPT = pathlib.Path(__file__).parent / "train_on_two_hosts.py"
METHODS = ("variance_minimizing", "pgdt", "ibp")
SECONDS = 900  # Some times as long as it takes on two slow cores.


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What a process alone and two joined ones wrote, by name."""
    pytest.importorskip("jax")
    folder = tmp_path_factory.mktemp("hosts")
    rng = np.random.default_rng(0)
    x, y = rng.random((19, 4, 4, 1), np.float32), rng.integers(0, 10, 19)
    np.savez(folder / "data.npz", x=x, y=y)
    hosts = ["--coordinator", f"127.0.0.1:{free_port()}", "--num-processes", "2"]
    runs = {
        "alone": [],
        "first": [*hosts, "--process-id", "0"],
        "second": [*hosts, "--process-id", "1"],
    }
    # Most of the time goes into compiling what runs once.
    settings = {
        "KERAS_BACKEND": "jax",
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_backend_optimization_level=0",
    }
    processes = {}
    try:
        for name, arguments in runs.items():
            with open(folder / f"{name}.log", "w") as log:
                processes[name] = subprocess.Popen(
                    [sys.executable, "-W", "ignore", SCRIPT, folder, name, *arguments],
                    env={**os.environ, **settings},
                    stdout=log,
                    stderr=log,
                )
        end = time.monotonic() + SECONDS
        while any(p.poll() is None for p in processes.values()):
            # One that waits for a dead one waits long.
            if any(p.poll() for p in processes.values()) or time.monotonic() > end:
                break
            time.sleep(0.2)
    finally:
        codes = {name: p.poll() for name, p in processes.items()}
        for p in processes.values():
            p.kill()
            p.wait()
    logs = "\n".join(
        f"{name}: {codes[name]}\n{(folder / f'{name}.log').read_text()[-3000:]}"
        for name in codes
    )
    assert set(codes.values()) == {0}, logs
    return {name: dict(np.load(folder / f"{name}.npz")) for name in runs}


@pytest.mark.slow
@pytest.mark.tensorflow  # Not a second time where TensorFlow is blocked.
@pytest.mark.parametrize("method", METHODS)
def test_two_processes_train_to_the_weights_of_one(found, method):
    alone, first, second = (found[name] for name in ("alone", "first", "second"))
    weights, losses = f"{method} weights", f"{method} losses"
    assert len(alone[losses]) == 2 and alone[losses][0] != alone[losses][1]
    np.testing.assert_array_equal(first[weights], second[weights])
    np.testing.assert_array_equal(first[losses], second[losses])
    np.testing.assert_allclose(first[losses], alone[losses], rtol=1e-5)
    np.testing.assert_allclose(first[weights], alone[weights], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.tensorflow
@pytest.mark.parametrize("method", METHODS[1:])
def test_each_feeds_half_of_the_rows(found, method):
    alone, first, second = (
        found[name][f"{method} fed"] for name in ("alone", "first", "second")
    )
    assert first.shape[1] == second.shape[1] == 4 and alone.shape[1] == 8
    np.testing.assert_array_equal(np.concatenate([first, second], axis=1), alone)


@pytest.mark.slow
@pytest.mark.tensorflow
def test_a_regularizer_over_the_batch_counts(found):
    """Of IBP; it is over the whole batch, not over a process' rows."""
    values = [run["ibp regularizer"] for run in found.values()]
    assert values[0][0] > 0
    np.testing.assert_allclose(values, [values[0]] * 3, rtol=1e-5)
