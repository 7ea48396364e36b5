"""The closest point of an L1 ball inside a box."""

import math

from keras import ops

from keras_probcert.attacks import norms


def project_onto_l1_ball_in_box(step, room, epsilon):
    r"""The closest step of L1 length `epsilon` at most that stays inside a box.

    Coordinate i becomes \(\mathrm{sign}(s_i) \min(\max(|s_i| - \lambda, 0), r_i)\),
    with the smallest \(\lambda \ge 0\) that makes the step short enough.

    Args:
        step: float tensor, `(rows, …)`.
        room: like `step`, at least 0: how far each coordinate may go.
        epsilon: the radius, above 0.

    Returns:
        A tensor like `step`.

    Reference:

    - Croce and Hein, "Mind the box: l1-APGD for sparse adversarial attacks on image
      classifiers" (ICML 2021), proposition 2.1.
    """
    flat = (-1, math.prod(step.shape[1:]))
    size = ops.reshape(ops.abs(step), flat)
    room = ops.reshape(room, flat)
    # The length falls linearly in λ between these values: a coordinate begins to
    # shrink at the first and is gone at the second.
    begin = ops.maximum(size - room, 0.0)
    values = ops.concatenate([begin, size], axis=1)
    order = ops.argsort(values, axis=1)
    values = ops.take_along_axis(values, order, axis=1)
    shrinking = ops.cumsum(
        ops.where(order < flat[1], 1.0, ops.cast(-1.0, step.dtype)), axis=1
    )
    fall = ops.cumsum(shrinking[:, :-1] * (values[:, 1:] - values[:, :-1]), axis=1)
    length = ops.sum(size - begin, axis=1, keepdims=True)
    lengths = ops.concatenate([length, length - fall], axis=1)
    last = ops.sum(ops.cast(lengths > epsilon, "int32"), axis=1, keepdims=True) - 1
    long = last >= 0
    last = ops.maximum(last, 0)

    def at_last(x):
        return ops.take_along_axis(x, last, axis=1)

    shift = (at_last(lengths) - epsilon) / ops.maximum(at_last(shrinking), 1.0)
    threshold = ops.where(long, at_last(values) + shift, 0.0)
    kept = ops.minimum(ops.maximum(size - threshold, 0.0), room)
    return ops.sign(step) * ops.reshape(kept, (-1, *step.shape[1:]))


def project_in_range(step, x, epsilon, clip):
    """The closest step from `x` in the L1 ball and, from there, in the range `clip`.

    Args:
        step: float tensor, `(rows, …)`.
        x: like `step`, inside the range.
        epsilon: the radius, above 0.
        clip: `(low, high)`, or `None` for no range.

    Returns:
        A tensor like `step`.
    """
    if clip is None:
        return norms.get("l1").project(step, epsilon)
    low, high = clip
    room = ops.maximum(ops.where(step > 0, high - x, x - low), 0.0)
    return project_onto_l1_ball_in_box(step, room, epsilon)
