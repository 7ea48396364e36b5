"""From a Keras model to a served certificate, on scikit-learn's digits.

Trains a plain model and a variance-minimizing one on real 8×8 scans (no
download), certifies the test set with both, draws what was and was not
certified, exports a SavedModel and asks it one question.

    python examples/quickstart.py
"""

import argparse
import pathlib

import keras
import matplotlib
import numpy as np
import tensorflow as tf
from keras import layers
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from keras_probcert import CertifiedPredictor, Decision, LInf, VarianceMinimizingModel

matplotlib.use("agg")
import matplotlib.pyplot as plt  # noqa: E402

EPSILON = 0.2


def load():
    digits = load_digits()
    images = (digits.images / 16).astype("float32")[..., None]
    return train_test_split(
        images, digits.target, test_size=500, random_state=0, stratify=digits.target
    )


def convnet():
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(32, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, padding="same", activation="relu"),
            layers.Flatten(),
            layers.Dense(128, activation="relu"),
            layers.Dense(10),
        ]
    )


def train(model, x, y, epochs):
    model.compile(
        keras.optimizers.Adam(1e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=False,
    )
    model.fit(x, y, batch_size=32, epochs=epochs, verbose=2)
    return model


def draw(x, y, result, path):
    """Digits with and without a certificate, and the samples each row took."""
    figure = plt.figure(figsize=(11, 5.2), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1.25, 1))
    axes = left.subplots(2, 6)
    decisions = (
        (Decision.ROBUST, "certified"),
        (Decision.NOT_ROBUST, "not certified"),
    )
    for row, (decision, name) in zip(axes, decisions, strict=True):
        chosen = np.flatnonzero(result["decision"] == decision)[: len(row)]
        for axis in row:
            axis.axis("off")
        for axis, i in zip(row, chosen, strict=False):
            axis.imshow(x[i, ..., 0], cmap="gray_r", vmin=0, vmax=1)
            axis.set_title(
                f"{name}\nvote {result['label'][i]}, truth {y[i]}\n"
                f"{result['num_samples'][i]:,} samples",
                fontsize=8,
            )
    left.suptitle(f"variance-minimizing model, L∞ ε = {EPSILON:g}")
    axis = right.subplots()
    bins = np.geomspace(1, result["num_samples"].max() + 1, 40)
    for decision in (Decision.ROBUST, Decision.NOT_ROBUST, Decision.FUTILE):
        rows = result["decision"] == decision
        name = decision.name.lower().replace("_", " ")
        axis.hist(
            result["num_samples"][rows], bins, label=f"{name}: {rows.sum()}", alpha=0.8
        )
    axis.set(xscale="log", yscale="log", xlabel="samples used", ylabel="test digits")
    axis.legend()
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=pathlib.Path, default="quickstart-output")
    parser.add_argument("--epochs", type=int, default=15)
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(0)
    x, x_test, y, y_test = load()

    print("plain model", flush=True)
    plain = train(convnet(), x, y, args.epochs)
    print("\nvariance-minimizing model", flush=True)
    robust = VarianceMinimizingModel(convnet(), LInf(EPSILON), num_samples=10)
    train(robust, x, y, args.epochs)

    table = Table(title=f"500 test digits, L∞ ε = {EPSILON:g}, κ = α = 0.01")
    for column in ("", "standard accuracy", "certified robustness rate"):
        table.add_column(column)
    for column in (
        "certified robust accuracy",
        "undecided or futile",
        "samples a digit",
    ):
        table.add_column(column)
    for name, model in (("plain", plain), ("variance-minimizing", robust)):
        print(f"\ncertifying the {name} model", flush=True)
        certified = CertifiedPredictor(model, LInf(EPSILON))
        metrics = certified.evaluate(x_test, y_test, return_dict=True, seed=0)
        *rates, undecided, futile, samples = metrics.values()
        rates.append(undecided + futile)
        table.add_row(name, *(f"{rate:.3f}" for rate in rates), f"{samples:,.0f}")
    Console(width=110).print(table)

    picture = args.output / "digits.png"
    draw(x_test, y_test, certified.predict(x_test, seed=0, verbose=0), picture)
    print(f"figure: {picture}")

    folder = args.output / "serving" / "1"
    certified.export(folder)
    served = tf.saved_model.load(str(folder)).signatures["serving_default"]
    answer = {k: v.numpy()[0] for k, v in served(tf.constant(x_test[:1])).items()}
    print(
        f"SavedModel: {folder}\n"
        f"asked for digit 0 (truth {y_test[0]}): label {answer['label']}, "
        f"{Decision(int(answer['decision'])).name}, agreement in "
        f"[{answer['lower_bound']:.3f}, {answer['upper_bound']:.3f}] after "
        f"{answer['num_samples']:,} samples"
    )


if __name__ == "__main__":
    main()
