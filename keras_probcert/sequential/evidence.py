r"""Beta-mixture evidence: a test, and bounds, valid at any stop.

Write q for the probability that a vote disagrees with a given class, and let d
of n votes disagree. For a bar \(q_0\) take a prior \(\pi\) on one side of it;

\[E_{n}(q_0) =
  \int \frac{\theta^d (1-\theta)^{n-d}}{q_0^d (1-q_0)^{n-d}} \, d\pi(\theta)\]

is a nonnegative martingale with mean 1 if \(q = q_0\). If \(\pi\) lives on
\([0, q_0]\) and votes disagree more often, \(q > q_0\), the mean of a vote's
factor, \(q \, \theta/q_0 + (1-q)(1-\theta)/(1-q_0)\), is linear in q, 1 at
\(q_0\) and decreasing, hence at most 1: a supermartingale. By Ville's inequality
it ever reaches c with probability at most 1/c, at every stopping rule and
without a horizon. The mirror image holds for \(\pi\) on \([q_0, 1]\).

The priors are Beta(½, 1/(2 kappa)) cut to \([0, q_0]\), which spends its mass
near unanimity on the scale of kappa, and the uniform one on \([q_0, 1]\).
"""

import math

import numpy as np

from keras_probcert.validation import check_fraction

BISECTIONS = 36


def _tfp():
    # Its NumPy substrate imports TensorFlow where that is installed.
    from tensorflow_probability.substrates import numpy as tfp

    return tfp


def _log_ratio(n, d, bar, a, b, below):
    """log E_n(bar) for the prior Beta(a, b) on q, cut at `bar`."""
    tfp = _tfp()

    def log_mass(a, b):
        """log of the unnormalized mass of Beta(a, b) on its side of the bar."""
        law = (
            tfp.distributions.Beta(a, b).log_cdf(bar)
            if below
            else tfp.distributions.Beta(b, a).log_cdf(1.0 - bar)
        )
        return tfp.math.lbeta(a, b) + law

    n, d, bar = (np.asarray(v, np.float64) for v in (n, d, bar))
    a, b = np.float64(a), np.float64(b)
    likelihood = d * np.log(bar) + (n - d) * np.log1p(-bar)
    # A mass that underflows is no evidence: its logarithm is −∞.
    with np.errstate(divide="ignore"):
        return log_mass(a + d, b + n - d) - log_mass(a, b) - likelihood


def log_evidence_below(n, d, bar, kappa):
    """log of the evidence that votes disagree less often than `bar`.

    Args:
        n: int array, votes.
        d: int array, disagreeing votes.
        bar: float array in (0, ½].
        kappa: the scale of the prior, in (0, ½].

    Returns:
        A float64 array. With probability at least 1 − 1/c it never reaches
        log c if votes disagree with probability `bar` or more.
    """
    return _log_ratio(n, d, bar, 0.5, 0.5 / kappa, below=True)


def log_evidence_above(n, d, bar):
    """log of the evidence that votes disagree more often than `bar`.

    Args:
        n: int array, votes.
        d: int array, disagreeing votes.
        bar: float array in (0, 1).

    Returns:
        A float64 array. With probability at least 1 − 1/c it never reaches
        log c if votes disagree with probability `bar` or less.
    """
    return _log_ratio(n, d, bar, 1.0, 1.0, below=False)


def widest_bar(kappa):
    """The largest disagreement that `confidence_sequence` can exclude."""
    return max(kappa, 0.25)


def log_threshold_below(kappa, alpha):
    """What `log_evidence_below` must reach, the label being the majority's.

    That of `level_for_one_class` at the widest bar in use, max(kappa, ¼).
    """
    return -math.log(level_for_one_class(widest_bar(kappa), alpha))


def level_for_one_class(bar, alpha):
    r"""The level at which one class must be certified for a leader to have alpha.

    The label is chosen by the votes that certify it. Its disagreements are
    those of the leading class, so the error is that *any* class passes. Given
    which votes fall on either of two classes, the larger of their counts is a
    folded walk, stochastically increasing in the imbalance of their
    probabilities. So with all class probabilities at most \(1 - q_0\),
    \(q_0 \le 1/2\), the worst case is two classes \((1 - q_0, q_0)\) (the tests
    check this by dynamic programming). The first passes with probability at most
    1/c. Exchanging the two classes multiplies the likelihood of a stream that
    stops at (n, d) by \((q_0/(1-q_0))^{n-2d}\), so the second passes with
    probability at most 1/c times the largest such factor. Passing needs
    \(d < q_0 n\) and \(n \ge \log(1/\alpha) / -\log(1-q_0)\), hence

    \[c = \frac{1}{\alpha} \left(1 + \left(\frac{q_0}{1-q_0}\right)^{m}\right),
    \quad m = (1 - 2 q_0) \frac{\log(1/\alpha)}{-\log(1 - q_0)}\]

    suffices; it is increasing in \(q_0\). At \(q_0 = 1/4\) it costs 0.015 % of
    alpha = 0.01, at ½ half of alpha.

    Args:
        bar: \(q_0\), in (0, ½].
        alpha: the level, in (0, 1).

    Returns:
        1/c, a float.
    """
    m = (1.0 - 2.0 * bar) * math.log(alpha) / math.log1p(-bar)
    return alpha / (1.0 + (bar / (1.0 - bar)) ** m)


