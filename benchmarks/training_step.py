"""Each training method's step over a plain Keras step on as many rows.

A row is one forward-backward pass of one input: a method with n copies is compared
with a plain step on n times as many inputs, one with k steps of search with k + 1
times as many. Both train the Basic ConvNet (CNN7 for IBP) with Adam, in turn in one
run; the ratio is of medians.

    python benchmarks/training_step.py
"""

import argparse
import time

import keras
import numpy as np

from keras_probcert import LInf, training
from keras_probcert.architectures import basic_convnet, cnn7

COPIES, STEPS = 10, 7
PERTURBATION = LInf(0.3)
SEARCH = {"epsilon": 0.3, "steps": STEPS}

# Arguments, and forward-backward rows of an example.
METHODS = {
    "erm": ({}, 1),
    "da": ({"perturbation": PERTURBATION, "num_samples": COPIES}, COPIES),
    "corruption": ({"perturbation": PERTURBATION}, 1),
    "variance_minimizing": (
        {"perturbation": PERTURBATION, "num_samples": COPIES},
        COPIES,
    ),
    "prl": ({"perturbation": PERTURBATION, "num_samples": COPIES}, COPIES),
    "pgdt": (SEARCH, STEPS + 1),
    "kl_pgd": (SEARCH, STEPS + 1),
    "trades": (SEARCH, STEPS + 2),
    "mart": (SEARCH, STEPS + 2),
    "rs": ({"num_samples": COPIES}, COPIES),
    "consistency": ({"num_samples": 2}, 2),
    "smoothadv": ({"epsilon": 1.0, "num_samples": 4, "steps": 2}, 12),
    "smoothmix": ({"mixing_weight": 5.0, "num_samples": 4, "steps": 2}, 16),
    # Its regularizers fade with the ramp of epsilon.
    "ibp": ({"epsilon": training.LinearRamp(0.0, 0.4, length=1)}, 3),
    "ibp, ramped": ({"epsilon": training.LinearRamp(0.4, 0.4, length=1)}, 3),
}


def compiled(model, jit_compile):
    model.compile(
        keras.optimizers.Adam(1e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=jit_compile,
    )
    return model


def seconds_a_step(model, x, y, steps):
    start = time.perf_counter()
    for _ in range(steps):
        model.train_on_batch(x, y)
    return (time.perf_counter() - start) / steps


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--rows", type=int, default=1280, help="rows a step, about")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--jit-compile", action="store_true", help="compile by XLA")
    args = parser.parse_args()

    rng = np.random.default_rng(0)
    for name in args.methods:
        arguments, cost = METHODS[name]
        network = cnn7 if "ibp" in name else basic_convnet
        batch_size = args.rows // cost
        rows = batch_size * cost
        x = rng.random((rows, 28, 28, 1), np.float32)
        y = rng.integers(0, 10, rows)
        plain = compiled(network(), args.jit_compile)
        ours = training.get(name.split(",")[0])(network(), **arguments)
        compiled(ours, args.jit_compile)
        times = []
        for repeat in range(args.repeats + 1):
            pair = (
                seconds_a_step(plain, x, y, args.steps),
                seconds_a_step(ours, x[:batch_size], y[:batch_size], args.steps),
            )
            if repeat:  # The first compiles.
                times.append(pair)
        a, b = np.median(times, axis=0)
        print(
            f"{name}: plain {1e3 * a:.1f} ms, ours {1e3 * b:.1f} ms for {rows} rows, "
            f"ratio {b / a:.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
