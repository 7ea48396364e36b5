"""VoteSearch: random search on the counts of votes, without gradients."""

import numpy as np
from keras import ops

from keras_probcert.attacks import goals, norms
from keras_probcert.attacks.certificate_attack import CertificateAttack
from keras_probcert.attacks.square import HALVED_AFTER
from keras_probcert.attacks.step_rules import as_rows
from keras_probcert.validation import check_fraction


class VoteSearch(CertificateAttack):
    r"""Random search that sees the votes of a `CertifiedPredictor` and nothing else.

    For models whose gradients say nothing, and as a check on the attacks that follow
    gradients. From vertical stripes at the edge of the ball, each step sets a square
    to a corner that the ball would have if nothing else moved, brings the whole back
    into the ball, and keeps what does not lower the goal on m draws, which stay the
    same throughout a search. Squares shrink from `share` of the image to a
    single pixel. Inputs that are no images move in random coordinates instead. See
    `CertificateAttack` for the threat model.

    Args:
        goal: `"misclassify"` (default): the true class loses the majority;
            `"deny"`: no class has many votes; `"forge"`: a wrong class has as many
            as it can.
        num_samples: m, the draws that are counted at each point, at least 1; 100 by
            default.
        steps: the number of points that are tried in each search, at least 1; 250
            by default.
        restarts: the number of searches, at least 1 (default).
        share: the share of the coordinates that the first steps change, in (0, 1];
            0.8 by default.
        epsilon, norm, check_samples, known_seed: as in `SmoothedPGD`.

    Raises:
        ValueError: if an argument is out of its range.

    Example:

    >>> import keras, numpy as np
    >>> from keras_probcert import CertifiedPredictor, LInf
    >>> base = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> certified = CertifiedPredictor(base, LInf(0.1), kappa=0.1)
    >>> x = np.random.rand(5, 4).astype("float32")
    >>> attack = VoteSearch("deny", num_samples=20, steps=10)
    >>> x_adv = attack(certified, x, y=[0, 1, 2, 0, 1], seed=0)

    Reference:

    - Andriushchenko, Croce, Flammarion and Hein, "Square Attack: a query-efficient
      black-box adversarial attack via random search" (ECCV 2020), algorithms 1 and
      2, on the votes.
    """

    uses_gradients = False
    sees_probabilities = False

    def __init__(
        self,
        goal="misclassify",
        num_samples=100,
        steps=250,
        restarts=1,
        share=0.8,
        epsilon=None,
        norm=None,
        check_samples=500,
        known_seed=False,
    ):
        super().__init__(
            num_samples, steps, restarts, epsilon, norm, check_samples, known_seed
        )
        self.goal = goals.get(goal)
        self.share = check_fraction("share", share, closed=True)

    @property
    def passes(self):
        searched = self.restarts * (self.steps + 1) * self.num_samples
        return searched + (self.restarts + 1) * self.check_samples, 0

    def search(self, draw, x, y, index, seeds):
        first = self.first_draw(index, 0)

        def score(point):
            votes = self.votes(draw(point, first, self.num_samples))
            return self.goal.score(votes, y)

        def step(number, best):
            point, value = best
            noise = self.own_noise(seeds, self.restarts + index * self.steps + number)
            moved = x + self._moved(point - x, number, noise)
            moved = self.ball.project(moved, x)
            new = score(moved)
            # Equal counts are common, so a search that kept still would not move.
            better = new >= value
            moved = ops.where(as_rows(better, x), moved, point)
            return moved, ops.where(better, new, value)

        start = self.start(x, index, seeds)
        return ops.fori_loop(0, self.steps, step, (start, score(start)))[0]

    def start(self, x, index, seeds):
        """A random corner of the ball, the same along every column of an image."""
        shape = (1, *x.shape[2:]) if len(x.shape) == 4 else x.shape[1:]
        sign = _signs(self.own_noise(seeds, index), shape, x.dtype)
        corner = sign * ops.ones_like(x)
        return self.ball.project(x + self.epsilon * corner / self._length(corner), x)

    def _length(self, step):
        """The norm of each row, `(rows, 1, …)`."""
        return norms.get(self.norm).length(step)

    def _moved(self, offset, number, noise):
        """Where a step leads, from x: the ball's own corner in some coordinates."""
        shape = offset.shape[1:]
        ends = np.array(HALVED_AFTER) / 10_000
        halvings = np.searchsorted(ends, np.arange(self.steps) / self.steps, "right")
        shares = self.share * 0.5**halvings
        if len(shape) == 3:
            sides = np.sqrt(shares * shape[0] * shape[1]).round()
            sides = sides.clip(1, min(shape[:2])).astype("int32")
            side = ops.take(ops.convert_to_tensor(sides), number)
            chosen = True
            for axis, length in enumerate(shape[:2]):
                place = noise.uniform((1, 1, 1))[:, 0]
                room = ops.cast(length - side + 1, "float32")
                first = ops.cast(ops.floor(place * room), "int32")
                position = ops.reshape(
                    ops.arange(length, dtype="int32"),
                    (-1, 1, 1) if axis == 0 else (-1, 1),
                )
                inside = ops.logical_and(position >= first, position < first + side)
                chosen = ops.logical_and(chosen, inside)
            sign = _signs(noise, (1, 1, shape[2]), offset.dtype)
        else:
            counts = np.maximum((shares * np.prod(shape)).round(), 1).astype("int32")
            order = noise.uniform(shape)[:, 0]
            last = ops.sort(ops.reshape(order, (-1, np.prod(shape))), axis=1)
            count = ops.take(ops.convert_to_tensor(counts), number)
            last = ops.take(last, count - 1, axis=1)
            chosen = order <= as_rows(last, order)
            sign = _signs(noise, shape, offset.dtype)
        move = ops.cast(chosen, offset.dtype) * sign
        if self.norm == "linf":
            # There is nothing beyond the corner in which the search may be.
            along = ops.sum(move * offset, axis=tuple(range(1, len(offset.shape))))
            move = ops.where(as_rows(along > 0, offset), -move, move)
        return ops.where(chosen, self.epsilon * move / self._length(move), offset)


def _signs(noise, shape, dtype):
    """−1 or 1 with equal probability, `(rows, *shape)`."""
    return ops.cast(ops.where(noise.uniform(shape)[:, 0] < 0.5, -1.0, 1.0), dtype)
