"""Double-sampling randomized smoothing: radii from votes under two noises."""

import math
import warnings

import keras
import numpy as np
from keras import ops

from keras_probcert import models
from keras_probcert.certifiers import voting
from keras_probcert.certifiers.certifier import Certifier
from keras_probcert.certifiers.dsrs import DoubleSampling, check_positive
from keras_probcert.certifiers.smoothed_classifier import SmoothedClassifier
from keras_probcert.perturbations import GeneralizedGaussian, Noise
from keras_probcert.sequential.clopper_pearson import lower_bound_of
from keras_probcert.validation import check_fraction, check_integer


@keras.saving.register_keras_serializable(package="keras_probcert")
class DSRSClassifier(Certifier):
    r"""Certifies the most likely class under noise, with votes under a second noise.

    The smoothed classifier g answers with the class that the base model is most likely
    to give under generalized Gaussian noise P (see `GeneralizedGaussian`). For each
    row by itself, with probability at least 1 − alpha over the noise that is drawn,
    the row is abstained on, or g answers with `label` on the whole open L2 ball of
    radius `radius` around the input, which may reach beyond the valid input range.

    `n0` copies under P choose the class (their votes are not counted). Of `n` others
    under P and `n` under the second noise Q, Clopper and Pearson's lower bounds at
    level alpha / 2 each,

    \[P_A \ge \underline{p}, \qquad Q_A \ge \underline{q},\]

    hold together with probability at least 1 − alpha, whatever class was chosen, since
    the three sets of copies are independent. The radius is the largest at which no
    classifier of at least these probabilities can fall to ½ under the shifted P
    (`DoubleSampling`), and never less than the Neyman-Pearson radius of
    \(\underline{p}\) alone. Upper bounds would not be used, so no part of alpha is
    spent on them.

    Votes are counted on the device; the radii come from the host, about a tenth of a
    second for each new pair of counts. So inside a graph (`call`) there are votes
    alone, and there is no `export`.

    Args:
        model: a Keras classifier: softmax or logits `(rows, classes)`, or one
            sigmoid unit (two classes). It should be trained under the noise P, as by
            `training.get("da")` with a `GeneralizedGaussian`.
        sigma: σ of P, the standard deviation of each coordinate, in units of the
            input, more than 0; by default that of the noise of `model`.
        k: the exponent of P and Q, at least 0 and less than half the number of
            coordinates; by default that of the noise of `model`. The smaller d/2 − k,
            the larger the gain over the Neyman-Pearson radius: 380 for MNIST and 1530
            for CIFAR-10 in the paper.
        second_sigma: σ of Q, in (0, σ); 0.8 σ by default.
        truncate: in place of `second_sigma`: T, in units of the input: Q is P, given
            that its norm is at most T.
        n0: copies that choose the class, 100 by default.
        n: copies under each of P and Q, 50,000 by default.
        alpha: the significance level, in (0, 1); 0.001 by default.
        forward_batch_size, from_logits, jit_compile, **kwargs: see
            `SmoothedClassifier`.

    `evaluate` gives the metrics of `SmoothedClassifier.evaluate`.

    Raises:
        ValueError: if an argument is out of its range, `n` is too small to certify
            anything at `alpha`, or the model has not exactly one output with a fixed
            number of at least two classes.

    Example:

    >>> import keras, numpy as np
    >>> base = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
    >>> smoothed = DSRSClassifier(base, sigma=0.5, k=2, n=500)
    >>> x = np.random.rand(5, 8).astype("float32")
    >>> result = smoothed.predict(x, seed=0, verbose=0)
    >>> result["label"].shape, result["second_votes"].shape
    ((5,), (5, 3))
    >>> bool((result["radius"] >= result["neyman_pearson_radius"]).all())
    True

    Reference:

    - Li, Zhang, Xie and Li, "Double Sampling Randomized Smoothing" (ICML 2022),
      algorithm 2.
    """

    # Copies that share a loop: enough to fill it, few enough to show progress.
    _copies_a_batch = 2**20

    def __init__(
        self,
        model,
        sigma=None,
        k=None,
        second_sigma=None,
        truncate=None,
        n0=100,
        n=50_000,
        alpha=0.001,
        forward_batch_size=2048,
        from_logits=None,
        jit_compile=None,
        **kwargs,
    ):
        models.check_classifier(model)
        sigma, k = _noise_of(model, sigma, k)
        if truncate is None:
            second_sigma = 0.8 * sigma if second_sigma is None else second_sigma
            second_sigma = check_fraction("second_sigma", second_sigma, sigma)
        elif second_sigma is not None:
            raise ValueError(
                "`truncate` must not be given beside `second_sigma`. "
                f"Received: second_sigma={second_sigma}, truncate={truncate}"
            )
        n0, n = check_integer("n0", n0), check_integer("n", n)
        alpha = check_fraction("alpha", alpha)
        if not (alpha / 2) ** (1 / n) > 0.5:
            needed = math.floor(math.log(alpha / 2) / math.log(0.5)) + 1
            raise ValueError(
                "`n` must be large enough for unanimous votes to certify: at least "
                f"{needed} for alpha={alpha}. Received: n={n}"
            )
        super().__init__(
            model,
            GeneralizedGaussian(sigma, k),
            forward_batch_size,
            from_logits,
            jit_compile,
            **kwargs,
        )
        self.second_perturbation = GeneralizedGaussian(
            sigma if second_sigma is None else second_sigma, k, truncate=truncate
        )
        self.sigma, self.k = sigma, k
        self.second_sigma, self.truncate = second_sigma, truncate
        self.n0, self.n, self.alpha = n0, n, alpha
        self._pair, self._radii = None, {}
        if self.built:
            self._double_sampling()

    def _set_classes(self, shape):
        super()._set_classes(shape)
        self._dimension = math.prod(shape)

    def build(self, input_shape):
        super().build(input_shape)
        if hasattr(self, "_pair"):  # Built after it was made.
            self._double_sampling()

    def _double_sampling(self):
        if self._pair is None:
            self._pair = DoubleSampling(
                self.sigma, self.k, self._dimension, self.second_sigma, self.truncate
            )
        return self._pair

    @property
    def _batch_size(self):
        return max(1, self._copies_a_batch // (self.n0 + 2 * self.n))

    def _votes_of(self, x, seeds):
        """The `draw_votes` of `voting` under P and under Q."""

        def under(perturbation):
            def draw_votes(rows, first):
                noise = Noise(
                    ops.take(seeds, rows, axis=0), voting.COPIES_A_SLOT, first
                )
                copies = perturbation.sample(ops.take(x, rows, axis=0)[:, None], noise)
                copies = ops.reshape(copies, (-1, *x.shape[1:]))
                outputs = self.base_model(copies, training=False)
                return voting.classes_from_outputs(outputs, self._threshold)

            return draw_votes

        return under(self.perturbation), under(self.second_perturbation)

    def certify(self, draw_votes, refused):
        """The votes; `predict` adds what follows from them."""
        first, second = draw_votes
        shared = (self.num_classes,)
        sizes = (self._slots, self._static_shapes)
        votes = voting.count(first, refused, *shared, (self.n0, self.n), *sizes)
        # The sample indices go on: none is used under both noises.
        second_votes = voting.count(
            second, refused, *shared, (self.n,), *sizes, self._second_start
        )
        num_samples = ops.where(refused, 0, self.n0 + 2 * self.n)
        return {
            "guess": voting.labels(votes[:, 0]),
            "num_samples": ops.cast(num_samples, "int32"),
            "votes": votes[:, 1],
            "second_votes": second_votes[:, 0],
        }

    @property
    def _second_start(self):
        slot = voting.COPIES_A_SLOT
        return -(-(self.n0 + self.n) // slot) * slot

    def output_spec(self, row):
        votes = (*row, self.num_classes)
        return {
            "guess": keras.KerasTensor(row, "int32"),
            "num_samples": keras.KerasTensor(row, "int32"),
            "votes": keras.KerasTensor(votes, "int32"),
            "second_votes": keras.KerasTensor(votes, "int32"),
        }

    def predict(
        self, x, batch_size=None, verbose="auto", steps=None, callbacks=None, seed=None
    ):
        """Labels and radii, one row per input.

        Args:
            x: float array `(rows, …)`, or a dataset or iterable of such batches (or
                of tuples that begin with one).
            batch_size: inputs that share a loop; by default what makes about a
                million copies. It changes no result.
            verbose, steps, callbacks, seed: see `CertifiedPredictor.predict`.

        Returns:
            A dict of arrays:

            - `label`: int32 `(rows,)`, the class, −1 where abstained;
            - `radius`: float32 `(rows,)`, 0 where abstained;
            - `certified`: bool `(rows,)`, not abstained;
            - `guess`: int32 `(rows,)`, what the first `n0` copies chose;
            - `num_samples`: int32 `(rows,)`, copies drawn, `n0 + 2 * n`;
            - `votes`, `second_votes`: int32 `(rows, classes)`, of the `n` copies
              under P and under Q;
            - `lower_bound`, `second_lower_bound`: float32 `(rows,)`, bounds on the
              probability of the class chosen under P and under Q;
            - `neyman_pearson_radius`: float32 `(rows,)`, what `lower_bound` alone
              certifies, at most `radius`;
            - `procedure`: `"dsrs"` in every row.

        Raises:
            ValueError: if `x` is empty, not finite, no floating-point array or of
                another shape than the model's inputs; or if `seed` does not fit.
        """
        results = super().predict(x, batch_size, verbose, steps, callbacks, seed)
        if "radius" in results:  # Of a dataset, batch by batch.
            return results
        self._check_votes(results)
        guess, rows = results["guess"], np.arange(len(results["guess"]))
        voted = guess >= 0
        counts = np.stack(
            [
                np.where(voted, results[name][rows, guess], 0)
                for name in ("votes", "second_votes")
            ],
            axis=1,
        )
        bounds = lower_bound_of(counts, self.n, self.alpha / 2)
        found = np.array([self._radii_of(*pair) for pair in counts.tolist()])
        certified = found[:, 0] > 0
        return {
            "label": np.where(certified, guess, -1).astype("int32"),
            "radius": _rounded_down(found[:, 0]),
            "certified": certified,
            **results,
            "lower_bound": _rounded_down(bounds[:, 0]),
            "second_lower_bound": _rounded_down(bounds[:, 1]),
            "neyman_pearson_radius": _rounded_down(found[:, 1]),
            "procedure": np.full(len(guess), "dsrs"),
        }

    def _radii_of(self, votes, second_votes):
        """The radius of these counts, and that of the first alone."""
        key = votes, second_votes
        if key not in self._radii:
            pair = self._double_sampling()
            first, second = lower_bound_of(key, self.n, self.alpha / 2).tolist()
            self._radii[key] = (
                pair.radius(first, second),
                pair.neyman_pearson_radius(first),
            )
        return self._radii[key]

    def _check_votes(self, results):
        """Warns of copies that voted for no class."""
        drawn = 2 * self.n * np.count_nonzero(results["num_samples"])
        given = results["votes"].sum() + results["second_votes"].sum()
        if given < drawn:
            warnings.warn(
                f"The base model gave outputs that are not finite on "
                f"{1 - given / drawn:.2%} of the noisy copies, which then vote for no "
                "class. Noise leaves the input range: if preprocessing inside the base "
                "model refuses such values, let it clip them.",
                stacklevel=3,
            )

    _summary = SmoothedClassifier._summary

    def export(self, filepath, invalid="error"):
        """Refuses: radii come from the host.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(
            "A DSRSClassifier computes its radii on the host and cannot be exported; "
            f"export a SmoothedClassifier. Received: filepath={filepath!r}"
        )

    def get_config(self):
        return {
            **super().get_config(),
            "sigma": self.sigma,
            "k": self.k,
            "second_sigma": self.second_sigma,
            "truncate": self.truncate,
            "n0": self.n0,
            "n": self.n,
            "alpha": self.alpha,
        }


def _noise_of(model, sigma, k):
    """`sigma` and `k`, where left out those of the noise of `model`."""
    noise = getattr(model, "perturbation", None)
    own = isinstance(noise, GeneralizedGaussian)
    for name, value in (("sigma", sigma), ("k", k)):
        if value is None and not own:
            raise ValueError(
                f"`{name}` must be given: the model was not trained with a "
                f"GeneralizedGaussian. Received: {name}=None"
            )
    sigma, k = noise.sigma if sigma is None else sigma, noise.k if k is None else k
    return check_positive("sigma", sigma), GeneralizedGaussian(sigma, k).k


def _rounded_down(values):
    """float64 `values` as float32 that are no larger."""
    found = values.astype("float32")
    return np.where(found > values, np.nextafter(found, np.float32(-np.inf)), found)
