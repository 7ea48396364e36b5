"""Projected gradient ascent, the inner maximization of attacks and training."""

import math

import numpy as np
from keras import ops

from keras_probcert import backend
from keras_probcert.perturbations import L2, LInf
from keras_probcert.perturbations.noise import Noise
from keras_probcert.validation import check_integer, check_number

# The ball of radius 1 of each norm, to start from a random point in it.
_UNIT_BALLS = {"linf": LInf(1.0, clip=None), "l2": L2(1.0, clip=None)}


class ProjectedGradient:
    r"""Searches a ball around each input for the point of largest value.

    Takes `steps` steps

    \[x' \leftarrow \Pi\left(x' + \text{step\_size} \cdot d(\nabla v(x'))\right),\]

    where \(d\) is the sign of the gradient (L∞) or the gradient over its L2 norm
    (L2), and \(\Pi\) clamps to `clip`, then projects onto the ball. Rows do not
    influence each other. Where the gradient is zero or not finite, an input stays as
    it is. One step is one pass forward and back; the values at the result are
    not computed.

    Args:
        epsilon: the radius, in units of the input, at least 0; `None` for no
            ball. A scalar tensor will do.
        steps: the number of steps, at least 1.
        step_size: the length of a step (L∞: of every coordinate), in units of the
            input; `None` (default) for `2.5 * epsilon / steps`, which reaches
            every point of the ball. A scalar tensor will do.
        norm: `"linf"` (default) or `"l2"`.
        clip: `(low, high)`, the valid input range, `(0, 1)` by default; `None`
            for no range.

    Raises:
        ValueError: if an argument is out of its range.

    Example:

    >>> from keras import ops
    >>> search = ProjectedGradient(epsilon=0.1, steps=4)
    >>> x = ops.full((1, 3), 0.5)
    >>> t = search(lambda x: ops.sum(x, axis=1), x)
    >>> [round(float(v), 3) for v in t[0]]
    [0.6, 0.6, 0.6]

    Reference:

    - Madry, Makelov, Schmidt, Tsipras and Vladu, "Towards Deep Learning Models
      Resistant to Adversarial Attacks" (ICLR 2018), section 2.1.
    """

    def __init__(self, epsilon, steps, step_size=None, norm="linf", clip=(0.0, 1.0)):
        if norm not in _UNIT_BALLS:
            raise ValueError(
                f"`norm` must be one of {sorted(_UNIT_BALLS)}. Received: norm={norm!r}"
            )
        if epsilon is None and step_size is None:
            raise ValueError(
                "`step_size` must be given where there is no ball. "
                "Received: epsilon=None, step_size=None"
            )
        for name, value in (("epsilon", epsilon), ("step_size", step_size)):
            # Tensors come from schedules, which check their own values.
            if isinstance(value, (int, float, np.number)):
                check_number(name, value)
        self.steps = check_integer("steps", steps)
        self.epsilon = epsilon
        self.step_size = 2.5 * epsilon / steps if step_size is None else step_size
        self.norm = norm
        # The checks of a perturbation's range are those of this one.
        self._clamp = LInf(0.0, clip=clip).clamp

    def random_start(self, x, seeds):
        """A point of each row's ball, drawn uniformly, then clamped to `clip`.

        Args:
            x: float tensor, `(rows, …)`.
            seeds: int32, `(rows, 2)`, one seed a row.

        Returns:
            A tensor like `x`.
        """
        centre = ops.zeros_like(x, dtype="float32")[:, None]
        step = _UNIT_BALLS[self.norm].sample(centre, Noise(seeds, 1))[:, 0]
        return self._clamp(x + self.epsilon * ops.cast(step, x.dtype))

    def __call__(self, value, x, start=None):
        """The points found.

        Args:
            value: a function from inputs like `x` to one value a row, `(rows,)`;
                a row's value must not depend on other rows.
            x: float tensor, `(rows, …)`, the centres of the balls.
            start: where to start, like `x`; `None` (default) for `x` itself.

        Returns:
            A tensor like `x`. No gradient flows through it.
        """
        x = ops.stop_gradient(x)
        start = x if start is None else ops.stop_gradient(start)

        def step(_, point):
            gradient = backend.input_gradient(value, point)
            return self.project(point + self.step_size * self.direction(gradient), x)

        return ops.stop_gradient(ops.fori_loop(0, self.steps, step, start))

    def direction(self, gradient):
        """The steepest step of length 1, row by row; zero where there is none."""
        gradient = ops.where(ops.isfinite(gradient), gradient, 0.0)
        if self.norm == "linf":
            return ops.sign(gradient)
        # Scaled first, since the squares of small gradients vanish in float32.
        axes = tuple(range(1, len(gradient.shape)))
        largest = ops.max(ops.abs(gradient), axis=axes, keepdims=True)
        gradient = gradient / ops.where(largest > 0, largest, 1.0)
        return gradient / ops.maximum(_l2_norm(gradient), 0.5)

    def project(self, point, x):
        """`point` clamped to `clip`, then brought into the ball around `x`."""
        point = self._clamp(point)
        if self.epsilon is not None:
            # Towards x, so inside the range, to rounding.
            step = point - x
            if self.norm == "linf":
                step = ops.clip(step, -self.epsilon, self.epsilon)
            else:
                length = _l2_norm(step)
                far = length > self.epsilon
                step = step * ops.where(
                    far, self.epsilon / ops.where(far, length, 1.0), 1.0
                )
            point = x + step
        return self._clamp(point)


def _l2_norm(x):
    """The L2 norm of each row, of shape `(rows, 1, …)`."""
    flat = ops.reshape(x, (-1, math.prod(x.shape[1:])))
    norm = ops.sqrt(ops.sum(ops.square(flat), axis=1))
    return ops.reshape(norm, (-1, *[1] * (len(x.shape) - 1)))