def e_value(num_samples, disagreements, kappa=0.01):
    """The evidence that the agreement is above 1 − kappa, at any stop.

    If no class has a probability above 1 − kappa, an e-value of c or more is ever
    seen with probability at most 2/c (1/c for kappa ≤ 0.1, to four digits),
    however often one looks and whatever made the votes end. It is for runs that
    were interrupted; it is not the rule by which a predictor decides.

    Args:
        num_samples: int array, votes n.
        disagreements: int array, votes d that are not for the leading class.
        kappa: the tolerated fraction of disagreeing votes, in (0, ½].

    Returns:
        A float64 array; ∞ where it exceeds the largest float.

    Raises:
        ValueError: if an argument is out of its range.

    Example:

    >>> bool(e_value(544, 0, kappa=0.01) > 100)
    True
    """
    kappa = check_fraction("kappa", kappa, high=0.5, closed=True)
    _check_counts(num_samples, disagreements)
    with np.errstate(over="ignore"):
        return np.exp(log_evidence_below(num_samples, disagreements, kappa, kappa))


def confidence_sequence(num_samples, disagreements, kappa=0.01, alpha=0.01):
    r"""Bounds on the agreement, valid at every stopping rule.

    They are for runs that were interrupted, or stopped by another rule than a
    test's. They are not the rule by which a predictor decides, and may
    contradict it: the bounds in its results invert the test itself
    (`keras_probcert.sequential.stagewise`).

    The agreement is the probability of the most likely class in the vicinity.
    Each bound holds with probability at least 1 − alpha (both together with
    probability at least 1 − 2 alpha), however the number of samples was chosen.

    They invert the evidence above: the lower bound is the largest agreement
    1 − q₀ whose null "at most 1 − q₀" is rejected, the upper bound the smallest
    one whose null "at least 1 − q₀" is. (Where the evidence exceeds 1 it is
    monotone in q₀, so a bisection finds the one crossing.) Hence
    `BetaMixtureTest` certifies exactly when `lower > 1 − kappa`.

    Args:
        num_samples: int array, votes n.
        disagreements: int array, votes d that are not for the leading class.
        kappa: the scale of the prior, in (0, ½].
        alpha: the level, in (0, 1).

    Returns:
        `(lower, upper)`, float64 arrays. `lower` is 0 where it would not exceed
        min(1 − kappa, ¾).

    Raises:
        ValueError: if an argument is out of its range.

    Example:

    >>> lower, upper = confidence_sequence(1000, 5, kappa=0.01, alpha=0.01)
    >>> bool(0.97 < lower < 0.995 < upper < 1)
    True
    """
    kappa = check_fraction("kappa", kappa, high=0.5, closed=True)
    alpha = check_fraction("alpha", alpha)
    n, d = _check_counts(num_samples, disagreements)
    shape, n, d = n.shape, np.ravel(n), np.ravel(d)

    enough = log_threshold_below(kappa, alpha)
    widest = widest_bar(kappa)
    low, high = np.zeros(n.shape), np.full(n.shape, widest)
    excluded = log_evidence_below(n, d, high, kappa) >= enough
    for _ in range(BISECTIONS):
        # Ratios matter near 0, so halve on a scale that keeps them.
        middle = np.where(low > 0, np.sqrt(low * high), high / 16)
        yes = log_evidence_below(n, d, middle, kappa) >= enough
        low, high = np.where(yes, low, middle), np.where(yes, middle, high)
    lower = np.where(excluded, 1.0 - high, 0.0)

    enough = -math.log(alpha)
    low, high = np.full(n.shape, 1e-12), np.full(n.shape, 1 - 1e-12)
    excluded = log_evidence_above(n, d, low) >= enough
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        yes = log_evidence_above(n, d, middle) >= enough
        low, high = np.where(yes, middle, low), np.where(yes, high, middle)
    upper = np.where(excluded, 1.0 - low, 1.0)
    return lower.reshape(shape), upper.reshape(shape)


def _check_counts(num_samples, disagreements):
    n, d = np.broadcast_arrays(num_samples, disagreements)
    if not ((d >= 0) & (d <= n)).all():
        raise ValueError(
            "`disagreements` must lie in [0, num_samples]. "
            f"Received: disagreements={disagreements}, num_samples={num_samples}"
        )
    return n, d
