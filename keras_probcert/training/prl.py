"""Probabilistically robust learning: the loss of the worst copies."""

import keras
import numpy as np
from keras import ops

from keras_probcert import backend
from keras_probcert.training.random_copies import RandomCopies
from keras_probcert.validation import check_fraction, check_integer


@keras.saving.register_keras_serializable(package="keras_probcert")
class PRLModel(RandomCopies):
    r"""Trains on the worst part of each vicinity: the CVaR of the loss.

    Minimizes, for the losses \(u_1, …, u_n\) of the perturbed copies of a row,

    \[\mathrm{CVaR} = \min_t\; t + \frac{1}{\beta n} \sum_j \max(u_j - t, 0),\]

    the mean of the worst part β of the copies. By default the minimum is exact:
    t is the (1 − β)-quantile of the row's own losses, found by sorting, in one
    pass. With `threshold="gradient"` it is the loop of the authors' code: from
    t = 1, `threshold_steps` gradient steps of length `1 / rows` a row (they take
    the gradient of the batch's mean), each on fresh copies, the objective being
    that of the last; t moves so little that this is in effect a hinge at 1, and
    it costs `threshold_steps − 1` more forward passes. β = 1 is training on random
    perturbations, β → 0 on the worst copy.

    BatchNorm and Dropout see the copies as a batch of `num_samples` times as many
    rows; the loop's passes other than the last leave no trace in them.

    Args:
        model: the base model, a `keras.Model` with one output.
        perturbation: the vicinity, a `Perturbation`; `LInf(8 / 255)` by default.
        num_samples: n, perturbed copies of each example, at least 1; 20 by
            default.
        beta: β in (0, 1], the part of the copies that counts; 0.5 by default.
        threshold: `"quantile"` (default) or `"gradient"`.
        threshold_steps: the steps of `"gradient"`, at least 1; 5 by default.
        chunk_size: how many copies of each example are in memory at a time;
            `None` (default) for all. As in `VarianceMinimizingModel`.
        seed: an int that fixes the noise of training; `None` (default) for
            Keras' global seed.
        **kwargs: passed to `keras.Model`, such as `name`.

    Raises:
        ValueError: if an argument is out of its range.

    Example:

    >>> import keras
    >>> from keras_probcert import LInf
    >>> base = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> model = PRLModel(base, LInf(0.1), num_samples=8, beta=0.1)
    >>> model.compile("adam", keras.losses.CategoricalCrossentropy(from_logits=True))

    Reference:

    - Robey, Chamon, Pappas and Hassani, "Probabilistically Robust Learning:
      Balancing Average- and Worst-case Performance" (ICML 2022), Algorithm 1.
    """

    parts = ("loss_mean",)

    def __init__(
        self,
        model,
        perturbation=None,
        num_samples=20,
        beta=0.5,
        threshold="quantile",
        threshold_steps=5,
        chunk_size=None,
        seed=None,
        **kwargs,
    ):
        super().__init__(model, perturbation, num_samples, chunk_size, seed, **kwargs)
        self.beta = check_fraction("beta", beta, closed=True)
        if threshold not in ("quantile", "gradient"):
            raise ValueError(
                "`threshold` must be 'quantile' or 'gradient'. "
                f"Received: threshold={threshold!r}"
            )
        self.threshold = threshold
        self.threshold_steps = check_integer("threshold_steps", threshold_steps)

    def forward(self, x, y):
        outputs = super().forward(x, y)
        if self.threshold == "gradient":
            outputs["threshold"] = self._descended_threshold(x, y)
        return outputs

    def objective(self, y, outputs):
        losses = self.losses_of(y, outputs["copies"])
        parts = {"loss_mean": ops.mean(losses, axis=1)}
        if self.threshold == "quantile":
            weights = _tail_weights(self.num_samples, self.beta)
            weights = ops.convert_to_tensor(weights, dtype=losses.dtype)
            return ops.sum(ops.sort(losses, axis=1) * weights, axis=1), parts
        threshold = ops.cast(outputs["threshold"], losses.dtype)
        excess = ops.mean(ops.relu(losses - threshold[:, None]), axis=1)
        return threshold + excess / self.beta, parts

    def _descended_threshold(self, x, y):
        """t after all steps but the last, which would come after the objective."""
        base = backend.frozen(self.base_model, training=True)
        rows = ops.shape(x)[0]
        batch = ops.cast(backend.total_rows(rows), "float32")
        threshold = ops.ones((rows,))
        for _ in range(self.threshold_steps - 1):
            above = self._share_above(threshold, base, x, y)
            step = (1.0 - above / self.beta) / batch
            threshold = threshold - step
        return ops.stop_gradient(threshold)

    def _share_above(self, threshold, base, x, y):
        """The part of each row's fresh copies whose loss is above its threshold."""
        seeds = self.seeds(ops.shape(x)[0])
        n, size = self.num_samples, self.chunk_size or self.num_samples
        size = min(size, n)

        def count(first, size):
            copies = self.samples(x, seeds, first, size)
            outputs = base(ops.reshape(copies, (-1, *x.shape[1:])))
            outputs = ops.reshape(outputs, (-1, size, self._units))
            losses = ops.cast(self.losses_of(y, outputs), "float32")
            return ops.sum(ops.cast(losses > threshold[:, None], "float32"), axis=1)

        above = count(0, size)
        if n // size > 1:
            above = ops.fori_loop(
                1, n // size, lambda i, above: above + count(i * size, size), above
            )
        if n % size:
            above = above + count(n - n % size, n % size)
        return above / n


def _tail_weights(num_samples, beta):
    """The weight of each loss in the CVaR, from the smallest loss to the largest."""
    tail = beta * num_samples
    # Copy number j from the top is in the tail wholly, in part or not at all.
    from_the_top = np.clip(tail - np.arange(num_samples), 0.0, 1.0)
    return from_the_top[::-1] / tail
