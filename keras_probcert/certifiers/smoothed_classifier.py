"""Randomized smoothing: a label and a radius inside which no change can flip it."""

import keras
import numpy as np
from keras import ops

from keras_probcert import backend, models
from keras_probcert.certifiers import voting
from keras_probcert.certifiers.certified_predictor import CertifiedPredictor
from keras_probcert.certifiers.certifier import Certifier, is_array
from keras_probcert.certifiers.radius_certifier import RadiusCertifier, dimension
from keras_probcert.certifiers.rounding import rounded_down, rounded_up
from keras_probcert.certifiers.smoothing_noise import (
    SmoothingNoise,
    get_noise,
    norm_order,
)
from keras_probcert.sequential.clopper_pearson import least_samples, lower_bound_of
from keras_probcert.validation import (
    check_choice,
    check_fraction,
    check_integer,
    check_number,
)


class Smoothing(Certifier):
    """A base model under noise of one standard deviation: what smoothing shares.

    Args:
        model, forward_batch_size, from_logits, jit_compile, **kwargs: see `Certifier`.
        sigma: the standard deviation of the noise; `None` for that of `model`.
        noise: `"gaussian"`, `"uniform"` or `"laplace"`, or a `SmoothingNoise`, which
            has a sigma of its own.
        alpha: the significance level.
    """

    def __init__(
        self,
        model,
        sigma,
        noise,
        alpha,
        forward_batch_size,
        from_logits,
        jit_compile,
        **kwargs,
    ):
        models.check_classifier(model)
        if not isinstance(noise, SmoothingNoise):
            sigma = getattr(model, "sigma", None) if sigma is None else sigma
            if sigma is None:
                raise ValueError(
                    "`sigma` must be given: the model was not trained with one. "
                    "Received: sigma=None"
                )
            noise = get_noise(noise, sigma)
        alpha = check_fraction("alpha", alpha)
        super().__init__(
            model,
            noise.perturbation,
            forward_batch_size,
            from_logits,
            jit_compile,
            **kwargs,
        )
        self.sigma, self.noise = noise.sigma, noise.name
        self.alpha = alpha
        self._noise = noise

    def get_config(self):
        return {
            **super().get_config(),
            **self._noise.get_config(),
            "alpha": self.alpha,
        }


