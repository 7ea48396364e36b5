"""What attacks on a vote are after: what they climb, and what counts as closer."""

import math

from keras import ops

from keras_probcert.attacks import losses
from keras_probcert.validation import check_choice


class Misclassification:
    """The majority votes for another class than the true one."""

    def value(self, logits, focus):
        """What gradients climb, one value a row.

        Args:
            logits: tensor, `(rows, draws, classes)`, of perturbed copies.
            focus: int32 tensor, `(rows,)`: the class to get away from or, for a
                forgery, to get to.

        Returns:
            A tensor, `(rows,)`.
        """
        return -log_mean_probability(logits, focus)

    def score(self, frequencies, y):
        """How close to its goal an attack is, one value a row, more is closer.

        Args:
            frequencies: tensor, `(rows, classes)`, the share of each class in the
                votes.
            y: int32 tensor, `(rows,)`, the true classes.

        Returns:
            A tensor, `(rows,)`.
        """
        return losses.margin(frequencies, y)


class Denial:
    """No class has enough votes for a certificate, the true one or another."""

    def value(self, logits, focus):
        """−log of the largest mean probability; `focus` plays no part."""
        leader = ops.argmax(ops.mean(ops.softmax(logits, axis=2), axis=1), axis=1)
        return -log_mean_probability(logits, leader)

    def score(self, frequencies, y):
        """Minus the largest frequency."""
        return -ops.max(frequencies, axis=1)


class Forgery:
    """A wrong class has all votes but a share of kappa, and is certified.

    A few votes against it are enough to spoil a certificate, so the draws that
    are furthest from the class count for most: what is climbed is the logarithm of
    the harmonic mean of the probabilities, a soft minimum.
    """

    def value(self, logits, focus):
        """log of the harmonic mean, over the draws, of the probability of `focus`."""
        count = math.log(logits.shape[1])
        return count - ops.logsumexp(-log_probability(logits, focus), axis=1)

    def score(self, frequencies, y):
        """The largest frequency of a wrong class."""
        right = ops.one_hot(y, frequencies.shape[1], dtype="bool")
        return ops.max(ops.where(right, 0.0, frequencies), axis=1)


GOALS = {
    "misclassify": Misclassification(),
    "deny": Denial(),
    "forge": Forgery(),
}


def get(name):
    """The goal of this name: `"misclassify"`, `"deny"` or `"forge"`."""
    return GOALS[check_choice("goal", name, GOALS)]


def log_probability(logits, y):
    """log softmax of class `y` on every draw, `(rows, draws)`.

    As −softplus of how far the others are ahead: the gradient of a log softmax
    loses its part along the logit of `y` where the probability rounds to 1.
    """
    chosen = ops.one_hot(y, logits.shape[2], dtype="bool")[:, None]
    others = ops.logsumexp(ops.where(chosen, -float("inf"), logits), axis=2)
    own = ops.sum(ops.where(chosen, logits, 0.0), axis=2)
    return -ops.softplus(others - own)


def log_mean_probability(logits, y):
    """log of the mean, over the draws, of the probability of class `y`, `(rows,)`."""
    total = ops.logsumexp(log_probability(logits, y), axis=1)
    return total - math.log(logits.shape[1])
