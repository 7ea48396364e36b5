"""Randomized smoothing's prediction: the smoothed classifier's label, or none."""

import keras
import numpy as np
from keras import ops
from scipy import stats

from keras_probcert import backend
from keras_probcert.certifiers import voting
from keras_probcert.certifiers.smoothed_classifier import Smoothing
from keras_probcert.validation import check_choice, check_fraction, check_integer


@keras.saving.register_keras_serializable(package="keras_probcert")
class SmoothedPredictor(Smoothing):
    r"""Answers with the most likely class under noise, or abstains.

    The smoothed classifier g answers with the class that the base model is most likely
    to give under noise around the input. For each row by itself, with probability at
    least 1 − alpha over the noise that is drawn, the answer is g's or the row is
    abstained on. There is no radius, so it takes a hundredth of the samples of
    `SmoothedClassifier`: what is served once a test set has been certified. Its answer
    is g's, so inside a certified radius it is the certified label.

    Args:
        model, sigma, noise, forward_batch_size, from_logits, jit_compile: see
            `SmoothedClassifier`.
        n: noisy copies, 1,000 by default.
        alpha: the significance level, in (0, ½); 0.001 by default.
        rule: what the \(n_A\) votes of the top class must show. `"runner_up"`
            (default; PREDICT II): more than the \(n_B\) of the next, by a two-sided
            binomial test of \(n_A\) among \(n_A + n_B\) against ½. `"half"` (PREDICT
            I): a probability above ½, by a one-sided binomial test of \(n_A\) among n.
        **kwargs: passed to `keras.Model`, such as `name`.

    `evaluate` gives `standard_accuracy` (of the base model on clean inputs),
    `smoothed_accuracy` (the label is right), `abstention_rate` and
    `mean_num_samples`.

    Raises:
        ValueError: if an argument is out of its range, or `n` is too small for
            unanimous votes to answer at `alpha`.

    Example:

    >>> import keras, numpy as np
    >>> base = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> predictor = SmoothedPredictor(base, sigma=0.5, n=100)
    >>> result = predictor.predict(np.zeros((2, 4), "float32"), seed=0, verbose=0)
    >>> bool(((result["label"] >= 0) == (result["p_value"] <= 0.001)).all())
    True

    Reference:

    - Cohen, Rosenfeld and Kolter (ICML 2019), PREDICT; Hung and Fithian, "Rank
      verification for exponential families" (Annals of Statistics, 2019): the
      two-sided test is valid although the votes choose both classes. That only a
      class with a probability of at most ½ can be wrong makes the other one valid.
    """

    def __init__(
        self,
        model,
        sigma=None,
        noise="gaussian",
        n=1000,
        alpha=0.001,
        rule="runner_up",
        forward_batch_size=2048,
        from_logits=None,
        jit_compile=None,
        **kwargs,
    ):
        n = check_integer("n", n)
        alpha = check_fraction("alpha", alpha, 0.5)
        rule = check_choice("rule", rule, ("runner_up", "half"))
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
        self.n, self.rule = n, rule
        if self._p_value(n, n) > self.alpha:
            needed = next(k for k in range(n, 10_000) if self._p_value(k, k) <= alpha)
            raise ValueError(
                "`n` must be large enough for unanimous votes to answer: at least "
                f"{needed} at alpha={self.alpha}. Received: n={n}"
            )

    @property
    def _copies_a_row(self):
        return self.n

    def _p_value(self, votes, trials):
        """Of `votes` for the top class among `trials`."""
        sides = 2 if self.rule == "runner_up" else 1
        return np.minimum(1.0, sides * stats.binom.sf(votes - 1, trials, 0.5))

    def _votes_needed(self):
        """By the number of trials: the least votes with a p-value of at most alpha."""
        trials = np.arange(self.n + 1)
        sides = 2 if self.rule == "runner_up" else 1
        needed = stats.binom.isf(self.alpha / sides, trials, 0.5).astype(int)
        # One less to one more, whatever way the inverse is rounded.
        candidates = needed + np.arange(-1, 4)[:, None]
        enough = self._p_value(candidates, trials) <= self.alpha
        return candidates[enough.argmax(axis=0), trials]

    def _trials(self, votes):
        """Votes of the top class, and among how many they are tested."""
        top = ops.top_k(votes, 2)[0]
        if self.rule == "half":
            return top[:, 0], ops.full_like(top[:, 0], self.n)
        return top[:, 0], top[:, 0] + top[:, 1]

    def certify(self, draw_votes, refused):
        votes = voting.count(
            draw_votes,
            refused,
            self.num_classes,
            (self.n,),
            self._slots,
            self._static_shapes,
        )[:, 0]
        top, trials = self._trials(votes)
        needed = ops.convert_to_tensor(self._votes_needed().astype("int32"))
        sure = ops.logical_and(top >= backend.gather(needed, trials), top > 0)
        return {
            "label": ops.where(sure, voting.labels(votes), -1),
            "num_samples": ops.where(refused, 0, self.n),
            "votes": votes,
        }

    def output_spec(self, row):
        return {
            "label": keras.KerasTensor(row, "int32"),
            "num_samples": keras.KerasTensor(row, "int32"),
            "votes": keras.KerasTensor((*row, self.num_classes), "int32"),
        }

    def predict(
        self, x, batch_size=None, verbose="auto", steps=None, callbacks=None, seed=None
    ):
        """Labels, one row per input (PREDICT).

        Args:
            x, batch_size, verbose, steps, callbacks, seed: see
                `CertifiedPredictor.predict`.

        Returns:
            A dict of arrays:

            - `label`: int32 `(rows,)`, the class, −1 where abstained;
            - `num_samples`: int32 `(rows,)`, copies drawn;
            - `votes`: int32 `(rows, classes)`;
            - `p_value`: float64 `(rows,)`, at most alpha where not abstained.

        Raises:
            ValueError: if `x` is empty, not finite, no floating-point array or of
                another shape than the model's inputs; or if `seed` does not fit.
        """
        return super().predict(x, batch_size, verbose, steps, callbacks, seed)

    def _finish(self, results, verbose):
        drawn = results["num_samples"].sum()
        self._warn_of_lost_votes(results["votes"].sum(), drawn)
        top = np.sort(results["votes"], axis=1)[:, ::-1]
        trials = top[:, 0] + top[:, 1] if self.rule == "runner_up" else self.n
        results["p_value"] = self._p_value(top[:, 0], trials)
        return results

    def _summary(self, results, y, right):
        return {
            "standard_accuracy": right,
            "smoothed_accuracy": results["label"] == y,
            "abstention_rate": results["label"] < 0,
            "mean_num_samples": results["num_samples"],
        }

    def get_config(self):
        return {**super().get_config(), "n": self.n, "rule": self.rule}
