"""Images in [0, 1] and labels, with the paper's split of 8 : 2."""

import functools
import os
import pathlib

import numpy as np
from settings import TFDS_NAMES


@functools.lru_cache(maxsize=8)
def load(dataset, split):
    """`"train"` (the first 80 % of the training images), `"validation"` or `"test"`.

    A folder named by `KERAS_PROBCERT_DATA` with `<dataset>.npz` (uint8 `x_train`,
    `y_train`, `x_test`, `y_test`) takes the place of TensorFlow Datasets, for machines
    without TensorFlow.
    """
    folder = os.environ.get("KERAS_PROBCERT_DATA")
    if dataset == "digits":
        x, y = _digits("test" if split == "test" else "train")
    elif folder:
        part = "test" if split == "test" else "train"
        with np.load(pathlib.Path(folder) / f"{dataset}.npz") as arrays:
            x, y = arrays[f"x_{part}"], arrays[f"y_{part}"]
    else:
        import tensorflow_datasets as tfds

        x, y = tfds.as_numpy(
            tfds.load(
                TFDS_NAMES.get(dataset, dataset),
                split="test" if split == "test" else "train",
                batch_size=-1,
                as_supervised=True,
            )
        )
    if split != "test":
        cut = len(x) * 8 // 10
        part = slice(cut) if split == "train" else slice(cut, None)
        x, y = x[part], y[part]
    return np.asarray(x, "float32") / 255, np.asarray(y, "int32")


def _digits(split):
    """scikit-learn's digits on MNIST's 28 × 28 pixels."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    part = slice(1437) if split == "train" else slice(1437, None)
    images = np.kron(digits.images[part] * (255 / 16), np.ones((3, 3)))
    return np.pad(images, ((0, 0), (2, 2), (2, 2)))[..., None], digits.target[part]
