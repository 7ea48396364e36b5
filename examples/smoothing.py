"""Four trainings for randomized smoothing, certified on MNIST.

Trains LeNet under Gaussian noise of σ = 0.25, 0.5 and 1 on all training images, with
Gaussian augmentation, Consistency, SmoothAdv and SmoothMix, each with the same number
of forward-backward rows (copies and steps of searches counted), then certifies the
first test images with n = 10,000 copies at α = 0.001 and prints the average certified
radius (ACR) and the certified accuracy at each radius. Results and the field's
tab-separated logs are written after each model; a run that was stopped goes on where
it was.

    python examples/smoothing.py
"""

import argparse
import json
import pathlib
import time

import keras
import numpy as np
from keras import layers
from rich.console import Console
from rich.table import Table
from training_methods import load

from keras_probcert import SmoothedClassifier
from keras_probcert.certifiers.radius_report import (
    plot_certified_accuracy,
    write_log,
)
from keras_probcert.metrics import (
    abstention_rate,
    average_certified_radius,
    certified_accuracy,
)
from keras_probcert.training import LinearRamp, get

SIGMAS = (0.25, 0.5, 1.0)
METHODS = ("rs", "consistency", "smoothadv", "smoothmix")
RADII = np.arange(0, 3.01, 0.25)

# At each σ, the papers' weights for MNIST.
CONSISTENCY = {0.25: 10.0, 0.5: 5.0, 1.0: 5.0}
# The papers' lengths of search (1 · 2, 4 and 8) in fewer steps.
MIX_STEPS = {0.25: (2, 1.0), 0.5: (3, 4 / 3), 1.0: (4, 2.0)}

# ACR over the 10,000 test images at n = 100,000, computed from the logs that come with
# the code of the SmoothMix paper (github.com/jh-jeong/smoothmix, data/certify/mnist):
# 90 epochs of LeNet, SmoothAdv with 10 steps and 4 copies.
PUBLISHED = {
    "rs": (0.911, 1.558, 1.619),
    "consistency": (0.928, 1.655, 1.738),
    "smoothadv": (0.932, 1.687, 1.779),
    "smoothmix": (0.932, 1.694, 1.820),
}


def lenet():
    """The network of the published results, 431,080 weights."""
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(20, 5, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(50, 5, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(500, activation="relu"),
            layers.Dense(10),
        ]
    )


def arguments_and_cost(method, sigma, rows, images):
    """Of a method: its arguments, and forward-backward rows that an example costs."""
    if method == "rs":
        return {}, 1
    if method == "consistency":
        return {"consistency_weight": CONSISTENCY[sigma], "num_samples": 2}, 2
    if method == "smoothadv":
        ramp = LinearRamp(0.1, 1.0, length=rows / 6 / images / 2)
        return {"epsilon": ramp, "num_samples": 2, "steps": 2}, 6
    steps, step_size = MIX_STEPS[sigma]
    cost = 2 * (steps + 2)
    ramp = LinearRamp(0.5, 5.0, length=rows / cost / images / 2)
    return {
        "mixing_weight": ramp,
        "num_samples": 2,
        "steps": steps,
        "step_size": step_size,
    }, cost


def train(method, sigma, x, y, rows, seed, verbose=2):
    """A base model trained on `rows` forward-backward rows."""
    keras.utils.set_random_seed(seed)
    arguments, cost = arguments_and_cost(method, sigma, rows, len(x))
    base = lenet()
    model = get(method)(base, sigma=sigma, **arguments)
    batch_size = max(16, 256 // cost)
    steps = rows // cost // batch_size
    model.compile(
        keras.optimizers.Adam(
            keras.optimizers.schedules.CosineDecay(1e-3, steps), clipnorm=10.0
        ),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=False,  # XLA is slower for convolutions on CPUs.
    )
    a_epoch = min(steps, len(x) // batch_size)
    start = time.perf_counter()
    while steps > 0:
        # The last epoch may be a part of one.
        now = min(steps, a_epoch)
        done = rows // cost // batch_size - steps
        model.fit(
            x[: now * batch_size],
            y[: now * batch_size],
            batch_size=batch_size,
            initial_epoch=done // a_epoch,
            epochs=done // a_epoch + 1,
            verbose=verbose,
        )
        steps -= now
    return base, time.perf_counter() - start


def show(results):
    table = Table(title="MNIST, n = 10,000, α = 0.001; published ACR in brackets")
    for column in ("σ", "training", "ACR", "abstained"):
        table.add_column(column, no_wrap=True)
    for radius in RADII:
        table.add_column(f"{radius:g}")
    for name, found in results.items():
        sigma, method = name.split(" ")
        published = PUBLISHED[method][SIGMAS.index(float(sigma))]
        accuracies = [f"{100 * value:.0f}" for value in found["certified_accuracy"]]
        table.add_row(
            sigma,
            method,
            f"{found['acr']:.3f} ({published})",
            f"{100 * found['abstained']:.1f}",
            *accuracies,
        )
    Console(width=140).print(table)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=600_000, help="budget of rows")
    parser.add_argument("--train", type=int, default=60_000, help="training images")
    parser.add_argument("--test", type=int, default=500, help="certified images")
    parser.add_argument("--n", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sigmas", type=float, nargs="+", default=SIGMAS)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--output", type=pathlib.Path, default="smoothing")
    args = parser.parse_args()

    args.output.mkdir(exist_ok=True)
    file = args.output / "results.json"
    results = json.loads(file.read_text()) if file.exists() else {}
    x, y = load(f"test[:{args.test}]")
    for sigma in args.sigmas:
        curves = {}
        for method in args.methods:
            name = f"{sigma} {method}"
            saved = args.output / f"{name}.keras"
            votes = args.output / f"{name}.npz"
            if not saved.exists():
                train_data = load(f"train[:{args.train}]")
                base, seconds = train(method, sigma, *train_data, args.rows, args.seed)
                base.save(saved)
                results[name] = {"training_seconds": seconds}
            if not votes.exists():
                base = keras.saving.load_model(saved)
                smoothed = SmoothedClassifier(base, sigma, n=args.n)
                start = time.perf_counter()
                found = smoothed.predict(x, seed=args.seed, verbose=2)
                seconds = time.perf_counter() - start
                write_log(args.output / f"{name}.tsv", found, y, seconds)
                np.savez(votes, **found)
                results.setdefault(name, {})["certification_seconds"] = seconds
            with np.load(votes) as arrays:
                found = dict(arrays)
            results[name] = results.get(name, {}) | {
                "acr": average_certified_radius(found, y),
                "abstained": abstention_rate(found),
                "certified_accuracy": certified_accuracy(found, y, RADII).tolist(),
            }
            curves[method] = found, y
            file.write_text(json.dumps(results, indent=1))
            print(name, results[name], flush=True)
        plot_certified_accuracy(curves, path=args.output / f"{sigma}.png")
    show(results)


if __name__ == "__main__":
    main()
