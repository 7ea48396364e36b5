"""KL-PGD: training on the points that disagree most with the clean input."""

import keras

from keras_probcert.training.adversarial import AdversarialTraining


@keras.saving.register_keras_serializable(package="keras_probcert")
class KLPGDModel(AdversarialTraining):
    r"""Trains on the point of each ball that disagrees most with the input.

    Minimizes \(\ell(h(x'), y)\) at the \(x'\) of largest
    \(\mathrm{KL}(p(x) \| p(x'))\): the search of TRADES, which knows no labels,
    with the objective of adversarial training. A step costs `steps` passes and a
    forward pass for the search and one pass to train. The search sees BatchNorm
    and Dropout in inference mode, the training pass in training mode on the
    adversarial rows.

    Args:
        model: the base model, a `keras.Model` with one output.
        epsilon: ε, in units of the input, at least 0; 8/255 by default. May be a
            `Schedule`.
        steps: the number of steps of the search, at least 1; 7 by default.
        step_size: the length of a step in units of the input; `None` (default)
            for ε/4, the authors' 2/255 at 8/255.
        norm: `"linf"` (default) or `"l2"`.
        clip: `(low, high)`, the valid input range, `(0, 1)` by default; `None`
            for no range.
        seed: an int that fixes the random starts; `None` (default) for Keras'
            global seed.
        **kwargs: passed to `keras.Model`, such as `name`.

    Raises:
        ValueError: if an argument is out of its range, or the compiled loss is not
            a cross-entropy.

    Example:

    >>> import keras
    >>> base = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> model = KLPGDModel(base, epsilon=0.1, steps=3)
    >>> model.compile("adam", keras.losses.CategoricalCrossentropy(from_logits=True))

    Reference:

    - Zhang et al., "Probabilistic Robustness for Free? Revisiting Training via a
      Benchmark" (arXiv 2511.01724).
    """

    def __init__(
        self,
        model,
        epsilon=8 / 255,
        steps=7,
        step_size=None,
        norm="linf",
        clip=(0.0, 1.0),
        seed=None,
        **kwargs,
    ):
        super().__init__(model, epsilon, steps, step_size, norm, clip, seed, **kwargs)

    def forward(self, x, y):
        worst = self.worst_points(self.kl_from_clean(x, y), x, "gaussian")
        return self.outputs_of(worst[:, None])

    def objective(self, y, outputs):
        return self.losses_of(y, outputs["copies"])[:, 0], {}
