"""Gaussian noise augmentation, the training of randomized smoothing."""

import keras

from keras_probcert.perturbations import Gaussian
from keras_probcert.training.random_copies import RandomCopies


class GaussianCopies(RandomCopies):
    """Draws copies with Gaussian noise; the noise may leave the input range."""

    def __init__(self, model, sigma, num_samples, chunk_size, seed, **kwargs):
        super().__init__(
            model,
            Gaussian(sigma, clip=None),
            num_samples=num_samples,
            chunk_size=chunk_size,
            seed=seed,
            **kwargs,
        )
        self.sigma = self.perturbation.sigma


@keras.saving.register_keras_serializable(package="keras_probcert")
class RSModel(GaussianCopies):
    r"""Trains under Gaussian noise, for randomized smoothing.

    Minimizes the mean compiled loss of `num_samples` copies \(x + \delta\),
    \(\delta \sim N(0, \sigma^2 I)\), not clipped to the input range. BatchNorm
    and Dropout see the noisy copies.

    Args:
        model: the base model, a `keras.Model` with one output.
        sigma: σ, the standard deviation of the noise in units of the input, at
            least 0; 0.25 by default.
        num_samples: noisy copies of each example, at least 1; 1 by default.
        chunk_size: how many copies of each example are in memory at a time;
            `None` (default) for all. As in `VarianceMinimizingModel`.
        seed: an int that fixes the noise of training; `None` (default) for
            Keras' global seed.
        **kwargs: passed to `keras.Model`, such as `name`.

    Raises:
        ValueError: if an argument is out of its range.

    Example:

    >>> import keras
    >>> base = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> model = RSModel(base, sigma=0.5)
    >>> model.compile("adam", keras.losses.CategoricalCrossentropy(from_logits=True))

    Reference:

    - Cohen, Rosenfeld and Kolter, "Certified Adversarial Robustness via
      Randomized Smoothing" (ICML 2019), section 3.3.
    """

    def __init__(
        self, model, sigma=0.25, num_samples=1, chunk_size=None, seed=None, **kwargs
    ):
        super().__init__(model, sigma, num_samples, chunk_size, seed, **kwargs)
