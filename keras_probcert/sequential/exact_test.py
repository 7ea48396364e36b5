"""The exact sequential test: optimal-stopping boundaries, calibrated exactly."""

import functools
import math

import keras
import numpy as np
from scipy import stats

from keras_probcert.sequential.beta_mixture import BetaMixtureTest
from keras_probcert.sequential.optimal_stopping import (
    error_of_certifying,
    error_of_rejecting,
    optimal_stopping,
)
from keras_probcert.sequential.sequential_test import (
    LARGEST_HORIZON,
    SequentialTest,
)
from keras_probcert.sequential.stopping_law import stopping_law
from keras_probcert.validation import check_fraction

# Rounding must not carry a calculated error over its level.
SAFETY = 1e-9
# Below it float64 sums do not tell the errors any more.
LEAST_LEVEL = 1e-15


@keras.saving.register_keras_serializable(package="keras_probcert")
class ExactTest(SequentialTest):
    """Errors that are exact by calculation, and the fewest samples for them.

    If no class has a probability above 1 − kappa in the vicinity, a stream is
    certified with probability at most alpha, and with no more where looks are
    skipped. If some class has a probability of at least 1 − kappa, a stream is
    rejected with probability at most beta. Both hold over the whole horizon and
    are calculated by dynamic programming, not bounded: for two classes
    (1 − kappa, kappa), the worst case, certifying has probability alpha but for
    the last step of the integers.

    The boundaries minimize expected samples over a spread of agreements
    (`keras_probcert.sequential.optimal_stopping`), and are then moved until they
    spend alpha and beta. Certifying is calibrated with the reject boundary
    switched off; what is left of alpha is spent at the horizon.

    Args:
        kappa: the tolerated fraction of disagreeing perturbations, in (0, ½];
            0.01 by default.
        alpha: the probability, at most, of certifying an input whose agreement
            is 1 − kappa or less, in (0, 1); 0.01 by default.
        max_samples: the horizon; the default is that of `BetaMixtureTest`, at which
            this test certifies an agreement of `1 - 0.7 * kappa` with probability
            about 0.98. The promise is for this horizon, so another one has other
            boundaries.
        beta: the probability, at most, of rejecting an input whose agreement is
            1 − kappa or more, in (0, 1); alpha by default.
        futile: whether to stop a stream that can no longer be certified.
        focus: an agreement in (0, 1] at which samples should be fewest: it gets
            as much weight as the whole default spread. `None` by default. (At
            1 − kappa itself no test can be quick; it changes next to nothing.)

    Raises:
        ValueError: if an argument is out of its range, or `max_samples` is too
            small to certify even unanimous votes.

    Example:

    >>> test = ExactTest(kappa=0.05, alpha=0.05, max_samples=2000)
    >>> error = test.operating_characteristics(0.95)["certify"]
    >>> bool(0.049 < error <= 0.05)
    True

    Reference:

    - Lorden, "2-SPRT's and the modified Kiefer-Weiss problem of minimizing an
      expected sample size", Annals of Statistics 4 (1976), for optimal stopping
      with a Lagrangian.
    - Jennison and Turnbull, "Group Sequential Methods with Applications to
      Clinical Trials" (1999), chapter 12, for exact binomial calculations.
    """

    def __init__(
        self,
        kappa=0.01,
        alpha=0.01,
        max_samples=None,
        beta=None,
        futile=True,
        focus=None,
    ):
        if focus is not None:
            focus = check_fraction("focus", focus, closed=True)
        self.focus = focus
        super().__init__(kappa, alpha, max_samples, beta, futile)
        for name in ("alpha", "beta"):
            if getattr(self, name) < LEAST_LEVEL:
                raise ValueError(
                    f"`{name}` must be at least {LEAST_LEVEL:g} for an ExactTest. "
                    f"Received: {name}={getattr(self, name)}"
                )

    def _default_horizon(self):
        # The horizon is needed before there are boundaries.
        return BetaMixtureTest(self.kappa, self.alpha).max_samples

    @functools.cached_property
    def _least_horizon(self):
        return _least_unanimous(self.kappa, self.alpha)

    def _certify_times(self):
        return self._in_time[0]

    def _reject_until(self):
        return self._in_time[1]

    @property
    def _in_time(self):
        return _boundaries_in_time(
            self.kappa, self.alpha, self.beta, self.max_samples, self.focus
        )

    def get_config(self):
        return {**super().get_config(), "focus": self.focus}


