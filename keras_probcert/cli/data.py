"""Inputs and labels from a file, a folder or TensorFlow Datasets."""

import numpy as np

from keras_probcert import models
from keras_probcert.distributed.sources import WHAT, Source


def add_arguments(parser):
    parser.add_argument("data", help=WHAT)
    parser.add_argument("--rows", type=int, help="only the first so many rows")
    parser.add_argument(
        "--divide-by",
        type=float,
        metavar="NUMBER",
        help="divides inputs; by default 255 where they are of an integer dtype",
    )


def source(args, model=None):
    """The `Source` of the arguments for `model`, the first rows if they say so."""
    row_shape = None if model is None else models.row_shape(model)
    whole = Source(args.data, row_shape, args.divide_by)
    return whole if args.rows is None else whole.first(args.rows)


def load(args, model=None, labels=False):
    """`(x, y)` of the arguments; `y` is `None` where there is none.

    Args:
        args: what `add_arguments` parsed.
        model: the Keras model that they are for.
        labels: whether `y` must be there.

    Raises:
        ValueError: if there is no such data.
    """
    blocks = list(source(args, model))
    x, y = ([b[i] for b in blocks] for i in range(2))
    if not blocks or (labels and y[0] is None):
        raise ValueError(
            f"`data` must hold {'labels `y`' if blocks else 'rows'}. "
            f"Received: data={args.data}"
        )
    y = None if y[0] is None else np.concatenate(y)
    return np.concatenate(x), y
