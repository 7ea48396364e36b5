"""Rows from arrays, datasets, files and folders, a block at a time."""

import copy
import pathlib
import warnings
import zipfile
import zlib

import numpy as np

from keras_probcert.certifiers.certifier import is_array
from keras_probcert.validation import check_integer, check_number, shape_fits

WHAT = (
    "a .npz file with `x` and, where needed, `y`; a folder with x.npy (and y.npy), of "
    ".npz files, or of .parquet files with a column `x` (and `y`); or a TFDS name with "
    "its split, as in 'mnist:test[:100]' (without one, test)"
)
_BLOCK = 1024


class Source:
    """Inputs and, where there are any, labels, in an order that does not change.

    Args:
        data: an array of inputs, or a tuple `(x, y)` of arrays; a `tf.data.Dataset`
            or an iterable of batches, each of them inputs or a tuple that begins with
            inputs and labels; a `ray.data.Dataset` with columns `x` and `y`; or a
            string or path: see `WHAT`.
        row_shape: what rows of a Parquet file, which are lists, are brought to; a
            tuple, with at most one `None`, or `None` to leave them flat.
        divide_by: divides the inputs; by default 255 where a file or TFDS holds
            integers.

    Attributes:
        total: the number of rows, `None` if it is not known beforehand.

    Raises:
        ValueError: if there is no such data, or it is empty.
    """

    def __init__(self, data, row_shape=None, divide_by=None):
        if divide_by is not None:
            divide_by = check_number("divide_by", divide_by)
            if divide_by == 0:
                raise ValueError(
                    "`divide_by` must be a finite number above 0. Received: divide_by=0"
                )
        self.total, self._read, stored = _open(data, row_shape)
        self._divide_by = divide_by
        self._stored = stored
        self._most = None

    def first(self, rows):
        """The first rows of this source, as a source."""
        check_integer("rows", rows)
        found = copy.copy(self)
        found._most = rows
        found.total = rows if self.total is None else min(rows, self.total)
        return found

    def __iter__(self):
        """Blocks `(x, y)`, `y` `None` where there is none, `x` of floating point."""
        left, first = self._most, True
        for block in self._read():
            x, y = block[0], block[1] if len(block) > 1 else None
            x, y = np.asarray(x), None if y is None else np.asarray(y)
            if left is not None:
                x, y = x[:left], None if y is None else y[:left]
                left -= len(x)
            divisor = self._divide_by
            if divisor is None and self._stored and np.issubdtype(x.dtype, np.integer):
                divisor = 255.0
                if first and x.size and x.max() < 100:
                    warnings.warn(
                        f"`data` holds integers up to {x.max()}, which were divided by "
                        "255: set `divide_by` if that is not their range",
                        stacklevel=2,
                    )
            first = False
            if divisor is not None:
                x = (x / divisor).astype("float32")
            yield x, y
            if left == 0:
                return


def _open(data, row_shape):
    """The number of rows, a function that gives blocks, whether they are stored."""
    if isinstance(data, (str, pathlib.Path)):
        return *_stored(data, row_shape), True
    if isinstance(data, tuple) or hasattr(data, "__array__"):
        arrays = data if isinstance(data, tuple) else (data,)
        arrays = [np.asarray(a) for a in arrays if a is not None]
        if not arrays or {a.ndim > 0 and len(a) for a in arrays} != {len(arrays[0])}:
            raise ValueError(
                "`data` must hold one label for each input. Received: arrays of shapes "
                f"{[a.shape for a in arrays]}"
            )
        return len(arrays[0]), lambda: _slices(*arrays), False
    if hasattr(data, "iter_batches"):
        # Places in the data are what rows are known by. And it is made before workers
        # start, who would leave no room for what makes it.
        data.context.execution_options.preserve_order = True
        data = data.materialize()
        return data.count(), lambda: map(_columns, _numpy_batches(data)), False
    if is_array(data) or isinstance(data, dict) or not hasattr(data, "__iter__"):
        raise ValueError(
            "`data` must be an array, a tuple of arrays, a dataset or a path. "
            f"Received: data of type {type(data).__name__}"
        )
    return None, lambda: map(_batch, data), False


def _batch(batch):
    if isinstance(batch, dict):
        return _columns(batch)
    return batch if isinstance(batch, (tuple, list)) else (batch,)


def _slices(*arrays):
    for start in range(0, len(arrays[0]), _BLOCK):
        yield tuple(array[start : start + _BLOCK] for array in arrays)


