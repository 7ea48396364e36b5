"""Double-sampling randomized smoothing: radii from votes under two noises."""

import keras
import numpy as np
from keras import ops

from keras_probcert import models
from keras_probcert.certifiers import voting
from keras_probcert.certifiers.dsrs import DoubleSampling, check_positive
from keras_probcert.certifiers.radius_certifier import RadiusCertifier, dimension
from keras_probcert.certifiers.rounding import rounded_down
from keras_probcert.perturbations import GeneralizedGaussian
from keras_probcert.sequential.clopper_pearson import least_samples, lower_bound_of
from keras_probcert.validation import check_fraction, check_integer


@keras.saving.register_keras_serializable(package="keras_probcert")
class DSRSClassifier(RadiusCertifier):
    r"""Certifies the most likely class under noise, with votes under a second noise.

    The smoothed classifier g answers with the class that the base model is most likely
    to give under generalized Gaussian noise P (see `GeneralizedGaussian`). For each
    row by itself, with probability at least 1 − alpha over the noise that is drawn,
    the row is abstained on, or g answers with `label` on the whole open L2 ball of
    radius `radius` around the input, which may reach beyond the valid input range.

    Q is by default P confined to the ball that holds `share` of it: of 2 `n` copies
    under P, those in the ball are copies under Q too. Or, with `second_sigma`, Q is
    the same noise with a smaller σ, `n` copies are drawn under P and `n` others under
    Q. The class is chosen by `n0` further copies under P, whose votes are not counted.
    Clopper and Pearson's lower bounds at level alpha / 2 each,

    \[P_A \ge \underline{p}, \qquad Q_A \ge \underline{q},\]

    hold together with probability at least 1 − alpha, whatever class was chosen (the
    second for whatever number of copies the ball holds). The radius is the largest at
    which no classifier of at least these probabilities can fall to ½ under the shifted
    P (`DoubleSampling`), and never less than the Neyman-Pearson radius of
    \(\underline{p}\) alone. Upper bounds would not be used, so no part of alpha is
    spent on them.

    Votes are counted on the device; the radii come from the host, about a tenth of a
    second for each new set of counts. So inside a graph (`call`) there are votes
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
        share: the probability under P of the ball to which Q is confined, in (0, 1);
            0.7 by default, unless there is a `second_sigma`.
        second_sigma: σ of Q, in (0, σ); 0.8 σ in most of the paper. `None` (default)
            for Q confined to a ball.
        n0: copies that choose the class, 100 by default.
        n: half of the copies that bound probabilities, 50,000 by default.
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

    def __init__(
        self,
        model,
        sigma=None,
        k=None,
        share=None,
        second_sigma=None,
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
        if second_sigma is None:
            share = check_fraction("share", 0.7 if share is None else share)
        elif share is not None:
            raise ValueError(
                "`share` must not be given beside `second_sigma`. "
                f"Received: share={share}, second_sigma={second_sigma}"
            )
        else:
            second_sigma = check_fraction("second_sigma", second_sigma, sigma)
        n0, n = check_integer("n0", n0), check_integer("n", n)
        alpha = check_fraction("alpha", alpha)
        needed = least_samples(alpha / 2)
        if second_sigma is None:
            needed = -(-needed // 2)  # All 2 n copies are drawn under P.
        if n < needed:
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
        self.sigma, self.k = sigma, k
        self.share, self.second_sigma = share, second_sigma
        self.n0, self.n, self.alpha = n0, n, alpha
        self._pair, self._radii = None, {}
        if self.built:
            self._double_sampling()

    def _set_classes(self, shape):
        super()._set_classes(shape)
        self._dimension = dimension(shape)

    def build(self, input_shape):
        super().build(input_shape)
        if hasattr(self, "_pair"):  # Built after it was made.
            self._double_sampling()

    def _double_sampling(self):
        if self._pair is None:
            self._pair = DoubleSampling(
                self.sigma, self.k, self._dimension, self.second_sigma, self._truncate
            )
        return self._pair

    @property
    def _first_total(self):
        """Copies under P that bound its probability."""
        return 2 * self.n if self.second_sigma is None else self.n

    @property
    def _truncate(self):
        """The radius of the ball to which Q is confined."""
        if self.share is None:
            return None
        return self.perturbation.norm_quantile(self.share, self._dimension)

    @property
    def _copies_a_row(self):
        return self.n0 + 2 * self.n

    def _votes_of(self, x, seeds):
        """The `draw_votes` of `voting` under P and under Q, `None` for P in a ball."""
        first = super()._votes_of(x, seeds)
        if self.second_sigma is None:
            return first, None
        second = GeneralizedGaussian(self.second_sigma, self.k)
        return first, super()._votes_of(x, seeds, second)

    def _classes_of(self, copies, inputs):
        """The classes; where Q is P in a ball, others for copies outside.

        The classes, with "none" for one more, are followed by the same again.
        """
        classes = super()._classes_of(copies, inputs)
        if self.second_sigma is not None:
            return classes
        axes = tuple(range(2, len(copies.shape)))
        squares = ops.sum((copies - inputs) ** 2, axis=axes)
        outside = ops.reshape(squares > self._truncate**2, (-1,))
        return classes + (self.num_classes + 1) * ops.cast(outside, "int32")

    def certify(self, draw_votes, refused):
        """The votes; `predict` adds what follows from them."""
        first, second = draw_votes
        sizes = self._slots, self._static_shapes
        classes = self.num_classes
        if second is None:
            votes = voting.count(
                first, refused, 2 * classes + 2, (self.n0, self._first_total), *sizes
            )
            inside, outside = votes[..., : classes + 1], votes[..., classes + 1 :]
            second_num_samples = ops.sum(inside[:, 1], axis=1)
            votes = (inside + outside)[..., :classes]
            second_votes = inside[:, 1, :classes]
        else:
            votes = voting.count(first, refused, classes, (self.n0, self.n), *sizes)
            # The sample indices go on: none is used under both noises.
            slot = voting.COPIES_A_SLOT
            start = -(-(self.n0 + self.n) // slot) * slot
            second_votes = voting.count(
                second, refused, classes, (self.n,), *sizes, start
            )[:, 0]
            second_num_samples = ops.where(refused, 0, self.n)
        num_samples = ops.where(refused, 0, self.n0 + 2 * self.n)
        return {
            "guess": voting.labels(votes[:, 0]),
            "num_samples": ops.cast(num_samples, "int32"),
            "votes": votes[:, 1],
            "second_votes": second_votes,
            "second_num_samples": ops.cast(second_num_samples, "int32"),
        }

    def output_spec(self, row):
        votes = (*row, self.num_classes)
        return {
            "guess": keras.KerasTensor(row, "int32"),
            "num_samples": keras.KerasTensor(row, "int32"),
            "votes": keras.KerasTensor(votes, "int32"),
            "second_votes": keras.KerasTensor(votes, "int32"),
            "second_num_samples": keras.KerasTensor(row, "int32"),
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
            - `votes`, `second_votes`: int32 `(rows, classes)`, of the copies under P
              and of those under Q (where that is P in a ball, these are among those);
            - `second_num_samples`: int32 `(rows,)`, copies under Q;
            - `lower_bound`, `second_lower_bound`: float32 `(rows,)`, bounds on the
              probability of the class chosen under P and under Q;
            - `neyman_pearson_radius`: float32 `(rows,)`, what `lower_bound` alone
              certifies, at most `radius`;
            - `procedure`: `"dsrs"` in every row.

        Raises:
            ValueError: if `x` is empty, not finite, no floating-point array or of
                another shape than the model's inputs; or if `seed` does not fit.
        """
        return super().predict(x, batch_size, verbose, steps, callbacks, seed)

    def _finish(self, results, verbose):
        drawn = (results["num_samples"] - self.n0)[results["num_samples"] > 0].sum()
        given = results["votes"].sum()
        if self.second_sigma is not None:
            given += results["second_votes"].sum()
        self._warn_of_lost_votes(given, drawn)
        guess, rows = results["guess"], np.arange(len(results["guess"]))
        voted = guess >= 0
        votes, second_votes = (
            np.where(voted, results[name][rows, guess], 0)
            for name in ("votes", "second_votes")
        )
        second_total = results["second_num_samples"]
        level, total = self.alpha / 2, self._first_total
        lower = lower_bound_of(votes, total, level)
        second_lower = lower_bound_of(second_votes, second_total, level)
        pairs = zip(lower.tolist(), second_lower.tolist(), strict=True)
        # Votes take seconds, radii may take minutes.
        bar = keras.utils.Progbar(
            len(guess), verbose=0 if verbose == 0 else 1, unit_name="radius"
        )
        radii = []
        for pair in pairs:
            radii.append(self._radii_of(*pair))
            bar.add(1)
        radius, alone = np.array(radii).T
        certified = radius > 0
        return {
            "label": np.where(certified, guess, -1).astype("int32"),
            "radius": rounded_down(radius),
            "certified": certified,
            **results,
            "lower_bound": rounded_down(lower),
            "second_lower_bound": rounded_down(second_lower),
            "neyman_pearson_radius": rounded_down(alone),
            "procedure": np.full(len(guess), "dsrs"),
        }

    def _radii_of(self, lower, second_lower):
        """The radius of these bounds, and that of the first alone."""
        key = lower, second_lower
        if key not in self._radii:
            pair = self._double_sampling()
            self._radii[key] = pair.radius(*key), pair.neyman_pearson_radius(lower)
        return self._radii[key]

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
            "share": self.share,
            "second_sigma": self.second_sigma,
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
