"""FAB: the nearest misclassified point, along the decision boundary."""

import math

from keras import ops

from keras_probcert import backend
from keras_probcert.attacks import norms
from keras_probcert.attacks.apgdt import ranked_class
from keras_probcert.attacks.hyperplane import step_to_hyperplane
from keras_probcert.attacks.step_rules import as_rows
from keras_probcert.attacks.survivors import SurvivorAttack
from keras_probcert.perturbations.noise import Noise
from keras_probcert.validation import (
    check_bool,
    check_fraction,
    check_integer,
    check_number,
)

_DUAL = {"linf": "l1", "l2": "l2", "l1": "linf"}


class FAB(SurvivorAttack):
    r"""Fast Adaptive Boundary: looks for the nearest point that the model gets wrong.

    Each step replaces the boundary to the nearest other class by a hyperplane, and
    goes to it, on from the current point and a little from `x`; from a point beyond
    the boundary it draws back towards `x`. Logits' differences alone matter, neither
    the loss nor the radius: a row comes back as the nearest point found, drawn back
    into the ball if it lies outside, where the model gets that wrong, or as it was.

    Args:
        epsilon: the radius, in units of the input, above 0; 8/255 by default.
        norm: `"linf"` (default), `"l2"` or `"l1"`.
        steps: the number of steps, at least 1; 10 by default (AutoAttack: 100).
        restarts: how often it starts, at least 1 (default): first at `x`, then at
            random points at half the radius.
        targeted: whether to search the boundary to one class alone, after another,
            those with the largest logits at `x` first: FAB-T. Off by default, where
            each step costs a pass for every class.
        targets: the number of these classes, at least 1; 9 by default, or all others
            where there are fewer.
        alpha_max: the largest weight of the step from `x`, in (0, 1]; 0.1 by default.
        eta: how far steps go, at least 1: beyond the hyperplane by default, 1.05.
        beta: what is left of the distance to `x` after drawing back, in (0, 1); 0.9
            by default.
        clip: `(low, high)`, the valid input range, `(0, 1)` by default; `None` for
            no range.

    Raises:
        ValueError: if an argument is out of its range.

    Example:

    >>> import keras, numpy as np
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> x = np.random.rand(5, 4).astype("float32")
    >>> attack = FAB(epsilon=0.1, steps=20, targeted=True)
    >>> x_adv = attack(model, x, y=[0, 1, 2, 0, 1], seed=0)
    >>> bool(np.abs(x_adv - x).max() <= 0.1 + 1e-6)
    True

    Reference:

    - Croce and Hein, "Minimally distorted Adversarial Examples with a Fast Adaptive
      Boundary Attack" (ICML 2020), algorithm 1.
    """

    def __init__(
        self,
        epsilon=8 / 255,
        norm="linf",
        steps=10,
        restarts=1,
        targeted=False,
        targets=9,
        alpha_max=0.1,
        eta=1.05,
        beta=0.9,
        clip=(0.0, 1.0),
    ):
        super().__init__(check_number("epsilon", epsilon), norm, clip)
        self.steps = check_integer("steps", steps)
        self.restarts = check_integer("restarts", restarts)
        self.targeted = check_bool("targeted", targeted)
        self.targets = check_integer("targets", targets)
        self.alpha_max = check_fraction("alpha_max", alpha_max, closed=True)
        self.eta = check_number("eta", eta, least=1.0)
        self.beta = check_fraction("beta", beta)

    def rounds(self, classes):
        targets = min(self.targets, classes - 1) if self.targeted else 1
        return targets * self.restarts

    def run(self, model, x, y, seeds, index, point):
        norm = norms.get(self.norm)
        start = ops.where(
            as_rows(index % self.restarts > 0, x),
            self._random_point(x, Noise(seeds, 1, first=index)),
            x,
        )
        if self.targeted:
            target = ranked_class(model(x), 1 + index // self.restarts)

        def step(_, state):
            point, found, nearest = state
            if self.targeted:
                difference, gradient = _difference(model, point, y, target)
            else:
                difference, gradient = self._nearest_boundary(model, point, y)
            ahead = self._to_boundary(point, gradient, -difference)
            walked = _dot(gradient, point - x)
            direct = self._to_boundary(x, gradient, walked - difference)
            here, there = (
                ops.maximum(norm.length(step), 1e-8) for step in (ahead, direct)
            )
            share = ops.minimum(here / (here + there), self.alpha_max)
            point = self.clamp(
                (1 - share) * (point + self.eta * ahead)
                + share * (x + self.eta * direct)
            )

            label = ops.cast(ops.argmax(model(point), axis=1), "int32")
            wrong = as_rows(ops.not_equal(label, y), x)
            distance = norm.length(point - x)
            nearer = ops.logical_and(wrong, distance < nearest)
            found = ops.where(nearer, point, found)
            nearest = ops.where(nearer, distance, nearest)
            return ops.where(wrong, x + self.beta * (point - x), point), found, nearest

        far = ops.full_like(norm.length(x), float("inf"))
        return ops.fori_loop(0, self.steps, step, (start, x, far))[1]

    def _random_point(self, x, noise):
        """A point at half the radius from `x`."""
        shape = x.shape[1:]
        if self.norm == "linf":
            step = noise.uniform(shape, -1.0, 1.0)
        else:
            step = noise.normal(shape)
        step = ops.cast(step[:, 0], x.dtype)
        length = ops.maximum(norms.get(self.norm).length(step), 1e-12)
        return self.clamp(x + 0.5 * self.epsilon * step / length)

    def _to_boundary(self, x, gradient, gap):
        return step_to_hyperplane(x, gradient, gap, self.norm, self.clip)

    def _nearest_boundary(self, model, x, y):
        """As `_difference`, from the class whose hyperplane is nearest."""
        classes = model(x).shape[1]
        dual = norms.get(_DUAL[self.norm])

        def compare(ahead, state):
            nearest, *boundary = state
            difference, gradient = _difference(model, x, y, (y + ahead) % classes)
            slope = ops.reshape(dual.length(gradient), (-1,))
            distance = ops.abs(difference) / ops.maximum(slope, 1e-12)
            nearer = distance < nearest
            return (
                ops.where(nearer, distance, nearest),
                ops.where(nearer, difference, boundary[0]),
                ops.where(as_rows(nearer, x), gradient, boundary[1]),
            )

        zeros = ops.reshape(ops.zeros_like(dual.length(x)), (-1,))
        state = zeros + float("inf"), zeros, ops.zeros_like(x)
        return ops.fori_loop(1, classes, compare, state)[1:]


def _difference(model, x, y, other):
    """By how much the logit of `other` exceeds that of `y`, and its gradient."""

    def value(x):
        logits = model(x)
        chosen = ops.stack([other, y], axis=1)
        other_logit, logit = ops.unstack(
            ops.take_along_axis(logits, chosen, axis=1), axis=1
        )
        return ops.cast(other_logit - logit, x.dtype), ()

    difference, _, gradient = backend.value_and_gradient(value, x)
    return difference, ops.where(ops.isfinite(gradient), gradient, 0.0)


def _dot(a, b):
    return ops.sum(ops.reshape(a * b, (-1, math.prod(a.shape[1:]))), axis=1)
