"""What `plan_certification` says beforehand over what certifying then takes, on MNIST.

Two small networks, plain and variance-minimizing, at each size of the perturbation.
A pilot on the last rows of `test` is certified and gives the plan; another plan gets
only the share that the run then finds robust. The run certifies the first rows,
five hundred at a time, and `forward_rate` is measured before each part.

    python benchmarks/plan.py
"""

import argparse
import time

import keras
import numpy as np
import tensorflow_datasets as tfds
from rich.console import Console
from rich.table import Table

from keras_probcert import (
    CertifiedPredictor,
    LInf,
    VarianceMinimizingModel,
    forward_rate,
    plan_certification,
)

ROWS_A_PART = 500


def load(split):
    images, labels = tfds.as_numpy(
        tfds.load("mnist", split=split, batch_size=-1, as_supervised=True)
    )
    return images.astype("float32") / 255, labels.astype("int32")


def network():
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            keras.layers.Conv2D(8, 4, strides=2, activation="relu"),
            keras.layers.Conv2D(16, 4, strides=2, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(10),
        ]
    )


def train(method, x, y, epsilon, epochs):
    keras.utils.set_random_seed(0)
    model, batch_size = network(), 128
    if method == "variance-minimizing":
        model, batch_size = VarianceMinimizingModel(model, LInf(epsilon), 10), 32
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"], jit_compile=False)
    model.fit(x, y, batch_size=batch_size, epochs=epochs, verbose=2)
    return model


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pilot", type=int, default=500, help="rows of the pilot")
    parser.add_argument("--rows", type=int, default=2000, help="rows of the run")
    parser.add_argument("--epsilons", type=float, nargs="+", default=[0.3])
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    x, y = load("train[:10000]")
    x_test, _ = load("test")
    parts = np.split(x_test[: args.rows], range(ROWS_A_PART, args.rows, ROWS_A_PART))
    table = Table(title="planned over measured")
    columns = "training", "ε", "robust", "votes a row", "seconds", "votes", "from share"
    for column in (*columns, "time", "share of the rate"):
        table.add_column(column, justify="right")
    epochs = {"plain": 12, "variance-minimizing": 3}
    for method in epochs:
        model = train(method, x, y, max(args.epsilons), epochs[method])
        for epsilon in args.epsilons:
            certified = CertifiedPredictor(model, LInf(epsilon))
            pilot = certified.predict(x_test[-args.pilot :], seed=args.seed, verbose=0)
            rates, results, seconds = [], [], 0.0
            for index, part in enumerate(parts):
                rates.append(forward_rate(certified, part[:1], seconds=1.0))
                start = time.perf_counter()
                seed = args.seed + 1 + index
                results.append(certified.predict(part, seed=seed, verbose=0))
                seconds += time.perf_counter() - start
            votes = sum(int(found["num_samples"].sum()) for found in results)
            share = np.mean([found["certified"].mean() for found in results])
            rate = float(np.median(rates))
            plan = plan_certification(certified.test, args.rows, pilot=pilot, rate=rate)
            by_share = plan_certification(
                certified.test, args.rows, robust_share=float(share)
            )
            print(f"\n{method}, ε = {epsilon:g}, measured {votes:,} votes")
            print(plan, flush=True)
            table.add_row(
                method,
                f"{epsilon:g}",
                f"{share:.3f}",
                f"{votes / args.rows:,.0f}",
                f"{seconds:.0f}",
                f"{plan.votes / votes:.3f} ± {plan.votes_deviation / votes:.3f}",
                f"{by_share.votes / votes:.3f}",
                f"{plan.seconds / seconds:.3f}",
                f"{votes / seconds / rate:.3f}",
            )
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
