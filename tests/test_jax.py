"""The backend-neutral tests again on JAX, on a machine without TensorFlow."""

import os
import pathlib
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).parent


# The sequential tests are NumPy on every backend, and argument checks differ on none.
# Every method trains on JAX in training/test_devices.py. Two processes at a time.
HALVES = {
    "votes": (
        "certifiers/test_voting",
        "certifiers/test_smoothed_classifier",
        "certifiers/test_certified_predictor::test_error_at_the_bar_on_any_backend",
        "certifiers/test_certified_predictor::test_a_row_does_not_depend_on_its_batch",
        "certifiers/test_certified_predictor::test_noise_is_fresh_without_a_seed",
        "certifiers/test_certified_predictor::test_evaluate",
        "certifiers/test_certified_predictor::test_datasets",
        "certifiers/test_certified_predictor::test_nan_outputs_never_vote",
        "certifiers/test_certified_predictor::test_refused_in_a_graph",
        "certifiers/test_certified_predictor::test_save_and_load",
        "certifiers/test_certified_predictor::test_export_needs_tensorflow",
        "certifiers/test_ensemble::test_as_the_base_of_a_certifier",
        "certifiers/test_dsrs::test_linear_model",
    ),
    "training": (
        "attacks/test_attack",
        "attacks/test_projected_gradient",
        "training/test_objective",
        "training/test_keras_citizen::test_fit_evaluate_predict_save_load",
        "perturbations/test_gaussian",
        "perturbations/test_noise",
        "perturbations/test_composition",
        "perturbations/test_contract::test_same_copies_inside_jit",
        "perturbations/test_contract::test_no_seed_is_refused_inside_jit",
    ),
}


@pytest.mark.slow
@pytest.mark.tensorflow
@pytest.mark.parametrize("half", HALVES)
def test_everything_on_jax_with_tensorflow_blocked(half):
    pytest.importorskip("jax")
    environment = {
        **os.environ,
        "KERAS_BACKEND": "jax",
        "KERAS_PROBCERT_BLOCK": "tensorflow",
        # Most of the time goes into compiling what runs once.
        "XLA_FLAGS": "--xla_backend_optimization_level=0 "
        "--xla_llvm_disable_expensive_passes=true",
    }
    chosen = []
    for name in HALVES[half]:
        module, *test = name.split("::")
        chosen.append("::".join([str(HERE / f"{module}.py"), *test]))
    run = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"),
            *("-n", "0", "-k", "not bad_", *chosen),
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
