"""Divergences between class probabilities, from their logarithms."""

import math

from keras import ops


def kl_divergence(log_p, log_q):
    """KL(p ‖ q) over the last axis, from finite logarithms."""
    return ops.sum(ops.exp(log_p) * (log_p - log_q), axis=-1)


def entropy(log_p):
    """The entropy over the last axis, in nats."""
    return -ops.sum(ops.exp(log_p) * log_p, axis=-1)


def log_mean_exp(log_p, axis):
    """The logarithm of the mean of probabilities along `axis`."""
    return ops.logsumexp(log_p, axis=axis) - math.log(log_p.shape[axis])


def cross_entropy(p, log_q):
    """-Σ p log q over the last axis, for targets `p`."""
    return -ops.sum(p * log_q, axis=-1)
