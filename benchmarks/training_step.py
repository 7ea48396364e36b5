"""A variance-minimizing step over a plain Keras step on as many rows.

Both train the Basic ConvNet with Adam, with XLA off and with XLA on, in turn in
one run; the ratio is of medians.

    python benchmarks/training_step.py
"""

import argparse
import time

import keras
import numpy as np

from keras_probcert import LInf, VarianceMinimizingModel
from keras_probcert.architectures import basic_convnet


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
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--num-samples", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--steps", type=int, default=10)
    args = parser.parse_args()

    rng = np.random.default_rng(0)
    rows = args.batch_size * args.num_samples
    x = rng.random((rows, 28, 28, 1), np.float32)
    y = rng.integers(0, 10, rows)
    for jit_compile in (False, True):
        plain = compiled(basic_convnet(), jit_compile)
        ours = VarianceMinimizingModel(
            basic_convnet(), LInf(0.3), num_samples=args.num_samples
        )
        compiled(ours, jit_compile)
        few = x[: args.batch_size], y[: args.batch_size]
        times = {"plain": [], "ours": []}
        for repeat in range(args.repeats + 1):
            pair = (
                seconds_a_step(plain, x, y, args.steps),
                seconds_a_step(ours, *few, args.steps),
            )
            if repeat:  # The first compiles.
                for name, value in zip(times, pair, strict=True):
                    times[name].append(value)
        plain, ours = (np.median(t) for t in times.values())
        print(
            f"XLA {jit_compile}: plain {1e3 * plain:.1f} ms, ours {1e3 * ours:.1f} ms "
            f"for {rows} rows, ratio {ours / plain:.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
