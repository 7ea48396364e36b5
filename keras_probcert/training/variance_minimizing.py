"""Variance-minimizing training: the mean + λ·std of the loss over a vicinity."""

import keras
from keras import ops

from keras_probcert.training.random_copies import RandomCopies
from keras_probcert.validation import check_integer


@keras.saving.register_keras_serializable(package="keras_probcert")
class VarianceMinimizingModel(RandomCopies):
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
            random perturbations. May be a `Schedule`.
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

    parts = ("loss_mean", "loss_std")

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
        scheduled = {"std_weight": std_weight}
        super().__init__(
            model, perturbation, num_samples, chunk_size, seed, scheduled, **kwargs
        )
        # One copy has no standard deviation.
        if self.std_weight != 0:
            check_integer("num_samples", num_samples, least=2)

    def aggregate(self, losses):
        mean = ops.mean(losses, axis=1)
        # Without a weight the std would cost its gradient and count for nothing.
        std = ops.zeros_like(mean) if self.std_weight == 0 else _sample_std(losses)
        objective = mean + self.value("std_weight") * std
        return objective, {"loss_mean": mean, "loss_std": std}


def _sample_std(losses):
    """The standard deviation over the copies, n − 1 in the denominator."""
    deviations = losses - ops.mean(losses, axis=1, keepdims=True)
    n = losses.shape[1]
    variance = ops.sum(ops.square(deviations), axis=1) / (n - 1)
    # The root's gradient at 0 is infinite, and NaN once multiplied by 0.
    varies = variance > 0
    root = ops.sqrt(ops.where(varies, variance, 1.0))
    return ops.where(varies, root, 0.0)
