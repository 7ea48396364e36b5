"""One worker in this process: what a pool is where there is no cluster."""

import time


class LocalPool:
    """A pool with a single worker, in this process.

    Every pool offers what this one does: `idle`, `submit`, `wait`, and what was lost.

    Args:
        worker: the `Worker`.
    """

    size, lost_workers, lost_seconds = 1, 0, 0.0

    def __init__(self, worker):
        self._worker, self._task = worker, None

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass

    def start(self, x):
        """Returns when a worker is ready for rows like `x`: the seconds it took."""
        start = time.perf_counter()
        self._worker.warm_up(x)
        return time.perf_counter() - start

    def idle(self):
        """Whether a worker is free."""
        return self._task is None

    def submit(self, rows, most):
        """Gives a free worker a task."""
        self._task = rows, most

    def busy(self):
        """Whether a task is under work."""
        return self._task is not None

    def wait(self):
        """The rows of a task that ended, and its results.

        Returns:
            `(rows, results)`, the results `None` where the worker was lost; or `None`
            if something else happened, such as a worker that became free.
        """
        (rows, most), self._task = self._task, None
        results = self._worker.turn(
            rows.x, rows.seed, rows.votes, rows.num_samples, most
        )
        return rows, results
