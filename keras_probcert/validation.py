"""Checks of arguments, with messages that say what was expected and received."""

import math
import numbers

import keras
import numpy as np

from keras_probcert import backend


def check_fraction(name, value, high=1.0, closed=False):
    """`value` as a float in (0, high), or (0, high] where `closed`."""
    inside = (
        isinstance(value, numbers.Real)
        and not isinstance(value, bool)
        and (0 < value < high or (closed and value == high))
    )
    if not inside:
        end = "]" if closed else ")"
        raise ValueError(
            f"`{name}` must be a number in (0, {high:g}{end}. "
            f"Received: {name}={value!r}"
        )
    return float(value)


def check_number(name, value, least=0.0):
    """`value` as a finite float, of at least `least` unless that is `None`."""
    if (
        not isinstance(value, numbers.Real)
        or isinstance(value, bool)
        or not math.isfinite(value)
        or (least is not None and value < least)
    ):
        bound = "" if least is None else f" of at least {least:g}"
        raise ValueError(
            f"`{name}` must be a finite number{bound}. Received: {name}={value!r}"
        )
    return float(value)


def check_integer(name, value, least=1):
    """`value` as an int of at least `least`."""
    if (
        not isinstance(value, (numbers.Integral, np.integer))
        or isinstance(value, bool)
        or value < least
    ):
        raise ValueError(
            f"`{name}` must be an integer of at least {least}. "
            f"Received: {name}={value!r}"
        )
    return int(value)


def check_bool(name, value):
    """`value` as a bool."""
    if not isinstance(value, (bool, np.bool_)):
        raise ValueError(f"`{name}` must be True or False. Received: {name}={value!r}")
    return bool(value)


def check_choice(name, value, choices):
    """`value`, one of the strings `choices`."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(
            f"`{name}` must be one of {list(choices)}. Received: {name}={value!r}"
        )
    return value


def check_floating(name, x):
    """Checks that the array or tensor `x` has a floating-point dtype."""
    dtype = keras.backend.standardize_dtype(x.dtype)
    if "float" not in dtype:
        raise ValueError(
            f"`{name}` must have a floating-point dtype (cast integer images and "
            f"scale them to the valid input range). Received: dtype={dtype}"
        )


def shape_fits(received, shape):
    """Whether two shapes are alike where neither leaves a size open with `None`."""
    return len(received) == len(shape) and all(
        None in (a, b) or a == b for a, b in zip(received, shape, strict=True)
    )


def check_inputs(x, clip=None, shape=None, name="x"):
    """Checks a batch of inputs where its values can be seen.

    Args:
        x: array or tensor, `(rows, …)`.
        clip: `(low, high)`, the valid input range, or `None`.
        shape: the shape expected of one row, `None` in it for any size, or
            `None` for any shape.
        name: the argument's name in messages.

    Returns:
        `x` as a floating-point array or tensor.

    Raises:
        ValueError: if `x` is empty, has no floating-point dtype, another
            shape, or a value that is NaN, infinite or outside `clip`.
    """
    if not hasattr(x, "dtype"):
        x = np.asarray(x)
    check_floating(name, x)
    received = tuple(x.shape)
    if len(received) < 2:
        raise ValueError(
            f"`{name}` must be a batch of inputs, shape (rows, …). "
            f"Received: shape={received}"
        )
    if shape is not None and not shape_fits(received[1:], shape):
        row = ", ".join("any" if size is None else str(size) for size in shape)
        raise ValueError(
            f"`{name}` must have shape (rows, {row}). Received: shape={received}"
        )
    if 0 in received:
        raise ValueError(
            f"`{name}` must hold at least one row of at least one value. "
            f"Received: an empty batch, shape={received}"
        )
    if backend.is_concrete(x):
        # As the model sees it: what overflows float32 is not finite.
        with np.errstate(over="ignore"):
            values = np.asarray(keras.ops.convert_to_numpy(x), np.float32)
        low, high = float(values.min()), float(values.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ValueError(
                f"`{name}` must be finite. Received: a NaN or infinite value"
            )
        # The range is float64; what was clamped to it may be float32.
        ends = None if clip is None else np.asarray(clip, np.float32)
        if clip is not None and not (ends[0] <= low and high <= ends[1]):
            raise ValueError(
                f"`{name}` must lie in the valid input range clip={clip}; scale it, "
                "or give another `clip` (None for no range). "
                f"Received: values from {low} to {high}"
            )
    return x


def check_labels(y, num_rows, num_classes, name="y"):
    """Class indices `(rows,)` from class indices or one-hot rows.

    Raises:
        ValueError: if `y` is missing, has another number of rows, or holds
            anything but classes `0 … num_classes - 1`.
    """
    if y is None:
        raise ValueError(f"`{name}` must be given. Received: {name}=None")
    y = np.asarray(keras.ops.convert_to_numpy(y) if hasattr(y, "dtype") else y)
    if y.dtype.kind not in "biuf":
        raise ValueError(
            f"`{name}` must hold classes as integers. Received: dtype={y.dtype}"
        )
    if y.ndim == 2 and y.shape[1] == num_classes and num_classes > 1:
        one_hot = ((y == 0) | (y == 1)).all() and (y.sum(axis=1) == 1).all()
        if not one_hot:
            raise ValueError(
                f"`{name}` of shape (rows, {num_classes}) must be one-hot. "
                "Received: rows that are not"
            )
        y = y.argmax(axis=1)
    y = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
    if y.shape != (num_rows,):
        raise ValueError(
            f"`{name}` must hold one label for each of the {num_rows} rows. "
            f"Received: shape={y.shape}"
        )
    if not (np.isin(y, np.arange(num_classes)).all()):
        raise ValueError(
            f"`{name}` must hold classes 0 to {num_classes - 1}. "
            f"Received: values from {y.min()} to {y.max()}"
        )
    return y.astype(np.int64)
