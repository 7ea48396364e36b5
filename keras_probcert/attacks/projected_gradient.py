"""Projected gradient ascent, the inner maximization of attacks and training."""

import numpy as np
from keras import ops

from keras_probcert import backend
from keras_probcert.attacks import norms
from keras_probcert.perturbations import Perturbation
from keras_probcert.perturbations.noise import Noise
from keras_probcert.validation import check_integer, check_number


class ProjectedGradient:
    r"""Searches a ball around each input for the point of largest value.

    Takes `steps` steps

    \[x' \leftarrow \Pi\left(x' + \text{step\_size} \cdot d(\nabla v(x'))\right),\]

    where \(d\) is the sign of the gradient (L∞), the gradient over its L2 norm
    (L2) or the largest of its coordinates that have room in `clip` (L1), and
    \(\Pi\) clamps to `clip`, then projects onto the ball. Rows do not influence
    each other. Where the gradient is zero or not finite, an input stays as it is. One
    step is one pass forward and back; the values at the result are not computed.

    Args:
        epsilon: the radius, in units of the input, at least 0; `None` for no
            ball. A scalar tensor will do.
        steps: the number of steps, at least 1.
        step_size: the length of a step (L∞: of every coordinate), in units of the
            input; `None` (default) for `2.5 * epsilon / steps`, which reaches
            every point of the ball. A scalar tensor will do.
        norm: `"linf"` (default), `"l2"` or `"l1"`.
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
        self._norm = norms.get(norm)
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
        vicinity = Perturbation(clip)
        self._clamp, self._clip = vicinity.clamp, vicinity.clip

    def random_start(self, x, seeds):
        """A point of each row's ball, drawn uniformly, then clamped to `clip`.

        Args:
            x: float tensor, `(rows, …)`.
            seeds: int32, `(rows, 2)`, one seed a row.

        Returns:
            A tensor like `x`.
        """
        return self.random_point(x, Noise(seeds, 1))

    def random_point(self, x, noise):
        """As `random_start`, from `Noise` of one copy a row."""
        centre = ops.zeros_like(x, dtype="float32")[:, None]
        step = self._norm.unit_ball.sample(centre, noise)[:, 0]
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

        def direction(_, point, memory):
            gradient = backend.input_gradient(value, point)
            return self.direction(gradient, point), memory

        return self.climb(direction, x, start, repeat=backend.repeat)

    def climb(self, direction, x, start=None, memory=(), repeat=ops.fori_loop):
        """The points that steps along `direction` lead to.

        Args:
            direction: a function of the step's index, the point and the memory to
                the direction of the step and the next memory.
            x: float tensor, `(rows, …)`, the centres of the balls.
            start: where to start, like `x`; `None` (default) for `x` itself.
            memory: what one step hands to the next, a tuple of tensors.
            repeat: what repeats a step, a loop by default: an attack is compiled for
                few batches, a training step for many.

        Returns:
            A tensor like `x`. No gradient flows through it.
        """
        x = ops.stop_gradient(x)
        start = x if start is None else ops.stop_gradient(start)

        def step(index, carry):
            point, memory = carry
            step, memory = direction(index, point, memory)
            return self.project(point + self.step_size * step, x), memory

        point, _ = repeat(0, self.steps, step, (start, memory))
        return ops.stop_gradient(point)

    def direction(self, gradient, point=None):
        """The steepest step of length 1, row by row; zero where there is none.

        In L1, where a step is along one coordinate, along one that `clip` leaves room
        for at `point`, if that is given.
        """
        if self.norm == "l1" and self._clip is not None and point is not None:
            low, high = self._clip
            room = ops.where(gradient > 0, point < high, point > low)
            gradient = ops.where(room, gradient, 0.0)
        return self._norm.direction(gradient)

    def project(self, point, x):
        """`point` clamped to `clip`, then brought into the ball around `x`."""
        point = self._clamp(point)
        if self.epsilon is not None:
            # Towards x, so inside the range, to rounding.
            point = x + self._norm.project(point - x, self.epsilon)
        return self._clamp(point)
