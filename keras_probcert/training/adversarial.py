"""Methods that train on the worst point of each vicinity, as a search finds it."""

from keras import ops

from keras_probcert import backend
from keras_probcert.attacks import ProjectedGradient
from keras_probcert.training.probabilities import kl_divergence
from keras_probcert.training.schedules import check_radius
from keras_probcert.training.training_method import TrainingMethod
from keras_probcert.validation import check_integer, check_number


class AdversarialTraining(TrainingMethod):
    """Looks for the worst point of each ball by projected gradient ascent.

    The search sees the base model with BatchNorm and Dropout in inference mode,
    and leaves no trace in them; it costs `steps` passes. Subclasses call
    `worst_points` with the value to be maximized.

    Args:
        model: the base model, a `keras.Model` with one output.
        epsilon: ε, the radius of the ball in units of the input, at least 0. May be
            a `Schedule`.
        steps: the number of steps of the search, at least 1.
        step_size: the length of a step in units of the input; `None` for the
            method's own part of `epsilon`.
        norm: `"linf"` or `"l2"`.
        clip: `(low, high)`, the valid input range, `(0, 1)` by default; `None`
            for no range.
        seed: an int that fixes the random starts; `None` (default) for Keras'
            global seed.
        **kwargs: passed to `keras.Model`, such as `name`.
    """

    # The length of a step over the radius, as in the method's paper.
    _step = 0.25

    def __init__(
        self,
        model,
        epsilon=8 / 255,
        steps=10,
        step_size=None,
        norm="linf",
        clip=(0.0, 1.0),
        seed=None,
        scheduled=None,
        **kwargs,
    ):
        scheduled = {"epsilon": epsilon, **(scheduled or {})}
        super().__init__(model, clip, seed, scheduled, **kwargs)
        self.steps = check_integer("steps", steps)
        if step_size is not None:
            step_size = check_number("step_size", step_size)
        self.step_size = step_size
        self.norm = norm
        self._search()  # Checks the norm.
        if norm == "linf":
            check_radius("epsilon", self.epsilon, self.clip)

    def _search(self):
        epsilon = self.value("epsilon")
        step_size = self._step * epsilon if self.step_size is None else self.step_size
        return ProjectedGradient(epsilon, self.steps, step_size, self.norm, self.clip)

    def worst_points(self, value, x, start=None):
        """The points of each row's ball with the largest `value` that were found.

        Args:
            value: a function of the base's outputs, `(rows, units)`, to one value
                a row.
            x: float32 tensor, `(rows, …)`.
            start: `"uniform"` for a random point of the ball, `"gaussian"` for
                `x + 0.001 * N(0, 1)`, `None` (default) for `x` itself.

        Returns:
            A tensor like `x`, of which no gradient is taken.
        """
        search, base = self._search(), self.inference_model()
        if start == "uniform":
            start = search.random_start(x, self.seeds(ops.shape(x)[0]))
        elif start == "gaussian":
            start = x + 0.001 * self.noise(x).normal(x.shape[1:])[:, 0]
        return search(lambda point: value(base(point)), x, start)

    def inference_model(self):
        """The base model in inference mode, learning nothing from being called."""
        return backend.frozen(self.base_model)

    def loss_of_each(self, y):
        """A function of outputs `(rows, units)` to the compiled loss of each row."""
        return lambda outputs: self.losses_of(y, outputs[:, None])[:, 0]

    def kl_from_clean(self, x, y):
        """A function of outputs `(rows, units)` to their KL from the clean ones."""
        clean = self.inference_model()(x)
        log_p = ops.stop_gradient(self.log_probabilities(y, clean))
        return lambda outputs: kl_divergence(log_p, self.log_probabilities(y, outputs))
