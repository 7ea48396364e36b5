"""OnePixel: differential evolution of a few pixels."""

from keras import ops

from keras_probcert.attacks.attack import Attack
from keras_probcert.attacks.candidates import fitness, fittest
from keras_probcert.perturbations.noise import Noise
from keras_probcert.validation import check_integer


class OnePixel(Attack):
    r"""Differential evolution of where a few pixels lie and what they are.

    A member of the population holds a row, a column and a value for each channel,
    for each pixel. In each generation every member meets a trial, the best member
    plus \(F\) times the difference of two others with \(F\) uniform in (0.5, 1), and
    the fitter of both stays; what leaves its range is drawn anew. Fitness is the
    cross-entropy, and misclassification above all.

    Args:
        pixels: the number of pixels that may change, at least 1 (default).
        steps: the number of generations, at least 1; 10 by default.
        popsize: the size of the population, at least 1; 10 by default. It is rounded
            down to a multiple of the number of parameters, of which there are
            `pixels * (2 + channels)`, but is at least that number and 5.
        clip: `(low, high)`, the valid input range, `(0, 1)` by default.

    Raises:
        ValueError: if an argument is out of its range.

    Example:

    >>> import keras, numpy as np
    >>> flatten, dense = keras.layers.Flatten(), keras.layers.Dense(3)
    >>> model = keras.Sequential([keras.Input((6, 6, 3)), flatten, dense])
    >>> x = np.random.rand(5, 6, 6, 3).astype("float32")
    >>> x_adv = OnePixel(steps=3)(model, x, y=[0, 1, 2, 0, 1], seed=0)
    >>> bool((np.any(x_adv != x, axis=3).sum(axis=(1, 2)) <= 1).all())
    True

    Reference:

    - Su, Vargas and Sakurai, "One Pixel Attack for Fooling Deep Neural Networks"
      (IEEE Transactions on Evolutionary Computation 2019), section III.B.
    """

    uses_gradients = False
    needs_images = True
    needs_clip = True

    def __init__(self, pixels=1, steps=10, popsize=10, clip=(0.0, 1.0)):
        super().__init__(clip=clip)
        self.pixels = check_integer("pixels", pixels)
        self.steps = check_integer("steps", steps)
        self.popsize = check_integer("popsize", popsize)

    def run(self, model, x, y, seeds):
        size = self.pixels * (2 + x.shape[3])
        members = max(5, size, self.popsize // size * size)

        def generation(index, state):
            population, fit = state
            trials = self._trials(population, fit, Noise(seeds, 1, first=index + 1))
            trial_fit = fitness(model, self._painted(x, trials), y)
            better = trial_fit > fit
            population = ops.where(better[:, :, None], trials, population)
            return population, ops.where(better, trial_fit, fit)

        population = Noise(seeds, 1).uniform((members, size))[:, 0]
        fit = fitness(model, self._painted(x, population), y)
        state = ops.fori_loop(0, self.steps, generation, (population, fit))
        return self._painted(x, fittest(*state)[:, None])[:, 0]

    def _trials(self, population, fit, noise):
        members, size = population.shape[1:]
        scale = noise.uniform((1, 1), 0.5, 1.0)[:, 0]
        # Two different members, neither of them oneself, by how far ahead they are.
        first, second = ops.unstack(noise.uniform((2, members))[:, 0], axis=1)
        first = 1 + ops.floor(first * (members - 1))
        second = 1 + ops.floor(second * (members - 2))
        second = second + ops.cast(second >= first, second.dtype)

        def other(ahead):
            index = (ops.arange(members) + ops.cast(ahead, "int32")) % members
            return ops.take_along_axis(population, index[:, :, None], axis=1)

        best = fittest(population, fit)[:, None]
        trials = best + scale * (other(first) - other(second))
        inside = ops.logical_and(trials >= 0, trials <= 1)
        return ops.where(inside, trials, noise.uniform((members, size))[:, 0])

    def _painted(self, x, population):
        """The images that members stand for, `(rows, members, height, …)`."""
        height, width, channels = x.shape[1:]
        low, high = self.clip
        images = x[:, None]
        for pixel in ops.split(population, self.pixels, axis=2):
            # A parameter of 1 is the last pixel too.
            at = [
                ops.one_hot(
                    ops.cast(ops.minimum(pixel[:, :, i] * length, length - 1), "int32"),
                    length,
                    dtype="bool",
                )
                for i, length in enumerate((height, width))
            ]
            here = ops.logical_and(at[0][..., :, None], at[1][..., None, :])
            value = ops.cast(low + (high - low) * pixel[:, :, None, None, 2:], x.dtype)
            images = ops.where(here[..., None], value, images)
        return images
