"""What a worker does: turns of votes, with a predictor of its own."""

import pathlib
import tempfile

import keras
import numpy as np

from keras_probcert.distributed.fingerprint import fingerprint
from keras_probcert.seeds import row_seeds
from keras_probcert.version import __version__


class Worker:
    """Votes on rows, a turn at a time.

    Args:
        load: a function that gives the built `CertifiedPredictor`.
        rows_a_task: the most rows of a task.
        setup: a function without arguments that is called first, or `None`.
        run: what `fingerprint` must give here, and the library's version; `None` where
            the predictor is that of the process that asks.

    Raises:
        ValueError: if this worker has another model, or another version.
    """

    def __init__(self, load, rows_a_task, setup=None, run=None):
        if setup is not None:
            setup()
        self._certified = load()
        self._rows_a_task = rows_a_task
        if run is not None:
            here = fingerprint(self._certified, run["seed"])
            here["library_version"] = __version__
            for name, value in here.items():
                if value != run[name]:
                    raise ValueError(
                        f"All workers must have the same {name}. "
                        f"Received: {value}, not {run[name]}"
                    )

    def warm_up(self, x):
        """Compiles: a turn of no votes for one row like `x`, `(1, …)`."""
        classes = self._certified.num_classes
        nothing = np.zeros(1, np.int32)
        votes = np.zeros((1, classes), np.int32)
        self.turn(x, row_seeds(0, 1), votes, nothing, nothing)

    def turn(self, x, seed, votes, num_samples, most):
        """The certificates of rows after up to so many votes.

        Args:
            x, seed, votes, num_samples: see `Rows`.
            most: int32 `(rows,)`, the most votes of each row, those given included.

        Returns:
            The dict of `CertifiedPredictor.predict`.
        """
        arrays = [x, seed, votes, num_samples, most]
        rows = len(x)
        if self._certified._static_shapes:
            # Each number of rows would be compiled anew; those added get no votes.
            more = self._rows_a_task - rows
            arrays = [
                np.concatenate([a, np.zeros((more, *a.shape[1:]), a.dtype)])
                for a in arrays
            ]
        results = self._certified.advance(*arrays)
        return {name: value[:rows] for name, value in results.items()}


def load_bytes(data):
    """The model in the bytes of a `.keras` file, loaded in safe mode."""
    import keras_probcert  # noqa: F401 (registers what such files name)

    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "model.keras"
        path.write_bytes(data)
        return keras.saving.load_model(path, compile=False, safe_mode=True)


def to_bytes(model):
    """`model` as the bytes of a `.keras` file."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "model.keras"
        model.save(path)
        return path.read_bytes()
