"""The settings of the paper's Tables 11 and 12: Algorithm 2 and the default test.

For kappa in {0.1, 0.01, 0.001} and 1 − alpha in {0.95, 0.99, 0.999}: certified
robust accuracy and samples on MNIST, both tests on the same votes, beside each
test's exact probability of certifying an input that just misses the bar.

    python benchmarks/paper_settings.py MODEL.keras
"""

import argparse

import keras
import numpy as np
import tensorflow_datasets as tfds
from rich.console import Console
from rich.table import Table

from keras_probcert import Algorithm2Test, CertifiedPredictor, ExactTest, LInf


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="a .keras file, of examples/mnist.py --save")
    parser.add_argument("--inputs", type=int, default=1000)
    parser.add_argument("--inputs-at-smallest", type=int, default=100)
    parser.add_argument("--epsilon", type=float, default=0.3)
    args = parser.parse_args()

    split = f"test[:{args.inputs}]"
    data = tfds.load("mnist", split=split, batch_size=-1, as_supervised=True)
    images, labels = tfds.as_numpy(data)
    images = images.astype("float32") / 255
    model = keras.saving.load_model(args.model)
    table = Table(title=f"MNIST, L∞ ε = {args.epsilon:g}, horizon 300 / κ")
    for column in ("κ", "1 − α", "inputs", "test", "certified robust accuracy"):
        table.add_column(column)
    for column in ("samples an input", "P(certify | bar)"):
        table.add_column(column)
    for kappa in (0.1, 0.01, 0.001):
        count = args.inputs if kappa > 0.005 else args.inputs_at_smallest
        x, y = images[:count], labels[:count]
        for alpha in (0.05, 0.01, 0.001):
            for kind in (Algorithm2Test, ExactTest):
                test = kind(kappa, alpha, round(300 / kappa))
                certified = CertifiedPredictor(model, LInf(args.epsilon), test=test)
                result = certified.predict(x, seed=0, verbose=0)
                right = result["certified"] & (result["label"] == y)
                error = test.operating_characteristics(1 - kappa)["certify"]
                table.add_row(
                    f"{kappa:g}",
                    f"{1 - alpha:g}",
                    str(count),
                    kind.__name__,
                    f"{np.mean(right):.3f}",
                    f"{result['num_samples'].mean():,.0f}",
                    f"{error:.4f} ({error / alpha:.2f} α)",
                )
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
