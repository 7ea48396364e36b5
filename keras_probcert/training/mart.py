"""MART: adversarial training that minds misclassified examples more."""

import keras
from keras import ops

from keras_probcert.training.adversarial import AdversarialTraining
from keras_probcert.training.probabilities import kl_divergence


@keras.saving.register_keras_serializable(package="keras_probcert")
class MARTModel(AdversarialTraining):
    r"""Trains on worst points, with more weight on what is misclassified.

    With \(p\) the class probabilities of the base and \(x'\) the point of largest
    loss that projected gradient ascent finds, minimizes

    \[-\log p_y(x') - \log\bigl(1 - \max_{k \ne y} p_k(x')\bigr)
      + \beta\, \mathrm{KL}(p(x) \| p(x')) \bigl(1 - p_y(x)\bigr).\]

    The gradient flows through \(p(x)\), its weight included. The second logarithm
    is computed from logits and does not saturate; the authors' code writes
    \(1.0001 - \max\) for it and \(1.0000001 - p_y\) for the weight.

    The compiled loss says whether the outputs are logits, and is what the search
    maximizes; the objective is the formula above. A step costs `steps` passes for
    the search, one over the clean rows and one over the adversarial ones. The
    search sees BatchNorm and Dropout in inference mode; the two training passes
    are separate, clean rows first, as in the authors' code. The compiled metrics
    are of the adversarial rows.

    Args:
        model: the base model, a `keras.Model` with one output.
        epsilon: ε, in units of the input, at least 0; 8/255 by default (MNIST: 0.3).
            May be a `Schedule`.
        beta: β, at least 0, the paper's λ; 5 by default. May be a `Schedule`.
        steps: the number of steps of the search, at least 1; 10 by default (MNIST:
            40).
        step_size: the length of a step in units of the input; `None` (default)
            for ε/4 (MNIST: 0.01).
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
    >>> model = MARTModel(base, epsilon=0.1, steps=3)
    >>> model.compile("adam", keras.losses.CategoricalCrossentropy(from_logits=True))

    Reference:

    - Wang, Zou, Yi, Bailey, Ma and Gu, "Improving Adversarial Robustness Requires
      Revisiting Misclassified Examples" (ICLR 2020), equations 9 to 11.
    """

    parts = ("loss_boosted", "loss_kl")

    def __init__(
        self,
        model,
        epsilon=8 / 255,
        beta=5.0,
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
        worst = self.worst_points(self.loss_of_each(y), x, "gaussian")
        clean = self.outputs_of(x[:, None])["copies"]
        return {"clean": clean, **self.outputs_of(worst[:, None])}

    def objective(self, y, outputs):
        target = self.one_hot(y)
        log_p = self.log_probabilities(y, outputs["clean"][:, 0])
        log_q = self.log_probabilities(y, outputs["copies"][:, 0])

        # log(1 - q_k) for the strongest wrong class k: the sum of the others.
        wrong = ops.where(target > 0, -float("inf"), log_q)
        strongest = ops.one_hot(ops.argmax(wrong, axis=-1), log_q.shape[-1])
        others = ops.where(strongest > 0, -float("inf"), log_q)
        boosted = -ops.sum(target * log_q, axis=-1) - ops.logsumexp(others, axis=-1)

        misclassified = 1.0 - ops.sum(target * ops.exp(log_p), axis=-1)
        weighted = kl_divergence(log_p, log_q) * misclassified
        parts = {"loss_boosted": boosted, "loss_kl": weighted}
        return boosted + self.value("beta") * weighted, parts
