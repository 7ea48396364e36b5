"""Forge: to have a wrong class certified."""

from keras import ops

from keras_probcert.attacks import goals
from keras_probcert.attacks.smoothed_pgd import SmoothedPGD


class Forge(SmoothedPGD):
    r"""Looks for a place where a `CertifiedPredictor` certifies a wrong class.

    Searches towards one wrong class after another, the likeliest at `x` first. Since
    a certificate needs an agreement of about 1 − kappa, all draws must be of that
    class; each step climbs a soft minimum over m fresh draws, the logarithm of the
    harmonic mean of their probabilities,

    \[-\log \frac{1}{m} \sum_{i=1}^{m} \frac{1}{p_t(x' + \delta_i)},\]

    and what comes back is the point where a wrong class has the most votes. See
    `CertificateAttack` for the threat model.

    Args:
        num_samples: m, the draws at each step, at least 1; 20 by default.
        steps: the number of steps of each search, at least 1; 100 by default.
        restarts: the number of searches, at least 1; 9 by default. Each has another
            target, until all wrong classes have been one, and then again.
        epsilon, norm, check_samples, known_seed, step_size: as in `SmoothedPGD`.

    Raises:
        ValueError: if an argument is out of its range.

    Example:

    >>> import keras, numpy as np
    >>> from keras_probcert import CertifiedPredictor, LInf
    >>> base = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> certified = CertifiedPredictor(base, LInf(0.1), kappa=0.1)
    >>> x = np.random.rand(5, 4).astype("float32")
    >>> attack = Forge(num_samples=5, steps=10, restarts=2)
    >>> x_adv = attack(certified, x, y=[0, 1, 2, 0, 1], seed=0)
    """

    goal = goals.Forgery()

    def __init__(
        self,
        num_samples=20,
        steps=100,
        restarts=9,
        epsilon=None,
        norm=None,
        check_samples=500,
        known_seed=False,
        step_size=None,
    ):
        super().__init__(
            num_samples,
            steps,
            restarts,
            epsilon,
            norm,
            check_samples,
            known_seed,
            step_size,
        )

    @property
    def passes(self):
        forward, backward = super().passes
        return forward + self.restarts * self.num_samples, backward

    def focus(self, draw, x, y, index):
        logits = draw(x, self.first_draw(index, 0), self.num_samples)
        likely = ops.mean(ops.softmax(logits, axis=2), axis=1)
        others = likely.shape[1] - 1
        right = ops.one_hot(y, others + 1, dtype="bool")
        order = ops.argsort(ops.where(right, 2.0, -likely), axis=1)
        return ops.cast(ops.take(order, index % others, axis=1), "int32")
