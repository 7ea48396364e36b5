"""UPGD: momentum, any loss, and means over the model's own randomness."""

from keras_probcert.attacks import losses
from keras_probcert.attacks.gradient_attack import mean_gradient
from keras_probcert.attacks.mifgsm import MIFGSM
from keras_probcert.validation import check_bool, check_choice, check_integer

_LOSSES = {
    "ce": losses.cross_entropy,
    "dlr": losses.difference_of_logits_ratio,
    "margin": losses.margin,
}


class UPGD(MIFGSM):
    r"""The "ultimate" projected gradient descent of TorchAttacks.

    MI-FGSM with a choice of start and loss and, for models that draw at random, the
    mean of several gradients.

    Args:
        epsilon: ε, the L∞ radius, in units of the input, above 0; 8/255 by default.
        steps: the number of steps, at least 1; 10 by default.
        step_size: the length of a step in every coordinate, in units of the input;
            `None` (default) for `2.5 * epsilon / steps`.
        random_start: whether to start at a uniformly random point of the ball or
            at `x` (default).
        loss: `"ce"` (cross-entropy, default), `"dlr"` (at least three classes) or
            `"margin"`, the best other logit minus that of the class.
        decay: μ of the momentum, at least 0; 1 by default.
        eot_iter: how many gradients are averaged, at least 1 (default).
        clip: `(low, high)`, the valid input range, `(0, 1)` by default; `None` for
            no range.

    Raises:
        ValueError: if an argument is out of its range.

    Example:

    >>> import keras, numpy as np
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> x = np.random.rand(5, 4).astype("float32")
    >>> x_adv = UPGD(epsilon=0.1, loss="margin")(model, x, y=[0, 1, 2, 0, 1])

    Reference:

    - Kim, "Torchattacks: A PyTorch Repository for Adversarial Attacks" (2020).
    """

    def __init__(
        self,
        epsilon=8 / 255,
        steps=10,
        step_size=None,
        random_start=False,
        loss="ce",
        decay=1.0,
        eot_iter=1,
        clip=(0.0, 1.0),
    ):
        super().__init__(epsilon, steps, step_size, decay, clip)
        self.random_start = check_bool("random_start", random_start)
        self.loss = check_choice("loss", loss, _LOSSES)
        self.eot_iter = check_integer("eot_iter", eot_iter)
        self.least_classes = 3 if loss == "dlr" else 2

    def objective(self, logits, y):
        return _LOSSES[self.loss](logits, y)

    def gradient(self, value, point, memory, noise):
        gradient = super().gradient

        def draw(_):
            return gradient(value, point, memory, noise)[0]

        return mean_gradient(draw, self.eot_iter, point), memory
