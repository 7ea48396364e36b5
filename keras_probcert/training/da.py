"""Data augmentation: training on random perturbations of the inputs."""

import keras

from keras_probcert.training.random_copies import RandomCopies


@keras.saving.register_keras_serializable(package="keras_probcert")
class DAModel(RandomCopies):
    r"""Trains on random perturbations: the mean loss over a vicinity.

    Minimizes \(\mu = \frac1n \sum_j u_j\) of the compiled losses \(u_j\) of
    `num_samples` perturbed copies of each example; the clean input is not among
    them. It is variance-minimizing training at λ = 0. BatchNorm and Dropout see
    the copies as a batch of `num_samples` times as many rows. (The DA of the
    `advbench` repository never adds its noise.)

    Args:
        model: the base model, a `keras.Model` with one output.
        perturbation: the vicinity, a `Perturbation`; `LInf(8 / 255)` by default.
        num_samples: n, perturbed copies of each example, at least 1; 10 by
            default.
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
    >>> model = DAModel(base, LInf(0.1), num_samples=4)
    >>> model.compile("adam", keras.losses.CategoricalCrossentropy(from_logits=True))

    Reference:

    - Shorten and Khoshgoftaar, "A survey on Image Data Augmentation for Deep
      Learning" (2019), and Table 1 of "Towards Certified Probabilistic
      Robustness with High Accuracy" (arXiv 2309.00879).
    """
