"""CW: the nearest misclassified point, by Adam behind a tanh."""

from keras import ops

from keras_probcert import backend
from keras_probcert.attacks import losses
from keras_probcert.attacks.attack import Attack
from keras_probcert.validation import check_integer, check_number

# Where tanh is cut off, so that pixels at the ends of the range can move while the
# others start where they are.
_EDGE = 1 - 1e-6


class CW(Attack):
    r"""The L2 attack of Carlini and Wagner, without a search for its constant.

    Adam minimizes \(\lVert x' - x \rVert_2^2 + c \max(z_y - \max_{i \neq y} z_i,
    -\kappa)\) over \(w\), where \(\tanh w\), from −1 to 1, says where in `clip` \(x'\)
    lies. Distances are measured in widths of `clip`. The nearest misclassified point
    on the way is returned, or `x` where there is none. A row ends early if at one of
    ten looks its objective has grown since the last.

    Args:
        c: the weight of the logits, at least 0; 1 by default.
        kappa: κ, by how much the logits are to be apart, at least 0; 0 by default.
        steps: the number of steps, at least 1; 50 by default.
        learning_rate: Adam's, at least 0; 0.01 by default.
        clip: `(low, high)`, the valid input range, `(0, 1)` by default.

    Raises:
        ValueError: if an argument is out of its range.

    Example:

    >>> import keras, numpy as np
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> x = np.random.rand(5, 4).astype("float32")
    >>> x_adv = CW(steps=20)(model, x, y=[0, 1, 2, 0, 1])

    Reference:

    - Carlini and Wagner, "Towards Evaluating the Robustness of Neural Networks"
      (IEEE S&P 2017), section VI.A.
    - Kingma and Ba, "Adam: A Method for Stochastic Optimization" (ICLR 2015),
      algorithm 1.
    """

    needs_clip = True

    def __init__(self, c=1.0, kappa=0.0, steps=50, learning_rate=0.01, clip=(0.0, 1.0)):
        super().__init__(clip=clip)
        self.c = check_number("c", c)
        self.kappa = check_number("kappa", kappa)
        self.steps = check_integer("steps", steps)
        self.learning_rate = check_number("learning_rate", learning_rate)

    def objective(self, logits, y):
        return losses.margin(logits, y)

    def run(self, model, x, y, seeds):
        low, high = self.clip
        ones = [1] * (len(x.shape) - 1)
        axes = tuple(range(1, len(x.shape)))

        def cost(w):
            point = low + (high - low) * (ops.tanh(w) + 1) / 2
            distance = ops.sum(ops.square((point - x) / (high - low)), axis=axes)
            margin = ops.cast(self.objective(model(point), y), x.dtype)
            value = distance + self.c * ops.maximum(-margin, -self.kappa)
            return value, (point, distance, margin)

        def step(index, state):
            w, mean, square, found, nearest, previous, running = state
            value, (point, distance, margin), gradient = backend.value_and_gradient(
                cost, w
            )
            w, mean, square = self._adam(index, w, mean, square, gradient)

            closer = running & (margin > 0) & (distance < nearest)
            found = ops.where(ops.reshape(closer, (-1, *ones)), point, found)
            nearest = ops.where(closer, distance, nearest)

            looks = index % max(self.steps // 10, 1) == 0
            running = running & ~(looks & (value > previous))
            previous = ops.where(looks, value, previous)
            return w, mean, square, found, nearest, previous, running

        w = ops.arctanh(ops.clip(2 * (x - low) / (high - low) - 1, -_EDGE, _EDGE))
        zeros = ops.zeros_like(x)
        far = ops.full_like(ops.sum(x, axis=axes), float("inf"))
        state = (w, zeros, zeros, x, far, far, far > 0)
        return ops.fori_loop(0, self.steps, step, state)[3]

    def _adam(self, index, w, mean, square, gradient):
        gradient = ops.where(ops.isfinite(gradient), gradient, 0.0)
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.999 * square + 0.001 * ops.square(gradient)
        count = ops.cast(index + 1, w.dtype)
        # Both averages start at zero: what they lack is made up for.
        size = ops.sqrt(square / (1 - 0.999**count)) + 1e-8
        return w - self.learning_rate * mean / (1 - 0.9**count) / size, mean, square
