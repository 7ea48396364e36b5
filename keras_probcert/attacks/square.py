"""Square: random search over squares, on the logits alone."""

import numpy as np
from keras import ops

from keras_probcert.attacks import losses
from keras_probcert.attacks.square_moves import Bumps, Squares
from keras_probcert.attacks.step_rules import as_rows
from keras_probcert.attacks.survivors import SurvivorAttack
from keras_probcert.perturbations.noise import Noise
from keras_probcert.validation import (
    check_bool,
    check_fraction,
    check_integer,
    check_number,
)

# Queries that a row gets in one go, whether or not it needs them all.
_CHUNK = 100

# After which of 10,000 queries the share of the image that changes halves.
HALVED_AFTER = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)


class Square(SurvivorAttack):
    r"""Random search: changes a random square of the image and keeps what helps.

    It needs no gradients, so it tells where gradients mislead. A query is kept if it
    raises the margin, the best other logit minus that of `y`; a row is done once it
    is positive. In the L∞ ball a square is set to ±ε in each channel; in the L2 and
    L1 balls a bump is added to one window that takes its size from another. Squares
    start with a share `p_init` of the image, which is halved again and again.

    A row comes back as the first point that the model gets wrong, or as it was.

    Args:
        epsilon: the radius, in units of the input, above 0; 8/255 by default.
        norm: `"linf"` (default), `"l2"` or `"l1"`.
        queries: the number of squares tried in each restart, at least 1; 5,000 by
            default.
        restarts: the number of random starts, at least 1 (default).
        p_init: the share of the image that the first squares take, in (0, 1]; 0.8
            by default.
        rescale_schedule: whether the schedule of the squares' size, made for 10,000
            queries, is scaled to `queries` (default) or cut off (AutoAttack).
        clip: `(low, high)`, the valid input range, `(0, 1)` by default; `None` for
            no range.

    Raises:
        ValueError: if an argument is out of its range. When called: if `x` is not
            images, `(rows, height, width, channels)`.

    Example:

    >>> import keras, numpy as np
    >>> flatten, dense = keras.layers.Flatten(), keras.layers.Dense(3)
    >>> model = keras.Sequential([keras.Input((6, 6, 1)), flatten, dense])
    >>> x = np.random.rand(5, 6, 6, 1).astype("float32")
    >>> attack = Square(epsilon=0.1, queries=50)
    >>> x_adv = attack(model, x, y=[0, 1, 2, 0, 1], seed=0)
    >>> bool(np.abs(x_adv - x).max() <= 0.1 + 1e-6)
    True

    Reference:

    - Andriushchenko, Croce, Flammarion and Hein, "Square Attack: a query-efficient
      black-box adversarial attack via random search" (ECCV 2020), algorithms 1 to 3.
    - Croce and Hein, "Mind the box: l1-APGD for sparse adversarial attacks on image
      classifiers" (ICML 2021), section 4, for L1.
    """

    uses_gradients = False
    needs_images = True

    def __init__(
        self,
        epsilon=8 / 255,
        norm="linf",
        queries=5000,
        restarts=1,
        p_init=0.8,
        rescale_schedule=True,
        clip=(0.0, 1.0),
    ):
        super().__init__(check_number("epsilon", epsilon), norm, clip)
        self.queries = check_integer("queries", queries)
        self.restarts = check_integer("restarts", restarts)
        self.p_init = check_fraction("p_init", p_init, closed=True)
        self.rescale_schedule = check_bool("rescale_schedule", rescale_schedule)
        self._chunk = min(_CHUNK, queries)

    def objective(self, logits, y):
        return losses.margin(logits, y)

    def rounds(self, classes):
        return self.restarts * -(-self.queries // self._chunk)

    def run(self, model, x, y, seeds, index, point):
        chunks = -(-self.queries // self._chunk)
        restart, first = index // chunks, index % chunks * self._chunk
        search = (Squares if self.norm == "linf" else Bumps)(self, x)
        # Of another key than the squares' noise: both count from 0.
        start = search.start(Noise(ops.flip(seeds, axis=1), 1, first=restart))
        point = ops.where(as_rows(first == 0, x), start, point)
        words = Noise(seeds, self._chunk, first=index * self._chunk)
        words = ops.cast(words.uniform((search.words,)), x.dtype)

        def query(number, state):
            best, value = state
            draw = ops.take(words, number, axis=1)
            tried = search.propose(best, first + number, draw)
            found = self.objective(model(tried), y)
            better = ops.logical_and(found > value, value <= 0)
            better = ops.logical_and(better, first + number < self.queries)
            best = ops.where(as_rows(better, x), tried, best)
            return best, ops.where(better, found, value)

        state = point, self.objective(model(point), y)
        return ops.fori_loop(0, self._chunk, query, state)[0]

    def sides(self, height, width, least=1, odd=False):
        """The squares' side at each query, from the schedule, an int array."""
        query = np.arange(self.queries)
        if self.rescale_schedule:
            query = query * 10000 // self.queries
        halvings = np.searchsorted(HALVED_AFTER, query)
        side = np.round(np.sqrt(self.p_init * 0.5**halvings * height * width))
        side = np.maximum(side.astype("int32"), least)
        if odd:
            side += side % 2 == 0
        return np.minimum(side, min(height, width))
