"""Adversarial training by projected gradient descent."""

import keras

from keras_probcert.training.adversarial import AdversarialTraining
from keras_probcert.validation import check_bool


@keras.saving.register_keras_serializable(package="keras_probcert")
class PGDTModel(AdversarialTraining):
    r"""Trains on the worst point of each ball: Madry's adversarial training.

    Minimizes \(\ell(h(x'), y)\) at the \(x'\) that projected gradient ascent on
    the same loss finds in the ball of radius ε around \(x\). A step costs `steps`
    passes for the search and one to train. The search sees BatchNorm and Dropout
    in inference mode, the training pass in training mode on the adversarial rows.

    Args:
        model: the base model, a `keras.Model` with one output.
        epsilon: ε, in units of the input, at least 0; 8/255 by default (MNIST: 0.3).
            May be a `Schedule`.
        steps: the number of steps of the search, at least 1; 7 by default (MNIST:
            40).
        step_size: the length of a step in units of the input; `None` (default)
            for ε/4, the paper's 2/255 at 8/255 (MNIST: 0.01).
        random_start: whether the search starts at a random point of the ball
            (default), or at the input.
        norm: `"linf"` (default) or `"l2"`.
        clip: `(low, high)`, the valid input range, `(0, 1)` by default; `None`
            for no range.
        seed: an int that fixes the random starts; `None` (default) for Keras'
            global seed.
        **kwargs: passed to `keras.Model`, such as `name`.

    Raises:
        ValueError: if an argument is out of its range.

    Example:

    >>> import keras
    >>> base = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> model = PGDTModel(base, epsilon=0.1, steps=3)
    >>> model.compile("adam", keras.losses.CategoricalCrossentropy(from_logits=True))

    Reference:

    - Madry, Makelov, Schmidt, Tsipras and Vladu, "Towards Deep Learning Models
      Resistant to Adversarial Attacks" (ICLR 2018), equation 2.1.
    """

    def __init__(
        self,
        model,
        epsilon=8 / 255,
        steps=7,
        step_size=None,
        random_start=True,
        norm="linf",
        clip=(0.0, 1.0),
        seed=None,
        **kwargs,
    ):
        super().__init__(model, epsilon, steps, step_size, norm, clip, seed, **kwargs)
        self.random_start = check_bool("random_start", random_start)

    def forward(self, x, y):
        start = "uniform" if self.random_start else None
        worst = self.worst_points(self.loss_of_each(y), x, start)
        return self.outputs_of(worst[:, None])

    def objective(self, y, outputs):
        return self.losses_of(y, outputs["copies"])[:, 0], {}