def _least_unanimous(kappa, alpha):
    """The least n at which unanimous votes, for either of two classes, will do."""
    agree = math.log1p(-kappa)
    n = math.ceil(math.log(alpha) / agree)
    while n < LARGEST_HORIZON and (
        math.exp(n * agree) + kappa**n > alpha * (1 - SAFETY)
    ):
        n += 1
    return n


@functools.lru_cache(maxsize=64)
def _boundaries_in_time(kappa, alpha, beta, horizon, focus):
    """The better of two designs, where there may be a difference."""
    designs = [True] if beta <= 0.1 else [True, False]
    tests = [
        _calibrated(
            kappa,
            alpha,
            beta,
            horizon,
            optimal_stopping(kappa, alpha, beta, horizon, focus, last_ditch),
        )
        for last_ditch in designs
    ]

    def samples_of_rejecting(test):
        return stopping_law(
            *test, horizon, 2 * kappa / (1 + kappa)
        ).expected_disagreements()

    return tests[0] if len(tests) == 1 else min(tests, key=samples_of_rejecting)


def _calibrated(kappa, alpha, beta, horizon, design):
    """Integer boundaries whose errors are at most alpha and beta."""
    certify, reject = design
    # On a short horizon the design may see nothing to save.
    least = _least_unanimous(kappa, alpha)
    certify = np.maximum(certify if certify[0] <= horizon else [least], least)

    def times(stretch):
        moved = np.ceil(certify * math.exp(min(stretch, 700)))
        return np.maximum(moved[moved <= horizon], 1).astype(np.int64)

    def until(stretch):
        moved = np.minimum(np.floor(reject * math.exp(-stretch)), horizon)
        # At most n − 1 of n votes disagree with their leader.
        moved[moved < np.arange(len(moved)) + 1] = 0
        return np.maximum.accumulate(moved).astype(np.int64)

    def error(times):
        return error_of_certifying(times, horizon, kappa, two_classes=True)

    level = alpha * (1 - SAFETY)
    # The horizon moves by a tenth of a vote.
    fine = 0.1 / horizon
    certify_times = times(_least(lambda stretch: error(times(stretch)) <= level, fine))
    certify_times = _spend_the_rest(certify_times, horizon, kappa, level)
    reject_until = until(
        _least(
            lambda stretch: (
                error_of_rejecting(until(stretch), horizon, kappa)
                <= beta * (1 - SAFETY)
            ),
            fine,
        )
    )
    # Where both would stop, nothing is lost by certifying: that is the promise.
    shared = min(len(certify_times), len(reject_until))
    reject_until[:shared] = np.minimum(
        reject_until[:shared], certify_times[:shared] - 1
    )
    errors = error(certify_times), error_of_rejecting(reject_until, horizon, kappa)
    if errors[0] > alpha or errors[1] > beta:
        raise RuntimeError(
            f"A test at kappa={kappa}, alpha={alpha}, beta={beta}, "
            f"max_samples={horizon} would have the errors {errors}"
        )
    for boundary in (certify_times, reject_until):
        boundary.setflags(write=False)
    return certify_times, reject_until


def _least(holds, fine):
    """The least stretch at which `holds`, which is true from it on, but for `fine`."""
    # The design's errors are within a hundredth of their levels.
    low, high = -0.001, 0.001
    while holds(low) and low > -8:
        low *= 2
    while not holds(high):
        high *= 2
    while high - low > fine:
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def _spend_the_rest(certify_times, horizon, kappa, level):
    """Certifies at the horizon what the rest of alpha allows."""
    reach = int(stats.binom.isf(1e-6, horizon, kappa)) + len(certify_times) + 2
    law = stopping_law(
        certify_times,
        np.zeros(min(reach, horizon), np.int64),
        horizon,
        kappa,
        two_classes=True,
    )
    spent = law.certified.sum() + np.cumsum(law.undecided[len(certify_times) :])
    more = int(np.searchsorted(spent, level, side="right"))
    return np.append(certify_times, np.full(more, horizon))
