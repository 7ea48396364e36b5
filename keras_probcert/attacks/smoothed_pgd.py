"""SmoothedPGD: projected gradient ascent on the mean probability over the vicinity."""

from keras_probcert import backend
from keras_probcert.attacks import goals
from keras_probcert.attacks.certificate_attack import CertificateAttack


class SmoothedPGD(CertificateAttack):
    r"""PGD on the vote of a `CertifiedPredictor`: to have a wrong class predicted.

    Votes have no gradient; the probabilities of the draws do. Each step climbs

    \[-\log \frac{1}{m} \sum_{i=1}^{m} p_y(x' + \delta_i),\]

    the logarithm of the *mean softmax* over m fresh draws of the vicinity, not the
    mean of their cross-entropies: a vote counts once, however wrong it is. See
    `CertificateAttack` for the threat model.

    Args:
        num_samples: m, the draws at each step, at least 1; 20 by default. With more
            the gradients are less noisy; raise it until success stops rising.
        steps: the number of steps of each search, at least 1; 100 by default.
        restarts: the number of searches, at least 1; 5 by default. The first starts
            at `x`, the others at random points of the ball.
        epsilon: the radius of the ball around `x`, in units of the input, above 0;
            `None` (default) for that of the predictor's vicinity, if it is a ball.
        norm: `"linf"`, `"l2"` or `"l1"`, the norm of the ball; `None` (default) for
            that of the predictor's vicinity, and `"linf"` if that is no ball.
        check_samples: the draws that say which end of a search is the best, at
            least 1; rounded up to full passes; 500 by default.
        known_seed: whether the attack's `seed` is the one with which the predictor
            will vote: then every step climbs the first m of its draws. `False` by
            default.
        step_size: the length of a step, in units of the input; `None` (default) for
            `2.5 * epsilon / steps`.

    Raises:
        ValueError: if an argument is out of its range.

    Example:

    >>> import keras, numpy as np
    >>> from keras_probcert import CertifiedPredictor, LInf
    >>> base = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> certified = CertifiedPredictor(base, LInf(0.1), kappa=0.1)
    >>> x = np.random.rand(5, 4).astype("float32")
    >>> attack = SmoothedPGD(num_samples=5, steps=10, restarts=2)
    >>> x_adv = attack(certified, x, y=[0, 1, 2, 0, 1], seed=0)
    >>> bool(np.abs(x_adv - x).max() <= 0.1 + 1e-6)
    True

    Reference:

    - Salman, Yang, Li, Zhang, Zhang, Razenshteyn and Bubeck, "Provably Robust Deep
      Learning via Adversarially Trained Smoothed Classifiers" (NeurIPS 2019),
      equation 6.
    """

    goal = goals.Misclassification()

    def __init__(
        self,
        num_samples=20,
        steps=100,
        restarts=5,
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
        climbed = self.restarts * self.steps * self.num_samples
        checked = (self.restarts + 1) * self.check_samples
        return climbed + checked, climbed

    def focus(self, draw, x, y, index):
        """The class that a search is about, `(rows,)`."""
        return y

    def search(self, draw, x, y, index, seeds):
        focus = self.focus(draw, x, y, index)

        def direction(step, point, memory):
            first = self.first_draw(index, step)

            def value(point):
                return self.goal.value(draw(point, first, self.num_samples), focus)

            gradient = backend.input_gradient(value, point)
            return self.ball.direction(gradient, point), memory

        return self.ball.climb(direction, x, self.start(x, index, seeds))
