"""Table 1 in small: plain, augmented and variance-minimizing training on MNIST.

Trains the Basic ConvNet on `train[:10000]` three times with the same number of
forward-backward rows each, and certifies `test[:1000]` in the L∞ vicinity of
ε = 0.3 at κ = α = 0.01. MNIST comes through TensorFlow Datasets: from
`TFDS_DATA_DIR` if it is there, else it is downloaded.

    python examples/mnist.py
"""

import argparse
import time

import keras
import numpy as np
import tensorflow_datasets as tfds
from rich.console import Console
from rich.table import Table

from keras_probcert import CertifiedPredictor, Decision, LInf, VarianceMinimizingModel
from keras_probcert.architectures import basic_convnet
from keras_probcert.metrics import paired_difference

COPIES = 10


def load(split):
    """Images in [0, 1] and labels of a slice of MNIST."""
    images, labels = tfds.as_numpy(
        tfds.load("mnist", split=split, batch_size=-1, as_supervised=True)
    )
    return images.astype("float32") / 255, labels.astype("int32")


def train(method, x, y, rows, epsilon, seed):
    """A model trained by one of the three methods on `rows` rows in all."""
    keras.utils.set_random_seed(seed)
    model, batch_size, copies = basic_convnet(x.shape[1:]), 32 * COPIES, 1
    if method == "random augmentation":
        model = VarianceMinimizingModel(
            model, LInf(epsilon), num_samples=1, std_weight=0.0
        )
    elif method == "variance-minimizing":
        model = VarianceMinimizingModel(model, LInf(epsilon), num_samples=COPIES)
        batch_size, copies = 32, COPIES
    epochs = rows // (copies * len(x))
    steps = epochs * -(-len(x) // batch_size)
    model.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(1e-3, steps)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=False,  # XLA is slower for convolutions on CPUs.
    )
    model.fit(x, y, batch_size=batch_size, epochs=epochs, verbose=2)
    return model


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=500_000, help="rows to train on")
    parser.add_argument("--train", type=int, default=10_000, help="training images")
    parser.add_argument("--test", type=int, default=1_000, help="test images")
    parser.add_argument("--epsilon", type=float, default=0.3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", help="file (.keras) for the last model")
    args = parser.parse_args()

    start = time.perf_counter()
    x, y = load(f"train[:{args.train}]")
    x_test, y_test = load(f"test[:{args.test}]")
    table = Table(title=f"MNIST, L∞ ε = {args.epsilon:g}, κ = α = 0.01")
    for column in ("training", "standard accuracy", "certified robustness rate"):
        table.add_column(column)
    for column in ("certified robust accuracy", "futile", "samples", "seconds"):
        table.add_column(column)
    success = {}
    for method in ("plain", "random augmentation", "variance-minimizing"):
        begin = time.perf_counter()
        print(f"\n{method}", flush=True)
        model = train(method, x, y, args.rows, args.epsilon, args.seed)
        trained = time.perf_counter()
        certified = CertifiedPredictor(model, LInf(args.epsilon))
        # One pass gives both the metrics and the results they are made of.
        result = certified.predict(x_test, seed=args.seed)
        right = np.argmax(model.predict(x_test, verbose=0), axis=1) == y_test
        success[method] = result["certified"] & (result["label"] == y_test)
        table.add_row(
            method,
            f"{right.mean():.3f}",
            f"{result['certified'].mean():.3f}",
            f"{success[method].mean():.3f}",
            f"{(result['decision'] == Decision.FUTILE).mean():.3f}",
            f"{result['num_samples'].mean():,.0f}",
            f"{trained - begin:.0f} + {time.perf_counter() - trained:.0f}",
        )
    if args.save:
        model.save(args.save)
    Console(width=120).print(table)
    for other in ("plain", "random augmentation"):
        d = paired_difference(success["variance-minimizing"], success[other])
        print(
            f"certified robust accuracy, variance-minimizing − {other}: "
            f"{d.difference:+.3f} (95 % interval {d.lower:+.3f} to {d.upper:+.3f}, "
            "paired by image)"
        )
    print(f"{time.perf_counter() - start:.0f} s in all")


if __name__ == "__main__":
    main()
