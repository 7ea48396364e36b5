"""Inputs and labels from a file, a folder or TensorFlow Datasets."""

import pathlib

import numpy as np

HELP = (
    "a .npz file with `x` and, where needed, `y`; a folder with x.npy (and y.npy); or "
    "a TFDS name with its split, as in mnist:test[:100]"
)


def add_arguments(parser):
    parser.add_argument("data", help=HELP)
    parser.add_argument("--rows", type=int, help="only the first so many rows")
    parser.add_argument(
        "--divide-by",
        type=float,
        metavar="NUMBER",
        help="divides inputs; by default 255 where they are of an integer dtype",
    )


def load(args, labels=False):
    """`(x, y)` of the arguments; `y` is `None` where there is none.

    Args:
        args: what `add_arguments` parsed.
        labels: whether `y` must be there.

    Raises:
        ValueError: if there is no such data.
    """
    path = pathlib.Path(args.data)
    if path.suffix == ".npz" or path.is_dir():
        x, y = _arrays(path)
    else:
        x, y = _dataset(args.data)
    if labels and y is None:
        raise ValueError(f"`data` must hold labels `y`. Received: data={args.data}")
    if args.rows is not None:
        x, y = x[: args.rows], None if y is None else y[: args.rows]
    divisor = args.divide_by
    if divisor is None and np.issubdtype(x.dtype, np.integer):
        divisor = 255.0
    if divisor is not None:
        x = (x / divisor).astype("float32")
    return x, y


def _arrays(path):
    # Arrays of objects would run what they bring along.
    if path.is_dir():
        files = {f.stem: np.load(f, allow_pickle=False) for f in path.glob("[xy].npy")}
    else:
        with np.load(path, allow_pickle=False) as archive:
            files = {name: archive[name] for name in ("x", "y") if name in archive}
    if "x" not in files:
        raise ValueError(f"`data` must hold inputs `x`. Received: data={path}")
    return files["x"], files.get("y")


def _dataset(name):
    import tensorflow_datasets as tfds

    name, _, split = name.partition(":")
    if name not in tfds.list_builders():
        raise ValueError(f"`data` must be {HELP}. Received: data={name}")
    return tfds.as_numpy(
        tfds.load(name, split=split or "test", batch_size=-1, as_supervised=True)
    )
