"""The loop that gradient attacks share: start, gradient, direction, step, project."""

from keras import ops

from keras_probcert import backend
from keras_probcert.attacks.attack import Attack
from keras_probcert.attacks.projected_gradient import ProjectedGradient
from keras_probcert.perturbations.noise import Noise
from keras_probcert.validation import check_integer, check_number


class GradientAttack(Attack):
    """Climbs a value by projected steps along what its gradients suggest.

    A variant overrides the few hooks in which it differs: `start`, `value`,
    `gradient`, `direction`, and `memory` for what one step hands to the next.

    Args:
        epsilon: the radius of the ball, in units of the input, above 0; 8/255 by
            default.
        steps: the number of steps, at least 1.
        step_size: the length of a step, in units of the input, above 0; `None`
            (default) for `travel * epsilon / steps`.
        norm: `"linf"`, `"l2"` or `"l1"`.
        clip: `(low, high)`, the valid input range, `(0, 1)` by default; `None` for
            no range.

    Raises:
        ValueError: if an argument is out of its range.

    Example:

    A variant that climbs another value:

    >>> import keras, numpy as np
    >>> class LowersTheLogit(GradientAttack):
    ...     def value(self, model, point, y, x, clean, noise):
    ...         return -ops.take_along_axis(model(point), y[:, None], axis=1)[:, 0]
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> x = np.full((2, 4), 0.5, "float32")
    >>> x_adv = LowersTheLogit(epsilon=0.1, steps=5)(model, x, y=[0, 1])
    >>> bool(np.abs(x_adv - x).max() <= 0.1 + 1e-6)
    True
    """

    # Whether to start at a uniformly random point of the ball, or at `x`.
    random_start = False
    # How long all steps are together by default, in units of `epsilon`.
    travel = 2.5

    def __init__(
        self, epsilon=8 / 255, steps=10, step_size=None, norm="linf", clip=(0.0, 1.0)
    ):
        super().__init__(check_number("epsilon", epsilon), norm, clip)
        if step_size is None:
            step_size = self.travel * epsilon / check_integer("steps", steps)
        elif check_number("step_size", step_size) == 0:
            raise ValueError(
                f"`step_size` must be above 0. Received: step_size={step_size!r}"
            )
        self.search = ProjectedGradient(epsilon, steps, step_size, norm, clip)

    @property
    def passes(self):
        # One more for what `run` hands to `value`, two for `improves`. A variant that
        # computes its gradients in another way counts for itself.
        for hook in ("run", "value", "gradient", "improves"):
            if getattr(type(self), hook) is not getattr(GradientAttack, hook):
                return None
        return self.search.steps + 3, self.search.steps

    def run(self, model, x, y, seeds):
        clean = model(x)

        def direction(index, point, memory):
            # The start draws from copy 0, each step from one of its own.
            noise = Noise(seeds, 1, first=index + 1)

            def value(point):
                return self.value(model, point, y, x, clean, noise)

            return self.direction(*self.gradient(value, point, memory, noise))

        start = self.start(x, Noise(seeds, 1))
        return self.search.climb(direction, x, start, self.memory(x))

    def start(self, x, noise):
        """Where to start."""
        return self.search.random_point(x, noise) if self.random_start else x

    def memory(self, x):
        """What the first step is handed, a tuple of tensors; empty by default."""
        return ()

    def value(self, model, point, y, x, clean, noise):
        """What is climbed, one value a row; the objective at `point` by default."""
        return self.objective(model(point), y)

    def gradient(self, value, point, memory, noise):
        """The gradient that a step follows, and the memory."""
        return backend.input_gradient(value, point), memory

    def direction(self, gradient, memory):
        """The direction of the step, and the memory that the next one is handed."""
        return self.search.direction(gradient), memory


def momentum(gradient, velocity, decay):
    """`gradient` over the mean size of its coordinates, plus decayed velocity.

    A gradient of zero adds nothing.
    """
    gradient = ops.where(ops.isfinite(gradient), gradient, 0.0)
    axes = tuple(range(1, len(gradient.shape)))
    size = ops.mean(ops.abs(gradient), axis=axes, keepdims=True)
    return gradient / ops.where(size > 0, size, 1.0) + decay * velocity


def mean_gradient(gradient, count, x):
    """The mean of `gradient(0)`, …, `gradient(count - 1)`, tensors like `x`.

    One after the other, in the memory of one.
    """
    total = ops.fori_loop(
        0, count, lambda index, total: total + gradient(index), ops.zeros_like(x)
    )
    return total / count


def standard_normal(x, noise):
    """Standard normal noise like `x`, from `Noise` of one copy a row."""
    return ops.cast(noise.normal(x.shape[1:])[:, 0], x.dtype)