@keras.saving.register_keras_serializable(package="keras_probcert")
class SmoothedClassifier(RadiusCertifier, Smoothing):
    r"""Certifies the most likely class under noise, with a radius.

    The smoothed classifier g answers with the class that the base model is most likely
    to give under noise around the input. For each row by itself, with probability at
    least 1 − alpha over the noise that is drawn, the row is abstained on, or g answers
    with `label` on the whole open ball of radius `radius` around the input, which
    may reach beyond the valid input range. The promise is about g, which `predict`
    estimates anew; to ask g for a label only, see `SmoothedPredictor`.

    `n0` copies choose the class (their votes are not counted), then `n` others bound
    its probability \(p_A\) from below by \(\underline{p}_A\) (Clopper and Pearson).
    With `bound="one-sided"` every other class is taken to have all of the rest,
    \(\overline{p}_B = 1 - \underline{p}_A\): rows with \(\underline{p}_A \le
    \frac12\) are abstained on. With `bound="two-sided"` every class is bounded at
    level alpha / classes, and \(\overline{p}_B\) is the smaller of that rest and the
    largest upper bound: more for inputs whose rest is spread over many classes. In L2
    under Gaussian noise the radius is

    \[R = \tfrac\sigma2\left(\Phi^{-1}(\underline{p}_A) -
    \Phi^{-1}(\overline{p}_B)\right);\]

    at n = 100,000 and alpha = 0.001 it is at most 3.8 σ. Tables and radii are rounded
    down. A copy whose outputs are not finite votes for no class.

    Args:
        model: a Keras classifier: softmax or logits `(rows, classes)`, or one
            sigmoid unit (two classes). It should be trained under the same noise,
            as by `training.get("rs")`.
        sigma: σ, the standard deviation of the noise of each coordinate, in units of
            the input, more than 0; by default that of `model`.
        noise: `"gaussian"` (default), `"uniform"` (on [−√3 σ, √3 σ]) or `"laplace"`
            (scale σ/√2).
        norm: the norm of the radius: `"l1"`, `"l2"`, `"linf"`, or p ≥ 1 of any L_p;
            by default the noise's own, L2 for Gaussian noise and L1 for the others.
        n0: copies that choose the class, 100 by default.
        n: copies that bound its probability, 100,000 by default.
        alpha: the significance level, in (0, 1); 0.001 by default.
        bound: `"one-sided"` (default) or `"two-sided"`.
        forward_batch_size: noisy copies a forward pass, a multiple of 16; 2048 by
            default. It bounds memory and changes no result.
        from_logits: for a base with a single unit, see `CertifiedPredictor`.
        jit_compile: whether XLA compiles the loop; on TensorFlow `False` by default,
            on JAX it always is.
        **kwargs: passed to `keras.Model`, such as `name`.

    Raises:
        ValueError: if an argument is out of its range, `n` is too small to certify
            anything at `alpha`, or the model has not exactly one output with a fixed
            number of at least two classes.

    Example:

    >>> import keras, numpy as np
    >>> base = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> smoothed = SmoothedClassifier(base, sigma=0.5, n=1000)
    >>> x = np.random.rand(5, 4).astype("float32")
    >>> result = smoothed.predict(x, seed=0, verbose=0)
    >>> result["label"].shape, result["radius"].shape
    ((5,), (5,))
    >>> bool(((result["radius"] > 0) == result["certified"]).all())
    True

    Reference:

    - Cohen, Rosenfeld and Kolter, "Certified Adversarial Robustness via Randomized
      Smoothing" (ICML 2019), theorem 1 and CERTIFY.
    """

    def __init__(
        self,
        model,
        sigma=None,
        noise="gaussian",
        norm=None,
        n0=100,
        n=100_000,
        alpha=0.001,
        bound="one-sided",
        forward_batch_size=2048,
        from_logits=None,
        jit_compile=None,
        **kwargs,
    ):
        n0, n = check_integer("n0", n0), check_integer("n", n)
        bound = check_choice("bound", bound, ("one-sided", "two-sided"))
        order = None if norm is None else norm_order(norm)
        super().__init__(
            model,
            sigma,
            noise,
            alpha,
            forward_batch_size,
            from_logits,
            jit_compile,
            **kwargs,
        )
        self.n0, self.n, self.bound = n0, n, bound
        self._compiled_count = None
        self.norm = self._noise.norm if norm is None else norm
        self._order = norm_order(self.norm) if order is None else order
        self._check_n()

    def _set_classes(self, shape):
        super()._set_classes(shape)
        self._dimension = dimension(shape)

    def _check_n(self):
        """Checks that `n` unanimous votes certify."""
        if self._level is not None:
            _check_enough("n", self.n, self._level, f"alpha={self.alpha}")

    @property
    def _level(self):
        """The level of each bound, `None` until the classes are known."""
        if self.bound == "one-sided":
            return self.alpha
        return None if self.num_classes is None else self.alpha / self.num_classes

    @property
    def _copies_a_row(self):
        return self.n0 + self.n

    def build(self, input_shape):
        super().build(input_shape)
        if hasattr(self, "bound"):  # Built after it was made.
            self._check_n()

    def certify(self, draw_votes, refused):
        votes = voting.count(
            draw_votes,
            refused,
            self.num_classes,
            (self.n0, self.n),
            self._slots,
            self._static_shapes,
        )
        guess, votes = voting.labels(votes[:, 0]), votes[:, 1]
        chosen = ops.one_hot(guess, self.num_classes, dtype="int32")
        lower, upper, gap = self._bounds(
            ops.sum(votes * chosen, axis=1),
            ops.max(ops.where(chosen > 0, 0, votes), axis=1),
        )
        certified = ops.logical_and(gap > 0, guess >= 0)
        # One radius for every row: none is computed from what is not positive.
        radius = self._noise.radius(
            ops.where(certified, gap, 0.5), self._order, self._dimension, ops
        )
        num_samples = ops.where(refused, 0, self.n0 + self.n)
        return {
            "label": ops.where(certified, guess, -1),
            # Float32 may have rounded the last steps up.
            "radius": ops.where(certified, radius * (1 - 2.0**-20), 0.0),
            "certified": certified,
            "guess": guess,
            "num_samples": ops.cast(num_samples, "int32"),
            "votes": votes,
            "lower_bound": ops.where(guess >= 0, lower, 0.0),
            "upper_bound": ops.where(guess >= 0, upper, 1.0),
        }

    def _bounds(self, votes, rivals):
        """Bounds on p_A and p_B, and a lower bound on the gap of their quantiles.

        Args:
            votes: int32 `(rows,)`, votes of the chosen class.
            rivals: int32 `(rows,)`, votes of the next.
        """
        k, quantile = np.arange(self.n + 1), self._noise.quantile
        of_votes = lower_bound_of(k, self.n, self._level)
        rest = 1 - of_votes
        gap = _take(quantile(of_votes) - quantile(rest), votes, rounded_down)
        lower, upper = (
            _take(of_votes, votes, rounded_down),
            _take(rest, votes, rounded_up),
        )
        if self.bound == "one-sided":
            return lower, upper, gap
        of_rivals = 1 - of_votes[::-1]
        a = _take(quantile(of_votes), votes, rounded_down)
        b = _take(quantile(of_rivals), rivals, rounded_up)
        # Less what float32 may have rounded up.
        between = a - b - 2.0**-22 * (ops.abs(a) + ops.abs(b))
        upper = ops.minimum(upper, _take(of_rivals, rivals, rounded_up))
        return lower, upper, ops.maximum(gap, between)

    def predict(
        self, x, batch_size=None, verbose="auto", steps=None, callbacks=None, seed=None
    ):
        """Labels and radii, one row per input (CERTIFY).

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
            - `num_samples`: int32 `(rows,)`, copies drawn;
            - `votes`: int32 `(rows, classes)`, of the `n` copies;
            - `lower_bound`, `upper_bound`: float32 `(rows,)`, bounds on the
              probabilities of the class chosen and of every other;
            - `procedure`: `"clopper-pearson"` in every row.

        Raises:
            ValueError: if `x` is empty, not finite, no floating-point array or of
                another shape than the model's inputs; or if `seed` does not fit.
        """
        return super().predict(x, batch_size, verbose, steps, callbacks, seed)

    def _finish(self, results, verbose):
        answered = np.count_nonzero(results["num_samples"])
        self._warn_of_lost_votes(results["votes"].sum(), answered * self.n)
        results["procedure"] = np.full(len(results["label"]), "clopper-pearson")
        return results

    def at_radius(self, radius, alpha=None, max_samples=None, test=None):
        r"""Asks only whether the radius is more than `radius`, with fewer samples.

        The radius of the label's class is more than r where its probability is more
        than \(1 - \kappa\) (\(\kappa = \Phi(-r/\sigma)\) for Gaussian noise in L2):
        what a sequential test on the votes decides, usually after a small part of
        `n`.

        Args:
            radius: r, in units of the input, at least 0, in the norm of this
                classifier.
            alpha: the significance level; by default that of this classifier, over
                its guess and all looks at the votes.
            max_samples, test: see `CertifiedPredictor`.

        Returns:
            A `CertifiedPredictor`, for which a row is certified exactly where the
            radius of its label is shown to be more than `radius`.

        Raises:
            ValueError: if an argument is out of its range.

        Example:

        >>> import keras, numpy as np
        >>> base = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        >>> at_half = SmoothedClassifier(base, sigma=0.5).at_radius(0.5)
        >>> round(at_half.kappa, 4)
        0.1587
        """
        radius = check_number("radius", radius)
        if not self.built:
            raise ValueError(
                "`model` must be built before it is asked at a radius: call it on a "
                "batch. Received: a model without a known input shape"
            )
        # The bisection ends below: at a kappa that is certainly small enough.
        kappa, high = 0.0, 0.5
        for _ in range(100):
            middle = (kappa + high) / 2
            large_enough = self._radius(1 - middle) >= radius
            kappa, high = (middle, high) if large_enough else (kappa, middle)
        if kappa < 1e-9:
            raise ValueError(
                "`radius` must be one that this noise can certify. "
                f"Received: radius={radius} at sigma={self.sigma}"
            )
        return CertifiedPredictor(
            self.base_model,
            self.perturbation,
            kappa=kappa,
            alpha=self.alpha if alpha is None else alpha,
            max_samples=max_samples,
            test=test,
            forward_batch_size=self.forward_batch_size,
            from_logits=self.from_logits,
            jit_compile=self._jit_compile_argument,
        )

    def _radius(self, lower):
        """The radius of a class of at least this probability, 0 for none: float64."""
        gap = self._noise.quantile(lower) - self._noise.quantile(1 - lower)
        radius = self._noise.radius(
            np.where(gap > 0, gap, 0.5), self._order, self._dimension
        )
        return np.where(gap > 0, radius, 0.0)

    def predict_adaptively(
        self, x, tolerance=0.05, looks=8, batch_size=256, verbose="auto", seed=None
    ):
        r"""As `predict`, with fewer copies for rows whose radius is clear early.

        Looks at the votes after \(n / 2^{\text{looks}-1}, \dots, n/4, n/2, n\) copies.
        Each look has a Clopper-Pearson bound at level alpha / looks, all of which hold
        with probability at least 1 − alpha, so the largest is taken and a row may
        stop for any reason. It stops when its radius is at least `1 - tolerance` of
        that which n copies with the same share of votes would give, or when more than
        half of the votes are shown to go elsewhere. The bounds are one-sided.

        Args:
            x: float array `(rows, …)`.
            tolerance: the part of the radius to forgo, in (0, 1); 0.05 by default.
            looks: the number of looks, 8 by default.
            batch_size: inputs that share a loop, 256 by default.
            verbose: Keras' progress bar over the rows: "auto", 0 or 1.
            seed: as in `predict`. A row's guess and first votes are those of `predict`.

        Returns:
            The dict of `predict`, `num_samples` and `votes` as far as they were
            taken; `procedure` is `"adaptive"`.

        Raises:
            ValueError: if an argument is out of its range, or `n` is too small for
                unanimous votes to certify at alpha / looks.
        """
        tolerance = check_fraction("tolerance", tolerance)
        looks = check_integer("looks", looks)
        batch_size = check_integer("batch_size", batch_size)
        if not is_array(x):
            raise ValueError(
                "`x` must be an array; `predict` takes datasets, too. "
                f"Received: x of type {type(x).__name__}"
            )
        x = self._check(x)
        seeds = self._row_seeds(seed, len(x))
        level = self.alpha / looks
        _check_enough("n", self.n, level, f"alpha={self.alpha} in {looks} looks")
        ends = [max(1, self.n >> (looks - 1 - k)) for k in range(looks)]
        bar = None if verbose in (0, "0") else keras.utils.Progbar(len(x))
        results = []
        for start in range(0, len(x), batch_size):
            part = slice(start, start + batch_size)
            results.append(
                self._adaptive_batch(x[part], seeds[part], ends, level, tolerance)
            )
            if bar is not None:
                bar.update(min(start + batch_size, len(x)))
        results = {k: np.concatenate([r[k] for r in results]) for k in results[0]}
        drawn = results["num_samples"].sum() - self.n0 * len(x)
        self._warn_of_lost_votes(results["votes"].sum(), drawn, stacklevel=3)
        results["procedure"] = np.full(len(x), "adaptive")
        return results

    def _adaptive_batch(self, x, seeds, ends, level, tolerance):
        rows = np.arange(len(x))
        choice = self._count(x, seeds, 0, self.n0)
        guess = np.where(choice.any(axis=1), choice.argmax(axis=1), -1)
        votes = np.zeros_like(choice)
        num_samples = np.full(len(x), self.n0, np.int32)
        lower = np.zeros(len(x))
        pending, drawn = rows[guess >= 0], 0
        for end in ends:
            if not len(pending):
                break
            first = self.n0 + drawn
            votes[pending] += self._count(
                x[pending], seeds[pending], first, end - drawn
            )
            drawn = end
            num_samples[pending] = self.n0 + drawn
            agreeing = votes[pending, guess[pending]]
            bound = lower_bound_of(agreeing, drawn, level)
            lower[pending] = np.maximum(lower[pending], bound)
            at_the_end = lower_bound_of(agreeing / drawn * self.n, self.n, level)
            reached = self._radius(lower[pending])
            enough = reached >= (1 - tolerance) * self._radius(at_the_end)
            # A radius of 0 is enough only where it is sure to stay.
            upper = 1 - lower_bound_of(drawn - agreeing, drawn, level)
            pending = pending[~np.where(reached > 0, enough, upper <= 0.5)]
        radius = self._radius(lower)
        certified = radius > 0
        return {
            "label": np.where(certified, guess, -1).astype("int32"),
            "radius": rounded_down(radius),
            "certified": certified,
            "guess": guess.astype("int32"),
            "num_samples": num_samples,
            "votes": votes,
            "lower_bound": rounded_down(lower),
            "upper_bound": rounded_up(1 - lower),
        }

    def _count(self, x, seeds, first, num_samples):
        """Votes `(rows, classes)` of copies `first`, … of each row."""
        rows = len(x)
        if backend.STATIC_SHAPES:
            # A compilation for each power of two, not for each number of rows.
            padded = np.resize(np.arange(rows), 1 << (rows - 1).bit_length())
            x, seeds = x[padded], seeds[padded]
        arrays = [
            ops.convert_to_tensor(a)
            for a in (x, seeds, np.array([first, num_samples], np.int32))
        ]
        if self._compiled_count is None:

            def count(x, seeds, copies):
                votes = voting.count(
                    self._votes_of(x, seeds),
                    ops.zeros((ops.shape(x)[0],), "bool"),
                    self.num_classes,
                    ops.reshape(copies[1], (1,)),
                    self._slots,
                    self._static_shapes,
                    copies[0],
                )
                return votes[:, 0]

            self._compiled_count = backend.compiled(count, self.base_model, arrays)
        return ops.convert_to_numpy(self._compiled_count(*arrays))[:rows].copy()

    def get_config(self):
        return {
            **super().get_config(),
            "norm": self.norm,
            "n0": self.n0,
            "n": self.n,
            "bound": self.bound,
        }


def _take(table, place, rounded):
    """Entries of a float64 table, as float32 by `rounded`."""
    return backend.gather(ops.convert_to_tensor(rounded(table)), place)


def _check_enough(name, num_samples, level, where):
    """Checks that so many unanimous votes show a probability above ½."""
    needed = least_samples(level)
    if num_samples < needed:
        raise ValueError(
            f"`{name}` must be large enough for unanimous votes to certify: at least "
            f"{needed} for {where}. Received: {name}={num_samples}"
        )
