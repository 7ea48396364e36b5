"""What all certifiers share: a base model asked about perturbed copies of each row."""

import itertools
import math
import warnings

import keras
import numpy as np
from keras import ops

from keras_probcert import backend, models
from keras_probcert.certifiers import voting
from keras_probcert.fixed_arguments import FixedArguments
from keras_probcert.perturbations import Noise
from keras_probcert.seeds import resolve_seed, row_seeds
from keras_probcert.validation import (
    check_bool,
    check_floating,
    check_inputs,
    check_integer,
    check_labels,
)

# A part of a forward pass has 64 copies, or more until its largest activation has
# 2 ** 20 values (found by trial) and as many as the largest weight, which each part
# reads again. So in passes of 2,048 small networks and wide dense ones go whole.
_VALUES_A_PART = 2**20
_LEAST_COPIES_A_PART = 64


class Certifier(FixedArguments, keras.Model):
    """A Keras model that answers each row with a label and a certificate.

    The common part of `CertifiedPredictor` and `SmoothedClassifier`. Subclasses say
    what becomes of the votes: `certify`, in a graph, gives the dict of results;
    `output_spec` their dtypes and shapes; `_summary` the metrics of `evaluate`.

    Args:
        model: a Keras classifier: softmax or logits `(rows, classes)`, or one
            sigmoid unit (two classes).
        perturbation: the `Perturbation` that draws the copies.
        forward_batch_size: perturbed copies a forward pass, a multiple of 16.
        from_logits: for a base with a single unit: whether it gives a logit or a
            probability; `None` where its sigmoid says so.
        jit_compile: whether XLA compiles the loop.
        **kwargs: passed to `keras.Model`, such as `name`.
    """

    # Inputs that share a loop.
    _batch_size = 1024
    # Copies of a row, where their number is fixed.
    _copies_a_row = 1

    wraps_base_model = True
    _fixed = ("base_model",)

    # What `certify` takes of each row to bound its work, int32 `(rows,)`.
    budgets = ()

    def __init__(
        self,
        model,
        perturbation,
        forward_batch_size=2048,
        from_logits=None,
        jit_compile=None,
        **kwargs,
    ):
        # The base casts for itself. Casting here would round the input before
        # the noise is added, and certify another input.
        super().__init__(autocast=False, **kwargs)
        self.base_model = model
        self.perturbation = perturbation
        self.forward_batch_size = check_integer(
            "forward_batch_size", forward_batch_size, least=voting.COPIES_A_SLOT
        )
        if forward_batch_size % voting.COPIES_A_SLOT or forward_batch_size > 2**19:
            raise ValueError(
                f"`forward_batch_size` must be a multiple of {voting.COPIES_A_SLOT} "
                f"and at most {2**19}. "
                f"Received: forward_batch_size={forward_batch_size}"
            )
        if from_logits is not None:
            check_bool("from_logits", from_logits)
        if jit_compile is not None:
            check_bool("jit_compile", jit_compile)
        self.from_logits = from_logits
        self._jit_compile_argument = jit_compile
        self.jit_compile = (
            backend.STATIC_SHAPES if jit_compile is None else bool(jit_compile)
        )
        self._num_classes = self._traced_shape = None
        self._traces = {}
        shape = models.row_shape(model)
        if shape is not None:
            self.build((None, *shape))

    @property
    def num_classes(self):
        """The number of classes, `None` until the base model is built."""
        return self._num_classes

    def _set_classes(self, shape):
        units = models.output_units(self.base_model, shape)
        self._threshold = None
        from_logits, activation = (
            self.from_logits,
            models.last_activation(self.base_model),
        )
        if from_logits and models.gives_probabilities(activation):
            raise ValueError(
                "`from_logits` must be False or None for a model that ends in a "
                f"{activation.__name__}. Received: from_logits=True"
            )
        if units == 1:
            if from_logits is None:
                if activation is not keras.activations.sigmoid:
                    raise ValueError(
                        "`from_logits` must be given for a model with a single "
                        "output unit that is no sigmoid. Received: from_logits=None"
                    )
                from_logits = False
            self._threshold = 0.0 if from_logits else 0.5
            units = 2
        self._num_classes = units

    def build(self, input_shape):
        shape = input_shape["inputs"] if isinstance(input_shape, dict) else input_shape
        models.build(self.base_model, shape)
        if self._num_classes is None:
            self._set_classes(tuple(shape)[1:])
        self.built = True

    def call(self, inputs, seed=None):
        """Certifies a batch inside a graph.

        Args:
            inputs: float tensor, `(rows, …)`, or a dict with `inputs`, `seed` and
                what else `certify` takes. A row that is not finite or not inside the
                perturbation's `clip` is refused, since a graph may be unable to
                raise.
            seed: int32 `(rows, 2)`, or `None` for fresh noise.

        Returns:
            The dict that `predict` documents, of tensors.
        """
        options = {}
        if isinstance(inputs, dict):
            options = dict(inputs)
            inputs, seed = options.pop("inputs"), options.pop("seed", seed)
        x = ops.convert_to_tensor(inputs)
        check_floating("inputs", x)
        x = ops.cast(x, "float32")
        rows = x.shape[0] if x.shape[0] is not None else ops.shape(x)[0]
        if isinstance(seed, int):
            raise ValueError(
                "`seed` must hold one int32 pair a row here; row_seeds(seed, rows) "
                f"makes them from an int. Received: seed={seed}"
            )
        seeds = ops.convert_to_tensor(resolve_seed(seed, rows), dtype="int32")
        if self._num_classes is None:
            self._set_classes(tuple(x.shape[1:]))
        refused = ops.logical_not(voting.row_is_valid(x, self.perturbation.clip))
        return self.certify(self._votes_of(x, seeds), refused, **options)

    def _votes_of(self, x, seeds, perturbation=None):
        """The `draw_votes` of `voting`, for inputs with their seeds.

        Args:
            x: float32 `(rows, …)`.
            seeds: int32 `(rows, 2)`.
            perturbation: draws the copies, by default that of the certifier.
        """
        perturbation = self.perturbation if perturbation is None else perturbation

        def draw_votes(rows, first):
            noise = Noise(backend.gather(seeds, rows), voting.COPIES_A_SLOT, first)
            inputs = backend.gather(x, rows)[:, None]
            return self._classes_in_parts(perturbation.sample(inputs, noise), inputs)

        return draw_votes

    def _classes_in_parts(self, copies, inputs):
        """`_classes_of`, a part of the slots at a time where that is faster."""
        slots = self._slots_a_part()
        # For XLA all parts of all passes would have to be as large as each other.
        if self._static_shapes or self._slots < 2 * slots:
            return self._classes_of(copies, inputs)
        return backend.side_by_side(self._classes_of, (copies, inputs), slots)

    def _slots_a_part(self):
        weights = (math.prod(w.shape) for w in self.base_model.weights)
        values = max([_VALUES_A_PART, *weights])
        copies = values // models.largest_activation(self.base_model)
        return max(_LEAST_COPIES_A_PART, copies) // voting.COPIES_A_SLOT

    def _classes_of(self, copies, inputs):
        """What each copy votes for, int32 `(slots * COPIES_A_SLOT,)`.

        Args:
            copies: `(slots, COPIES_A_SLOT, …)`.
            inputs: what they are copies of, `(slots, 1, …)`.
        """
        copies = ops.reshape(copies, (-1, *inputs.shape[2:]))
        outputs = self.base_model(copies, training=False)
        return voting.classes_from_outputs(outputs, self._threshold)

    def certify(self, draw_votes, refused):
        """The results of a batch, in a graph.

        Args:
            draw_votes: a function of rows and sample indices to the classes of
                `voting.COPIES_A_SLOT` copies each, see `voting.vote`.
            refused: bool `(rows,)`: rows that get no vote.
        """
        raise NotImplementedError

    def output_spec(self, row):
        """What `certify` returns, as `KerasTensor`s; `row` is `(rows,)`."""
        raise NotImplementedError

    def compute_output_spec(self, inputs, seed=None):
        x = inputs["inputs"] if isinstance(inputs, dict) else inputs
        if self._num_classes is None:
            self._set_classes(tuple(x.shape[1:]))
        return self.output_spec((x.shape[0],))

    @property
    def _slots(self):
        """Slots of `voting.COPIES_A_SLOT` copies a forward pass."""
        return self.forward_batch_size // voting.COPIES_A_SLOT

    @property
    def _static_shapes(self):
        return bool(self.jit_compile) or backend.STATIC_SHAPES

    def predict(
        self, x, batch_size=None, verbose="auto", steps=None, callbacks=None, seed=None
    ):
        """The dict of `call`, of arrays, one row per input."""
        batch_size = (
            self._batch_size
            if batch_size is None
            else check_integer("batch_size", batch_size)
        )
        # A loop counts its copies in int32.
        batch_size = min(batch_size, max(1, 2**31 // self._copies_a_row))
        if is_array(x):
            if steps is not None:
                raise ValueError("`steps` is for datasets. Received: it and an array")
            x = self._check(x)
            self._choose_trace(str(x.shape[1:]))
            inputs = {"inputs": x, "seed": self._row_seeds(seed, len(x))}
            if len(x) <= batch_size and verbose == 0 and callbacks is None:
                # Without a dataset: of a single row's time that is a tenth.
                inputs = {k: ops.convert_to_tensor(v) for k, v in inputs.items()}
                results = super().predict_on_batch(inputs)
            else:
                results = super().predict(
                    **backend.batches(inputs, batch_size),
                    verbose=verbose,
                    callbacks=callbacks,
                )
            return self._finish(results, verbose)
        _refuse_with_dataset(callbacks=callbacks)
        results, _, _ = self._predict_batches(x, steps, verbose, seed)
        return results

    def _choose_trace(self, shape):
        """Has Keras trace rows of each shape by themselves.

        Of two shapes it would make one of open sizes, for which TensorFlow can draw
        no noise.
        """
        if backend.STATIC_SHAPES:
            return
        if self._traced_shape not in (None, shape):
            self._traces[self._traced_shape] = self.predict_function
            self.predict_function = self._traces.get(shape)
        self._traced_shape = shape

    def _row_seeds(self, seed, num_rows):
        """`seed` as an int32 array, `(rows, 2)`, drawn here where it is `None`."""
        seed = row_seeds(seed, num_rows) if seed is None else seed
        return np.asarray(resolve_seed(seed, num_rows), np.int32)

    def _finish(self, results, verbose):
        """What `predict` makes of the arrays that `certify` gave for an array."""
        return results

    def _warn_of_lost_votes(self, given, drawn, stacklevel=5):
        """Warns of copies that voted for no class.

        Args:
            given: how many voted.
            drawn: how many could have.
            stacklevel: of the caller of `predict`.
        """
        if given < drawn:
            warnings.warn(
                f"The base model's outputs are not finite on {1 - given / drawn:.2%} "
                "of the noisy copies, which then vote for no class. Noise leaves the "
                "input range: if preprocessing inside the base model refuses such "
                "values, let it clip them (the certificate is then of the clipping "
                "model; noise that is truncated before the model has no certificate).",
                stacklevel=stacklevel,
            )

    def fit(self, *args, **kwargs):
        """Refuses: a certifier has nothing to train; train the model it wraps."""
        raise ValueError(
            f"A {type(self).__name__} is not trained: call `fit` of the model it "
            "wraps. Received: a call of `fit`"
        )

    def evaluate(
        self,
        x,
        y=None,
        batch_size=None,
        verbose="auto",
        sample_weight=None,
        steps=None,
        callbacks=None,
        return_dict=False,
        seed=None,
    ):
        """Metrics on labelled inputs, by name in the class's documentation.

        Args:
            x: as in `predict`; a dataset must give `(x, y)` or `(x, y, weight)`.
            y: class indices `(rows,)`, or one-hot `(rows, classes)`.
            batch_size, verbose, steps, callbacks, seed: as in `predict`.
            sample_weight: nonnegative weights `(rows,)` of the rows.
            return_dict: whether to return a dict of floats; else a list of them.

        Raises:
            ValueError: as in `predict`, and if `y` is missing or holds anything but
                classes.
        """
        if is_array(x):
            x = self._check(x)
            y = check_labels(y, len(x), self._num_classes)
            results = self.predict(x, batch_size, verbose, steps, callbacks, seed)
            right = self._is_right(x, y)
        else:
            _refuse_with_dataset(y=y, sample_weight=sample_weight, callbacks=callbacks)
            results, y, (right, sample_weight) = self._predict_batches(
                x, steps, verbose, seed, labelled=True
            )
        if sample_weight is not None:
            sample_weight = np.asarray(sample_weight, np.float64)
            fits = sample_weight.shape == right.shape and (sample_weight >= 0).all()
            if not (fits and 0 < sample_weight.sum() < np.inf):
                raise ValueError(
                    "`sample_weight` must hold one finite nonnegative weight a row, "
                    f"not all of them 0. Received: shape={sample_weight.shape}, sum "
                    f"{sample_weight.sum()}"
                )
        values = {
            name: float(np.average(value, weights=sample_weight))
            for name, value in self._summary(results, y, right).items()
        }
        return values if return_dict else list(values.values())

    def _summary(self, results, y, right):
        """What `evaluate` averages: a dict of one number a row.

        Args:
            results: what `predict` gave.
            y: class indices `(rows,)`.
            right: bool `(rows,)`, whether the base model is right on clean inputs.
        """
        raise NotImplementedError

    def _check(self, x, name="x"):
        shape = models.row_shape(self.base_model)
        x = check_inputs(x, self.perturbation.clip, shape, name)
        self.perturbation.check_shape(x.shape[1:])
        if not self.built:
            self.build(x.shape)
        return np.asarray(ops.convert_to_numpy(x), np.float32)

    def _is_right(self, x, y):
        """Whether the base model is right on each clean input."""
        labels = [
            voting.classes_from_outputs(
                self.base_model(
                    ops.convert_to_tensor(x[i : i + self.forward_batch_size]),
                    training=False,
                ),
                self._threshold,
            )
            for i in range(0, len(x), self.forward_batch_size)
        ]
        return np.concatenate([ops.convert_to_numpy(c) for c in labels]) == y

    def _predict_batches(self, data, steps, verbose, seed, labelled=False):
        """`predict` on each batch of a dataset, with what evaluating needs."""
        if seed is not None and not isinstance(seed, (int, np.integer)):
            raise ValueError("`seed` must be an int or None for a dataset")
        seed = np.random.SeedSequence().entropy if seed is None else seed
        bar = keras.utils.Progbar(steps, verbose=1 if verbose == "auto" else verbose)
        results, labels, right, weights, start = [], [], [], [], 0
        # No batch more than that: what feeds them may have none, or another use.
        for index, batch in enumerate(itertools.islice(data, steps)):
            batch = batch if isinstance(batch, (tuple, list)) else (batch,)
            x = self._check(batch[0])
            seeds = row_seeds(seed, len(x), start)
            results.append(self.predict(x, len(x), verbose=0, seed=seeds))
            start += len(x)
            if labelled:
                y = check_labels(
                    batch[1] if len(batch) > 1 else None, len(x), self._num_classes
                )
                labels.append(y)
                right.append(self._is_right(x, y))
                weights.append(
                    np.asarray(batch[2]) if len(batch) > 2 else np.ones(len(x))
                )
            if steps is None or index + 1 < steps:
                bar.update(index + 1)
        if not results:
            raise ValueError(
                "`x` must hold at least one row. Received: an empty dataset"
            )
        bar.target = len(results)
        bar.update(len(results), finalize=True)
        joined = {
            name: np.concatenate([r[name] for r in results]) for name in results[0]
        }
        if not labelled:
            return joined, None, None
        return (
            joined,
            np.concatenate(labels),
            (np.concatenate(right), np.concatenate(weights)),
        )

    def export(self, filepath, invalid="error"):
        """Writes a TensorFlow SavedModel for TF Serving.

        See `keras_probcert.certifiers.export.export` for its signatures.

        Args:
            filepath: the folder to write, for TF Serving `…/model-name/1`.
            invalid: what becomes of a request with an invalid row (NaN,
                infinite, or outside `clip`): `"error"` (default) answers
                INVALID_ARGUMENT, `"refuse"` refuses that row alone, for servers
                that batch the requests of different clients.

        Raises:
            RuntimeError: on another backend than TensorFlow.
            ValueError: if `invalid` is something else, or the base model was
                never built.
        """
        if keras.backend.backend() != "tensorflow":
            raise RuntimeError(
                "`export` writes a TensorFlow SavedModel and needs "
                "KERAS_BACKEND=tensorflow. Save to `.keras` here and export there. "
                f"Received: KERAS_BACKEND={keras.backend.backend()}"
            )
        from keras_probcert.certifiers.export import export

        export(self, filepath, invalid)

    def get_config(self):
        return {
            **super().get_config(),
            "model": keras.saving.serialize_keras_object(self.base_model),
            "forward_batch_size": self.forward_batch_size,
            "from_logits": self.from_logits,
            "jit_compile": self._jit_compile_argument,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = {
            name: keras.saving.deserialize_keras_object(
                value, custom_objects=custom_objects
            )
            if isinstance(value, dict) and "class_name" in value and name != "dtype"
            else value
            for name, value in config.items()
        }
        return cls(**config)


def _refuse_with_dataset(**arguments):
    for name, value in arguments.items():
        if value is not None:
            raise ValueError(f"`{name}` must not be given beside a dataset")


def is_array(x):
    """Whether `x` is a batch of rows, not a dataset or an iterable of them."""
    return hasattr(x, "__array__") or isinstance(x, (list, tuple))
