"""The Clopper-Pearson test for a number of samples fixed beforehand."""

import math

import keras
import numpy as np
from scipy import stats

from keras_probcert.sequential.evidence import level_for_one_class
from keras_probcert.sequential.sequential_test import SequentialTest


def lower_bound_of(successes, num_samples, alpha):
    """The one-sided Clopper-Pearson lower bound on a probability.

    Args:
        successes: counts from 0 to `num_samples` (between whole counts: interpolated).
        num_samples: the number of samples.
        alpha: the probability with which the bound may fail.

    Returns:
        float64 like `successes`.
    """
    successes = np.asarray(successes, np.float64)
    # The quantile of no successes is that of a distribution that does not exist.
    some = np.maximum(successes, np.finfo(np.float64).tiny)
    bound = stats.beta.ppf(alpha, some, num_samples - successes + 1)
    return np.where(successes > 0, bound, 0.0)


def least_samples(alpha):
    """How many unanimous samples put `lower_bound_of` at `alpha` above ½."""
    return math.floor(math.log(alpha) / math.log(0.5)) + 1


@keras.saving.register_keras_serializable(package="keras_probcert")
class ClopperPearsonTest(SequentialTest):
    """One exact binomial test after `max_samples` votes.

    Certifies when the one-sided Clopper-Pearson bound on the agreement after all
    votes is above 1 − kappa, rejects when the other one is below. A stream stops
    early only where the rest of its votes cannot change that. So an input whose
    agreement is at most 1 − kappa is certified with probability at most alpha,
    one whose agreement is at least 1 − kappa rejected with probability at most
    beta. (As in `BettingTest`, alpha is divided by the factor that lets the votes
    choose the label.)

    Args:
        kappa, alpha, max_samples, beta, futile: see `SequentialTest`.

    Raises:
        ValueError: if an argument is out of its range, or `max_samples` is too
            small to certify even unanimous votes.

    Example:

    >>> test = ClopperPearsonTest(kappa=0.05, alpha=0.05, max_samples=2000)
    >>> bool(test.operating_characteristics(0.95)["certify"] <= 0.05)
    True

    Reference:

    - Clopper and Pearson, "The use of confidence or fiducial limits illustrated
      in the case of the binomial", Biometrika 26 (1934).
    """

    def certifies(self, num_samples, disagreements):
        """Whether a test after `num_samples` votes, and no others, certifies."""
        alpha = level_for_one_class(self.kappa, self.alpha)
        return stats.binom.cdf(disagreements, num_samples, self.kappa) <= alpha

    def rejects(self, num_samples, disagreements):
        """Whether a test after `num_samples` votes, and no others, rejects."""
        d = np.asarray(disagreements)
        return stats.binom.sf(d - 1, num_samples, self.kappa) <= self.beta

    def _certify_times(self):
        d = np.arange(self.max_samples + 1)
        most = np.flatnonzero(self.certifies(self.max_samples, d))[-1]
        return self.max_samples - most + np.arange(most + 1)

    def _reject_until(self):
        d = np.arange(self.max_samples + 1)
        never = np.count_nonzero(~self.rejects(self.max_samples, d))
        return np.zeros(never, np.int64)
