"""Methods that train on random perturbations of each input."""

from keras import ops

from keras_probcert import backend
from keras_probcert.perturbations import LInf
from keras_probcert.perturbations import get as get_perturbation
from keras_probcert.perturbations.noise import Noise
from keras_probcert.training.training_method import TrainingMethod
from keras_probcert.validation import check_integer


class RandomCopies(TrainingMethod):
    """Draws perturbed copies of every example, in one pass or in chunks.

    Minimizes the mean loss of the copies. Subclasses may give another `aggregate`,
    from the losses of a row's copies to one value, or the more general `objective`.

    Args:
        model: the base model, a `keras.Model` with one output.
        perturbation: the vicinity, a `Perturbation`; `LInf(8 / 255)` by default.
        num_samples: n, perturbed copies of each example, at least 1.
        chunk_size: how many copies of each example are in memory at a time;
            `None` (default) for all. The gradient is the same to float32
            rounding, for at most one more forward pass. BatchNorm is the
            exception: it normalizes, and updates its statistics, chunk by
            chunk; Dropout draws other masks; activity regularizers and
            `add_loss` in the base are not counted.
        seed: an int that fixes the noise of training; `None` (default) for
            Keras' global seed.
        **kwargs: passed to `keras.Model`, such as `name`.
    """

    # The fewest copies that have an objective.
    _fewest = 1

    def __init__(
        self,
        model,
        perturbation=None,
        num_samples=10,
        chunk_size=None,
        seed=None,
        scheduled=None,
        **kwargs,
    ):
        perturbation = (
            LInf(8 / 255) if perturbation is None else get_perturbation(perturbation)
        )
        super().__init__(model, perturbation.clip, seed, scheduled, **kwargs)
        self.perturbation = perturbation
        self.num_samples = check_integer("num_samples", num_samples, self._fewest)
        if chunk_size is not None:
            chunk_size = check_integer("chunk_size", chunk_size)
        self.chunk_size = chunk_size

    def aggregate(self, losses):
        """One value a row, `(rows,)`, from `losses`, `(rows, copies)`.

        Returns:
            The values, and a dict of the parts to show.
        """
        return ops.mean(losses, axis=1), {}

    def objective(self, y, outputs):
        return self.aggregate(self.losses_of(y, outputs["copies"]))

    def forward(self, x, y):
        seeds = self.seeds(ops.shape(x)[0])
        return {"copies": self.outputs_of_samples(x, seeds)}

    def samples(self, x, seeds, first=0, size=None):
        """Copies `first`, …, `first + size - 1` of each row, `(rows, size, …)`."""
        noise = Noise(seeds, size or self.num_samples, first)
        return self.perturbation.sample(x[:, None], noise)

    def outputs_of_samples(self, x, seeds):
        """The base's outputs on copies of each row, `(rows, num_samples, units)`."""
        n, size = self.num_samples, self.chunk_size or self.num_samples
        if size >= n:
            return self.outputs_of(self.samples(x, seeds))["copies"]

        def chunks(start, size, count):
            """Outputs on `count` chunks of `size` copies from copy `start` on."""

            def draw(i):
                copies = self.samples(x, seeds, start + i * size, size)
                return ops.reshape(copies, (-1, *x.shape[1:]))

            outputs = backend.forward_in_chunks(self.base_model, draw, count)
            # (chunks, rows * size, units) → (rows, chunks * size, units)
            outputs = ops.reshape(outputs, (count, -1, size, self._units))
            outputs = ops.moveaxis(outputs, 0, 1)
            return ops.reshape(outputs, (-1, count * size, self._units))

        outputs = chunks(0, size, n // size)
        if n % size:
            rest = chunks(n - n % size, n % size, 1)
            outputs = ops.concatenate([outputs, rest], axis=1)
        return outputs
