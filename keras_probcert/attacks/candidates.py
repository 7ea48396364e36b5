"""Candidates of a search without gradients: several points for each row."""

from keras import ops

from keras_probcert.attacks import losses


def fitness(model, candidates, y):
    """How far each candidate is from class `y`: the cross-entropy, ∞ once wrong.

    Args:
        model: a function from inputs to logits.
        candidates: tensor, `(rows, count, …)`.
        y: int32 tensor, `(rows,)`.

    Returns:
        A tensor, `(rows, count)`.
    """
    count = candidates.shape[1]
    logits = model(ops.reshape(candidates, (-1, *candidates.shape[2:])))
    y = ops.repeat(y, count, axis=0)
    wrong = losses.margin(logits, y) > 0
    values = ops.where(wrong, float("inf"), losses.cross_entropy(logits, y))
    return ops.reshape(values, (-1, count))


def fittest(candidates, fitness):
    """The fittest candidate of each row, the first of several, `(rows, …)`."""
    ones = [1] * (len(candidates.shape) - 1)
    index = ops.reshape(ops.argmax(fitness, axis=1), (-1, *ones))
    return ops.take_along_axis(candidates, index, axis=1)[:, 0]
