"""Variance-minimizing training: the mean + λ·std of the loss over a vicinity."""

import contextlib
import inspect

import keras
import numpy as np
from keras import ops

from keras_probcert import backend, models
from keras_probcert.perturbations import LInf, Noise
from keras_probcert.perturbations import get as get_perturbation
from keras_probcert.validation import check_inputs, check_integer, check_number


@keras.saving.register_keras_serializable(package="keras_probcert")
class VarianceMinimizingModel(keras.Model):
    r"""Trains a classifier so that its loss hardly varies around each input.

    Each training step draws `num_samples` perturbed copies of every example,
    computes the compiled loss of each copy, \(u_1, …, u_n\), and minimizes

    \[\mu + \lambda \sigma, \quad \mu = \frac1n \sum_j u_j, \quad
      \sigma^2 = \frac1{n-1} \sum_j (u_j - \mu)^2,\]

    averaged over the batch. σ is the *sample standard deviation* over the
    copies, as in the paper's text and its authors' code; Algorithm 1, line 12,
    as printed is √(2n) times the population standard deviation. The clean input
    itself is not among the copies. Where all copies have the same loss, σ
    contributes no gradient.

    `evaluate` and `predict` are the base model on clean inputs. `fit` shows
    `loss_mean` (μ) and `loss_std` (σ) beside the loss, and computes the compiled
    metrics on the perturbed copies (there is no extra clean pass). Any Keras
    loss that gives one value a row will do, `sample_weight` and `class_weight`
    weigh examples. BatchNorm and Dropout see the copies as a batch of
    `num_samples` times as many rows.

    Args:
        model: the base model, a `keras.Model` with one output.
        perturbation: the vicinity, a `Perturbation`; `LInf(8 / 255)` by default.
        num_samples: n, perturbed copies of each example, at least 1 (2 if
            `std_weight` > 0); 10 by default.
        std_weight: λ, at least 0; 1 by default. At 0 this is training on
            random perturbations.
        chunk_size: how many copies of each example are in memory at a time;
            `None` (default) for all. The gradient is the same to float32
            rounding, for at most one more forward pass. BatchNorm is the
            exception: it normalizes, and updates its statistics, chunk by
            chunk; Dropout draws other masks; activity regularizers and
            `add_loss` in the base are not counted.
        seed: an int that fixes the noise of training; `None` (default) for
            Keras' global seed.
        **kwargs: passed to `keras.Model`, such as `name`.

    Raises:
        ValueError: if an argument is out of its range, or the base model has
            not exactly one output.

    Example:

    >>> import keras, numpy as np
    >>> x = np.random.rand(64, 4).astype("float32")
    >>> y = (x[:, 0] > 0.5).astype("int32")
    >>> base = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> model = VarianceMinimizingModel(base, LInf(0.1), num_samples=8)
    >>> loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    >>> model.compile("adam", loss, metrics=["accuracy"])
    >>> history = model.fit(x, y, verbose=0)
    >>> sorted(history.history)
    ['accuracy', 'loss', 'loss_mean', 'loss_std']

    Reference:

    - Algorithm 1 of "Towards Certified Probabilistic Robustness with High
      Accuracy" (arXiv 2309.00879).
    """

    def __init__(
        self,
        model,
        perturbation=None,
        num_samples=10,
        std_weight=1.0,
        chunk_size=None,
        seed=None,
        **kwargs,
    ):
        # The base casts for itself. Casting here would round the input before
        # the noise is added, and train around another input.
        super().__init__(autocast=False, **kwargs)
        models.check_classifier(model)
        self.base_model = model
        self.perturbation = (
            LInf(8 / 255) if perturbation is None else get_perturbation(perturbation)
        )
        self.std_weight = check_number("std_weight", std_weight)
        self.num_samples = check_integer(
            "num_samples", num_samples, least=2 if self.std_weight > 0 else 1
        )
        if chunk_size is not None:
            chunk_size = check_integer("chunk_size", chunk_size)
        self.chunk_size = chunk_size
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.mean_tracker = keras.metrics.Mean(name="loss_mean")
        self.std_tracker = keras.metrics.Mean(name="loss_std")
        # A counter: the replicas of a distribution strategy take turns inside.
        self._perturbs = 0
        self._units = None
        shape = models.row_shape(model)
        if shape is not None:
            self.build((None, *shape))

    def build(self, input_shape):
        models.build(self.base_model, input_shape)
        self._units = models.output_units(self.base_model, tuple(input_shape)[1:])
        self.built = True

    def train_step(self, *args):
        """Keras' own training step, its forward pass on perturbed copies."""
        with self._perturbing():
            return super().train_step(*args)

    @contextlib.contextmanager
    def _perturbing(self):
        self._perturbs += 1
        try:
            yield
        finally:
            self._perturbs -= 1

    def call(self, inputs, training=False):
        if not self._perturbs:
            return self.base_model(inputs, training=training)
        return self._outputs_of_copies(inputs)

    def _outputs_of_copies(self, x):
        """The base's outputs, `(rows * num_samples, …)`, copies of a row together."""
        x = ops.cast(check_inputs(x), "float32")[:, None]
        rows = ops.shape(x)[0]
        seeds = backend.split_seed(self.seed_generator.next(), rows)

        def draw(first, size):
            copies = self.perturbation.sample(x, Noise(seeds, size, first))
            return ops.reshape(copies, (-1, *x.shape[2:]))

        n, size = self.num_samples, self.chunk_size or self.num_samples
        if size >= n:
            return self.base_model(draw(0, n), training=True)
        # A subclassed base may do without the argument.
        parameters = inspect.signature(self.base_model.call).parameters
        training = {"training": True} if "training" in parameters else {}
        outputs = [
            backend.forward_in_chunks(
                self.base_model,
                lambda i, start=start, size=size: draw(start + i * size, size),
                count,
                **training,
            )
            for start, size, count in (
                (0, size, n // size),
                (n - n % size, n % size, 1),
            )
            if size
        ]
        # (chunks, rows * size, …) → (rows, chunks * size, …)
        outputs = [
            ops.moveaxis(ops.reshape(o, (o.shape[0], rows, -1, *o.shape[2:])), 0, 1)
            for o in outputs
        ]
        outputs = [ops.reshape(o, (rows, -1, *o.shape[3:])) for o in outputs]
        outputs = ops.concatenate(outputs, axis=1)
        return ops.reshape(outputs, (-1, *outputs.shape[2:]))

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        if not self._perturbs:
            return super().compute_loss(x, y, y_pred, sample_weight, training)
        loss, weight = self._compiled_loss(y, y_pred)
        losses = self._losses_of_copies(loss, y, y_pred)
        mean = ops.mean(losses, axis=1)
        std = _sample_std(losses) if self.std_weight else ops.zeros_like(mean)
        self.mean_tracker.update_state(mean, sample_weight=sample_weight)
        self.std_tracker.update_state(std, sample_weight=sample_weight)

        # The compiled loss' own reduction, so that weights and distribution
        # strategies count as they do in Keras.
        reduce = _PerExample("objective", loss.reduction, loss.dtype)
        objective = mean + self.std_weight * std
        total = reduce(ops.zeros_like(objective), objective, sample_weight)
        if weight is not None:
            total = total * weight
        for extra in self.losses:
            total = total + self._aggregate_additional_loss(extra)
        return total

    def _compiled_loss(self, y, y_pred):
        """The one compiled loss object, and its weight."""
        if y is None:
            raise ValueError("`y` must be given to train. Received: y=None")
        compiled = self._compile_loss
        if compiled is None:
            raise ValueError("`loss` must be given to `compile`. Received: loss=None")
        if not compiled.built:
            compiled.build(self._repeat(y), y_pred)
        if len(compiled._flat_losses) != 1:
            raise ValueError(
                "`loss` must be a single loss, since the base has one output. "
                f"Received: loss={self.loss}"
            )
        return compiled._flat_losses[0].loss, compiled._flat_losses[0].loss_weights

    def _losses_of_copies(self, loss, y, y_pred):
        """The loss of each copy, `(rows, num_samples)`."""
        y = ops.convert_to_tensor(self._repeat(y), dtype=loss.dtype)
        y_pred = ops.convert_to_tensor(y_pred, dtype=loss.dtype)
        losses = loss.call(y, y_pred)
        if len(losses.shape) == 0:
            raise ValueError(
                f"`loss` must give one value a row; {loss.name} gives a scalar, so "
                "the loss of a single copy cannot be told. "
                f"Received: loss={self.loss}"
            )
        losses = ops.reshape(losses, (-1, self.num_samples, *losses.shape[1:]))
        return ops.mean(losses, axis=tuple(range(2, len(losses.shape))))

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        if self._perturbs:
            y = self._repeat(y)
            if sample_weight is not None:
                sample_weight = self._repeat(sample_weight)
        return super().compute_metrics(x, y, y_pred, sample_weight)

    def get_metrics_result(self):
        results = super().get_metrics_result()
        if not self._perturbs:
            # They are of training; an evaluation has no copies.
            for tracker in (self.mean_tracker, self.std_tracker):
                results.pop(tracker.name, None)
        return results

    def _repeat(self, values):
        return ops.repeat(values, self.num_samples, axis=0)

    def fit(self, x=None, y=None, *args, **kwargs):
        """Keras' `fit`, after a look at the data.

        Inputs must be finite and inside `clip`, targets must be classes: all of
        them in arrays (`validation_data` too), those of the first batch in a
        `tf.data.Dataset` or `PyDataset`; generators are not looked at. Otherwise a
        ValueError says what was received.
        """
        validation = kwargs.get("validation_data")
        if isinstance(validation, tuple) and hasattr(validation[0], "dtype"):
            self._check_batch(*validation[:2], name="validation_data")
        if hasattr(x, "shape") and hasattr(x, "dtype"):
            self._check_batch(x, y)
        elif isinstance(x, keras.utils.PyDataset):
            self._check_batch(*x[0][:2])
        elif hasattr(x, "element_spec") and hasattr(x, "take"):
            for batch in x.take(1):
                self._check_batch(*batch[:2])
        return super().fit(x, y, *args, **kwargs)

    def evaluate(self, x=None, *args, **kwargs):
        """Keras' `evaluate`: the base model on clean inputs."""
        _refuse_empty(x)
        return super().evaluate(x, *args, **kwargs)

    def predict(self, x, *args, **kwargs):
        """Keras' `predict`: the base model's outputs on clean inputs."""
        _refuse_empty(x)
        return super().predict(x, *args, **kwargs)

    def _check_batch(self, x, y=None, name="x"):
        shape = models.row_shape(self.base_model)
        check_inputs(x, self.perturbation.clip, shape, name)
        if y is None:
            raise ValueError("`y` must be given to train. Received: y=None")
        y = np.asarray(y)
        if not self.built:
            self.build((None, *x.shape[1:]))
        sparse = y.ndim == 1 or (y.ndim == 2 and y.shape[1] == 1)
        if len(y) != len(x):
            raise ValueError(
                f"`y` must hold one target for each of the {len(x)} rows of x. "
                f"Received: {len(y)}"
            )
        # With one unit, other targets than classes can be meant.
        classes = max(self._units, 2)
        if sparse and (self._units > 1 or np.issubdtype(y.dtype, np.integer)):
            if y.min() < 0 or y.max() >= classes or (y != np.floor(y)).any():
                raise ValueError(
                    f"`y` must hold classes 0 to {classes - 1}. "
                    f"Received: values from {y.min()} to {y.max()}"
                )

    def get_config(self):
        return {
            **super().get_config(),
            "model": keras.saving.serialize_keras_object(self.base_model),
            "perturbation": keras.saving.serialize_keras_object(self.perturbation),
            "num_samples": self.num_samples,
            "std_weight": self.std_weight,
            "chunk_size": self.chunk_size,
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        for name in ("model", "perturbation"):
            config[name] = keras.saving.deserialize_keras_object(
                config[name], custom_objects=custom_objects
            )
        return cls(**config)


def _refuse_empty(x):
    # Keras dies of it with an UnboundLocalError.
    if getattr(x, "shape", (1,))[0] == 0:
        raise ValueError("`x` must hold at least one row. Received: an empty batch")


class _PerExample(keras.losses.Loss):
    """Reduces values that were computed already."""

    def call(self, y_true, y_pred):
        return y_pred


def _sample_std(losses):
    """The standard deviation over the copies, n − 1 in the denominator."""
    deviations = losses - ops.mean(losses, axis=1, keepdims=True)
    n = losses.shape[1]
    variance = ops.sum(ops.square(deviations), axis=1) / (n - 1)
    # The root's gradient at 0 is infinite, and NaN once multiplied by 0.
    varies = variance > 0
    root = ops.sqrt(ops.where(varies, variance, 1.0))
    return ops.where(varies, root, 0.0)