def _numpy_batches(data):
    return data.iter_batches(batch_size=_BLOCK, batch_format="numpy")


def _columns(batch):
    if "x" not in batch:
        raise ValueError(
            f"`data` must have a column `x`. Received: columns {list(batch)}"
        )
    return batch["x"], batch.get("y")


def _stored(data, row_shape):
    path = pathlib.Path(data)
    if path.is_dir():
        if (path / "x.npy").exists():
            found = [path]
        else:
            found = sorted(path.glob("*.npz")) or sorted(path.glob("*.parquet"))
        if not found:
            raise ValueError(f"`data` must be {WHAT}. Received: data={data}")
    elif path.suffix in (".npz", ".parquet"):
        found = [path]
        if not path.exists():
            raise ValueError(f"`data` must be a file that exists. Received: {data}")
    else:
        return _tfds(str(data))
    if found[0].suffix == ".parquet":
        return _parquet(found, row_shape)
    total = sum(len(_arrays(path)[0]) for path in found) if len(found) == 1 else None
    return total, lambda: (block for path in found for block in _slices(*_arrays(path)))


def _arrays(path):
    """`(x,)` or `(x, y)` of a .npz file or of a folder of .npy files."""
    # Arrays of objects would run what they bring along.
    if path.is_dir():
        files = {
            f.stem: np.load(f, mmap_mode="r", allow_pickle=False)
            for f in path.glob("[xy].npy")
        }
        found = list(files)
    else:
        try:
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
                found = archive.files
                files = {name: archive[name] for name in ("x", "y") if name in archive}
        except (EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise ValueError(
                f"`data` must be a whole file. Received: data={path}, {error}"
            ) from error
    if "x" not in files:
        raise ValueError(
            f"`data` must hold inputs `x`. Received: data={path} with {found}"
        )
    return tuple(files[name] for name in ("x", "y") if name in files)


def _parquet(paths, row_shape):
    from pyarrow import parquet

    files = [parquet.ParquetFile(path) for path in paths]
    for path, file in zip(paths, files, strict=True):
        if "x" not in file.schema_arrow.names:
            raise ValueError(f"`data` must have a column `x`. Received: data={path}")

    def blocks():
        for path, file in zip(paths, files, strict=True):
            names = [n for n in ("x", "y") if n in file.schema_arrow.names]
            for batch in file.iter_batches(_BLOCK, columns=names):
                try:
                    x = _shaped(batch.column("x"), row_shape)
                except ValueError as error:
                    raise ValueError(
                        f"`data` must hold rows of shape {row_shape or 'alike'} in "
                        f"column `x`. Received: {path}, {error}"
                    ) from None
                y = (batch.column(n).to_numpy(zero_copy_only=False) for n in names[1:])
                yield x, *y

    return sum(file.metadata.num_rows for file in files), blocks


def _shaped(column, row_shape):
    """The values of a column of lists, all alike, as rows of `row_shape` if given."""
    import pyarrow as pa
    from pyarrow import compute

    rows, nested = len(column), ()
    while hasattr(column.type, "value_type"):
        lengths = compute.unique(compute.list_value_length(column))
        if column.null_count or len(lengths) > 1:
            raise ValueError("lists of different lengths")
        nested += tuple(lengths.to_pylist())
        column = column.flatten()
    if column.null_count and pa.types.is_integer(column.type):
        raise ValueError("integers with missing values among them")
    # Flat lists may be rows of any shape; nested ones say theirs, but for axes of 1.
    if rows and len(nested) > 1 and row_shape is not None:
        axes = [tuple(n for n in shape if n != 1) for shape in (nested, row_shape)]
        if not (shape_fits(nested, row_shape) or shape_fits(*axes)):
            raise ValueError(f"nested lists of shape {nested}")
    shape = (-1,) if row_shape is None else [-1 if n is None else n for n in row_shape]
    # A missing number is NaN, and its row is refused.
    return column.to_numpy(zero_copy_only=False).reshape(rows, *shape)


def _tfds(name):
    import tensorflow_datasets as tfds

    given, (name, _, split) = name, name.partition(":")
    if name.partition("/")[0] not in tfds.list_builders():
        raise ValueError(
            f"`data` must be {WHAT}. Received: data={given}, of which there is no file "
            "and TFDS has no data set"
        )
    dataset = tfds.load(name, split=split or "test", as_supervised=True)
    total = int(dataset.cardinality())
    return total if total >= 0 else None, lambda: tfds.as_numpy(dataset.batch(_BLOCK))
