"""Work is shared evenly, and every row gets its turns, once each."""

import numpy as np
import pytest

from keras_probcert import ExactTest
from keras_probcert.distributed.rows import Rows
from keras_probcert.distributed.schedule import Schedule

TEST = ExactTest(0.1, 0.05)


def rows(ids):
    ids = np.asarray(ids)
    zeros = np.zeros(len(ids), np.int32)
    pairs = np.zeros((len(ids), 2), np.int32)
    x = ids[:, None].astype("float32")
    return Rows(ids, x, zeros, pairs, pairs.copy(), zeros.copy(), zeros.copy())


def simulate(needed, workers, rows_a_task, block=100):
    """A cluster whose votes take one second each: its end, and how often rows ended.

    Args:
        needed: int `(rows,)`, the votes that each row needs.
    """
    blocks = (
        rows(range(i, min(i + block, len(needed))))
        for i in range(0, len(needed), block)
    )
    schedule = Schedule(blocks, TEST, rows_a_task, workers)
    now, done, running = 0.0, np.zeros(len(needed), int), []
    while True:
        while len(running) < workers and (task := schedule.next()):
            busy = [worker for _, worker, _ in running]
            worker = next(w for w in range(workers) if w not in busy)
            taken, most = task
            assert len(taken) <= rows_a_task
            assert (most <= TEST.max_samples).all() and (most > taken.num_samples).all()
            votes = np.minimum(needed[taken.id], most) - taken.num_samples
            taken.num_samples = (taken.num_samples + votes).astype(np.int32)
            running.append((now + votes.sum(), worker, taken))
        if not running:
            return now, done
        running.sort(key=lambda task: task[0])
        now, _, taken = running.pop(0)
        left = taken.num_samples < np.minimum(needed[taken.id], TEST.max_samples)
        done[taken.id[~left]] += 1
        schedule.back(taken[left])


@pytest.mark.parametrize("workers", [1, 2, 7])
@pytest.mark.parametrize("hard", [0.0, 0.05, 1.0])
def test_workers_end_together_and_every_row_once(workers, hard):
    rng = np.random.default_rng(0)
    needed = np.where(
        rng.random(2000) < hard, TEST.max_samples, TEST.min_samples
    ).astype(int)
    # The hard ones are all at the end: sharing by number would be far off.
    needed.sort()
    end, done = simulate(needed, workers, 64)
    assert (done == 1).all()
    ideal = needed.sum() / workers
    # A row's own votes come one after the other.
    assert ideal <= end <= ideal + needed.max()


def test_hard_rows_share_tasks_with_others():
    schedule = Schedule(iter([rows(range(100))]), TEST, 10, 1)
    first, most = schedule.next()
    assert first.id.tolist() == list(range(10))
    assert (most == schedule.turn).all()
    first.num_samples[:] = schedule.turn
    schedule.back(first[:2])
    second, most = schedule.next()
    # Two that need a whole turn are worth four; the fresh ones follow.
    assert second.id.tolist() == [0, 1, *range(10, 16)]
    assert most.tolist() == [2 * schedule.turn] * 2 + [schedule.turn] * 6


def test_the_last_tasks_are_small():
    schedule = Schedule(iter([rows(range(64))]), TEST, 64, 4)
    sizes = []
    while task := schedule.next():
        sizes.append(len(task[0]))
    assert sum(sizes) == 64 and sizes == sorted(sizes, reverse=True)
    assert sizes[0] == 8 and sizes[-1] == 1


def test_nothing_to_do():
    schedule = Schedule(iter([]), TEST, 8, 2)
    assert schedule.next() is None and not schedule.waiting()
