"""How many perturbed copies a second a certifier classifies on this machine."""

import math
import time

import numpy as np

from keras_probcert import models
from keras_probcert.certifiers import voting
from keras_probcert.certifiers.certifier import Certifier
from keras_probcert.validation import check_number

LEAST_CALLS = 3
# Passes in one call take about so many seconds, so that what is around them is little.
SECONDS_A_CALL = 0.3
MOST_PASSES = 16


class FullPasses(Certifier):
    """A certifier of the same model that gives each row one slot and counts."""

    def __init__(self, certified):
        super().__init__(
            certified.base_model,
            certified.perturbation,
            certified.forward_batch_size,
            certified.from_logits,
            certified._jit_compile_argument,
        )

    def certify(self, draw_votes, refused):
        copies = (voting.COPIES_A_SLOT,)
        votes = voting.count(
            draw_votes,
            refused,
            self.num_classes,
            copies,
            self._slots,
            self._static_shapes,
        )
        return {"votes": votes}


def forward_rate(certified, x=None, seconds=2.0):
    """Perturbed copies a second that a certifier really classifies here.

    Full forward passes of `forward_batch_size` copies are timed, from the noise to the
    counted votes, compiled as the certifier compiles them; after a warm-up, and as the
    median of several. A certificate's own loop gets a little less: passes are not full
    where few rows are left undecided.

    Args:
        certified: a `CertifiedPredictor` or `SmoothedClassifier`.
        x: inputs to perturb, float array `(rows, …)` inside the perturbation's `clip`;
            by default one of constants. A model that takes inputs of any size needs
            it, as its time depends on theirs.
        seconds: about how long to measure, a number above 0; 2 by default. At least
            three calls are timed, however long they take.

    Returns:
        A float, copies a second: the `rate` of `plan_certification`.

    Raises:
        ValueError: if `certified` is no certifier, `x` does not fit, or is missing for
            a model of inputs of any size.

    Example:

    >>> import keras
    >>> base = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> certified = CertifiedPredictor(base, LInf(0.1), kappa=0.1)
    >>> forward_rate(certified, seconds=0.1) > 0
    True
    """
    if not isinstance(certified, Certifier):
        raise ValueError(
            "`certified` must be a certifier, such as a CertifiedPredictor. "
            f"Received: certified={certified!r}"
        )
    seconds = check_number("seconds", seconds)
    if not seconds:
        raise ValueError(f"`seconds` must be above 0. Received: seconds={seconds}")
    if x is None:
        x = _constants(certified)
    x = certified._check(x)
    passes = FullPasses(certified)

    def timed(rows):
        start = time.perf_counter()
        passes.predict(rows, batch_size=len(rows), verbose=0, seed=0)
        return time.perf_counter() - start

    one = np.resize(x, (certified._slots, *x.shape[1:]))
    timed(one)
    calls = math.ceil(min(SECONDS_A_CALL / timed(one), MOST_PASSES))
    many = np.concatenate([one] * calls)
    if calls > 1:
        timed(many)
    times = []
    while len(times) < LEAST_CALLS or sum(times) < seconds:
        times.append(timed(many))
    return len(many) * voting.COPIES_A_SLOT / float(np.median(times))


def _constants(certified):
    shape = models.row_shape(certified.base_model)
    if shape is None or None in shape:
        raise ValueError(
            "`x` must be given for a model that takes inputs of any size. "
            f"Received: x=None, inputs of shape {shape}"
        )
    low, high = certified.perturbation.clip or (0.0, 0.0)
    return np.full((1, *shape), (low + high) / 2, "float32")
