"""Wald's sequential probability ratio test, with stated alternatives."""

import math

import keras
import numpy as np

from keras_probcert.sequential.evidence import level_for_one_class
from keras_probcert.sequential.sequential_test import SequentialTest
from keras_probcert.validation import check_fraction


@keras.saving.register_keras_serializable(package="keras_probcert")
class SPRT(SequentialTest):
    """Likelihood ratios of two stated agreements against 1 − kappa.

    Certifies when the votes are 1/alpha times as likely at the first alternative
    as at 1 − kappa, and rejects when they are 1/beta times as likely at the
    second. By Ville's inequality an input whose agreement is at most 1 − kappa is
    certified with probability at most alpha, and one whose agreement is at least
    1 − kappa rejected with probability at most beta, with or without a horizon.
    Samples are few at the alternatives and many far from them.

    Args:
        kappa, alpha, max_samples, beta, futile: see `SequentialTest`.
        alternatives: two agreements, above and below 1 − kappa; by default those
            with half and twice the tolerated disagreement.

    Raises:
        ValueError: if an argument is out of its range, or `max_samples` is too
            small to certify even unanimous votes.

    Example:

    >>> test = SPRT(kappa=0.05, alpha=0.05, max_samples=2000)
    >>> bool(test.operating_characteristics(0.95)["certify"] <= 0.05)
    True

    Reference:

    - Wald, "Sequential tests of statistical hypotheses", Annals of Mathematical
      Statistics 16 (1945).
    """

    def __init__(
        self,
        kappa=0.01,
        alpha=0.01,
        max_samples=None,
        beta=None,
        futile=True,
        alternatives=None,
    ):
        kappa = check_fraction("kappa", kappa, high=0.5, closed=True)
        if alternatives is None:
            alternatives = (1 - kappa / 2, 1 - min(2 * kappa, (1 + kappa) / 2))
        if np.shape(alternatives) != (2,):
            raise ValueError(
                "`alternatives` must be a pair of agreements. "
                f"Received: alternatives={alternatives!r}"
            )
        above, below = (float(p) for p in alternatives)
        if not 0 < below < 1 - kappa < above <= 1:
            raise ValueError(
                "`alternatives` must be an agreement above and one below 1 − kappa = "
                f"{1 - kappa:g}, in (0, 1]. Received: alternatives={alternatives}"
            )
        self.alternatives = (above, below)
        super().__init__(kappa, alpha, max_samples, beta, futile)

    def certifies(self, num_samples, disagreements):
        ratio = self._log_ratio(num_samples, disagreements, self.alternatives[0])
        return ratio >= -math.log(level_for_one_class(self.kappa, self.alpha))

    def rejects(self, num_samples, disagreements):
        ratio = self._log_ratio(num_samples, disagreements, self.alternatives[1])
        return ratio >= -math.log(self.beta)

    def _log_ratio(self, n, d, agreement):
        n, d = np.broadcast_arrays(n, d)
        agree = math.log(agreement) - math.log1p(-self.kappa)
        if agreement == 1:
            return np.where(d == 0, n * agree, -np.inf)
        return (n - d) * agree + d * math.log((1 - agreement) / self.kappa)

    def get_config(self):
        return {**super().get_config(), "alternatives": self.alternatives}
