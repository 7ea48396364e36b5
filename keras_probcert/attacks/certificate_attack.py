"""What attacks on a certificate share: the threat model, the ball, own votes."""

import copy
import functools

from keras import ops

from keras_probcert.attacks import norms
from keras_probcert.attacks.attack import Attack
from keras_probcert.attacks.projected_gradient import ProjectedGradient
from keras_probcert.attacks.step_rules import as_rows
from keras_probcert.certifiers import CertifiedPredictor
from keras_probcert.certifiers.voting import COPIES_A_SLOT, classes_from_outputs
from keras_probcert.perturbations.noise import Noise
from keras_probcert.validation import check_bool, check_integer, check_number

# Where the random numbers begin that are no draws from the vicinity.
_STARTS = 2**30


class CertificateAttack(Attack):
    """Looks for inputs at which the vote of a `CertifiedPredictor` goes wrong.

    Called as `attack(certified, x, y)`. The threat model: the attacker knows the
    network, the vicinity, kappa, alpha and the test, but not the seed, so the votes
    that will be taken at x' are noise to it too. It chooses x' in a ball of radius
    epsilon around x; the votes at x' are taken in the vicinity of x', so that with a
    vicinity of the same radius they reach up to 2 epsilon from x.

    An attack makes several searches. Where each ends it takes votes of its own, on
    fresh draws; of `x` and all ends, the point closest to the `goal` comes back, row
    by row. Whether an attack succeeded only the predictor's full test says, on noise
    of its own: see `evaluate_attack`.

    Subclasses override `search`.

    Args:
        num_samples: m, the perturbed copies that are drawn at each point, at
            least 1.
        steps: the number of steps of a search, at least 1.
        restarts: the number of searches, at least 1.
        epsilon: the radius of the ball around `x`, in units of the input, above 0;
            `None` (default) for that of the predictor's vicinity, if it is a ball.
        norm: `"linf"`, `"l2"` or `"l1"`, the norm of the ball; `None` (default) for
            that of the predictor's vicinity, and `"linf"` if that is no ball.
        check_samples: the draws that say which end of a search is the best, at
            least 1; rounded up to full passes.
        known_seed: whether the seed has leaked: the attack's `seed` is the one with
            which the predictor will vote, and the attack draws what the predictor
            will draw first. With `False` (default) its draws are independent of the
            predictor's, whatever the seeds are.
        step_size: the length of a step, in units of the input; `None` (default) for
            `2.5 * epsilon / steps`.

    Raises:
        ValueError: if an argument is out of its range.

    Example:

    An attack of one's own, which tries random points of the ball:

    >>> import keras, numpy as np
    >>> from keras_probcert import LInf
    >>> from keras_probcert.attacks.goals import Misclassification
    >>> class RandomPoints(CertificateAttack):
    ...     goal = Misclassification()
    ...
    ...     def search(self, draw, x, y, index, seeds):
    ...         return self.ball.random_point(x, self.own_noise(seeds, index))
    >>> base = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> certified = CertifiedPredictor(base, LInf(0.1), kappa=0.1)
    >>> x = np.full((2, 4), 0.5, "float32")
    >>> attack = RandomPoints(num_samples=16, steps=1, restarts=3)
    >>> x_adv = attack(certified, x, y=[0, 1], seed=0)
    >>> bool(np.abs(x_adv - x).max() <= 0.1 + 1e-6)
    True
    """

    # What it is after, see `goals`.
    goal = None
    # Whether it sees the classes' probabilities, and not the votes alone.
    sees_probabilities = True

    def __init__(
        self,
        num_samples,
        steps,
        restarts,
        epsilon=None,
        norm=None,
        check_samples=500,
        known_seed=False,
        step_size=None,
    ):
        # The range is that of the predictor's vicinity.
        super().__init__(epsilon, "linf" if norm is None else norm, clip=None)
        self.num_samples = check_integer("num_samples", num_samples)
        self.steps = check_integer("steps", steps)
        self.restarts = check_integer("restarts", restarts)
        self.known_seed = check_bool("known_seed", known_seed)
        if step_size is not None and check_number("step_size", step_size) == 0:
            raise ValueError(
                f"`step_size` must be above 0. Received: step_size={step_size!r}"
            )
        # Draws that share a forward pass when votes are taken.
        self._draws_a_pass = max(self.num_samples, COPIES_A_SLOT)
        check_samples = check_integer("check_samples", check_samples)
        self._check_passes = -(-check_samples // self._draws_a_pass)
        self.check_samples = self._check_passes * self._draws_a_pass
        self._arguments = epsilon, norm, step_size
        self._bound = {}

    def search(self, draw, x, y, index, seeds):
        """One search, inside a graph.

        Args:
            draw: a function of points `(rows, …)`, the index of the first draw and
                the number of draws to the logits `(rows, draws, classes)` of
                perturbed copies of the points.
            x: float32 or float64 tensor, `(rows, …)`.
            y: int32 tensor, `(rows,)`, the true classes.
            index: int32 scalar, the number of the search.
            seeds: int32 tensor, `(rows, 2)`, one seed a row.

        Returns:
            A tensor like `x`, inside the ball.
        """
        raise NotImplementedError

    def run(self, model, x, y, seeds):
        draw = functools.partial(self._draw, model, seeds)

        def search(index, best):
            point = self.search(draw, x, y, index, seeds)
            score = self.score(draw, point, y)
            better = score > best[1]
            point = ops.where(as_rows(better, x), point, best[0])
            return point, ops.where(better, score, best[1])

        start = x, self.score(draw, x, y)
        return ops.fori_loop(0, self.restarts, search, start)[0]

    def score(self, draw, point, y):
        """How close points are to the goal by `check_samples` draws, `(rows,)`."""
        first = self.first_draw(self.restarts, 0)

        def add(index, total):
            logits = draw(point, first + index * self._draws_a_pass, self._draws_a_pass)
            return total + self.votes(logits)

        total = add(0, 0.0)
        total = ops.fori_loop(1, self._check_passes, add, total)
        return self.goal.score(total / self._check_passes, y)

    def votes(self, logits):
        """The share of each class in the votes of `(rows, draws, classes)`.

        Where probabilities are seen, they decide between equal votes.
        """
        draws, classes = logits.shape[1:]
        votes = classes_from_outputs(ops.reshape(logits, (-1, classes)))
        votes = ops.one_hot(ops.reshape(votes, (-1, draws)), classes, dtype="float32")
        if self.sees_probabilities:
            least = 0.5 / self.check_samples
            probabilities = ops.cast(ops.softmax(logits, axis=2), "float32")
            # What is not finite votes for no class.
            finite = ops.isfinite(probabilities)
            votes = votes + least * ops.where(finite, probabilities, 0.0)
        return ops.mean(votes, axis=1)

    def first_draw(self, search, step):
        """The index of the first draw of a step of a search."""
        return 0 if self.known_seed else self.num_samples * (search * self.steps + step)

    def own_noise(self, seeds, number):
        """`Noise` of one copy a row, apart from all draws."""
        return Noise(seeds, 1, first=_STARTS + number)

    def start(self, x, index, seeds):
        """Where a search starts: the first at `x`, the others anywhere in the ball."""
        anywhere = self.ball.random_point(x, self.own_noise(seeds, index))
        return ops.where(ops.equal(index, 0), x, anywhere)

    def improves(self, model, found, x, y):
        # `run` keeps what is better by the vote; the model at one point says nothing.
        return ops.ones_like(y, dtype="bool")

    def _draw(self, model, seeds, points, first, count):
        # The predictor draws from 0, up to its horizon.
        skipped = 0 if self.known_seed else self.predictor.max_samples
        noise = Noise(seeds, count, skipped + first)
        points = ops.cast(points, "float32")[:, None]
        copies = self.predictor.perturbation.sample(points, noise)
        logits = model(ops.reshape(copies, (-1, *copies.shape[2:])))
        return ops.reshape(logits, (-1, count, logits.shape[1]))

    def __call__(self, model, x, y, seed=None, batch_size=250):
        """Inputs in the ball at which the vote goes wrong, as far as they are found.

        Args:
            model: a `CertifiedPredictor`.
            x: float array `(rows, …)` inside the `clip` of its perturbation.
            y: class indices `(rows,)`, or one-hot `(rows, classes)`: the true ones.
            seed: `None` (default) for fresh noise, an int that makes the run
                repeatable, or int32 `(rows, 2)`, a seed for each row.
            batch_size: the most rows that are attacked together, 250 by default;
                fewer where their copies would not fit into the predictor's
                `forward_batch_size`. It bounds memory and changes no result.

        Returns:
            An array of the shape and dtype of `x`.

        Raises:
            ValueError: if `model` is no `CertifiedPredictor`, if no `epsilon` was
                given and its vicinity is no ball, or as in `Attack`.
        """
        if not isinstance(model, CertifiedPredictor):
            raise ValueError(
                f"`model` must be a CertifiedPredictor for {type(self).__name__}. "
                f"Received: model={model!r}"
            )
        batch_size = check_integer("batch_size", batch_size)
        fit = max(1, model.forward_batch_size // self._draws_a_pass)
        attack = self._bound_to(model)
        return super(CertificateAttack, attack).__call__(
            model, x, y, seed, min(batch_size, fit)
        )

    def _bound_to(self, predictor):
        """A copy of the attack that knows the predictor and its ball."""
        # The copy keeps the predictor alive, so its id stays its own.
        if id(predictor) not in self._bound:
            attack = copy.copy(self)
            epsilon, norm, step_size = self._arguments
            epsilon, norm = _ball(epsilon, norm, predictor.perturbation)
            clip = predictor.perturbation.clip
            vars(attack).update(epsilon=epsilon, norm=norm, clip=clip)
            attack.ball = ProjectedGradient(
                attack.epsilon, self.steps, step_size, attack.norm, attack.clip
            )
            attack.predictor = predictor
            attack._compiled = {}
            self._bound[id(predictor)] = attack
        return self._bound[id(predictor)]


def _ball(epsilon, norm, vicinity):
    """The radius and the norm of a ball, those of the vicinity where not given."""
    names = {type(each.unit_ball): name for name, each in norms.NORMS.items()}
    own = names.get(type(vicinity))
    if epsilon is None:
        if own is None or norm not in (None, own) or vicinity.epsilon == 0:
            raise ValueError(
                "`epsilon` must be given unless the predictor's vicinity is a ball "
                f"of this norm. Received: epsilon=None, norm={norm!r}, "
                f"vicinity {vicinity!r}"
            )
        epsilon = vicinity.epsilon
    return epsilon, norm or own or "linf"
