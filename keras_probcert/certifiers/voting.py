"""The voting loops: rows share every forward pass.

In `count` each row gets the same number of copies. In `vote` undecided rows share the
passes until a sequential test decides each: a round draws a fixed number of perturbed
copies, in slots of `COPIES_A_SLOT` copies of one row. While many rows are undecided
each gets one slot; when few are left each gets several, but never more than it could
need to be certified. The votes of a row are then replayed in order, and the first
crossing of a boundary decides; votes after it are discarded. So neither the decision
nor its number of samples depends on the other rows.
"""

import keras
import numpy as np
from keras import ops

from keras_probcert import backend
from keras_probcert.certifiers.decision import Decision

COPIES_A_SLOT = 16


def vote(
    draw_votes,
    refused,
    num_classes,
    test,
    num_slots,
    static_shapes,
    start=None,
    max_samples=None,
    max_passes=None,
):
    """Runs the sequential test on every row.

    A row whose `max_samples` or `max_passes` ends stays undecided. The boundaries are
    those of the whole test, so a run that goes on from there, with `start`, decides
    what an uninterrupted one does, and one that does not has only looked less often.

    Args:
        draw_votes: a function of `(rows, first)`, both int32 `(slots,)`: the
            row of each slot and the sample index of its first copy, to int32
            classes `(slots * COPIES_A_SLOT,)`; `num_classes` means no vote.
        refused: bool, `(rows,)`: rows that get no vote at all.
        num_classes: Python int.
        test: the `SequentialTest`.
        num_slots: Python int, slots a forward pass.
        static_shapes: whether every round must be as large as the others, as
            XLA demands; else a round with little to do is smaller.
        start: `(votes, num_samples)` of rows that an earlier run left undecided, as
            this function returns them; by default no votes.
        max_samples: int32 `(rows,)`: the most votes of each row, those of `start`
            included; by default the test's.
        max_passes: int32 `(rows,)`: the most forward passes of this run in which a row
            takes part or waits; by default any number.

    Returns:
        `(votes, num_samples, decision)`: int32 `(rows, num_classes)`, int32
        `(rows,)`, int32 `(rows,)`.
    """
    # By disagreements: certified from, rejected until; the last entry is for all
    # that have more.
    horizon, hopeless = test.max_samples, len(test.certify_times)
    certify_times, reject_until = (
        ops.convert_to_tensor(np.append(times, beyond).astype("int32"))
        for times, beyond in (
            (test.certify_times, horizon + 1),
            (test.reject_until, horizon),
        )
    )
    num_rows = ops.shape(refused)[0]

    # The last row of the state is nobody's: slots with nothing to do write there.
    def with_nobody(rows, nobodys):
        return ops.pad(
            rows, [(0, 1)] + [(0, 0)] * (len(rows.shape) - 1), "constant", nobodys
        )

    most = ops.full((num_rows,), horizon, dtype="int32")
    if max_samples is not None:
        most = ops.minimum(most, max_samples)
    most = with_nobody(most, horizon)

    def at(times, disagreements):
        return backend.gather(times, ops.minimum(disagreements, times.shape[0] - 1))

    def slots_needed(votes, num_samples, most):
        """Slots a row needs at the most before it is certified or given up."""
        disagreements = num_samples - ops.max(votes, axis=1)
        goal = ops.minimum(at(certify_times, disagreements), most)
        missing = ops.maximum(goal - num_samples, 1)
        return (missing + COPIES_A_SLOT - 1) // COPIES_A_SLOT

    def one_round(passes, votes, num_samples, decision, done):
        # The first undecided rows, one a slot; nobody where there are fewer. By a
        # search: a scatter of all rows takes twice as long as their sum.
        undecided_so_far = ops.cumsum(ops.cast(ops.logical_not(done[:-1]), "int32"))
        ranks = ops.arange(1, num_slots + 1, dtype="int32")
        active = ops.searchsorted(undecided_so_far, ranks, side="left")
        active = ops.cast(active, "int32")
        votes_before = backend.gather(votes, active)
        samples_before = backend.gather(num_samples, active)
        most_of = backend.gather(most, active)

        needed = ops.where(
            active < num_rows, slots_needed(votes_before, samples_before, most_of), 0
        )
        ends = ops.cumsum(_share(needed, num_slots))
        starts = ops.concatenate([ops.zeros((1,), "int32"), ends[:-1]])
        slots = ops.arange(num_slots if static_shapes else ends[-1], dtype="int32")
        owner = ops.cast(ops.searchsorted(ends, slots, side="right"), "int32")
        unused = owner >= num_slots
        owner = ops.minimum(owner, num_slots - 1)
        first = backend.gather(samples_before, owner) + COPIES_A_SLOT * (
            slots - backend.gather(starts, owner)
        )
        rows = ops.where(unused, 0, backend.gather(active, owner))
        classes = draw_votes(ops.minimum(rows, num_rows - 1), first)

        # Replay: the state of each owner's stream after each of its votes.
        owner = ops.repeat(owner, COPIES_A_SLOT)
        position = ops.arange(ops.shape(classes)[0], dtype="int32")
        running = ops.cumsum(ops.one_hot(classes, num_classes, dtype="int32"), axis=0)
        running = ops.concatenate(
            [ops.zeros((1, num_classes), "int32"), running], axis=0
        )
        before = votes_before - backend.gather(running, starts * COPIES_A_SLOT)
        running = running[1:] + backend.gather(before, owner)
        drawn = (
            backend.gather(samples_before - starts * COPIES_A_SLOT, owner)
            + position
            + 1
        )
        disagreements = drawn - ops.max(running, axis=1)
        robust = drawn >= at(certify_times, disagreements)
        not_robust = drawn <= at(reject_until, disagreements)
        stops = robust | not_robust | (drawn >= backend.gather(most_of, owner))
        futile = ops.logical_and(test.futile, disagreements >= hopeless)
        stops = stops | futile

        # Each owner's first stop, or the last of its votes.
        end = ops.shape(classes)[0]
        stop = -ops.segment_max(
            ops.where(stops, -position, -end), owner, num_segments=num_slots
        )
        last = ends * COPIES_A_SLOT - 1
        stopped = ops.logical_and(stop <= last, stop >= 0)
        final = ops.clip(ops.where(stopped, stop, last), 0, end - 1)
        verdict = ops.where(
            backend.gather(robust, final),
            int(Decision.ROBUST),
            ops.where(
                backend.gather(not_robust, final),
                int(Decision.NOT_ROBUST),
                ops.where(
                    backend.gather(futile, final),
                    int(Decision.FUTILE),
                    int(Decision.UNDECIDED),
                ),
            ),
        )
        # Owners without a slot keep what they have.
        served = ends > starts
        where = ops.where(served, active, num_rows)[:, None]
        done = ops.scatter_update(done, where, stopped)
        return (
            passes + 1,
            ops.scatter_update(votes, where, backend.gather(running, final)),
            ops.scatter_update(num_samples, where, backend.gather(drawn, final)),
            ops.scatter_update(decision, where, ops.cast(verdict, "int32")),
            out_of_passes(done, passes + 1),
        )

    def out_of_passes(done, passes):
        if max_passes is None:
            return done
        return done | with_nobody(max_passes <= passes, True)

    if start is None:
        votes = ops.zeros((num_rows, num_classes), dtype="int32")
        num_samples = ops.zeros((num_rows,), dtype="int32")
    else:
        votes, num_samples = start
    votes, num_samples = with_nobody(votes, 0), with_nobody(num_samples, 0)
    refused = with_nobody(refused, True)
    decision = ops.where(refused, int(Decision.REFUSED), int(Decision.UNDECIDED))
    passes = ops.zeros((), "int32")
    _, votes, num_samples, decision, _ = backend.while_loop(
        lambda passes, votes, num_samples, decision, done: ops.logical_not(
            ops.all(done[:-1])
        ),
        one_round,
        (
            passes,
            votes,
            num_samples,
            ops.cast(decision, "int32"),
            out_of_passes(refused | (num_samples >= most), passes),
        ),
    )
    return votes[:-1], num_samples[:-1], decision[:-1]


