"""Smoothing with one noise and with two, at the same cost, on MNIST.

Trains LeNet twice on the same number of noisy rows: under Gaussian noise, and under
generalized Gaussian noise of the same standard deviation. Certifies the first under
Gaussian noise by Neyman and Pearson's radius, the second by double sampling (DSRS)
under the generalized Gaussian noise, each with the same number of noisy copies an
image. The second noise is the first in a ball, or (`--second-sigma`) that of a smaller
standard deviation. Prints the average certified radius (ACR) and the certified
accuracy at each radius, and plots both curves; a third shows what the votes under the
first noise certify alone, in the second certificate. A run that was stopped goes on
where it was.

    python examples/dsrs.py
"""

import argparse
import json
import pathlib
import time

import keras
import numpy as np
from rich.console import Console
from smoothing import lenet
from training_methods import load

from keras_probcert import SmoothedClassifier
from keras_probcert.certifiers import DSRSClassifier
from keras_probcert.certifiers.radius_report import (
    certified_accuracy_table,
    plot_certified_accuracy,
    write_log,
)
from keras_probcert.metrics import (
    abstention_rate,
    average_certified_radius,
    certified_accuracy,
)
from keras_probcert.perturbations import GeneralizedGaussian
from keras_probcert.training import get

NAMES = ("Gaussian", "generalized Gaussian")
BATCH_SIZE = 256


def train(name, x, y, args):
    """A LeNet trained on `args.rows` noisy rows."""
    keras.utils.set_random_seed(args.seed)
    base = lenet()
    if name == "Gaussian":
        model = get("rs")(base, sigma=args.sigma)
    else:
        noise = GeneralizedGaussian(args.sigma, args.k)
        model = get("da")(base, noise, num_samples=1)
    epochs = max(1, round(args.rows / len(x)))
    images = args.rows // epochs
    steps = epochs * -(-images // BATCH_SIZE)
    model.compile(
        keras.optimizers.Adam(
            keras.optimizers.schedules.CosineDecay(1e-3, steps), clipnorm=10.0
        ),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=False,  # XLA is slower for convolutions on CPUs.
    )
    model.fit(x[:images], y[:images], batch_size=BATCH_SIZE, epochs=epochs, verbose=2)
    return base


def certifier(name, base, args):
    """Both take `args.n0 + 2 * args.n` copies of an image."""
    shared = {"n0": args.n0, "alpha": args.alpha}
    if name == "Gaussian":
        return SmoothedClassifier(base, args.sigma, n=2 * args.n, **shared)
    return DSRSClassifier(
        base,
        args.sigma,
        args.k,
        share=args.share,
        second_sigma=args.second_sigma,
        n=args.n,
        **shared,
    )


def certify(name, x, y, args):
    """The certifier's results, from a file if they are there."""
    stem = args.output / name.replace(" ", "-")
    arrays, saved = stem.with_suffix(".npz"), stem.with_suffix(".keras")
    if not arrays.exists():
        if not saved.exists():
            print(f"training under {name} noise", flush=True)
            train(name, *load(f"train[:{args.train}]"), args).save(saved)
        smoothed = certifier(name, keras.saving.load_model(saved), args)
        start = time.perf_counter()
        results = smoothed.predict(x, seed=args.seed, verbose=2)
        seconds = time.perf_counter() - start
        write_log(stem.with_suffix(".tsv"), results, y, seconds)
        np.savez(arrays, seconds=seconds, **results)
    with np.load(arrays) as file:
        return dict(file)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sigma", type=float, default=0.5)
    parser.add_argument("--k", type=float, default=380)
    parser.add_argument("--share", type=float, help="of P, in Q; 0.7 by default")
    parser.add_argument("--second-sigma", type=float, help="of Q, in place of --share")
    parser.add_argument("--rows", type=int, default=600_000, help="training budget")
    parser.add_argument("--train", type=int, default=60_000, help="training images")
    parser.add_argument("--test", type=int, default=500, help="certified images")
    parser.add_argument("--n0", type=int, default=100)
    parser.add_argument("--n", type=int, default=50_000, help="half of the copies")
    parser.add_argument("--alpha", type=float, default=0.001)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=pathlib.Path, default="dsrs")
    args = parser.parse_args()

    args.output.mkdir(exist_ok=True)
    x, y = load(f"test[:{args.test}]")
    gaussian, double = (certify(name, x, y, args) for name in NAMES)
    alone = {
        "label": np.where(double["neyman_pearson_radius"] > 0, double["guess"], -1),
        "radius": double["neyman_pearson_radius"],
    }
    curves = {
        f"{NAMES[0]}, one noise": (gaussian, y),
        f"{NAMES[1]}, two noises (DSRS)": (double, y),
        f"{NAMES[1]}, P alone": (alone, y),
    }
    radii = np.arange(0, 3.51, 0.5) * 2 * args.sigma
    measured = {
        name: {
            "acr": average_certified_radius(found, y),
            "abstained": abstention_rate(found),
            "certified_accuracy": certified_accuracy(found, y, radii).tolist(),
            "seconds": float(found.get("seconds", np.nan)),
        }
        for name, (found, _) in curves.items()
    }
    summary = {
        "arguments": {name: str(value) for name, value in vars(args).items()},
        "radii": radii.tolist(),
        "results": measured,
    }
    (args.output / "results.json").write_text(json.dumps(summary, indent=1))
    plot_certified_accuracy(curves, args.output / "dsrs.png")
    Console(width=140).print(certified_accuracy_table(curves, radii))


if __name__ == "__main__":
    main()
