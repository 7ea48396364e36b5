"""Seeds: one a row, so that any row can be repeated alone."""

import secrets

import keras
import numpy as np

from keras_probcert import backend


def row_seeds(seed, num_rows, first_row=0):
    """The seeds of rows `first_row`, …, derived from one seed.

    Row i's seed depends on `seed` and i alone, so a row of a large run can be
    repeated alone, on any machine: `row_seeds(seed, 1, first_row=i)`.

    Args:
        seed: a nonnegative int; `None` draws one from the operating system.
        num_rows: how many rows, at least 1.
        first_row: the first row's index, 0 by default.

    Returns:
        An int32 array, `(num_rows, 2)`.

    Raises:
        ValueError: if an argument is not an integer in its range.

    Example:

    >>> seeds = row_seeds(7, 1000)
    >>> bool((row_seeds(7, 1, first_row=41)[0] == seeds[41]).all())
    True
    """
    if seed is None:
        seed = secrets.randbits(128)
    for name, value, least in (
        ("seed", seed, 0),
        ("num_rows", num_rows, 1),
        ("first_row", first_row, 0),
    ):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
            raise ValueError(f"`{name}` must be an integer. Received: {name}={value!r}")
        if value < least:
            raise ValueError(
                f"`{name}` must be at least {least}. Received: {name}={value}"
            )
    # Philox gives four words a count and can be entered anywhere.
    bits = np.random.Philox(key=int(seed) % 2**128)
    bits.advance(int(first_row) // 4)
    words = bits.random_raw(int(first_row) % 4 + int(num_rows))
    return words[int(first_row) % 4 :].view(np.int32).reshape(-1, 2)


def resolve_seed(seed, num_rows):
    """`seed` as one seed a row.

    Args:
        seed: `None` (fresh noise), an int (see `row_seeds`), or an array or
            tensor of int32 values `(rows, 2)`, which is taken as it is.
        num_rows: the number of rows, an int or a scalar tensor.
    """
    if seed is None:
        return backend.fresh_seeds(num_rows)
    if isinstance(seed, (int, np.integer)):
        return row_seeds(seed, num_rows)
    if not hasattr(seed, "dtype"):
        seed = np.asarray(seed)
    dtype = getattr(seed.dtype, "name", str(seed.dtype))
    if dtype not in ("int32", "uint32", "int64"):
        raise ValueError(
            "`seed` must be an int or hold int32 pairs. "
            f"Received: seed of dtype {dtype}"
        )
    if dtype != "int32" and backend.is_concrete(seed):
        seed = keras.ops.convert_to_numpy(seed)
        if ((seed < -(2**31)) | (seed >= 2**31)).any():
            raise ValueError(
                "`seed` must hold int32 values. "
                f"Received: values from {seed.min()} to {seed.max()}"
            )
        seed = seed.astype(np.int32)
    shape = tuple(seed.shape)
    if len(shape) != 2 or shape[1] != 2:
        raise ValueError(
            "`seed` must be an int or hold one int32 pair a row, shape "
            f"(rows, 2). Received: seed of shape {shape}"
        )
    if isinstance(num_rows, int) and shape[0] not in (None, num_rows):
        raise ValueError(
            f"`seed` must hold one int32 pair for each of the {num_rows} rows. "
            f"Received: seed of shape {shape}"
        )
    return seed
