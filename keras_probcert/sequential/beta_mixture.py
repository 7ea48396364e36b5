"""The beta-mixture test: valid at every stop, with or without a horizon."""

import math

import keras

from keras_probcert.sequential.evidence import (
    log_evidence_above,
    log_evidence_below,
    log_threshold_below,
)
from keras_probcert.sequential.sequential_test import SequentialTest


@keras.saving.register_keras_serializable(package="keras_probcert")
class BetaMixtureTest(SequentialTest):
    """Certifies and rejects by beta-mixture likelihood ratios.

    If no class has a probability above 1 − kappa in the vicinity, a stream is
    certified with probability at most alpha, whatever max_samples is and
    whichever looks are skipped. If some class has a probability of at least
    1 − kappa, a stream is rejected with probability at most beta. (By Ville's
    inequality; the derivation, the label's choice included, stands in
    `keras_probcert.sequential.evidence`.)

    Args:
        kappa: the tolerated fraction of disagreeing perturbations, in (0, ½];
            0.01 by default.
        alpha: the significance level, in (0, 1); 0.01 by default.
        max_samples: the horizon; the default is that of
            `SequentialTest`.
        beta, futile: see `SequentialTest`.

    Raises:
        ValueError: if an argument is out of its range, or `max_samples` is too
            small to certify even unanimous votes.

    Example:

    >>> test = BetaMixtureTest(kappa=0.05, alpha=0.05, max_samples=2000)
    >>> error = test.operating_characteristics(0.95)["certify"]
    >>> bool(error <= 0.05)
    True

    Reference:

    - Robbins, "Statistical methods related to the law of the iterated
      logarithm", Annals of Mathematical Statistics 41 (1970).
    - Ville, "Étude critique de la notion de collectif" (1939).
    """

    def certifies(self, num_samples, disagreements):
        evidence = log_evidence_below(
            num_samples, disagreements, self.kappa, self.kappa
        )
        return evidence >= log_threshold_below(self.kappa, self.alpha)

    def rejects(self, num_samples, disagreements):
        evidence = log_evidence_above(num_samples, disagreements, self.kappa)
        return evidence >= -math.log(self.beta)
