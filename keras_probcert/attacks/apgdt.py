"""APGD-T: APGD towards one class after another."""

from keras import ops

from keras_probcert.attacks import losses
from keras_probcert.attacks.apgd import APGD
from keras_probcert.perturbations.noise import Noise
from keras_probcert.validation import check_integer


class APGDT(APGD):
    r"""Targeted Auto-PGD on the targeted difference of logits ratio.

    Runs `APGD` towards each of the classes with the largest logits at `x`, the
    likeliest first, until the model is wrong.

    Args:
        epsilon: the radius, in units of the input, above 0; 8/255 by default.
        norm: `"linf"` (default), `"l2"` or `"l1"`.
        steps: the number of steps towards each class, at least 1; 10 by default
            (AutoAttack: 100).
        restarts: the number of random starts for each class, at least 1 (default).
        targets: the number of classes, at least 1; 9 by default, or all others
            where there are fewer.
        eot_iter: the number of gradients that are averaged, at least 1 (default).
        rho: the share of steps that must raise the loss, in (0, 1); 0.75 by default.
        large_radii: as in `APGD`; off by default.
        clip: `(low, high)`, the valid input range, `(0, 1)` by default; `None` for
            no range.

    Raises:
        ValueError: if an argument is out of its range. When called: if the model has
            fewer than four classes.

    Example:

    >>> import keras, numpy as np
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(5)])
    >>> x = np.random.rand(5, 4).astype("float32")
    >>> x_adv = APGDT(epsilon=0.1)(model, x, y=[0, 1, 2, 3, 4], seed=0)

    Reference:

    - Croce and Hein, "Reliable evaluation of adversarial robustness with an
      ensemble of diverse parameter-free attacks" (ICML 2020), equation 7.
    """

    least_classes = 4

    def __init__(
        self,
        epsilon=8 / 255,
        norm="linf",
        steps=10,
        restarts=1,
        targets=9,
        eot_iter=1,
        rho=0.75,
        large_radii=False,
        clip=(0.0, 1.0),
    ):
        super().__init__(
            epsilon, norm, steps, restarts, "ce", eot_iter, rho, large_radii, clip
        )
        self.targets = check_integer("targets", targets)

    def rounds(self, classes):
        return min(self.targets, classes - 1) * self.restarts

    def run(self, model, x, y, seeds, index, point):
        target = ranked_class(model(x), 1 + index // self.restarts)

        def objective(logits, y):
            return losses.targeted_difference_of_logits_ratio(logits, y, target)

        return self.search(model, x, y, objective, Noise(seeds, 1, first=index))


def ranked_class(logits, rank):
    """The class of each row with the `rank`-th largest logit, counted from 0."""
    order = ops.argsort(-logits, axis=1)
    return ops.take_along_axis(order, rank[:, None], axis=1)[:, 0]
