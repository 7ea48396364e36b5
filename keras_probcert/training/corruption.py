"""Corruption training: one random perturbation of each input."""

import keras

from keras_probcert.training.random_copies import RandomCopies


@keras.saving.register_keras_serializable(package="keras_probcert")
class CorruptionModel(RandomCopies):
    r"""Trains on one random perturbation of each input, and not on the input.

    Minimizes the compiled loss \(\ell(h(t), y)\) at one fresh draw
    \(t \sim B(x)\) of each step: training on random perturbations with n = 1,
    the cheapest of all that look at the vicinity. PRBench draws the noise
    uniformly (the default) or, as variants, Gaussian or Laplace of scale 1 and
    clipped to ±ε. BatchNorm and Dropout see the corrupted rows only.

    Args:
        model: the base model, a `keras.Model` with one output.
        perturbation: the vicinity, a `Perturbation`; `LInf(8 / 255)` by default.
        seed: an int that fixes the noise of training; `None` (default) for
            Keras' global seed.
        **kwargs: passed to `keras.Model`, such as `name`.

    Raises:
        ValueError: if an argument is out of its range.

    Example:

    >>> import keras
    >>> from keras_probcert import LInf
    >>> base = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> model = CorruptionModel(base, LInf(0.1))
    >>> model.compile("adam", keras.losses.CategoricalCrossentropy(from_logits=True))

    Reference:

    - Zhang et al., "Probabilistic Robustness for Free? Revisiting Training via a
      Benchmark" (arXiv 2511.01724).
    """

    def __init__(self, model, perturbation=None, seed=None, **kwargs):
        super().__init__(model, perturbation, num_samples=1, seed=seed, **kwargs)
