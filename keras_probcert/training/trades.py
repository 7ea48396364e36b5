"""TRADES: accuracy on clean inputs, agreement with the worst point around them."""

import keras

from keras_probcert.training.adversarial import AdversarialTraining
from keras_probcert.training.probabilities import kl_divergence


@keras.saving.register_keras_serializable(package="keras_probcert")
class TRADESModel(AdversarialTraining):
    r"""Trades clean accuracy for agreement inside the ball.

    With \(p\) the class probabilities of the base, minimizes

    \[\ell(h(x), y) + \beta\, \mathrm{KL}(p(x) \| p(x')),\]

    where projected gradient ascent looks for the \(x'\) of largest KL from
    \(x + 0.001 \cdot N(0, 1)\), since its gradient at \(x\) is zero. The gradient
    of the objective flows through both \(p(x)\) and \(p(x')\).

    A step costs `steps` passes and a forward pass for the search, one pass over
    the clean rows and one over the adversarial ones. The search sees BatchNorm
    and Dropout in inference mode; the two training passes are separate, clean
    rows first, as in the authors' code. The compiled metrics are of the
    adversarial rows. (Some repositories take the cross-entropy on adversarial
    rows instead: that is not TRADES.)

    Args:
        model: the base model, a `keras.Model` with one output.
        epsilon: ε, in units of the input, at least 0; 8/255 by default (MNIST: 0.3).
            May be a `Schedule`.
        beta: β, at least 0, the paper's 1/λ; 6 by default (MNIST: 1). May be a
            `Schedule`.
        steps: the number of steps of the search, at least 1; 10 by default (MNIST:
            40).
        step_size: the length of a step in units of the input; `None` (default)
            for ε · 0.007/0.031, the paper's on CIFAR-10 (MNIST: 0.01).
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
    >>> model = TRADESModel(base, epsilon=0.1, beta=1.0, steps=3)
    >>> model.compile("adam", keras.losses.CategoricalCrossentropy(from_logits=True))

    Reference:

    - Zhang, Yu, Jiao, Xing, El Ghaoui and Jordan, "Theoretically Principled
      Trade-off between Robustness and Accuracy" (ICML 2019), equation 5 and
      Algorithm 1.
    """

    parts = ("loss_clean", "loss_kl")
    _step = 0.007 / 0.031

    def __init__(
        self,
        model,
        epsilon=8 / 255,
        beta=6.0,
        steps=10,
        step_size=None,
        norm="linf",
        clip=(0.0, 1.0),
        seed=None,
        **kwargs,
    ):
        scheduled = {"beta": beta}
        super().__init__(
            model, epsilon, steps, step_size, norm, clip, seed, scheduled, **kwargs
        )

    def forward(self, x, y):
        worst = self.worst_points(self.kl_from_clean(x, y), x, "gaussian")
        clean = self.outputs_of(x[:, None])["copies"]
        return {"clean": clean, **self.outputs_of(worst[:, None])}

    def objective(self, y, outputs):
        losses = self.losses_of(y, outputs["clean"])[:, 0]
        log_p = self.log_probabilities(y, outputs["clean"][:, 0])
        log_q = self.log_probabilities(y, outputs["copies"][:, 0])
        divergence = kl_divergence(log_p, log_q)
        parts = {"loss_clean": losses, "loss_kl": divergence}
        return losses + self.value("beta") * divergence, parts
