"""The betting test of Voráček (2024)."""

import math

import keras
import numpy as np
from scipy import special

from keras_probcert.sequential.evidence import level_for_one_class
from keras_probcert.sequential.sequential_test import SequentialTest


@keras.saving.register_keras_serializable(package="keras_probcert")
class BettingTest(SequentialTest):
    """Stops when a bettor against agreement 1 − kappa is rich enough.

    Before each vote the bettor estimates the agreement by the votes so far, with
    half a vote for either side more (Krichevsky and Trofimov), and bets by it.
    The wealth is a martingale at agreement 1 − kappa, so it reaches 1/alpha with
    probability at most alpha. An input whose agreement is at most 1 − kappa is
    certified with probability at most alpha, one whose agreement is at least
    1 − kappa rejected with probability at most beta, with or without a horizon.

    The published procedure fixes the label before the votes that certify it. To
    let the votes choose it, alpha is divided by
    `keras_probcert.sequential.evidence.level_for_one_class`'s factor,
    1.0000 at kappa ≤ 0.1.

    Args:
        kappa, alpha, max_samples, beta, futile: see `SequentialTest`.

    Raises:
        ValueError: if an argument is out of its range, or `max_samples` is too
            small to certify even unanimous votes.

    Example:

    >>> test = BettingTest(kappa=0.05, alpha=0.05, max_samples=2000)
    >>> bool(test.operating_characteristics(0.95)["certify"] <= 0.05)
    True

    Reference:

    - Voráček, "Treatment of Statistical Estimation Problems in Randomized
      Smoothing for Adversarial Robustness", NeurIPS 2024 (arXiv 2406.17830).
    """

    def certifies(self, num_samples, disagreements):
        level = level_for_one_class(self.kappa, self.alpha)
        fewer = np.asarray(disagreements) <= self.kappa * np.asarray(num_samples)
        return fewer & (
            self._log_wealth(num_samples, disagreements) >= -math.log(level)
        )

    def rejects(self, num_samples, disagreements):
        more = np.asarray(disagreements) >= self.kappa * np.asarray(num_samples)
        wealth = self._log_wealth(num_samples, disagreements)
        return more & (wealth >= -math.log(self.beta))

    def _log_wealth(self, n, d):
        n, d = np.broadcast_arrays(n, d)
        # The product of the bets is a mixture over Beta(½, ½).
        bets = special.betaln(d + 0.5, n - d + 0.5) - special.betaln(0.5, 0.5)
        return bets - d * math.log(self.kappa) - (n - d) * math.log1p(-self.kappa)
