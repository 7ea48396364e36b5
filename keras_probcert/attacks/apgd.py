"""APGD: projected gradient ascent that finds its step size itself."""

from keras import ops

from keras_probcert import backend
from keras_probcert.attacks import losses, norms
from keras_probcert.attacks.l1_box import project_in_range
from keras_probcert.attacks.step_rules import HalvedSteps, SparseSteps, as_rows
from keras_probcert.attacks.survivors import SurvivorAttack
from keras_probcert.perturbations.noise import Noise
from keras_probcert.validation import (
    check_bool,
    check_fraction,
    check_integer,
    check_number,
)

_LOSSES = {
    "ce": losses.cross_entropy,
    "dlr": losses.difference_of_logits_ratio,
}


class APGD(SurvivorAttack):
    r"""Auto-PGD: gradient steps with momentum whose size halves when they stall.

    From a random point of the ball, steps of 2ε are halved at checkpoints, row by
    row, where fewer than a share `rho` of the steps raised the loss, or where neither
    the size nor the best loss changed since the last one; the search then goes on
    from its best point. In the L1 ball a step moves only the coordinates of largest
    gradient, of which there are as many as the best point suggests. Checkpoints lie
    where the paper has them, rounded up; the authors' code and TorchAttacks round the
    spaces between them down, which is the same for 100 steps but not for 10.

    A row comes back as the last point that the model gets wrong, or as it was.

    Args:
        epsilon: the radius, in units of the input, above 0; 8/255 by default.
        norm: `"linf"` (default), `"l2"` or `"l1"`.
        steps: the number of steps, at least 1; 10 by default (AutoAttack: 100).
        restarts: the number of random starts, at least 1 (default).
        loss: what is climbed, `"ce"` (cross-entropy, default) or `"dlr"`, the
            difference of logits ratio, for three classes and more.
        eot_iter: the number of gradients that are averaged, at least 1 (default):
            more for models that draw random numbers.
        rho: the share of steps that must raise the loss, in (0, 1); 0.75 by default.
        large_radii: whether to search the balls of radius 3ε, 2ε and ε one after the
            other, with 30, 30 and 40 % of the steps, of which there must be three;
            off by default (AutoAttack: on for L1).
        clip: `(low, high)`, the valid input range, `(0, 1)` by default; `None` for
            no range.

    Raises:
        ValueError: if an argument is out of its range.

    Example:

    >>> import keras, numpy as np
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> x = np.random.rand(5, 4).astype("float32")
    >>> attack = APGD(epsilon=0.1, steps=20, loss="dlr")
    >>> x_adv = attack(model, x, y=[0, 1, 2, 0, 1], seed=0)
    >>> bool(np.abs(x_adv - x).max() <= 0.1 + 1e-6)
    True

    Reference:

    - Croce and Hein, "Reliable evaluation of adversarial robustness with an
      ensemble of diverse parameter-free attacks" (ICML 2020), algorithm 1.
    - Croce and Hein, "Mind the box: l1-APGD for sparse adversarial attacks on image
      classifiers" (ICML 2021), algorithm 1.
    """

    def __init__(
        self,
        epsilon=8 / 255,
        norm="linf",
        steps=10,
        restarts=1,
        loss="ce",
        eot_iter=1,
        rho=0.75,
        large_radii=False,
        clip=(0.0, 1.0),
    ):
        super().__init__(check_number("epsilon", epsilon), norm, clip)
        if not isinstance(loss, str) or loss not in _LOSSES:
            raise ValueError(
                f"`loss` must be one of {list(_LOSSES)}. Received: loss={loss!r}"
            )
        self.large_radii = check_bool("large_radii", large_radii)
        self.steps = check_integer("steps", steps, 3 if large_radii else 1)
        self.restarts = check_integer("restarts", restarts)
        self.loss = loss
        self.eot_iter = check_integer("eot_iter", eot_iter)
        self.rho = check_fraction("rho", rho)
        if loss == "dlr":
            self.least_classes = 3

    def rounds(self, classes):
        return self.restarts

    def objective(self, logits, y):
        return _LOSSES[self.loss](logits, y)

    def run(self, model, x, y, seeds, index, point):
        noise = Noise(seeds, 1, first=index)
        return self.search(model, x, y, self.objective, noise)

    def search(self, model, x, y, objective, noise):
        """Points that the model gets wrong, or `x`, from a random start."""
        if not self.large_radii:
            radius, start = self.epsilon, self._random_point(x, noise, self.epsilon)
            search = model, x, y, objective, start, radius
            return self._climb(*search, True, self.steps)[0]
        part = -(-3 * self.steps // 10)
        stages = ((3, part), (2, part), (1, self.steps - 2 * part))
        best = self._random_point(x, noise, 3 * self.epsilon)
        for factor, steps in stages:
            radius = factor * self.epsilon
            best = self._project(best, x, radius)
            search = model, x, y, objective, best, radius
            found, best = self._climb(*search, False, steps)
        return found

    def _random_point(self, x, noise, radius):
        shape = x.shape[1:]
        if self.norm == "linf":
            step = noise.uniform(shape, -1.0, 1.0)[:, 0]
        else:
            step = noise.normal(shape)[:, 0]
        step = ops.cast(step, x.dtype)
        if self.norm != "l1":
            length = norms.get(self.norm).length(step)
            step = radius * step / ops.maximum(length, 1e-12)
        return self._project(x + step, x, radius)

    def _project(self, point, x, radius):
        """`point` in the ball, then in the range; for L1 the closest in both."""
        step = point - x
        if self.norm == "l1":
            step = project_in_range(step, x, radius, self.clip)
        else:
            step = norms.get(self.norm).project(step, radius)
        return self.clamp(x + step)

    def _climb(self, model, x, y, objective, start, radius, fresh, steps):
        """The last point that the model gets wrong, or `x`, and the best one."""

        def project(point):
            return self._project(point, x, radius)

        if self.norm == "l1":
            rule = SparseSteps(project, radius, steps)
        else:
            rule = HalvedSteps(self.norm, project, radius, steps, self.rho)

        def evaluate(point):
            def value(point):
                logits = model(point)
                # Of a float32 model, where x is float64.
                return ops.cast(objective(logits, y), x.dtype), logits

            def again(_, sums):
                value_, logits, gradient = backend.value_and_gradient(value, point)
                return value_, logits, sums[2] + gradient

            found = backend.value_and_gradient(value, point)
            if self.eot_iter > 1:
                found = ops.fori_loop(1, self.eot_iter, again, found)
            value_, logits, gradient = found
            # Integers of one type on every backend.
            wrong = ops.not_equal(ops.cast(ops.argmax(logits, axis=1), "int32"), y)
            return value_, wrong, gradient / self.eot_iter

        def step(index, before):
            point = rule.step(index, before, x)
            value, wrong, gradient = evaluate(point)
            better = value > before["best_value"]
            rows = as_rows(better, x)
            state = {
                "value": value,
                "fooled": ops.where(as_rows(wrong, x), point, before["fooled"]),
                "best": ops.where(rows, point, before["best"]),
                "best_value": ops.where(better, value, before["best_value"]),
                "best_gradient": ops.where(rows, gradient, before["best_gradient"]),
            }
            back, kept = rule.update(index, before, state, x)
            back = as_rows(back, x)
            state["point"] = ops.where(back, state["best"], point)
            state["gradient"] = ops.where(back, state["best_gradient"], gradient)
            return {**state, **kept}

        value, wrong, gradient = evaluate(start)
        state = {
            "point": start,
            "value": value,
            "gradient": gradient,
            "fooled": ops.where(as_rows(wrong, x), start, x),
            "best": start,
            "best_value": value,
            "best_gradient": gradient,
            **rule.start(start, value, x, fresh),
        }
        state = ops.fori_loop(0, steps, step, state)
        return state["fooled"], state["best"]
