"""All training methods side by side on MNIST, with the same budget.

Trains every method on `train[:10000]` with the same number of forward-backward
rows (the Basic ConvNet; CNN7 for IBP), then measures on `test[:1000]`: standard
accuracy, accuracy under projected gradient descent with 20 steps, and certified
robustness in the L∞ vicinities of ε = 0.3 and 0.1 at κ = α = 0.01. Results are
written after each method; a run that was stopped goes on where it was. MNIST
comes through TensorFlow Datasets: from `TFDS_DATA_DIR` if it is there, else it is
downloaded.

    python examples/training_methods.py
"""

import argparse
import json
import pathlib
import time

import keras
import numpy as np
import tensorflow_datasets as tfds
from rich.console import Console
from rich.table import Table

from keras_probcert import CertifiedPredictor, LInf, row_seeds
from keras_probcert.architectures import basic_convnet, cnn7
from keras_probcert.attacks import ProjectedGradient
from keras_probcert.training import LinearRamp, SmoothedRamp, get, initialize_for_ibp

EPSILON = 0.3
COPIES, STEPS, SIGMA = 10, 7, 0.25

# Of each method, beside its defaults: arguments, and forward-backward rows that
# one example costs.
ADVERSARIAL = {"epsilon": EPSILON, "steps": STEPS}
RANDOM = {"perturbation": LInf(EPSILON), "num_samples": COPIES}
METHODS = {
    "erm": ({}, 1),
    "da": (RANDOM, COPIES),
    "pgdt": (ADVERSARIAL, STEPS + 1),
    "trades": ({**ADVERSARIAL, "beta": 1.0}, STEPS + 2),
    "mart": (ADVERSARIAL, STEPS + 2),
    "rs": ({"sigma": SIGMA}, 1),
    "ibp": ({"clean_weight": 0.0}, 3),
    "prl": (RANDOM, COPIES),
    "variance_minimizing": (RANDOM, COPIES),
    "consistency": ({"sigma": SIGMA}, 2),
    "smoothadv": ({"sigma": SIGMA, "epsilon": 1.0, "steps": 2, "num_samples": 2}, 6),
    "smoothmix": ({"sigma": SIGMA, "mixing_weight": 5.0, "num_samples": 2}, 8),
    "kl_pgd": (ADVERSARIAL, STEPS + 1),
    "corruption": ({"perturbation": LInf(EPSILON)}, 1),
}

# Table 1 of the paper, MNIST: standard accuracy, certified robustness rate,
# certified robust accuracy.
PAPER = {
    "erm": (0.9937, 0.2601, 0.2496),
    "da": (0.9942, 0.8523, 0.8412),
    "pgdt": (0.9916, 0.9465, 0.9463),
    "trades": (0.9910, 0.9476, 0.9461),
    "mart": (0.9894, 0.9413, 0.9409),
    "rs": (0.9716, 0.8715, 0.8629),
    "ibp": (0.9778, 0.8918, 0.8851),
    "prl": (0.9932, 0.9603, 0.9501),
    "variance_minimizing": (0.9932, 0.9780, 0.9680),
}


def load(split):
    """Images in [0, 1] and labels of a slice of MNIST."""
    images, labels = tfds.as_numpy(
        tfds.load("mnist", split=split, batch_size=-1, as_supervised=True)
    )
    return images.astype("float32") / 255, labels.astype("int32")


