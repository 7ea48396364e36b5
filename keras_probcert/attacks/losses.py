"""What attacks maximize: functions of logits `(rows, classes)`, one value a row."""

from keras import ops


def cross_entropy(logits, y):
    """−log softmax of class `y`."""
    return ops.logsumexp(logits, axis=1) - _of_class(logits, y)


def margin(logits, y):
    """The best other logit minus that of `y`: positive where `y` is not predicted."""
    return _best_other(logits, y) - _of_class(logits, y)


def difference_of_logits_ratio(logits, y):
    """DLR: the margin over the gap between the first and the third logit.

    Invariant to shifts and to the scale of the logits; at least three classes.

    Reference:

    - Croce and Hein, "Reliable evaluation of adversarial robustness with an
      ensemble of diverse parameter-free attacks" (ICML 2020), equation 6.
    """
    ordered = ops.sort(logits, axis=1)
    return margin(logits, y) / (ordered[:, -1] - ordered[:, -3] + 1e-12)


def targeted_difference_of_logits_ratio(logits, y, target):
    """Targeted DLR: how far the logit of `target` is above that of `y`, scaled.

    At least four classes.

    Reference:

    - Croce and Hein (ICML 2020), equation 7.
    """
    ordered = ops.sort(logits, axis=1)
    scale = ordered[:, -1] - 0.5 * (ordered[:, -3] + ordered[:, -4])
    difference = _of_class(logits, target) - _of_class(logits, y)
    return difference / (scale + 1e-12)


def kl_divergence(logits, others):
    """KL(p ‖ q) from the logits of p and those of q."""
    log_p = ops.log_softmax(logits, axis=1)
    return ops.sum(ops.exp(log_p) * (log_p - ops.log_softmax(others, axis=1)), axis=1)


def _of_class(logits, y):
    return ops.take_along_axis(logits, ops.cast(y, "int32")[:, None], axis=1)[:, 0]


def _best_other(logits, y):
    chosen = ops.one_hot(y, logits.shape[1], dtype="bool")
    return ops.max(ops.where(chosen, -float("inf"), logits), axis=1)
