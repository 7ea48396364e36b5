"""Sequential inference: a label and a probabilistic certificate per row."""

import keras
import numpy as np
from keras import ops

from keras_probcert import backend, models, sequential
from keras_probcert.certifiers import voting
from keras_probcert.certifiers.decision import Decision
from keras_probcert.perturbations import Noise
from keras_probcert.perturbations import get as get_perturbation
from keras_probcert.seeds import resolve_seed, row_seeds
from keras_probcert.validation import (
    check_floating,
    check_inputs,
    check_integer,
    check_labels,
)


@keras.saving.register_keras_serializable(package="keras_probcert")
class CertifiedPredictor(keras.Model):
    """Predicts by majority vote over a vicinity, and certifies the vote.

    Perturbed copies of each input are drawn and classified until a sequential
    test on the votes decides. The *agreement* of an input is the probability of
    the most likely class among its perturbed copies. The promise of the default
    test, for each row by itself:

    - an input whose agreement is at most 1 − kappa is left without a certificate
      with probability at least 1 − alpha. What is certified is the returned
      label; that it is chosen by the same votes is accounted for;
    - an input whose agreement is at least 1 − kappa is decided not robust with
      probability at most alpha (the test's beta).

    The promise is about draws from this perturbation's law around the given
    input, not about the worst point of the vicinity. Among many inputs, a
    fraction of up to alpha of those that miss the bar may still be certified.

    What is not proven is not certified: a spent budget (undecided, or futile
    before it is spent), a copy whose
    outputs are not all finite (it votes for no class), an input that is NaN or
    outside the perturbation's `clip` (`predict` raises; inside a graph the row
    is refused).

    Args:
        model: a Keras classifier: softmax or logits `(rows, classes)`, or one
            sigmoid unit (two classes). A `VarianceMinimizingModel` will do.
        perturbation: the vicinity, a `Perturbation`; by default the one the
            model was trained with.
        kappa: the tolerated fraction of disagreeing perturbations, in (0, ½];
            0.01 by default.
        alpha: the significance level, in (0, 1); 0.01 by default.
        max_samples: the most votes a row may take. By default (to two digits)
            what certifies an agreement of `1 - 0.7 * kappa` with probability at
            least 0.99, unless it was rejected before (see `SequentialTest`):
            37,000 at kappa = alpha = 0.01.
        test: a `SequentialTest` class, called with the three values above, or an
            instance, which brings its own; `ExactTest` by default.
        forward_batch_size: perturbed copies a forward pass, a multiple of 16;
            2048 by default. It bounds memory and changes no result.
        from_logits: for a base with a single unit: whether it gives a logit (the
            threshold is 0) or a probability (½). By default a sigmoid is
            recognized, anything else is an error.
        jit_compile: whether XLA compiles the loop; on TensorFlow `False` by
            default (slower for convolutions on CPUs), on JAX it always is.
        **kwargs: passed to `keras.Model`, such as `name`.

    Raises:
        ValueError: if an argument is out of its range, the model has not exactly
            one output, or no fixed number of at least two classes.

    Example:

    >>> import keras, numpy as np
    >>> base = keras.Sequential([
    ...     keras.Input((4,)), keras.layers.Dense(3, activation="softmax")])
    >>> certified = CertifiedPredictor(base, LInf(0.1), kappa=0.1)
    >>> x = np.random.rand(5, 4).astype("float32")
    >>> result = certified.predict(x, seed=0, verbose=0)
    >>> result["label"].shape, result["votes"].shape
    ((5,), (5, 3))
    >>> bool((result["certified"] == (result["decision"] == Decision.ROBUST)).all())
    True

    Reference:

    - Section 3.2, Algorithm 2 and Table 8 of "Towards Certified Probabilistic
      Robustness with High Accuracy" (arXiv 2309.00879), with a test that is
      valid at every look (`Algorithm2Test` is the paper's own).
    """

    def __init__(
        self,
        model,
        perturbation=None,
        kappa=None,
        alpha=None,
        max_samples=None,
        test=None,
        forward_batch_size=2048,
        from_logits=None,
        jit_compile=None,
        **kwargs,
    ):
        # The base casts for itself. Casting here would round the input before
        # the noise is added, and certify another input.
        super().__init__(autocast=False, **kwargs)
        models.check_classifier(model)
        if perturbation is None:
            perturbation = getattr(model, "perturbation", None)
            if perturbation is None:
                raise ValueError(
                    "`perturbation` must be given: the model was not trained with "
                    "one. Received: perturbation=None"
                )
        self.base_model = model
        self.perturbation = get_perturbation(perturbation)
        self.test = _resolve_test(test, kappa, alpha, max_samples)
        self.forward_batch_size = check_integer(
            "forward_batch_size", forward_batch_size, least=voting.COPIES_A_SLOT
        )
        if forward_batch_size % voting.COPIES_A_SLOT or forward_batch_size > 2**19:
            raise ValueError(
                f"`forward_batch_size` must be a multiple of {voting.COPIES_A_SLOT} "
                f"and at most {2**19}. "
                f"Received: forward_batch_size={forward_batch_size}"
            )
        self.from_logits = from_logits
        self._jit_compile_argument = jit_compile
        self.jit_compile = (
            backend.STATIC_SHAPES if jit_compile is None else bool(jit_compile)
        )
        self._num_classes = None
        shape = models.row_shape(model)
        if shape is not None:
            self.build((None, *shape))

    @property
    def kappa(self):
        """The tolerated fraction of disagreeing perturbations."""
        return self.test.kappa

    @property
    def alpha(self):
        """The significance level."""
        return self.test.alpha

    @property
    def max_samples(self):
        """The most votes a row may take."""
        return self.test.max_samples

    @property
    def num_classes(self):
        """The number of classes, `None` until the base model is built."""
        return self._num_classes

    def _set_classes(self, shape):
        units = models.output_units(self.base_model, shape)
        self._threshold = None
        if units == 1:
            activation = models.last_activation(self.base_model)
            from_logits = self.from_logits
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
            inputs: float tensor, `(rows, …)`, or a dict with `inputs` and
                `seed`. A row that is not finite or not inside `clip` is refused,
                since a graph may be unable to raise.
            seed: int32 `(rows, 2)`, or `None` for fresh noise.

        Returns:
            The dict that `predict` documents, of tensors.
        """
        if isinstance(inputs, dict):
            inputs, seed = inputs["inputs"], inputs["seed"]
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

        def draw_votes(rows, first):
            noise = Noise(ops.take(seeds, rows, axis=0), voting.COPIES_A_SLOT, first)
            copies = self.perturbation.sample(ops.take(x, rows, axis=0)[:, None], noise)
            copies = ops.reshape(copies, (-1, *x.shape[1:]))
            outputs = self.base_model(copies, training=False)
            return voting.classes_from_outputs(outputs, self._threshold)

        valid = voting.row_is_valid(x, self.perturbation.clip)
        votes, num_samples, decision = voting.vote(
            draw_votes,
            ops.logical_not(valid),
            self._num_classes,
            self.test,
            self.forward_batch_size // voting.COPIES_A_SLOT,
            static_shapes=bool(self.jit_compile) or backend.STATIC_SHAPES,
        )
        lower, upper, p_value = voting.bounds(votes, num_samples, decision, self.test)
        return {
            "label": voting.labels(votes),
            "decision": decision,
            "certified": ops.equal(decision, int(Decision.ROBUST)),
            "num_samples": num_samples,
            "votes": votes,
            "lower_bound": lower,
            "upper_bound": upper,
            "p_value": p_value,
        }

    def compute_output_spec(self, inputs, seed=None):
        x = inputs["inputs"] if isinstance(inputs, dict) else inputs
        if self._num_classes is None:
            self._set_classes(tuple(x.shape[1:]))
        row = (x.shape[0],)
        return {
            "label": keras.KerasTensor(row, "int32"),
            "decision": keras.KerasTensor(row, "int32"),
            "certified": keras.KerasTensor(row, "bool"),
            "num_samples": keras.KerasTensor(row, "int32"),
            "votes": keras.KerasTensor((*row, self._num_classes), "int32"),
            "lower_bound": keras.KerasTensor(row, "float32"),
            "upper_bound": keras.KerasTensor(row, "float32"),
            "p_value": keras.KerasTensor(row, "float32"),
        }

    def predict(
        self, x, batch_size=None, verbose="auto", steps=None, callbacks=None, seed=None
    ):
        """Labels and certificates, one row per input.

        Args:
            x: float array `(rows, …)` inside the perturbation's `clip`, or a
                dataset or iterable of such batches (or of tuples that begin with
                one).
            batch_size: inputs that share a loop, 1024 by default: more keeps
                forward passes full for longer.
            verbose: Keras' progress bar: "auto", 0, 1 or 2.
            steps: for datasets, the number of batches to take.
            callbacks: Keras callbacks, for arrays.
            seed: `None` (default) for fresh noise. An int makes the run
                repeatable: row i draws from the seed `row_seeds(seed, …)[i]`,
                whatever the batches are. An int32 array `(rows, 2)` gives each
                row its own, so a single row can be repeated alone.

        Returns:
            A dict of arrays:

            - `label`: int32 `(rows,)`, the majority vote (−1 if no copy voted);
            - `decision`: int32 `(rows,)`, values of `Decision`;
            - `certified`: bool `(rows,)`, whether the decision is `ROBUST`;
            - `num_samples`: int32 `(rows,)`, votes taken;
            - `votes`: int32 `(rows, classes)`;
            - `lower_bound`, `upper_bound`: float32 `(rows,)`, bounds on the
              agreement that hold with probability at least 1 − alpha and
              1 − beta. With a test that holds alpha, a row is certified exactly
              when `lower_bound > 1 − kappa`; `Algorithm2Test` may certify
              without such a proof. 0 where nothing above ½ is shown;
            - `p_value`: float32 `(rows,)`, for the null hypothesis that the
              agreement is at most 1 − kappa; at most alpha where certified.

        Raises:
            ValueError: if `x` is empty, has no floating-point dtype, another
                shape than the model's inputs, or a value that is NaN, infinite
                or outside `clip`; or if `seed` does not fit.
        """
        batch_size = (
            1024 if batch_size is None else check_integer("batch_size", batch_size)
        )
        if _is_array(x):
            if steps is not None:
                raise ValueError("`steps` is for datasets. Received: it and an array")
            x = self._check(x)
            if isinstance(seed, (int, np.integer)) or seed is None:
                seed = row_seeds(seed, len(x))
            seed = np.asarray(resolve_seed(seed, len(x)), np.int32)
            inputs = {"inputs": x, "seed": seed}
            if len(x) <= batch_size and verbose == 0 and callbacks is None:
                # Without a dataset: of a single row's time that is a tenth.
                inputs = {k: ops.convert_to_tensor(v) for k, v in inputs.items()}
                return super().predict_on_batch(inputs)
            return super().predict(
                **backend.batches(inputs, batch_size),
                verbose=verbose,
                callbacks=callbacks,
            )
        _refuse_with_dataset(callbacks=callbacks)
        results, _, _ = self._predict_batches(x, steps, verbose, seed)
        return results

    def fit(self, *args, **kwargs):
        """Refuses: a predictor has nothing to train; train the model it wraps."""
        raise ValueError(
            "A CertifiedPredictor is not trained: call `fit` of the model it wraps. "
            "Received: a call of `fit`"
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
        """The paper's metrics on labelled inputs (Table 8).

        Args:
            x: as in `predict`; a dataset must give `(x, y)` or `(x, y, weight)`.
            y: class indices `(rows,)`, or one-hot `(rows, classes)`.
            batch_size, verbose, steps, callbacks, seed: as in `predict`.
            sample_weight: nonnegative weights `(rows,)` of the rows.
            return_dict: whether to return a dict; else a list in the order below.

        Returns:
            A dict of floats (`return_dict`), or a list of them:

            - `standard_accuracy`: the base model is right on the clean input;
            - `certified_robustness_rate`: the row is certified;
            - `certified_robust_accuracy`: it is certified, and its label right;
            - `undecided_rate`: the budget was spent without a decision;
            - `futile_rate`: it could not have been certified within the budget;
            - `mean_num_samples`: votes a row.

        Raises:
            ValueError: as in `predict`, and if `y` is missing or holds anything
                but classes.
        """
        if _is_array(x):
            x = self._check(x)
            if self._num_classes is None:
                self._set_classes(tuple(x.shape[1:]))
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
            if not (fits and sample_weight.sum() > 0):
                raise ValueError(
                    "`sample_weight` must hold one nonnegative weight a row, not all "
                    f"of them 0. Received: shape={sample_weight.shape}"
                )
        certified = results["certified"]
        rows = {
            "standard_accuracy": right,
            "certified_robustness_rate": certified,
            "certified_robust_accuracy": certified & (results["label"] == y),
            "undecided_rate": results["decision"] == Decision.UNDECIDED,
            "futile_rate": results["decision"] == Decision.FUTILE,
            "mean_num_samples": results["num_samples"],
        }
        values = {
            name: float(np.average(value, weights=sample_weight))
            for name, value in rows.items()
        }
        return values if return_dict else list(values.values())

    def _check(self, x, name="x"):
        shape = models.row_shape(self.base_model)
        x = check_inputs(x, self.perturbation.clip, shape, name)
        models.build(self.base_model, x.shape)
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
        bar = keras.utils.Progbar(steps) if verbose not in (0, "0") else None
        results, labels, right, weights, start = [], [], [], [], 0
        for index, batch in enumerate(data):
            if steps is not None and index >= steps:
                break
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
            if bar is not None:
                bar.update(index + 1, finalize=steps == index + 1)
        if not results:
            raise ValueError(
                "`x` must hold at least one row. Received: an empty dataset"
            )
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
            "perturbation": keras.saving.serialize_keras_object(self.perturbation),
            "test": keras.saving.serialize_keras_object(self.test),
            "forward_batch_size": self.forward_batch_size,
            "from_logits": self.from_logits,
            "jit_compile": self._jit_compile_argument,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        for name in ("model", "perturbation", "test"):
            config[name] = keras.saving.deserialize_keras_object(
                config[name], custom_objects=custom_objects
            )
        return cls(**config)


def _refuse_with_dataset(**arguments):
    for name, value in arguments.items():
        if value is not None:
            raise ValueError(f"`{name}` must not be given beside a dataset")


def _is_array(x):
    """Whether `x` is a batch of rows, not a dataset or an iterable of them."""
    return hasattr(x, "__array__") or isinstance(x, (list, tuple))


def _resolve_test(test, kappa, alpha, max_samples):
    if test is None:
        test = sequential.ExactTest
    if isinstance(test, type) and issubclass(test, sequential.SequentialTest):
        return test(
            0.01 if kappa is None else kappa,
            0.01 if alpha is None else alpha,
            max_samples,
        )
    if not isinstance(test, sequential.SequentialTest):
        raise ValueError(
            "`test` must be a SequentialTest, a class or an instance. "
            f"Received: test={test!r}"
        )
    for name, value in (
        ("kappa", kappa),
        ("alpha", alpha),
        ("max_samples", max_samples),
    ):
        if value not in (None, getattr(test, name)):
            raise ValueError(
                f"`{name}` must be that of `test`, {getattr(test, name)}, or be left "
                f"out. Received: {name}={value}"
            )
    return test
