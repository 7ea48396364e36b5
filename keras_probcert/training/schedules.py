"""Schedules: arguments of a training method that change from epoch to epoch."""

import numbers
import warnings

import keras
from keras import ops

from keras_probcert.validation import check_number


class Schedule:
    """A number that follows the epochs of training.

    Given to a training method in place of a number, it is evaluated in every
    step, shown in the logs (and so in TensorBoard) under the argument's name, and
    goes on where it was when training is resumed. Only `fit` moves time, not
    `train_on_batch`. Time is counted in epochs,
    parts of an epoch included: step i of s in epoch e (both from 0) is e + i/s;
    where the number of steps is not known, it stands still during an epoch, of
    which `fit` warns.

    Subclasses implement `__call__` and, where they have arguments of their own,
    `get_config`.

    Args:
        start: the epoch it starts at, at least 0.
        length: how many epochs it takes, more than 0.

    Raises:
        ValueError: if an argument is out of its range.

    Example:

    A schedule of one's own:

    >>> class Quadratic(Schedule):
    ...     def __call__(self, epoch):
    ...         return self.progress(epoch) ** 2
    >>> float(Quadratic(start=0, length=10)(5))
    0.25
    """

    def __init__(self, start, length):
        self.start = check_number("start", start)
        self.length = check_number("length", length)
        if not self.length > 0:
            raise ValueError(f"`length` must be more than 0. Received: length={length}")

    @property
    def end(self):
        """The epoch from which on it does not change."""
        return self.start + self.length

    def __call__(self, epoch):
        """The value at `epoch`, a float scalar (a tensor where that is one)."""
        raise NotImplementedError

    def progress(self, epoch):
        """The part of the schedule that is over at `epoch`, in [0, 1]."""
        epoch = ops.convert_to_tensor(epoch, dtype="float32")
        return ops.clip((epoch - self.start) / self.length, 0.0, 1.0)

    def check(self, name, least):
        """Checks that no value is below `least`.

        Looks at both ends, between which a schedule goes one way.

        Raises:
            ValueError: if one is, naming the argument `name`.
        """
        for epoch in (0.0, self.end):
            check_number(name, float(self(epoch)), least)

    def get_config(self):
        return {"start": self.start, "length": self.length}

    @classmethod
    def from_config(cls, config):
        return cls(**config)

    def __repr__(self):
        arguments = ", ".join(f"{k}={v!r}" for k, v in self.get_config().items())
        return f"{type(self).__name__}({arguments})"


@keras.saving.register_keras_serializable(package="keras_probcert")
class LinearRamp(Schedule):
    """From one value to another in a straight line.

    Args:
        first: the value until `start`.
        last: the value from `start + length` on.
        length: how many epochs it takes, more than 0.
        start: the epoch it starts at, at least 0; 0 by default.

    Raises:
        ValueError: if an argument is out of its range.

    Example:

    >>> ramp = LinearRamp(1.0, 0.5, length=10)
    >>> [round(float(ramp(epoch)), 2) for epoch in (0.0, 5.0, 20.0)]
    [1.0, 0.75, 0.5]

    Reference:

    - Gowal et al., "On the Effectiveness of Interval Bound Propagation for
      Training Verifiably Robust Models" (arXiv 1810.12715), its κ and ε.
    """

    def __init__(self, first, last, length, start=0.0):
        super().__init__(start, length)
        self.first = check_number("first", first, least=None)
        self.last = check_number("last", last, least=None)

    def __call__(self, epoch):
        return self.first + (self.last - self.first) * self.progress(epoch)

    def get_config(self):
        return {"first": self.first, "last": self.last, **super().get_config()}


