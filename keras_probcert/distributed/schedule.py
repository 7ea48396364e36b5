"""Which rows a free worker gets: by the work that is left, not by their number.

A row that is hard to decide costs a hundred times what others do. So a task gives each
of its rows a *turn* of so many votes at most; a row that is still undecided then comes
back with its votes and waits for another turn, on whichever worker is free. A task
holds about as much work as the others, and near the end, when little is waiting, a
small enough share of it (guided self-scheduling): workers finish together.
"""

import collections

import numpy as np

from keras_probcert.distributed.rows import Rows


class Schedule:
    """Rows that wait for a worker.

    Args:
        source: iterator of `Rows` that have no votes yet.
        test: the `SequentialTest`.
        rows_a_task: the most rows of a task.
        workers: how many there are.
    """

    def __init__(self, source, test, rows_a_task, workers):
        self._source, self._fresh = source, collections.deque()
        self._hard = collections.deque()
        # What certifies a row whose votes agree: what most rows take.
        self._usual = test.min_samples
        self.horizon = test.max_samples
        self.turn = 2 * self._usual
        self._rows_a_task = rows_a_task
        self._shares = 2 * workers
        self._exhausted = False

    def _read_ahead(self):
        """As many rows as all workers' next tasks can take, where there are more."""
        wanted = self._shares * self._rows_a_task
        while not self._exhausted and sum(map(len, self._fresh)) < wanted:
            rows = next(self._source, None)
            if rows is None:
                self._exhausted = True
            elif len(rows):
                self._fresh.append(rows)

    def _work(self, rows):
        """Votes that each row is expected to take in its next turn."""
        left = np.minimum(self.turn, self.horizon - rows.num_samples)
        return np.where(rows.num_samples > 0, left, self._usual)

    def next(self):
        """The rows of a task and the most votes of each then, or `None`.

        Rows that had a turn come first: theirs is the most work.
        """
        if not self.waiting():
            return None
        waiting = [*self._hard, *self._fresh]
        full = self._rows_a_task * self._usual
        total = sum(int(self._work(rows).sum()) for rows in waiting)
        share = min(full, -(-total // self._shares)) if self._exhausted else full
        taken, work, count = [], 0, 0
        for queue in (self._hard, self._fresh):
            while queue and work < share and count < self._rows_a_task:
                rows = queue.popleft()
                ends = np.cumsum(self._work(rows))
                fit = 1 + int(np.searchsorted(ends, share - work))
                fit = min(fit, self._rows_a_task - count, len(rows))
                taken.append(rows[:fit])
                work, count = work + int(ends[fit - 1]), count + fit
                if fit < len(rows):
                    queue.appendleft(rows[fit:])
        rows = Rows.join(taken)
        most = np.minimum(rows.num_samples + self.turn, self.horizon)
        return rows, most.astype(np.int32)

    def waiting(self):
        """Whether rows wait for a worker."""
        self._read_ahead()
        return bool(self._hard or self._fresh)

    def back(self, rows):
        """Takes rows that are not decided yet, or whose worker was lost."""
        if len(rows):
            self._hard.append(rows)
