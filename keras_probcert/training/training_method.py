"""What all training methods share: perturb the batch, copies, losses, objective."""

import inspect
import warnings
from collections import namedtuple

import keras
import numpy as np
from keras import ops

from keras_probcert import backend, models
from keras_probcert.perturbations import Perturbation
from keras_probcert.perturbations.noise import Noise
from keras_probcert.training.schedules import EpochClock, Schedule, check_scheduled
from keras_probcert.validation import check_inputs

# What `call` is given in a training step; inputs alone come from everything else.
_Step = namedtuple("_Step", ("x", "y"))


class TrainingMethod(keras.Model):
    """A way to train a classifier: a Keras model around a base model.

    `fit` minimizes the method's objective. `evaluate` and `predict` are the base
    model on clean inputs. Everything else is Keras': callbacks, metrics,
    `sample_weight`, `class_weight`, mixed precision, saving, distribution.

    A method says two things:

    - `forward(x, y)` makes copies of the inputs and runs the base model on them;
    - `objective(y, outputs)` makes one value a row out of what `forward` gave,
      and names the parts of it that `fit` shows beside the loss.

    Constructor arguments are kept as attributes of the same name. Those given in
    `scheduled` may be a `Schedule` instead of a number; they are read by
    `self.value(name)`, and a schedule is shown in the logs under its name.

    Args:
        model: the base model, a `keras.Model` with one output.
        clip: `(low, high)`, the valid input range; `None` for no range.
        seed: an int that fixes the noise of training; `None` (default) for
            Keras' global seed.
        scheduled: a dict from the names of arguments to numbers of at least 0 or
            `Schedule`s; `None` (default) for none.
        **kwargs: passed to `keras.Model`, such as `name`.

    Raises:
        ValueError: if the base model has not exactly one input and one output, or
            an argument is out of its range.

    Example:

    >>> import keras, numpy as np
    >>> from keras import ops
    >>> class Flipped(TrainingMethod):
    ...     '''Trains on inputs and their mirror images.'''
    ...     def forward(self, x, y):
    ...         return self.outputs_of(ops.stack([x, 1.0 - x], axis=1))
    ...     def objective(self, y, outputs):
    ...         return ops.mean(self.losses_of(y, outputs["copies"]), axis=1), {}
    >>> model = Flipped(keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]))
    >>> loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    >>> model.compile("sgd", loss, metrics=["accuracy"])
    >>> x, y = np.random.rand(8, 4).astype("float32"), np.arange(8) % 2
    >>> sorted(model.fit(x, y, verbose=0).history)
    ['accuracy', 'loss']
    """

    # The names of what `objective` shows beside the loss.
    parts = ()

    def __new__(cls, *args, **kwargs):
        method = super().__new__(cls, *args, **kwargs)
        # What a subclass passes on by **kwargs is part of its configuration too.
        method._named = tuple(kwargs)
        return method

    # What it answers is what its base model answers.
    wraps_base_model = True

    def __init__(self, model, clip=(0.0, 1.0), seed=None, scheduled=None, **kwargs):
        # The base casts for itself. Casting here would round the input before
        # the noise is added, and train around another input.
        models.check_classifier(model)
        # Keras scales the loss where this is "mixed_float16", as the base needs it.
        kwargs.setdefault("dtype", model.dtype_policy)
        super().__init__(autocast=False, **kwargs)
        self.base_model = model
        self.clip = Perturbation(clip).clip
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        for name, value in (scheduled or {}).items():
            setattr(self, name, check_scheduled(name, value))
        self._schedules = [
            name for name, v in (scheduled or {}).items() if isinstance(v, Schedule)
        ]
        self.clock = EpochClock() if self._schedules else None
        self._trackers = [
            keras.metrics.Mean(name=name) for name in (*self.parts, *self._schedules)
        ]
        self._units = None
        self._evaluates = False
        shape = models.row_shape(model)
        if shape is not None:
            self.build((None, *shape))

    # What a method says.

    def forward(self, x, y):
        """The base model's outputs in a training step.

        Args:
            x: float32 tensor, `(rows, …)`.
            y: the targets.

        Returns:
            A dict of tensors for `objective`. `"copies"`, `(rows, copies, units)`,
            are the outputs that the compiled metrics see.
        """
        raise NotImplementedError

    def objective(self, y, outputs):
        """What is minimized.

        Args:
            y: the targets.
            outputs: what `forward` returned.

        Returns:
            One value a row, `(rows,)`, and a dict of `(rows,)` values for the
            names in `parts`.
        """
        raise NotImplementedError

    # What a method builds it from.

    def seeds(self, rows):
        """Fresh int32 seeds, `(rows, 2)`, a row's its own on any device."""
        return backend.split_seed(self.seed_generator.next(), rows)

    def noise(self, x, num_copies=1):
        """Fresh `Noise` for `num_copies` copies of each row of `x`."""
        return Noise(self.seeds(ops.shape(x)[0]), num_copies)

    def outputs_of(self, copies):
        """Outputs of one pass over copies `(rows, copies, …)`, for `objective`."""
        flat = ops.reshape(copies, (-1, *copies.shape[2:]))
        outputs = self.base_model(flat, training=True)
        return {"copies": ops.reshape(outputs, (-1, copies.shape[1], self._units))}

    def losses_of(self, y, copies):
        """The compiled loss of each copy, `(rows, copies)`, without reduction."""
        loss, _ = self._compiled_loss(y)
        num_copies = copies.shape[1]
        y = ops.convert_to_tensor(ops.repeat(y, num_copies, axis=0), dtype=loss.dtype)
        copies = ops.reshape(copies, (-1, self._units))
        losses = loss.call(y, ops.convert_to_tensor(copies, dtype=loss.dtype))
        if len(losses.shape) == 0:
            raise ValueError(
                f"`loss` must give one value a row; {loss.name} gives a scalar, so "
                "the loss of a single copy cannot be told. "
                f"Received: loss={self.loss}"
            )
        losses = ops.reshape(losses, (-1, num_copies, *losses.shape[1:]))
        return ops.mean(losses, axis=tuple(range(2, len(losses.shape))))

    def log_probabilities(self, y, outputs):
        """Logarithms of class probabilities, `(…, classes)`, in the loss' dtype.

        One unit counts as the logit or probability of class 1.

        Raises:
            ValueError: if the compiled loss is not a cross-entropy, so that outputs
                need not stand for probabilities.
        """
        loss, _ = self._compiled_loss(y)
        from_logits = models.takes_logits(loss)
        binary = models.is_binary(loss) and self._units > 1
        if from_logits is None or binary:
            raise ValueError(
                f"`loss` must be a cross-entropy of Keras for {type(self).__name__}, "
                "which compares class probabilities (a binary one only for one unit). "
                f"Received: loss={self.loss}"
            )
        outputs = ops.cast(outputs, loss.dtype)
        if self._units == 1 and from_logits:
            return ops.log_sigmoid(ops.concatenate([-outputs, outputs], axis=-1))
        if from_logits:
            return ops.log_softmax(outputs, axis=-1)
        if self._units == 1:
            outputs = ops.concatenate([1.0 - outputs, outputs], axis=-1)
        # Keras' own guard.
        epsilon = keras.config.epsilon()
        return ops.log(ops.clip(outputs, epsilon, 1.0 - epsilon))

    def one_hot(self, y):
        """Targets as one-hot rows `(rows, classes)`.

        Of soft targets, the most probable class.
        """
        classes = max(self._units, 2)
        if len(y.shape) == 2 and y.shape[1] == classes:
            y = ops.argmax(y, axis=1)
        elif classes == 2 and self._units == 1:
            y = ops.cast(y, "float32") > 0.5
        y = ops.reshape(ops.cast(y, "int32"), (-1,))
        return ops.one_hot(y, classes, dtype=keras.config.floatx())

    def value(self, name):
        """The argument `name`, now: a number, or its schedule's tensor."""
        value = getattr(self, name)
        return value(self.clock.epoch) if isinstance(value, Schedule) else value

    # What Keras asks.

    def build(self, input_shape):
        models.build(self.base_model, input_shape)
        self._units = models.output_units(self.base_model, tuple(input_shape)[1:])
        self.built = True

    def train_step(self, *args):
        """Keras' own training step, its forward pass that of the method."""
        *state, data = args
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        if not self.built:
            self.build(x.shape)
        if y is None:
            raise ValueError("`y` must be given to train. Received: y=None")
        return super().train_step(*state, (_Step(x, y), y, sample_weight))

    def call(self, inputs, training=False):
        if not isinstance(inputs, _Step):
            return self.base_model(inputs, training=training)
        if self.clock is not None:
            self.clock.tick()
        x = ops.cast(check_inputs(inputs.x), "float32")
        return self.forward(x, inputs.y)

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        if not isinstance(x, _Step):
            return super().compute_loss(x, y, y_pred, sample_weight, training)
        values, parts = self.objective(y, y_pred)
        parts = {**parts, **{name: self.value(name) for name in self._schedules}}
        for tracker in self._trackers:
            part = parts[tracker.name]
            weight = sample_weight if len(ops.shape(part)) else None
            tracker.update_state(part, sample_weight=weight)

        # The compiled loss' own reduction, so that weights and distribution
        # strategies count as they do in Keras.
        loss, weight = self._compiled_loss(y)
        reduce = _PerExample("objective", loss.reduction, loss.dtype)
        total = reduce(ops.zeros_like(values), values, sample_weight)
        if weight is not None:
            total = total * weight
        for extra in self.losses:
            total = total + self._aggregate_additional_loss(extra)
        return total

    def _compiled_loss(self, y):
        """The one compiled loss object, and its weight."""
        compiled = self._compile_loss
        if compiled is None:
            raise ValueError("`loss` must be given to `compile`. Received: loss=None")
        if not (compiled.built or isinstance(self.loss, dict)):
            compiled.build(y, keras.KerasTensor((None, self._units)))
        if not compiled.built or len(compiled._flat_losses) != 1:
            raise ValueError(
                "`loss` must be a single loss, since the base has one output. "
                f"Received: loss={self.loss}"
            )
        return compiled._flat_losses[0].loss, compiled._flat_losses[0].loss_weights

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        if isinstance(x, _Step):
            copies = y_pred["copies"]
            y_pred = ops.reshape(copies, (-1, self._units))
            y, sample_weight = (
                None if v is None else ops.repeat(v, copies.shape[1], axis=0)
                for v in (y, sample_weight)
            )
            return super().compute_metrics(x.x, y, y_pred, sample_weight)
        return self._without_parts(super().compute_metrics(x, y, y_pred, sample_weight))

    def _without_parts(self, results):
        """What an evaluation gives, which has no parts."""
        names = [tracker.name for tracker in self._trackers]
        return {k: v for k, v in results.items() if k not in names}

    def get_metrics_result(self):
        results = super().get_metrics_result()
        # Keras takes the last replica's logs where these have other names.
        return self._without_parts(results) if self._evaluates else results

    def fit(self, x=None, y=None, *args, **kwargs):
        """Keras' `fit`, after a look at the data.

        Inputs must be finite and inside `clip`, targets must be classes: all of
        them in arrays (`validation_data` too), those of the first batch in a
        `tf.data.Dataset` or `PyDataset`; generators are not looked at. Otherwise a
        ValueError says what was received. A schedule that ends after training
        does is warned of.
        """
        arguments = inspect.signature(keras.Model.fit).bind(self, x, y, *args, **kwargs)
        arguments.apply_defaults()
        arguments = arguments.arguments
        validation = arguments["validation_data"]
        if isinstance(validation, (tuple, list)) and hasattr(validation[0], "dtype"):
            self._check_batch(*validation[:2], name="validation_data")
        looked_at = []
        if hasattr(x, "shape") and hasattr(x, "dtype"):
            looked_at = [(x, y)]
        elif isinstance(x, keras.utils.PyDataset):
            looked_at = [x[0]]
        elif hasattr(x, "element_spec") and hasattr(x, "take"):
            looked_at = x.take(1)
        for batch in looked_at:
            self._check_batch(*batch[:2])
            self._build_state(np.shape(batch[1]))
        if self.clock is None:
            return super().fit(x, y, *args, **kwargs)
        self._warn_of_late_schedules(arguments["epochs"])
        del arguments["self"]
        arguments["callbacks"] = self.clock.among(arguments["callbacks"], self)
        return super().fit(**arguments)

    def _warn_of_late_schedules(self, epochs):
        for name in self._schedules:
            end = getattr(self, name).end
            if end > epochs:
                warnings.warn(
                    f"the schedule of `{name}` ends at epoch {end:g}, after training "
                    f"does (epochs={epochs}): its last value is never reached",
                    stacklevel=3,
                )

    def train_on_batch(self, *args, **kwargs):
        """Keras' `train_on_batch`, in which time stands still."""
        if self.clock is not None:
            self.clock.stop()
        return super().train_on_batch(*args, **kwargs)

    def evaluate(self, x=None, *args, **kwargs):
        """Keras' `evaluate`: the base model on clean inputs."""
        _refuse_empty(x)
        self._evaluates = True
        try:
            return super().evaluate(x, *args, **kwargs)
        finally:
            self._evaluates = False

    def predict(self, x, *args, **kwargs):
        """Keras' `predict`: the base model's outputs on clean inputs."""
        _refuse_empty(x)
        return super().predict(x, *args, **kwargs)

    def _check_batch(self, x, y=None, name="x"):
        shape = models.row_shape(self.base_model)
        check_inputs(x, self.clip, shape, name)
        name = "y" if name == "x" else name
        if y is None:
            raise ValueError("`y` must be given to train. Received: y=None")
        y = np.asarray(y)
        if y.dtype.kind not in "biuf":
            raise ValueError(
                f"`{name}` must hold targets as numbers. Received: dtype={y.dtype}"
            )
        if not np.isfinite(y).all():
            raise ValueError(
                f"`{name}` must hold finite targets. Received: a NaN or infinite value"
            )
        if not self.built:
            self.build((None, *x.shape[1:]))
        sparse = y.ndim == 1 or (y.ndim == 2 and y.shape[1] == 1)
        if len(y) != len(x):
            raise ValueError(
                f"`{name}` must hold one target for each of the {len(x)} rows of x. "
                f"Received: {len(y)}"
            )
        # With one unit, other targets than classes can be meant.
        classes = max(self._units, 2)
        if sparse and (self._units > 1 or np.issubdtype(y.dtype, np.integer)):
            if y.min() < 0 or y.max() >= classes or (y != np.floor(y)).any():
                raise ValueError(
                    f"`{name}` must hold classes 0 to {classes - 1}. "
                    f"Received: values from {y.min()} to {y.max()}"
                )

    def _build_state(self, targets):
        """Makes the optimizer's variables and the metrics, as Keras does on JAX.

        Otherwise TensorFlow makes them in the training step, and traces it twice.
        Within a distribution strategy Keras makes them itself.
        """
        if getattr(self, "_distribute_strategy", None) or not self.compiled:
            return
        # Layers that only training calls are built where it does.
        built = all(layer.built for layer in self._flatten_layers())
        optimizer, variables = self.optimizer, self.trainable_variables
        if built and variables and optimizer is not None and not optimizer.built:
            optimizer.build(variables)
        metrics = self._compile_metrics
        if metrics is not None and not metrics.built:
            metrics.build(
                keras.KerasTensor((None, *targets[1:])),
                keras.KerasTensor((None, self._units)),
            )

    # Keras saves no seeds, without which a resumed run would see other noise.
    def save_own_variables(self, store):
        super().save_own_variables(store)
        store["noise"] = self.seed_generator.state.numpy()

    def load_own_variables(self, store):
        keys = list(store.keys())
        # Files of before it was saved do without.
        if "noise" in keys:
            keys.remove("noise")
            self.seed_generator.state.assign(store["noise"])
        super().load_own_variables({key: store[key] for key in keys})

    def get_config(self):
        config = {
            **super().get_config(),
            "model": keras.saving.serialize_keras_object(self.base_model),
        }
        parameters = inspect.signature(type(self).__init__).parameters.values()
        names = [p.name for p in parameters if p.kind != p.VAR_KEYWORD]
        for name in dict.fromkeys((*names, *self._named)):
            if name in config or name in ("self", "scheduled"):
                continue
            if not hasattr(self, name):
                raise ValueError(
                    f"{type(self).__name__} must keep its argument `{name}` as an "
                    "attribute of the same name, or have its own `get_config`"
                )
            config[name] = keras.saving.serialize_keras_object(getattr(self, name))
        return config

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = {
            name: keras.saving.deserialize_keras_object(
                value, custom_objects=custom_objects
            )
            if isinstance(value, dict) and name != "dtype"
            else value
            for name, value in config.items()
        }
        return cls(**config)


def _refuse_empty(x):
    # Keras dies of it with an UnboundLocalError.
    if getattr(x, "shape", (1,))[0] == 0:
        raise ValueError("`x` must hold at least one row. Received: an empty batch")


class _PerExample(keras.losses.Loss):
    """Reduces values that were computed already."""

    def call(self, y_true, y_pred):
        return y_pred