def train(name, x, y, rows, seed):
    """A model trained on `rows` forward-backward rows, and the seconds it took."""
    keras.utils.set_random_seed(seed)
    arguments, cost = METHODS[name]
    examples = rows // cost
    epochs = max(1, round(examples / len(x)))
    x, y = x[: examples // epochs], y[: examples // epochs]
    base = basic_convnet()
    if name == "ibp":
        base = cnn7()
        initialize_for_ibp(base)
        # Shi trains at 0.4 for tests at 0.3; the ramp takes 20 of 70 epochs there.
        arguments = {**arguments, "epsilon": SmoothedRamp(0.4, length=epochs / 2)}
    elif arguments.get("epsilon") == EPSILON:
        # From the first step at the full radius, training stays at a constant.
        ramp = LinearRamp(0.0, EPSILON, length=epochs / 2)
        arguments = {**arguments, "epsilon": ramp}
    model = get(name)(base, **arguments)
    batch_size = max(32, 320 // cost)
    steps = epochs * -(-len(x) // batch_size)
    model.compile(
        keras.optimizers.Adam(
            keras.optimizers.schedules.CosineDecay(1e-3, steps), clipnorm=10.0
        ),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=False,  # XLA is slower for convolutions on CPUs.
    )
    # The first step compiles.
    model.train_on_batch(x[:batch_size], y[:batch_size])
    start = time.perf_counter()
    model.fit(x, y, batch_size=batch_size, epochs=epochs, verbose=2)
    return model, time.perf_counter() - start


def attacked_accuracy(model, x, y, epsilon, steps=20):
    """Accuracy on the points that projected gradient ascent finds."""
    search = ProjectedGradient(epsilon, steps)
    seeds = row_seeds(0, len(x))
    right = []
    for start in range(0, len(x), 250):
        part = slice(start, start + 250)
        images, labels = keras.ops.convert_to_tensor(x[part]), y[part]

        def loss(x, labels=labels):
            return keras.losses.sparse_categorical_crossentropy(
                labels, model(x), from_logits=True
            )

        found = search(loss, images, search.random_start(images, seeds[part]))
        outputs = keras.ops.convert_to_numpy(model(found))
        right.append(outputs.argmax(axis=1) == labels)
    return float(np.mean(np.concatenate(right)))


def measure(model, x, y):
    """Every column of the table but the training time."""
    found = {}
    for epsilon in (0.3, 0.1):
        certified = CertifiedPredictor(model, LInf(epsilon), kappa=0.01, alpha=0.01)
        result = certified.evaluate(x, y, seed=0, verbose=0, return_dict=True)
        found[f"rate {epsilon}"] = result["certified_robustness_rate"]
        found[f"robust accuracy {epsilon}"] = result["certified_robust_accuracy"]
        found[f"pgd {epsilon}"] = attacked_accuracy(model, x, y, epsilon)
    labels = model.predict(x, verbose=0).argmax(axis=1)
    return {"accuracy": float((labels == y).mean()), **found}


def show(results):
    table = Table(title="MNIST, test[:1000], κ = α = 0.01; the paper's in brackets")
    for name in ("method", "accuracy", "certified robustness rate", "certified robust"):
        table.add_column(name)
    for name in ("PGD-20", "rate at 0.1", "robust at 0.1", "PGD-20 at 0.1", "time"):
        table.add_column(name)
    for name, row in results.items():
        paper = PAPER.get(name)
        main = (row["accuracy"], row["rate 0.3"], row["robust accuracy 0.3"])
        cells = [
            f"{ours:.3f}" + (f" ({theirs:.3f})" if paper else "")
            for ours, theirs in zip(main, paper or main, strict=True)
        ]
        rest = ("pgd 0.3", "rate 0.1", "robust accuracy 0.1", "pgd 0.1")
        ratio = row["seconds"] / results["erm"]["seconds"] if "erm" in results else 1
        table.add_row(name, *cells, *(f"{row[k]:.3f}" for k in rest), f"{ratio:.2f}")
    Console(width=140).print(table)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=250_000, help="budget of rows")
    parser.add_argument("--train", type=int, default=10_000, help="training images")
    parser.add_argument("--test", type=int, default=1_000, help="test images")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--output", type=pathlib.Path, default="training_methods.json")
    args = parser.parse_args()

    results = json.loads(args.output.read_text()) if args.output.exists() else {}
    train_data, test_data = load(f"train[:{args.train}]"), load(f"test[:{args.test}]")
    for name in args.methods:
        if name in results:
            continue
        print(name, flush=True)
        model, seconds = train(name, *train_data, args.rows, args.seed)
        results[name] = {"seconds": seconds, **measure(model, *test_data)}
        args.output.write_text(json.dumps(results, indent=1))
        print(results[name], flush=True)
    show(results)


if __name__ == "__main__":
    main()
