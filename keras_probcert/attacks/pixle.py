"""Pixle: pixels of a patch, copied to random places."""

from keras import ops

from keras_probcert.attacks.attack import Attack
from keras_probcert.attacks.candidates import fitness, fittest
from keras_probcert.perturbations.noise import Noise
from keras_probcert.validation import check_integer


class Pixle(Attack):
    r"""Copies the pixels of random patches to random places, as long as it helps.

    In each restart, every iteration copies a patch of `x` onto the best image so
    far, each pixel to a place of its own; the fittest of these images, if fitter,
    is the next best. Fitness is the cross-entropy, and misclassification above all.

    Args:
        height: `(least, most)`, the patches' height in pixels, cut at the border;
            2 to 10 by default.
        width: likewise, the patches' width.
        restarts: the number of restarts, at least 1; 20 by default.
        iterations: the images tried in each restart, at least 1; 10 by default.
        clip: `(low, high)`, the valid input range, `(0, 1)` by default; `None` for
            no range.

    Raises:
        ValueError: if an argument is out of its range.

    Example:

    >>> import keras, numpy as np
    >>> flatten, dense = keras.layers.Flatten(), keras.layers.Dense(3)
    >>> model = keras.Sequential([keras.Input((6, 6, 3)), flatten, dense])
    >>> x = np.random.rand(5, 6, 6, 3).astype("float32")
    >>> x_adv = Pixle(restarts=3)(model, x, y=[0, 1, 2, 0, 1], seed=0)

    Reference:

    - Pomponi, Scardapane and Uncini, "Pixle: a Fast and Effective Black-Box Attack
      Based on Rearranging Pixels" (IJCNN 2022), algorithm 1.
    """

    uses_gradients = False
    needs_images = True

    def __init__(
        self,
        height=(2, 10),
        width=(2, 10),
        restarts=20,
        iterations=10,
        clip=(0.0, 1.0),
    ):
        super().__init__(clip=clip)
        self.height = _check_range("height", height)
        self.width = _check_range("width", width)
        self.restarts = check_integer("restarts", restarts)
        self.iterations = check_integer("iterations", iterations)

    def run(self, model, x, y, seeds):
        def restart(index, state):
            best, best_fit = state
            images = self._copied(x, best, Noise(seeds, 1, first=index))
            fit = fitness(model, images, y)
            fitter = ops.max(fit, axis=1) > best_fit
            found = fittest(images, fit)
            best = ops.where(fitter[:, None, None, None], found, best)
            return best, ops.where(fitter, ops.max(fit, axis=1), best_fit)

        state = (x, fitness(model, x[:, None], y)[:, 0])
        return ops.fori_loop(0, self.restarts, restart, state)[0]

    def _copied(self, x, best, noise):
        """`best` under pixels of `x`, `(rows, iterations, height, …)`."""
        height, width, channels = x.shape[1:]
        count, tried = height * width, self.iterations

        def patch(length, sizes):
            """Where patches begin and end along one axis."""
            start, size = ops.unstack(noise.uniform((2, tried, 1))[:, 0], axis=1)
            least, most = (min(size, length) for size in sizes)
            start = ops.floor(start * length)
            return start, start + least + ops.floor(size * (most - least + 1))

        # Every pixel of the image is sent somewhere; only those of the patch arrive.
        pixel = ops.arange(count)
        inside = True
        for place, length, sizes in (
            (pixel // width, height, self.height),
            (pixel % width, width, self.width),
        ):
            start, end = patch(length, sizes)
            place = ops.cast(place, start.dtype)
            inside = inside & (place >= start) & (place < end)
        sent = ops.cast(noise.uniform((tried, count))[:, 0] * count, "int32")
        # Where several arrive, the last pixel of the patch stays.
        batch = ops.shape(x)[0] * tried
        sent = ops.reshape(sent, (-1, count)) + count * ops.arange(batch)[:, None]
        source = ops.segment_max(
            ops.reshape(ops.where(inside, pixel, -1), (-1,)),
            ops.reshape(sent, (-1,)),
            batch * count,
        )
        source = ops.reshape(source, (-1, tried * count, 1))
        pixels = ops.reshape(x, (-1, count, channels))
        copied = ops.take_along_axis(pixels, ops.maximum(source, 0), axis=1)
        shape = (-1, tried, height, width)
        return ops.where(
            ops.reshape(source >= 0, (*shape, 1)),
            ops.reshape(copied, (*shape, channels)),
            best[:, None],
        )


def _check_range(name, value):
    try:
        least, most = (check_integer(name, size) for size in value)
    except (TypeError, ValueError):
        least, most = 1, 0
    if least > most:
        raise ValueError(
            f"`{name}` must be a pair (least, most) of integers of at least 1, "
            f"least <= most. Received: {name}={value!r}"
        )
    return least, most
