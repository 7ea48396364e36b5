"""The backend-neutral tests again on JAX, on a machine without TensorFlow."""

import os
import pathlib
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).parent


@pytest.mark.tensorflow
def test_everything_on_jax_with_tensorflow_blocked():
    pytest.importorskip("jax")
    environment = {
        **os.environ,
        "KERAS_BACKEND": "jax",
        "KERAS_PROBCERT_BLOCK": "tensorflow",
        # Most of the time goes into compiling what runs once.
        "XLA_FLAGS": "--xla_backend_optimization_level=0 "
        "--xla_llvm_disable_expensive_passes=true",
    }
    # The sequential tests are NumPy on every backend, and argument checks differ
    # on none; of the contract's tests only those that jit are JAX's own.
    perturbations = ("balls", "gaussian", "noise", "composition")
    # Every method trains on JAX in training/test_devices.py.
    methods = ("objective", "formulas")
    certifiers = ("certified_predictor", "voting", "smoothed_classifier")
    # The loop that the gradient attacks share, and what they share with the others.
    attacks = ("attack", "projected_gradient")
    folders = [
        *(str(HERE / "certifiers" / f"test_{name}.py") for name in certifiers),
        f"{HERE / 'certifiers' / 'test_ensemble.py'}::test_as_the_base_of_a_certifier",
        f"{HERE / 'certifiers' / 'test_dsrs.py'}::test_linear_model",
        f"{HERE / 'training' / 'test_keras_citizen.py'}"
        "::test_fit_evaluate_predict_save_load",
        *(str(HERE / "attacks" / f"test_{name}.py") for name in attacks),
        *(str(HERE / "training" / f"test_{name}.py") for name in methods),
        *(str(HERE / "perturbations" / f"test_{name}.py") for name in perturbations),
        *(
            f"{HERE / 'perturbations' / 'test_contract.py'}::{name}"
            for name in (
                "test_same_copies_inside_jit",
                "test_no_seed_is_refused_inside_jit",
            )
        ),
    ]
    run = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"),
            *("-n", "0", "-k", "not bad_", *folders),
        ],
        env=environment,
        cwd=HERE.parent,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
    summary = run.stdout.strip().splitlines()[-1]
    print(summary)
    assert " passed" in summary
