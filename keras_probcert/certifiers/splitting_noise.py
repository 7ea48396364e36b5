"""Deterministic L1 smoothing: every value of the noise, none of them by chance."""

import math

import keras
import numpy as np
from keras import ops

from keras_probcert import backend, models
from keras_probcert.certifiers import voting
from keras_probcert.certifiers.radius_certifier import RadiusCertifier
from keras_probcert.perturbations import Perturbation
from keras_probcert.validation import check_integer, check_number

# Of a level: what images scaled in float32 are off by at most.
_TOLERANCE = 1e-2


@keras.saving.register_keras_serializable(package="keras_probcert")
class SplittingNoise(Perturbation):
    r"""Tells of each coordinate only which piece of a randomly split range it is in.

    The range [0, 1] is cut at distances of \(2\lambda\), λ the `width`, and each
    coordinate is replaced by the middle of its piece. The cuts of coordinate i lie at
    \(s_i + 2\lambda\mathbb{Z}\), where \(s_i\) goes through the \(2\lambda q\) places
    half-way between the q + 1 levels of the inputs: \(s_i = (s + v_i) \bmod 2\lambda\)
    with one s for all coordinates, drawn uniformly, and a fixed \(v_i\) for each. So
    every \(s_i\) is uniform, which is all that the certificate needs, and the noise has
    \(2\lambda q\) values in all. For training, with `training.get("da")` as well;
    `SplittingSmoothedClassifier` goes through all of them.

    Args:
        width: λ, in units of the input, a multiple of 1 / (2 · (levels − 1)). Above ½
            a share of 1 − 1 / (2λ) of the coordinates becomes ½ and tells nothing.
        levels: q + 1, the number of levels of the inputs 0, 1/q, …, 1; 256 by default.
            Other values are rounded to the nearest level.
        seed: int, what the \(v_i\) are drawn from; 0 by default.

    Raises:
        ValueError: if an argument is out of its range.

    Example:

    >>> split = SplittingNoise(width=0.5, levels=3)
    >>> split.num_shifts
    2
    >>> copies = split(np.full((50, 1), 0.5, "float32"), seed=0)
    >>> np.unique(copies).tolist()
    [0.375, 0.625]

    Reference:

    - Levine and Feizi, "Improved, Deterministic Smoothing for L1 Certified
      Robustness" (ICML 2021), theorem 2 (SSN) and what makes it deterministic (DSSN).
    """

    def __init__(self, width, levels=256, seed=0):
        super().__init__(clip=(0.0, 1.0))
        self.width = check_number("width", width)
        self.levels = check_integer("levels", levels, least=2)
        self.seed = check_integer("seed", seed, least=0)
        shifts = 2 * self.width * (self.levels - 1)
        self.num_shifts = round(shifts)
        if self.num_shifts < 1 or abs(shifts - self.num_shifts) > 1e-6:
            near = max(1, self.num_shifts) / (2 * (self.levels - 1))
            raise ValueError(
                f"`width` must be a multiple of 1 / {2 * (self.levels - 1)} that is "
                f"more than 0, such as {near!r}. Received: width={width}"
            )

    def sample(self, x, noise):
        shift = ops.floor(noise.uniform((), 0.0, float(self.num_shifts)))
        return self.split(x, ops.cast(shift, "int32"))

    def split(self, x, shift):
        """`x` under given values of the noise.

        Args:
            x: float32 tensor, `(rows, 1, …)`.
            shift: int32 tensor, `(rows, copies)`: s in units of a level, 0 to
                `num_shifts − 1` (others begin anew).

        Returns:
            A float32 tensor, `(rows, copies, …)`.
        """
        shape, n, q = tuple(x.shape[2:]), self.num_shifts, self.levels - 1
        shift = ops.convert_to_tensor(shift, dtype="int32")
        shift = ops.reshape(shift, (*ops.shape(shift), *(1 for _ in shape)))
        # The cuts are at cut + 1/2 + multiples of n, the input at a whole number.
        cut = (shift + self._shifts_of_coordinates(shape)) % n
        level = ops.cast(ops.round(x * q), "int32")
        below = cut + n * ((level - cut - 1 + n) // n - 1)
        low = ops.maximum(ops.cast(below, "float32") + 0.5, 0.0)
        high = ops.minimum(ops.cast(below, "float32") + 0.5 + n, float(q))
        return (low + high) / (2.0 * q)

    def _shifts_of_coordinates(self, shape):
        """int32 of `shape`, the same on every machine and in every version."""
        words = np.random.Philox(key=self.seed).random_raw(math.prod(shape))
        words = words % np.uint64(self.num_shifts)
        return ops.convert_to_tensor(words.reshape(shape).astype("int32"))

    def get_config(self):
        return {"width": self.width, "levels": self.levels, "seed": self.seed}


@keras.saving.register_keras_serializable(package="keras_probcert")
class SplittingSmoothedClassifier(RadiusCertifier):
    r"""Certifies in L1 without sampling, for quantized inputs.

    The smoothed classifier g answers with the class that the base model gives most
    often over all \(2\lambda q\) values of `SplittingNoise` (of equal ones the first).
    They are counted, not sampled: `label` is g's answer, the probabilities \(p\) are
    exact, and there is no alpha. A change of one coordinate by one level passes a
    cut of only one value of the noise, so changes at most one vote: \(p_A - p_B\)
    falls by at most \(\|\delta\|_1 / \lambda\), and g answers with `label` for every

    \[\|\delta\|_1 \le R = \lambda \min_B\left(p_A - p_B -
    \tfrac{1[B < A]}{2\lambda q}\right)\]

    (a class before A wins when they are equal), at most λ.

    The promise is about quantized attackers only: changed inputs must again have
    the levels 0, 1/q, …, 1, as 8-bit images do. It holds for the classes that the
    base gives on the split inputs: where its best two logits are equal up to
    rounding, that may depend on the machine. A copy whose outputs are not finite votes
    for no class.

    Args:
        model: a Keras classifier: softmax or logits `(rows, classes)`, or one
            sigmoid unit (two classes). It should be trained under the same noise: by
            `training.get("da")` with `SplittingNoise(width, levels, seed)`.
        width: λ, in units of the input, a multiple of 1 / (2 · (levels − 1)). The
            standard deviation of uniform noise on [−λ, λ] is λ/√3.
        levels: q + 1, the number of levels of the inputs; 256 by default.
        seed: int, of the fixed shifts of the coordinates, part of g; 0 by default.
        forward_batch_size: copies a forward pass, a multiple of 16; 2048 by default.
        from_logits: for a base with a single unit, see `CertifiedPredictor`.
        jit_compile: whether XLA compiles the loop; on TensorFlow `False` by default,
            on JAX it always is.
        **kwargs: passed to `keras.Model`, such as `name`.

    Raises:
        ValueError: if an argument is out of its range, or the model has not exactly
            one output with a fixed number of at least two classes.

    Example:

    >>> import keras
    >>> base = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> smoothed = SplittingSmoothedClassifier(base, width=1.0)
    >>> x = np.random.randint(0, 256, (5, 4)).astype("float32") / 255
    >>> result = smoothed.predict(x, verbose=0)
    >>> result["votes"].sum(axis=1).tolist()
    [510, 510, 510, 510, 510]

    Reference:

    - Levine and Feizi, "Improved, Deterministic Smoothing for L1 Certified
      Robustness" (ICML 2021), theorem 2 (SSN) and what makes it deterministic (DSSN).
    """

    _copies_a_batch = 2**18

    def __init__(
        self,
        model,
        width,
        levels=256,
        seed=0,
        forward_batch_size=2048,
        from_logits=None,
        jit_compile=None,
        **kwargs,
    ):
        models.check_classifier(model)
        super().__init__(
            model,
            SplittingNoise(width, levels, seed),
            forward_batch_size,
            from_logits,
            jit_compile,
            **kwargs,
        )

    @property
    def num_shifts(self):
        """The values of the noise, and passes of the base a row."""
        return self.perturbation.num_shifts

    @property
    def _copies_a_row(self):
        return self.num_shifts

    def _votes_of(self, x, seeds):
        """The values of the noise one after the other; `seeds` have no part in it."""
        quantized = self._is_quantized(x, ops)

        def draw_votes(rows, first):
            shift = first[:, None] + ops.arange(voting.COPIES_A_SLOT, dtype="int32")
            inputs = backend.gather(x, rows)[:, None]
            copies = self.perturbation.split(inputs, shift)
            classes = self._classes_in_parts(copies, inputs)
            valid = ops.repeat(backend.gather(quantized, rows), voting.COPIES_A_SLOT)
            return ops.where(valid, classes, self.num_classes)

        return draw_votes

    def certify(self, draw_votes, refused):
        votes = voting.count(
            draw_votes,
            refused,
            self.num_classes,
            (self.num_shifts,),
            self._slots,
            self._static_shapes,
        )[:, 0]
        label = voting.labels(votes)
        chosen = ops.one_hot(label, self.num_classes, dtype="int32")
        own = ops.sum(votes * chosen, axis=1)
        # What each rival has, and one more where it wins when they are equal.
        before = ops.arange(self.num_classes, dtype="int32") < label[:, None]
        rivals = ops.where(chosen > 0, 0, votes + ops.cast(before, "int32"))
        lead = ops.where(label >= 0, own - ops.max(rivals, axis=1), 0)
        others = ops.max(ops.where(chosen > 0, 0, votes), axis=1)

        def share(count):
            return ops.cast(count, "float32") / self.num_shifts

        return {
            "label": label,
            "radius": ops.cast(lead, "float32") / (2 * (self.perturbation.levels - 1)),
            "certified": lead > 0,
            "guess": label,
            "num_samples": ops.cast(ops.where(refused, 0, self.num_shifts), "int32"),
            "votes": votes,
            "lower_bound": share(own),
            "upper_bound": share(others),
        }

    def predict(
        self, x, batch_size=None, verbose="auto", steps=None, callbacks=None, seed=None
    ):
        """Labels and radii, one row per input.

        Args:
            x: float array `(rows, …)` of the levels 0, 1/q, …, 1, or a dataset or
                iterable of such batches (or of tuples that begin with one).
            batch_size: inputs that share a loop; by default what makes about a
                quarter of a million copies. It changes no result.
            verbose, steps, callbacks: see `CertifiedPredictor.predict`.
            seed: for the signature of other certifiers; nothing is drawn.

        Returns:
            The dict of `SmoothedClassifier.predict`: `label` is −1 only where no copy
            voted; `certified` says whether the radius is more than 0; `votes` are of
            all values of the noise; `lower_bound` and `upper_bound` are the
            probabilities of the class and of the next; `procedure` is `"exact"`.

        Raises:
            ValueError: if `x` is empty, holds other values than the levels, is no
                floating-point array, or of another shape than the model's inputs.
        """
        return super().predict(x, batch_size, verbose, steps, callbacks, seed)

    def _finish(self, results, verbose):
        results["procedure"] = np.full(len(results["label"]), "exact")
        return results

    def _summary(self, results, y, right):
        values = super()._summary(results, y, right)
        # A class that leads by no vote, but for its number, has no radius.
        certified = values["certified_accuracy"] & results["certified"]
        return {**values, "certified_accuracy": certified}

    def _is_quantized(self, x, ops=np):
        """Whether every value of a row is one of the levels: bool `(rows,)`."""
        level = x * (self.perturbation.levels - 1)
        near = ops.abs(level - ops.round(level)) < _TOLERANCE
        return ops.all(near, axis=tuple(range(1, len(x.shape))))

    def _check(self, x, name="x"):
        x = super()._check(x, name)
        if not self._is_quantized(x).all():
            q = self.perturbation.levels - 1
            raise ValueError(
                f"`{name}` must hold the levels 0, 1/{q}, …, 1 and nothing between: "
                "the certificate is for quantized inputs. Received: "
                f"{int((~self._is_quantized(x)).sum())} rows with other values"
            )
        return x

    def get_config(self):
        return {**super().get_config(), **self.perturbation.get_config()}