def count(
    draw_votes, refused, num_classes, num_samples, num_slots, static_shapes, first=0
):
    """The votes of a fixed number of copies of every row, stage by stage.

    Args:
        draw_votes, refused, num_classes, num_slots, static_shapes: see `vote`.
        num_samples: int32 `(stages,)`, the copies of each stage, one stage after the
            other.
        first: int32 scalar, the sample index of the first copy.

    Returns:
        int32, `(rows, stages, num_classes)`.
    """
    num_samples = ops.convert_to_tensor(num_samples, dtype="int32")
    num_rows, stages = ops.shape(refused)[0], num_samples.shape[0]
    ends = ops.cumsum(num_samples)
    slots_a_row = (ends[-1] + COPIES_A_SLOT - 1) // COPIES_A_SLOT
    num_work = num_rows * slots_a_row

    def one_pass(start, votes):
        size = num_slots if static_shapes else ops.minimum(num_slots, num_work - start)
        slots = start + ops.arange(size, dtype="int32")
        rows = ops.minimum(slots // slots_a_row, num_rows - 1)
        copies = slots % slots_a_row * COPIES_A_SLOT
        classes = draw_votes(rows, first + copies)
        copies = copies[:, None] + ops.arange(COPIES_A_SLOT, dtype="int32")
        stage = ops.searchsorted(ends, ops.reshape(copies, (-1,)), side="right")
        stage = ops.cast(stage, "int32")
        # Nobody's: past the last copy, past the last slot, of a refused row.
        nobodys = ops.logical_or(slots >= num_work, backend.gather(refused, rows))
        stage = ops.where(ops.repeat(nobodys, COPIES_A_SLOT), stages, stage)
        place = ops.repeat(rows, COPIES_A_SLOT) * (stages + 1) + stage
        counted = ops.segment_sum(
            ops.one_hot(classes, num_classes, dtype="int32"),
            place,
            num_segments=num_rows * (stages + 1),
        )
        return start + num_slots, votes + counted

    _, votes = backend.while_loop(
        lambda start, votes: start < num_work,
        one_pass,
        (
            ops.zeros((), "int32"),
            ops.zeros((num_rows * (stages + 1), num_classes), "int32"),
        ),
    )
    return ops.reshape(votes, (-1, stages + 1, num_classes))[:, :-1]


def _share(needed, num_slots):
    """Slots for each row: as even as its needs allow, `num_slots` in all.

    Args:
        needed: int32, `(num_slots,)`: what each row can use, 0 for none.
        num_slots: Python int.

    Returns:
        int32, `(num_slots,)`, at most `needed`, adding up to
        `min(num_slots, sum(needed))`.
    """
    # The highest level that all can have, then the rest one each in order. At level L
    # all together take min over k of (the k least needs + (slots - k) * L), so L is
    # the largest that fits at any k.
    ascending = ops.sort(ops.minimum(needed, num_slots))
    least = ops.cumsum(ascending) - ascending
    level = ops.max((num_slots - least) // ops.arange(num_slots, 0, -1, dtype="int32"))
    share = ops.minimum(needed, level)
    wants_more = ops.cast(needed > level, "int32")
    left = num_slots - ops.sum(share)
    extra = ops.logical_and(wants_more > 0, ops.cumsum(wants_more) <= left)
    return share + ops.cast(extra, "int32")


def labels(votes):
    """The leading class of each row, −1 without a vote: int32 `(rows,)`."""
    label = ops.cast(ops.argmax(votes, axis=1), "int32")
    return ops.where(ops.max(votes, axis=1) > 0, label, -1)


def bounds(votes, num_samples, decision, test):
    """Bounds on each row's agreement and its p-value, float32 `(rows,)` thrice."""
    table = test.stop_bounds
    disagreements = num_samples - ops.max(votes, axis=1)
    stage = ops.searchsorted(
        ops.convert_to_tensor(table.stopped_by), num_samples, side="left"
    )

    def of(rows, place):
        place = ops.clip(place, 0, len(rows) - 1)
        return backend.gather(ops.convert_to_tensor(rows), place)

    def where(which, those, others):
        return ops.where((decision == int(which))[:, None], those, others)

    nothing = ops.convert_to_tensor([0.0, 1.0, 1.0], dtype="float32")
    result = of(table.stopped, ops.cast(stage, "int32"))
    undecided = of(table.undecided, disagreements - len(table.certified))
    # A row that a budget stopped before the horizon proves nothing.
    spent = (num_samples >= test.max_samples)[:, None]
    undecided = ops.where(spent, undecided, nothing)
    result = where(Decision.UNDECIDED, undecided, result)
    result = where(Decision.ROBUST, of(table.certified, disagreements), result)
    result = where(Decision.REFUSED, nothing, result)
    return result[:, 0], result[:, 1], result[:, 2]


def classes_from_outputs(outputs, threshold=None):
    """The class each copy votes for.

    A copy whose outputs are not all finite votes for nothing: `argmax` of NaN
    is class 0, and a broken model would look perfectly robust.

    Args:
        outputs: `(copies, num_classes)`, or `(copies, 1)` with `threshold`.
        threshold: the single output unit votes for class 1 above it.

    Returns:
        int32 `(copies,)`; the number of classes means no vote.
    """
    if keras.backend.standardize_dtype(outputs.dtype) != "float64":
        outputs = ops.cast(outputs, "float32")
    finite = ops.all(ops.isfinite(outputs), axis=-1)
    if threshold is None:
        num_classes = outputs.shape[-1]
        classes = ops.cast(ops.argmax(outputs, axis=-1), "int32")
    else:
        num_classes = 2
        classes = ops.cast(outputs[:, 0] > threshold, "int32")
    return ops.where(finite, classes, num_classes)


def row_is_valid(x, clip):
    """Whether each row is finite and inside `clip`: bool `(rows,)`."""
    axes = tuple(range(1, len(x.shape)))
    valid = ops.all(ops.isfinite(x), axis=axes)
    if clip is not None:
        inside = ops.logical_and(x >= clip[0], x <= clip[1])
        valid = ops.logical_and(valid, ops.all(inside, axis=axes))
    return valid