@keras.saving.register_keras_serializable(package="keras_probcert")
class SmoothedRamp(Schedule):
    r"""From 0 to a value, slowly at first: a power of time, then a straight line.

    With \(s\) the part of the schedule that is over, the value is proportional to
    \(s^4\) up to \(s = 1/4\) and from there linear with the same slope.

    Args:
        last: the value from `start + length` on.
        length: how many epochs it takes, more than 0.
        start: the epoch it starts at, at least 0; 0 by default.

    Raises:
        ValueError: if an argument is out of its range.

    Example:

    >>> ramp = SmoothedRamp(0.3, length=20, start=1)
    >>> [round(float(ramp(epoch)), 4) for epoch in (1.0, 6.0, 21.0)]
    [0.0, 0.0231, 0.3]

    Reference:

    - Shi, Wang, Zhang, Yi and Hsieh, "Fast Certified Robust Training with Short
      Warmup" (NeurIPS 2021), whose ε follows auto_LiRPA's `SmoothedScheduler`
      (β = 4, its middle at a quarter).
    """

    def __init__(self, last, length, start=0.0):
        super().__init__(start, length)
        self.last = check_number("last", last)

    def __call__(self, epoch):
        middle, power = 0.25, 4
        s = self.progress(epoch)
        slope = power * middle ** (power - 1)
        curve = ops.minimum(s, middle) ** power + slope * ops.maximum(s - middle, 0.0)
        return self.last * curve / (middle**power + slope * (1 - middle))

    def get_config(self):
        return {"last": self.last, **super().get_config()}


def check_scheduled(name, value, least=0.0):
    """`value` itself, a `Schedule` or a number, nowhere below `least`."""
    if isinstance(value, Schedule):
        value.check(name, least)
        return value
    if not isinstance(value, numbers.Real):
        raise ValueError(
            f"`{name}` must be a finite number of at least {least:g}, or a Schedule. "
            f"Received: {name}={value!r}"
        )
    return check_number(name, value, least)


def check_radius(name, value, clip):
    """Checks that an L∞ radius or its `Schedule` is not wider than the range."""
    last = float(value(value.end)) if isinstance(value, Schedule) else value
    if clip is not None and last > clip[1] - clip[0]:
        raise ValueError(
            f"`{name}` must be in units of the input, at most the width of the valid "
            f"input range clip={clip}. Received: {name}={value!r}"
        )


class EpochClock(keras.layers.Layer):
    """Tells a training step the time in epochs, in a variable.

    A callback sets it at the beginning of each epoch, so that a resumed run
    starts at the right time; each step moves it on.
    """

    def __init__(self):
        super().__init__(name="clock", dtype="float32", trainable=False)
        self.built = True
        # A step's replicas all write the same.
        self.epoch, self.step = (
            self.add_weight(
                name=name,
                shape=(),
                initializer="zeros",
                trainable=False,
                # Half precision would lose a step's part of an epoch.
                autocast=False,
                aggregation="only_first_replica",
            )
            for name in ("epoch", "step")
        )

    def tick(self):
        """Moves on by one step; called at the step's beginning."""
        # The first step of an epoch is at its beginning.
        self.epoch.assign(self.epoch + self.step)

    def stop(self):
        """Lets time stand still in the steps to come."""
        self.step.assign(0.0)

    def among(self, callbacks, model):
        """`callbacks` and the one that sets the clock."""
        setter = _ClockSetter(self)
        if isinstance(callbacks, keras.callbacks.CallbackList):
            setter.set_model(model)
            setter.set_params(callbacks.params)
            callbacks.callbacks.insert(0, setter)
            return callbacks
        if not isinstance(callbacks, (list, tuple)):
            callbacks = [] if callbacks is None else [callbacks]
        # Before the others, which may look at it.
        return [setter, *callbacks]


class _ClockSetter(keras.callbacks.Callback):
    def __init__(self, clock):
        super().__init__()
        self.clock = clock

    def on_epoch_begin(self, epoch, logs=None):
        steps = self.params.get("steps")
        if not steps:
            warnings.warn(
                f"epoch {epoch} has an unknown number of steps: schedules stand still "
                "in it. Give `steps_per_epoch`",
                stacklevel=2,
            )
        step = 1 / steps if steps else 0.0
        self.clock.epoch.assign(epoch - step)
        self.clock.step.assign(step)
