"""Algorithm 2 of the paper: an exact binomial test after every sample."""

import keras
import numpy as np

from keras_probcert.sequential.sequential_test import SequentialTest


@keras.saving.register_keras_serializable(package="keras_probcert")
class Algorithm2Test(SequentialTest):
    """The paper's procedure, to reproduce its tables. It does not hold alpha.

    After every sample two exact binomial tests are made at the full alpha, and
    the first to reject decides. Looking again and again makes the error larger
    than alpha: at kappa = alpha = 0.01 an input whose agreement is exactly
    1 − kappa is certified with probability 0.102 within 30,000 samples, and with
    more the longer the horizon. `operating_characteristics` gives the true
    error at any setting; use `ExactTest` for a certificate.

    A class's count starts at 1 when the class is first seen (the pseudo-code
    starts it at 0, which would raise the error above to 0.174).

    Args:
        kappa: the tolerated fraction of disagreeing perturbations, in (0, ½];
            0.01 by default.
        alpha: the level of each single look, in (0, 1); 0.01 by default.
        max_samples: the horizon (the paper has none); the default is that of
            `SequentialTest`.
        beta, futile: see `SequentialTest`.

    Raises:
        ValueError: if an argument is out of its range, or `max_samples` is too
            small to certify even unanimous votes.

    Example:

    >>> test = Algorithm2Test(kappa=0.05, alpha=0.05, max_samples=2000)
    >>> error = test.operating_characteristics(0.95)["certify"]
    >>> bool(error > 0.05)
    True

    Reference:

    - Algorithm 2 of "Towards Certified Probabilistic Robustness with High
      Accuracy" (arXiv 2309.00879).
    """

    def certifies(self, num_samples, disagreements):
        # p_right: P(at least this many agree) at agreement 1 − kappa.
        return self._tail(num_samples, disagreements) < self.alpha

    def rejects(self, num_samples, disagreements):
        # p_left: P(at least this many disagree) at agreement 1 − kappa.
        n, d = np.broadcast_arrays(num_samples, disagreements)
        return 1.0 - self._tail(n, d - 1) < self.beta

    def _tail(self, n, d):
        """P(at most d of n votes disagree) at agreement 1 − kappa."""
        from tensorflow_probability.substrates import numpy as tfp

        n, d = np.broadcast_arrays(n, d)
        law = tfp.distributions.Binomial(
            total_count=n.astype(np.float64), probs=np.float64(self.kappa)
        )
        return np.where(d < 0, 0.0, law.cdf(np.maximum(d, 0).astype(np.float64)))
