"""Consistency regularization of smoothed classifiers."""

import keras
from keras import ops

from keras_probcert.training.probabilities import entropy, kl_divergence, log_mean_exp
from keras_probcert.training.rs import GaussianCopies
from keras_probcert.validation import check_number


@keras.saving.register_keras_serializable(package="keras_probcert")
class ConsistencyModel(GaussianCopies):
    r"""Trains under Gaussian noise for predictions that agree with each other.

    With \(F_i\) the class probabilities of noisy copy i of m and \(\bar F\) their
    mean, minimizes

    \[\frac1m \sum_i \ell_i + \lambda \frac1m \sum_i
      \mathrm{KL}(\bar F \| F_i) + \eta\, \mathrm{H}(\bar F).\]

    BatchNorm and Dropout see all copies as one batch.

    Args:
        model: the base model, a `keras.Model` with one output.
        sigma: σ, the standard deviation of the noise in units of the input, at
            least 0; 0.25 by default.
        num_samples: m, noisy copies of each example, at least 2; 2 by default.
        consistency_weight: λ, at least 0; 10 by default, the paper's at σ = 0.25
            on MNIST (5 at 0.5 and 1). May be a `Schedule`.
        entropy_weight: η, at least 0; 0.5 by default.
        chunk_size: how many copies of each example are in memory at a time;
            `None` (default) for all. As in `VarianceMinimizingModel`.
        seed: an int that fixes the noise of training; `None` (default) for
            Keras' global seed.
        **kwargs: passed to `keras.Model`, such as `name`.

    Raises:
        ValueError: if an argument is out of its range, or the compiled loss is not
            a cross-entropy.

    Example:

    >>> import keras
    >>> base = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> model = ConsistencyModel(base, sigma=0.5, consistency_weight=5.0)
    >>> model.compile("adam", keras.losses.CategoricalCrossentropy(from_logits=True))

    Reference:

    - Jeong and Shin, "Consistency Regularization for Certified Robustness of
      Smoothed Classifiers" (NeurIPS 2020).
    """

    parts = ("loss_mean", "loss_consistency")
    _fewest = 2

    def __init__(
        self,
        model,
        sigma=0.25,
        num_samples=2,
        consistency_weight=10.0,
        entropy_weight=0.5,
        chunk_size=None,
        seed=None,
        **kwargs,
    ):
        scheduled = {"consistency_weight": consistency_weight}
        super().__init__(
            model, sigma, num_samples, chunk_size, seed, scheduled=scheduled, **kwargs
        )
        self.entropy_weight = check_number("entropy_weight", entropy_weight)

    def objective(self, y, outputs):
        losses = ops.mean(self.losses_of(y, outputs["copies"]), axis=1)
        log_p = self.log_probabilities(y, outputs["copies"])
        log_mean = log_mean_exp(log_p, axis=1)
        agreement = ops.mean(kl_divergence(log_mean[:, None], log_p), axis=1)
        regularizer = self.value(
            "consistency_weight"
        ) * agreement + self.entropy_weight * entropy(log_mean)
        parts = {"loss_mean": losses, "loss_consistency": regularizer}
        return losses + regularizer, parts
