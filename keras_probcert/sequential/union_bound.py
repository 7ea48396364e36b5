"""The union-bound test of Voráček (2024)."""

import functools
import math

import keras
import numpy as np
from scipy import stats

from keras_probcert.sequential.evidence import level_for_one_class
from keras_probcert.sequential.sequential_test import SequentialTest

GROWTH = 1.1
FIRST_POWER = 11
MOST_VOTES = 10**9


@keras.saving.register_keras_serializable(package="keras_probcert")
class UnionBoundTest(SequentialTest):
    """Exact binomial tests at times that grow by a tenth, alpha shared out.

    Look t = 1, 2, … is at the first number of votes above 1.1^(10 + t) that has not
    had one, at the level 5 alpha / ((t + 4)(t + 5)); these levels add up to alpha.
    A stream that is sure to pass a look ahead stops at once. So an input whose
    agreement is at most 1 − kappa is certified with probability at most alpha,
    one whose agreement is at least 1 − kappa rejected with probability at most
    beta, with or without a horizon. (As in `BettingTest`, alpha is divided by the
    factor that lets the votes choose the label.)

    Args:
        kappa, alpha, max_samples, beta, futile: see `SequentialTest`.

    Raises:
        ValueError: if an argument is out of its range, or `max_samples` is too
            small to certify even unanimous votes.

    Example:

    >>> test = UnionBoundTest(kappa=0.05, alpha=0.05, max_samples=2000)
    >>> bool(test.operating_characteristics(0.95)["certify"] <= 0.05)
    True

    Reference:

    - Voráček, "Treatment of Statistical Estimation Problems in Randomized
      Smoothing for Adversarial Robustness", NeurIPS 2024 (arXiv 2406.17830).
    """

    def certifies(self, num_samples, disagreements):
        looks, certify, _ = self._looks
        # The fewest agreeing votes that pass a look that allows d disagreements.
        enough = np.minimum.accumulate((looks - certify)[::-1])[::-1]
        enough = np.append(enough, np.iinfo(np.int64).max)
        n, d = np.broadcast_arrays(num_samples, disagreements)
        return n - d >= enough[np.searchsorted(certify, d)]

    def rejects(self, num_samples, disagreements):
        looks, _, reject = self._looks
        last = np.append(looks, 0)[np.searchsorted(reject, disagreements, "right") - 1]
        return np.asarray(num_samples) <= last

    @functools.cached_property
    def _looks(self):
        """`(looks, certify, reject)`: when, and at which disagreements."""
        looks = [0]
        for power in range(FIRST_POWER, int(math.log(MOST_VOTES, GROWTH))):
            looks.append(max(looks[-1], math.floor(GROWTH**power)) + 1)
        looks = np.array(looks[1:])
        t = np.arange(1, len(looks) + 1)
        share = 5.0 / ((t + 4) * (t + 5))
        alpha = level_for_one_class(self.kappa, self.alpha)
        # ppf: the least count whose tail is at least the level.
        certify = stats.binom.ppf(alpha * share, looks, self.kappa).astype(np.int64) - 1
        reject = stats.binom.isf(self.beta * share, looks, self.kappa) + 1
        # Monotone, so that a look's votes decide alone; it costs no validity.
        certify = np.minimum.accumulate(certify[::-1])[::-1]
        return looks, certify, np.maximum.accumulate(reject.astype(np.int64))
