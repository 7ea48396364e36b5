"""How APGD steps and adapts: halved steps with momentum, or steps ever sparser.

A rule works on the state of a search, a dictionary of tensors with `point`, `value`
and `gradient`, those of the best point so far, and what the rule keeps for itself.
"""

import math

import numpy as np
from keras import ops

from keras_probcert.attacks import norms


def as_rows(values, x):
    """`values`, one a row, in a shape that spreads over the rows of `x`."""
    return ops.reshape(values, (-1, *[1] * (len(x.shape) - 1)))


class HalvedSteps:
    """Steps of twice the radius, halved at checkpoints where the search stalls.

    Reference:

    - Croce and Hein, "Reliable evaluation of adversarial robustness with an
      ensemble of diverse parameter-free attacks" (ICML 2020), sections 3.1 to 3.3.
    """

    momentum = 0.75

    def __init__(self, norm, project, radius, steps, rho):
        self._norm = norms.get(norm)
        self._project = project
        self._radius = radius
        self._steps = steps
        self._rho = rho

    def start(self, point, value, x, fresh):
        """What the rule keeps, before the first step."""
        return {
            "previous": point,
            "size": ops.full_like(value, 2 * self._radius),
            "rises": ops.zeros_like(value),
            "halved": ops.ones_like(value, dtype="bool"),
            "checked": value,
        }

    def step(self, index, state, x):
        """The next point."""
        point, size = state["point"], as_rows(state["size"], x)
        ascent = point + size * self._norm.direction(state["gradient"])
        share = ops.cast(ops.where(index > 0, self.momentum, 1.0), x.dtype)
        return self._project(
            point
            + share * (self._project(ascent) - point)
            + (1 - share) * (point - state["previous"])
        )

    def update(self, index, before, state, x):
        """Which rows go back to their best point, and what the rule keeps now."""
        rises = before["rises"] + ops.cast(
            state["value"] > before["value"], before["rises"].dtype
        )
        since = ops.take(self._steps_since_checkpoint(rises.dtype), index)
        check = since > 0
        stalled = ops.logical_and(
            ops.logical_not(before["halved"]),
            before["checked"] >= state["best_value"],
        )
        slow = rises <= self._rho * since
        halved = ops.logical_and(check, ops.logical_or(slow, stalled))
        size = before["size"]
        return halved, {
            "previous": before["point"],
            "size": ops.where(halved, size / 2, size),
            "rises": ops.where(check, 0.0, rises),
            "halved": ops.where(check, halved, before["halved"]),
            "checked": ops.where(check, state["best_value"], before["checked"]),
        }

    def _steps_since_checkpoint(self, dtype):
        """At the steps that end in a checkpoint, how long ago the last one was."""
        # In hundredths of the steps, so that none is lost to rounding.
        ends, part, gap = [0], 22, 22
        while part <= 100:
            ends.append(-(-part * self._steps // 100))
            gap = max(gap - 3, 6)
            part += gap
        ends = np.unique(ends)
        since = np.zeros(self._steps)
        since[ends[1:] - 1] = np.diff(ends)
        return ops.convert_to_tensor(since, dtype)


class SparseSteps:
    """Steps along the largest coordinates of the gradient, for the L1 ball.

    How many coordinates move follows from how many differ at the best point: a share
    of 1/1.5 of them. Where that number falls, steps grow to the radius again, and
    the search goes back to its best point; otherwise they shrink by 1.5.

    Reference:

    - Croce and Hein, "Mind the box: l1-APGD for sparse adversarial attacks on image
      classifiers" (ICML 2021), algorithm 1.
    """

    shrink = 1.5

    def __init__(self, project, radius, steps):
        self._project = project
        self._radius = radius
        self._interval = max(4 * steps // 100, 1)

    def start(self, point, value, x, fresh):
        size = math.prod(x.shape[1:])
        moved = self._moved(point, x)
        return {
            "size": ops.full_like(value, self._radius),
            "share": ops.full_like(value, 0.2)
            if fresh
            else moved / (size * self.shrink),
            "moved": ops.full_like(value, size) if fresh else moved,
        }

    def step(self, index, state, x):
        flat = (-1, math.prod(x.shape[1:]))
        gradient = ops.where(ops.isfinite(state["gradient"]), state["gradient"], 0.0)
        gradient = ops.reshape(gradient, flat)
        still = ops.cast((1.0 - state["share"]) * flat[1], "int32")
        still = ops.clip(still, 0, flat[1] - 1)[:, None]
        sizes = ops.abs(gradient)
        least = ops.take_along_axis(ops.sort(sizes, axis=1), still, axis=1)
        signs = ops.where(sizes >= least, ops.sign(gradient), 0.0)
        count = ops.sum(ops.abs(signs), axis=1, keepdims=True)
        step = state["size"][:, None] * signs / ops.maximum(count, 1.0)
        return self._project(state["point"] + ops.reshape(step, (-1, *x.shape[1:])))

    def update(self, index, before, state, x):
        check = (index + 1) % self._interval == 0
        moved = self._moved(state["best"], x)
        sparser = moved < 0.95 * before["moved"]
        size = ops.where(sparser, self._radius, before["size"] / self.shrink)
        size = ops.clip(size, self._radius / 10, self._radius)
        share = moved / (math.prod(x.shape[1:]) * self.shrink)
        return ops.logical_and(check, sparser), {
            "size": ops.where(check, size, before["size"]),
            "share": ops.where(check, share, before["share"]),
            "moved": ops.where(check, moved, before["moved"]),
        }

    def _moved(self, point, x):
        """How many coordinates differ from `x`."""
        differs = ops.reshape(ops.not_equal(point, x), (-1, math.prod(x.shape[1:])))
        return ops.sum(ops.cast(differs, x.dtype), axis=1)
