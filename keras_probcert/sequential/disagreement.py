r"""How disagreement is spread over the inputs of a data set.

The *disagreement* q of an input is one less its agreement: the probability that a
vote is for another class than the leading one. What a sequential test costs depends on
how q is spread below, around and above kappa.

**The margin.** Think of an input's distance to the decision boundary in standard
deviations of what the noise does to it: a margin t, at which the share
\(q = \Phi(-t)\) of normal noise crosses. Nothing is special about the boundary, so
margins are as dense just before it as a little further: their law is taken to be
Weibull's, \(P(T > t) = \exp(-(t/\tau)^k)\), whose density at k = 1 is flat near 0. In
terms of the disagreement, with z(u) the upper u-quantile of the normal law,

\[P(q < u) = \exp(-(z(u)/\tau)^k), \quad 0 < u < 1/2.\]

**From a share alone.** If all that is known is that a share s of the inputs is robust,
P(q < κ) = s, then k = 1, and \(P(q < u) = s^{z(u)/z(\kappa)}\). (A power law,
\(s^{\log u / \log \kappa}\), looks simpler. At κ = 0.01 it has a third more inputs
close to κ, where votes are many.)

**From a pilot.** Votes of some rows tell τ and k. An input that took n votes, d of them
against the leading class, has the likelihood \(\int q^d (1-q)^{n-d} \, dF(q)\). That is
so whenever the stream was stopped, if only the votes themselves decided when: the
probability of a sequence of votes holds no trace of the stopping rule but a factor
that does not depend on q. So the votes of an ordinary certificate serve as well as
those of a fixed number of looks. (Counting against the leading class rather than a
fixed one differs only where q is near ½, and the votes are few.)

Instead of the best τ and k, all that the pilot leaves possible are kept, each with its
weight: a posterior on a grid. Few of a pilot's rows disagree at all, and a plan should
say how little is known. The parameters of the grid are log k and log of the rate
\(\lambda = (z_0/\tau)^k\) of failing a margin of z₀ = 2, so that an input fails it with
probability \(1 - e^{-\lambda}\). The prior is Jeffreys' for a rate, \(\lambda^{-1/2}\),
and for log k a normal law around 0 with a standard deviation of ½.
"""

from typing import NamedTuple

import numpy as np
from scipy import special

POINTS = 33
ZOOMS = 6
# The margin whose share of failures is a parameter, and the deviation of log k.
MARGIN = 2.0
PRIOR_DEVIATION = 0.5
# Cells in which q is taken to be constant while a law is learned.
CELLS = 400
LEAST = 1e-9


class DisagreementLaws(NamedTuple):
    """Laws of the disagreement, each with its weight.

    Attributes:
        weights: float64 `(laws,)`, adding up to 1.
        rate: float64 `(laws,)`, \\(\\lambda\\) above.
        shape: float64 `(laws,)`, k above.
    """

    weights: np.ndarray
    rate: np.ndarray
    shape: np.ndarray

    def between(self, edges):
        """Each law's probabilities of the cells between edges.

        Args:
            edges: increasing float array `(cells + 1,)` in [0, 1].

        Returns:
            float64 `(laws, cells)`.
        """
        return _between(self.rate[:, None], self.shape[:, None], edges)


def _between(rate, shape, edges):
    margin = np.maximum(-special.ndtri(np.asarray(edges, np.float64)), 0.0)
    return np.diff(np.exp(-rate * (margin / MARGIN) ** shape), axis=-1)


def law_of_share(robust_share, kappa):
    """The law with k = 1 and P(q < kappa) = `robust_share`, for kappa below ½."""
    rate = np.log([robust_share]) * MARGIN / special.ndtri(kappa)
    return DisagreementLaws(np.ones(1), rate, np.ones(1))


def posterior(disagreements, num_samples):
    """The laws that votes leave possible, with their probabilities.

    Args:
        disagreements: int array `(rows,)`, votes against the leading class.
        num_samples: int array `(rows,)`, votes taken.

    Returns:
        `DisagreementLaws`.
    """
    pairs = np.stack([disagreements, num_samples])
    (d, n), times = np.unique(pairs, axis=1, return_counts=True)
    edges = np.append(0, np.geomspace(LEAST, 0.5, CELLS))
    q = np.append(0, np.sqrt(edges[1:-1] * edges[2:]))
    likelihood = special.xlogy(d, q[:, None]) + special.xlog1py(n - d, -q[:, None])
    # Relative to its largest, as it may be less than any float.
    likelihood = np.exp(likelihood - likelihood.max(axis=0))

    def log_density(log_rate, log_shape):
        """Over both logarithms."""
        rate, shape = np.exp(log_rate)[:, None, None], np.exp(log_shape)[:, None]
        mixed = _between(rate, shape, edges) @ likelihood
        prior = 0.5 * log_rate[:, None] - 0.5 * (log_shape / PRIOR_DEVIATION) ** 2
        return np.log(np.maximum(mixed, 1e-300)) @ times + prior

    log_rate, log_shape = np.linspace(-12, 8, POINTS), np.linspace(-3, 3, POINTS)
    for _ in range(ZOOMS):
        density = log_density(log_rate, log_shape)
        likely = density > density.max() - 12
        log_rate = _around(log_rate, likely.any(axis=1))
        log_shape = _around(log_shape, likely.any(axis=0))
    density = log_density(log_rate, log_shape)
    weights = np.exp(density - density.max())
    i, j = np.nonzero(weights > 1e-4)
    weights = weights[i, j] / weights[i, j].sum()
    return DisagreementLaws(weights, np.exp(log_rate[i]), np.exp(log_shape[j]))


def _around(points, likely):
    """As many points, from one before the first likely one to one after the last."""
    step = points[1] - points[0]
    likely = points[likely]
    return np.linspace(likely[0] - step, likely[-1] + step, len(points))
