"""What all attacks share: checks, batches, compilation, and what they may return."""

import warnings

import numpy as np
from keras import ops

from keras_probcert import backend, models
from keras_probcert.attacks import losses, norms
from keras_probcert.certifiers import CertifiedPredictor
from keras_probcert.fixed_arguments import FixedArguments
from keras_probcert.perturbations import Perturbation
from keras_probcert.seeds import resolve_seed
from keras_probcert.validation import (
    check_inputs,
    check_integer,
    check_labels,
    check_number,
)


class Attack(FixedArguments):
    """Looks for inputs near given ones that a model gets wrong.

    Called as `attack(model, x, y)`. Subclasses override `run`. What comes back

    - lies in `clip` and, where the attack has an `epsilon`, in the ball of that
      radius around `x`, in the dtype of `x`;
    - is classified otherwise than as `y` where `x` is, and else either is or has an
      `objective` at least as large as that of `x`: where a search made things worse,
      `x` comes back;
    - is, for each row, a function of the row, its label, its seed and the model:
      rows in one batch have nothing to do with each other.

    The model's logits are attacked: a softmax or sigmoid at its end is left out. Of
    a `CertifiedPredictor` it is the base model that is attacked (`CertificateAttack`s
    attack its vote).

    Args:
        epsilon: the radius of the ball, in units of the input, above 0; `None` for
            no ball.
        norm: the norm of the ball, `"linf"`, `"l2"` or `"l1"`.
        clip: `(low, high)`, the valid input range; `None` for no range.

    Raises:
        ValueError: if an argument is out of its range.

    Example:

    An attack of one's own, which goes to a corner of the ball:

    >>> import keras, numpy as np
    >>> class Corner(Attack):
    ...     def run(self, model, x, y, seeds):
    ...         return x + self.epsilon
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> x = np.full((2, 4), 0.5, "float32")
    >>> x_adv = Corner(epsilon=0.1)(model, x, y=[0, 1])
    >>> bool(np.abs(x_adv - x).max() <= 0.1 + 1e-6)
    True
    """

    # The fewest classes that the attack makes sense for.
    least_classes = 2
    # Whether inputs must be images, `(rows, height, width, channels)`.
    needs_images = False
    # Whether it needs a range of valid inputs.
    needs_clip = False
    # Whether it follows gradients, so that a model without any is worth a warning.
    uses_gradients = True
    # Whether it can be given a `CertifiedPredictor`.
    takes_predictor = True
    # Passes forward and back through the base model that one row costs, a pair;
    # `None` where nobody has counted.
    passes = None

    def __init__(self, epsilon=None, norm="linf", clip=(0.0, 1.0)):
        if epsilon is not None and check_number("epsilon", epsilon) == 0:
            raise ValueError(
                "`epsilon` must be above 0: within 0 the accuracy is the standard "
                f"accuracy. Received: epsilon={epsilon!r}"
            )
        if self.needs_clip and clip is None:
            raise ValueError(
                f"`clip` must be a pair (low, high) for {type(self).__name__}. "
                "Received: clip=None"
            )
        norms.get(norm)
        self.epsilon = epsilon
        self.norm = norm
        self.clip = Perturbation(clip).clip
        self._compiled = {}

    def run(self, model, x, y, seeds):
        """The points found, inside a graph.

        Args:
            model: a function from inputs to logits `(rows, classes)`.
            x: float32 or float64 tensor, `(rows, …)`.
            y: int32 tensor, `(rows,)`, the classes to get away from.
            seeds: int32 tensor, `(rows, 2)`, one seed a row.

        Returns:
            A tensor like `x`.
        """
        raise NotImplementedError

    def objective(self, logits, y):
        """What the attack raises, one value a row; cross-entropy by default."""
        return losses.cross_entropy(logits, y)

    def improves(self, model, found, x, y):
        """Which rows of `found` may be returned in place of `x`, bool `(rows,)`."""
        before, after = model(x), model(found)
        y = ops.cast(y, "int32")
        was_wrong, is_wrong = (
            ops.not_equal(ops.argmax(logits, axis=1), y) for logits in (before, after)
        )
        higher = self.objective(after, y) >= self.objective(before, y)
        # The objective may rise while the row becomes right.
        return is_wrong | (higher & ops.logical_not(was_wrong))

    def clamp(self, x):
        """`x` brought into `clip`."""
        return x if self.clip is None else ops.clip(x, *self.clip)

    def __call__(self, model, x, y, seed=None, batch_size=250, from_logits=None):
        """Adversarial examples for a batch of inputs.

        Args:
            model: a Keras classifier: logits or softmax `(rows, classes)`, or one
                unit (two classes); or a `CertifiedPredictor`, whose base is taken.
            x: float array `(rows, …)` inside `clip`.
            y: class indices `(rows,)`, or one-hot `(rows, classes)`: the classes
                that the rows belong to.
            seed: `None` (default) for fresh noise, an int that makes the run
                repeatable, or int32 `(rows, 2)`, a seed for each row.
            batch_size: rows that are attacked together, 250 by default; it bounds
                memory and changes no result.
            from_logits: whether the model gives logits; by default its last layer
                tells (see `models.logits`).

        Returns:
            An array of the shape and dtype of `x`.

        Raises:
            ValueError: if `x` is empty, has no floating-point dtype, another shape
                than the model's inputs or, where the attack is one on images, than
                theirs, or a value that is NaN, infinite or outside `clip`; if `y`
                does not name one class for each row; or if the model has fewer
                classes than the attack needs.
        """
        if isinstance(model, CertifiedPredictor):
            if from_logits is None:
                from_logits = model.from_logits
            model = model.base_model
        models.check_classifier(model)
        batch_size = check_integer("batch_size", batch_size)
        x = _as_numpy(check_inputs(x, self.clip, models.row_shape(model)))
        if self.needs_images and x.ndim != 4:
            raise ValueError(
                "`x` must be images, shape (rows, height, width, channels), for "
                f"{type(self).__name__}. Received: shape={x.shape}"
            )
        models.build(model, x.shape)
        classes = models.classes(model, x.shape[1:])
        if classes < self.least_classes:
            raise ValueError(
                f"`model` must have at least {self.least_classes} classes for "
                f"{type(self).__name__}. Received: {classes} classes"
            )
        y = check_labels(y, len(x), classes).astype("int32")
        seeds = np.asarray(resolve_seed(seed, len(x)), "int32")

        if self.uses_gradients:
            logits = models.logits(model, from_logits)
            _warn_of_zero_gradients(logits, wide(x[:16]), y[:16])
        return self._found(model, from_logits, x, y, seeds, batch_size)

    def _found(self, model, from_logits, x, y, seeds, batch_size):
        """What `run` finds for arrays that are checked, unless it made things worse.

        In the dtype of `x`, in the ball and in the range.
        """
        logits = models.logits(model, from_logits)

        def attack(x, y, seeds):
            return self.run(logits, x, y, seeds)

        def improves(found, x, y):
            return self.improves(logits, found, x, y)

        def in_batches(function, *arrays):
            return self._in_batches(function, model, from_logits, arrays, batch_size)

        found = self._within(in_batches(attack, wide(x), y, seeds), x)
        # In the dtype of `x`, whose rounding may make a point worse.
        kept = in_batches(improves, wide(found), wide(x), y)
        return np.where(kept.reshape(-1, *[1] * (x.ndim - 1)), found, x)

    def _in_batches(self, function, model, from_logits, arrays, batch_size):
        """`function` of the rows of `arrays`, compiled, some rows at a time."""
        shapes = tuple((a.shape[1:], a.dtype) for a in arrays)
        # What is compiled keeps the model alive, so its id stays its own.
        key = (function.__name__, id(model), from_logits, shapes)
        if key not in self._compiled:
            self._compiled[key] = _padded(backend.compiled(function, model, arrays))
        compiled = self._compiled[key]
        return np.concatenate(
            [
                compiled(*(a[i : i + batch_size] for a in arrays))
                for i in range(0, len(arrays[0]), batch_size)
            ]
        )

    def _within(self, found, x):
        """`found` in the dtype of `x`, in the ball and the range to the last digit."""
        start, point = x.astype("float64"), found.astype("float64")
        if self.epsilon is not None:
            step = point - start
            length = norms.lengths(step, self.norm).reshape(-1, *[1] * (x.ndim - 1))
            shrunk = start + step * (self.epsilon / np.maximum(length, self.epsilon))
            point = np.where(length > self.epsilon, shrunk, point)
        if self.clip is not None:
            point = np.clip(point, *self.clip)
        # Rounded towards x, so that no norm grows.
        rounded = point.astype(x.dtype)
        far = np.abs(rounded.astype("float64") - start) > np.abs(point - start)
        return np.where(far, np.nextafter(rounded, x), rounded)


