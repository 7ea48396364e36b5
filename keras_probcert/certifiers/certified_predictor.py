"""Sequential inference: a label and a probabilistic certificate per row."""

import keras
from keras import ops

from keras_probcert import backend, models, sequential
from keras_probcert.certifiers import voting
from keras_probcert.certifiers.certifier import Certifier
from keras_probcert.certifiers.decision import Decision
from keras_probcert.perturbations import get as get_perturbation


@keras.saving.register_keras_serializable(package="keras_probcert")
class CertifiedPredictor(Certifier):
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
            what certifies an agreement of `1 - 0.7 * kappa` with probability
            about 0.98 (see `ExactTest`):
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

    budgets = ("max_samples", "max_passes")

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
        models.check_classifier(model)
        if perturbation is None:
            perturbation = getattr(model, "perturbation", None)
            if perturbation is None:
                raise ValueError(
                    "`perturbation` must be given: the model was not trained with "
                    "one. Received: perturbation=None"
                )
        test = _resolve_test(test, kappa, alpha, max_samples)
        super().__init__(
            model,
            get_perturbation(perturbation),
            forward_batch_size,
            from_logits,
            jit_compile,
            **kwargs,
        )
        self.test = test
        self._advance = {}

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

    def certify(
        self,
        draw_votes,
        refused,
        votes=None,
        num_samples=None,
        max_samples=None,
        max_passes=None,
    ):
        """The results of a batch, in a graph.

        Args:
            draw_votes, refused: see `Certifier.certify`.
            votes, num_samples: of rows that an earlier run left undecided: int32
                `(rows, classes)` and `(rows,)`. With the same seeds this goes on
                where that stopped.
            max_samples: int32 `(rows,)`: the most votes each row may have in all; a
                row that reaches it without a decision is undecided.
            max_passes: int32 `(rows,)`: the most forward passes before a row is left
                undecided, whether they were spent on it or on others.
        """
        start = None if votes is None else (votes, num_samples)
        votes, num_samples, decision = voting.vote(
            draw_votes,
            refused,
            self.num_classes,
            self.test,
            self._slots,
            self._static_shapes,
            start,
            max_samples,
            max_passes,
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

    def advance(self, x, seed, votes, num_samples, max_samples):
        """Certificates of rows that may have votes already, a turn further on.

        Args:
            x: float32 array `(rows, …)`; a row that is not valid is refused.
            seed: int32 `(rows, 2)`, the same at each turn of a row.
            votes, num_samples, max_samples: see `certify`.

        Returns:
            The dict of `predict`; rows that have `max_samples` votes and no decision
            are undecided.
        """
        arrays = x, seed, votes, num_samples, max_samples
        arrays = [ops.convert_to_tensor(a) for a in arrays]
        # Of a model that takes rows of any shape, one for each.
        shape = str(x.shape[1:])
        if shape not in self._advance:
            names = "inputs", "seed", "votes", "num_samples", "max_samples"

            def certificates(*arrays):
                return self.call(dict(zip(names, arrays, strict=True)))

            self._advance[shape] = backend.compiled(
                certificates, self, arrays, self.jit_compile
            )
        found = self._advance[shape](*arrays)
        return {name: ops.convert_to_numpy(value) for name, value in found.items()}

    def output_spec(self, row):
        return {
            "label": keras.KerasTensor(row, "int32"),
            "decision": keras.KerasTensor(row, "int32"),
            "certified": keras.KerasTensor(row, "bool"),
            "num_samples": keras.KerasTensor(row, "int32"),
            "votes": keras.KerasTensor((*row, self.num_classes), "int32"),
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
        return super().predict(x, batch_size, verbose, steps, callbacks, seed)

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
        return super().evaluate(
            x,
            y,
            batch_size,
            verbose,
            sample_weight,
            steps,
            callbacks,
            return_dict,
            seed,
        )

    def _summary(self, results, y, right):
        certified = results["certified"]
        return {
            "standard_accuracy": right,
            "certified_robustness_rate": certified,
            "certified_robust_accuracy": certified & (results["label"] == y),
            "undecided_rate": results["decision"] == Decision.UNDECIDED,
            "futile_rate": results["decision"] == Decision.FUTILE,
            "mean_num_samples": results["num_samples"],
        }

    def get_config(self):
        return {
            **super().get_config(),
            "perturbation": keras.saving.serialize_keras_object(self.perturbation),
            "test": keras.saving.serialize_keras_object(self.test),
        }


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
