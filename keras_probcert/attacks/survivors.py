"""Attacks that try again and again, each time on the rows still classified right."""

import numpy as np
from keras import ops

from keras_probcert import models
from keras_probcert.attacks.attack import Attack, wide


class SurvivorAttack(Attack):
    """Runs in rounds; a row that one of them fools goes no further.

    A row comes back as the first round to fool the model left it, or as it was:
    where no round did, and where the model was wrong before. What fools the model
    is judged on what comes back, in the dtype of `x`.

    Subclasses override `rounds` and `run`.
    """

    def rounds(self, classes):
        """How many rounds there are against a model of so many classes."""
        raise NotImplementedError

    def run(self, model, x, y, seeds, index, point):
        """What a round finds, inside a graph.

        Args:
            model: a function from inputs to logits `(rows, classes)`.
            x: float32 or float64 tensor, `(rows, …)`.
            y: int32 tensor, `(rows,)`, the classes to get away from.
            seeds: int32 tensor, `(rows, 2)`, one seed a row.
            index: int32 tensor, `(rows,)`, the number of the round in every row.
            point: what the round before has found, at first `x`.

        Returns:
            A tensor like `x`, which is drawn back into the ball where it lies outside.
        """
        raise NotImplementedError

    def attempts(self, model, from_logits, x, y, seeds, batch_size):
        """Yields functions from rows' indices to what a round finds for them."""
        logits = models.logits(model, from_logits)

        def attack(*arrays):
            return self.run(logits, *arrays)

        # A copy, since what rounds find goes into it.
        point = np.array(wide(x))

        def attempt(rows, index):
            numbers = np.full(len(rows), index, "int32")
            arrays = wide(x)[rows], y[rows], seeds[rows], numbers, point[rows]
            point[rows] = self._in_batches(
                attack, model, from_logits, arrays, batch_size
            )
            return point[rows]

        for index in range(self.rounds(models.classes(model, x.shape[1:]))):
            yield lambda rows, index=index: attempt(rows, index)

    def _found(self, model, from_logits, x, y, seeds, batch_size):
        logits = models.logits(model, from_logits)

        def predict(x):
            return ops.argmax(logits(x), axis=1)

        def fooled(x, y):
            arrays = (wide(x),)
            return y != self._in_batches(
                predict, model, from_logits, arrays, batch_size
            )

        found = x.copy()
        left = np.flatnonzero(~fooled(x, y))
        for attempt in self.attempts(model, from_logits, x, y, seeds, batch_size):
            if not len(left):
                break
            points = self._within(attempt(left), x[left])
            success = fooled(points, y[left])
            found[left[success]] = points[success]
            left = left[~success]
        return found