def _padded(function):
    """`function` for a backend that compiles anew for each number of rows."""

    def run(*arrays):
        rows = len(arrays[0])
        if backend.STATIC_SHAPES:
            # Powers of two, so that a few sizes serve all.
            missing = (1 << (rows - 1).bit_length()) - rows
            arrays = [np.concatenate([a, np.repeat(a[:1], missing, 0)]) for a in arrays]
        return ops.convert_to_numpy(function(*arrays))[:rows]

    return run


def _as_numpy(x):
    return x if isinstance(x, np.ndarray) else ops.convert_to_numpy(x)


def wide(x):
    """`x` as searches see it: half precision has too few digits for their steps."""
    return x if x.dtype == np.float64 else x.astype("float32")


def without_gradient(logits, x, y):
    """Rows at which the gradient of the margin is zero, a bool array `(rows,)`."""
    gradient = backend.input_gradient(
        lambda x: losses.margin(logits(x), y), ops.convert_to_tensor(x)
    )
    return ~ops.convert_to_numpy(gradient).reshape(len(y), -1).any(axis=1)


def _warn_of_zero_gradients(logits, x, y):
    if without_gradient(logits, x, y).all():
        warnings.warn(
            "The gradient of the logits is zero everywhere: attacks that follow "
            "gradients say nothing about this model. Square, and VoteSearch for a "
            "vote, need none.",
            stacklevel=3,
        )
