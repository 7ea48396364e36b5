"""The shortest step onto a hyperplane inside a box."""

import math

import numpy as np
from keras import ops

from keras_probcert import backend


def step_to_hyperplane(x, normal, gap, norm, clip=None):
    r"""The shortest step \(d\) with \(w \cdot d = g\) that stays in a range.

    Each coordinate goes the way that closes the gap. With \(r_i\) the room it has,
    the shortest step is \(\min(t, r_i)\) long in L∞ and \(\min(t |w_i|, r_i)\) in
    L2, with the smallest \(t\) that closes the gap; in L1 the coordinates of largest
    \(|w_i|\) go as far as they can, one after the other. Where the range is too small
    every coordinate goes to its end, and coordinates of \(w_i = 0\) never move.

    Args:
        x: float tensor, `(rows, …)`, inside the range.
        normal: \(w\), like `x`.
        gap: \(g\), `(rows,)`.
        norm: `"linf"`, `"l2"` or `"l1"`.
        clip: `(low, high)`, the range; `None` (default) for no range.

    Returns:
        A tensor like `x`.

    Reference:

    - Croce and Hein, "Minimally distorted Adversarial Examples with a Fast Adaptive
      Boundary Attack" (ICML 2020), equation 6.
    """
    flat = (-1, math.prod(x.shape[1:]))
    normal, gap = ops.reshape(normal, flat), gap[:, None]
    # In units of the largest coordinate, so that squares do not vanish.
    unit = ops.max(ops.abs(normal), axis=1, keepdims=True)
    unit = ops.where(unit > 0, unit, 1.0)
    normal, gap = normal / unit, gap / unit

    way = ops.sign(normal) * ops.sign(gap)
    if clip is None:
        room = ops.full_like(way, float("inf"))
    else:
        point = ops.reshape(x, flat)
        room = ops.where(way > 0, clip[1] - point, point - clip[0])
    room = ops.where(way == 0, 0.0, ops.maximum(room, 0.0))
    slope, gap = ops.abs(normal), ops.abs(gap)
    if norm == "l1":
        length = _one_after_the_other(slope, room, gap)
    else:
        pace = slope if norm == "l2" else ops.ones_like(slope)
        length = _together(slope, pace, room, gap)
    return ops.reshape(way * length, (-1, *x.shape[1:]))


def _together(slope, pace, room, gap):
    """How far coordinates go that all start at once, each at its pace."""

    def time(full):
        closed = ops.sum(ops.where(full, slope * room, 0.0), axis=1, keepdims=True)
        rate = ops.sum(ops.where(full, 0.0, slope * pace), axis=1, keepdims=True)
        left = ops.maximum(gap - closed, 0.0)
        return left / ops.where(rate > 0, rate, 1.0)

    def fill(full, _):
        fuller = ops.logical_or(full, pace * time(full) >= room)
        return fuller, ops.any(fuller != full)

    # The gap closes ever slower, so the time after which it would be closed at
    # today's rate is never too long: those full by then are full in the end. A few
    # rounds find them all, where sorting would be dear.
    full, _ = backend.while_loop(
        lambda _, going: going,
        fill,
        (ops.zeros_like(room, dtype="bool"), ops.convert_to_tensor(True)),
    )
    return ops.where(full, room, pace * time(full))


def _one_after_the_other(slope, room, gap):
    """How far coordinates go of which the next starts once one is at its end."""
    order = ops.argsort(-slope, axis=1)
    slope = ops.take_along_axis(slope, order, axis=1)
    room = ops.take_along_axis(room, order, axis=1)
    closed = ops.cumsum(slope * room, axis=1)
    before = ops.concatenate([ops.zeros_like(gap), closed[:, :-1]], axis=1)
    tiny = float(np.finfo("float32").tiny)
    length = ops.maximum(gap - before, 0.0) / ops.maximum(slope, tiny)
    length = ops.minimum(length, room)
    return ops.take_along_axis(length, ops.argsort(order, axis=1), axis=1)
