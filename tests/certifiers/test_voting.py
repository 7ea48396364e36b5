"""The voting loop against a plain Python replay of the same votes."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_probcert import (
    Algorithm2Test,
    BetaMixtureTest,
    Decision,
    ExactTest,
    backend,
)
from keras_probcert.certifiers import voting


def replay(stream, test, num_classes, most=None):
    """The sequential test on one row's votes, one at a time."""
    certify, reject = test.boundaries()
    votes = np.zeros(num_classes, int)
    most = test.max_samples if most is None else most
    for n, vote in enumerate(stream[:most], start=1):
        if vote < num_classes:
            votes[vote] += 1
        disagreements = n - votes.max()
        if disagreements <= certify[n]:
            return votes, n, Decision.ROBUST
        if disagreements >= reject[n]:
            return votes, n, Decision.NOT_ROBUST
        if test.futile and disagreements > certify[-1]:
            return votes, n, Decision.FUTILE
    return votes, most, Decision.UNDECIDED


def run(streams, test, num_classes, num_slots, static, refused=None, **limits):
    """`voting.vote` on given streams."""
    if not static and backend.STATIC_SHAPES:
        pytest.skip("every round has the same size on this backend")
    table = ops.convert_to_tensor(streams.astype("int32"))
    flat = ops.reshape(table, (-1,))

    def draw_votes(rows, first):
        index = first[:, None] + ops.arange(voting.COPIES_A_SLOT, dtype="int32")
        index = ops.minimum(index, streams.shape[1] - 1)
        index = rows[:, None] * streams.shape[1] + index
        return ops.take(flat, ops.reshape(index, (-1,)))

    if refused is None:
        refused = np.zeros(len(streams), bool)
    votes, samples, decision = voting.vote(
        draw_votes,
        ops.convert_to_tensor(refused),
        num_classes,
        test,
        num_slots,
        static,
        **keras.tree.map_structure(ops.convert_to_tensor, limits),
    )
    return tuple(ops.convert_to_numpy(v) for v in (votes, samples, decision))


def random_streams(rng, rows, length, num_classes):
    """Streams whose agreement runs from hopeless to unanimous, with lost votes."""
    agreement = 1 - rng.choice([0, 0.001, 0.02, 0.05, 0.08, 0.3, 0.8], rows)
    other = rng.integers(0, num_classes + 1, (rows, length))
    agrees = rng.random((rows, length)) < agreement[:, None]
    return np.where(agrees, rng.integers(0, num_classes, (rows, 1)), other)


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize(("rows", "num_slots"), [(1, 1), (1, 64), (5, 3), (40, 16)])
def test_decisions_are_those_of_a_replay(rows, num_slots, static):
    rng = np.random.default_rng(rows)
    for test in (
        ExactTest(0.05, 0.05, 150),
        Algorithm2Test(0.1, 0.05, 70, futile=False),
        BetaMixtureTest(0.5, 0.05, 40),
    ):
        streams = random_streams(rng, rows, test.max_samples, 4)
        votes, samples, decision = run(streams, test, 4, num_slots, static)
        for row, stream in enumerate(streams):
            expected = replay(stream, test, 4)
            np.testing.assert_array_equal(votes[row], expected[0])
            assert (samples[row], decision[row]) == expected[1:]


def test_refused_rows_get_no_vote():
    rng = np.random.default_rng(0)
    test = BetaMixtureTest(0.05, 0.05, 200)
    streams = random_streams(rng, 6, 200, 3)
    refused = np.array([True, False, False, True, True, False])
    votes, samples, decision = run(streams, test, 3, 4, True, refused)
    assert (decision[refused] == Decision.REFUSED).all()
    assert (votes[refused] == 0).all() and (samples[refused] == 0).all()
    for row in np.flatnonzero(~refused):
        assert decision[row] == replay(streams[row], test, 3)[2]
    _, _, decision = run(streams, test, 3, 4, True, np.ones(6, bool))
    assert (decision == Decision.REFUSED).all()


@pytest.mark.parametrize("static", [False, True])
def test_a_row_with_a_budget_stops_there(static):
    rng = np.random.default_rng(3)
    test = ExactTest(0.05, 0.05, 150)
    streams = random_streams(rng, 40, test.max_samples, 4)
    most = rng.integers(-2, 200, 40).astype("int32")
    refused = rng.random(40) < 0.1
    votes, samples, decision = run(
        streams, test, 4, 8, static, refused, max_samples=most
    )
    for row, stream in enumerate(streams):
        if refused[row]:
            assert decision[row] == Decision.REFUSED and samples[row] == 0
            continue
        expected = replay(stream, test, 4, int(np.clip(most[row], 0, 150)))
        np.testing.assert_array_equal(votes[row], expected[0])
        assert (samples[row], decision[row]) == expected[1:]


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("limit", ["max_samples", "max_passes"])
def test_a_run_that_goes_on_decides_what_an_uninterrupted_one_does(static, limit):
    rng = np.random.default_rng(4)
    test = ExactTest(0.05, 0.05, 150)
    streams = random_streams(rng, 30, test.max_samples, 4)
    votes, samples = np.zeros((30, 4), "int32"), np.zeros(30, "int32")
    decision = np.zeros(30, "int32")
    rows = np.arange(30)
    for _ in range(200):
        limits = {"max_samples": samples[rows] + 7}
        if limit == "max_passes":
            limits = {"max_passes": rng.integers(0, 3, len(rows)).astype("int32")}
        start = votes[rows], samples[rows]
        found = run(streams[rows], test, 4, 8, static, start=start, **limits)
        votes[rows], samples[rows], decision[rows] = found
        rows = np.flatnonzero((decision == 0) & (samples < test.max_samples))
        if not len(rows):
            break
    assert not len(rows)
    for row, stream in enumerate(streams):
        expected = replay(stream, test, 4)
        np.testing.assert_array_equal(votes[row], expected[0])
        assert (samples[row], decision[row]) == expected[1:]


def test_passes_are_counted():
    """Four slots of 16 votes a pass, in the order of the rows, a rest to the first."""
    test = ExactTest(0.05, 0.05, 150)
    unanimous = np.ones((6, 150), int)
    allowed = np.array([0, 1, 2, 1, 3, 2], "int32")
    votes, samples, decision = run(unanimous, test, 2, 4, True, max_passes=allowed)
    # First rows 1 to 4, then 2 (twice), 4 and 5, then 4 until it is certified.
    assert 32 < test.min_samples <= 96
    expected = [0, 16, 48, 16, test.min_samples, 16]
    np.testing.assert_array_equal(samples, expected)
    np.testing.assert_array_equal(votes[:, 1], expected)
    np.testing.assert_array_equal(decision, [0, 0, 0, 0, Decision.ROBUST, 0])


@pytest.mark.parametrize("seed", range(20))
def test_share_is_even_and_full(seed):
    """Against a greedy loop that hands out one slot at a time."""
    rng = np.random.default_rng(seed)
    slots = int(rng.integers(1, 40))
    needed = rng.integers(0, rng.integers(1, 60), slots)
    share = np.zeros(slots, int)
    while share.sum() < min(slots, needed.sum()):
        hungry = np.flatnonzero(share < needed)
        share[hungry[share[hungry] == share[hungry].min()][0]] += 1
    got = voting._share(ops.convert_to_tensor(needed.astype("int32")), slots)
    np.testing.assert_array_equal(ops.convert_to_numpy(got), share)


def test_unanimous_row_alone_takes_no_more_than_it_needs():
    """544 votes certify at kappa = alpha = 0.01: 34 slots of 16, in one round."""
    test = BetaMixtureTest(0.01, 0.01)
    drawn = []

    def draw_votes(rows, first):
        drawn.append(int(rows.shape[0]))
        return ops.zeros((rows.shape[0] * voting.COPIES_A_SLOT,), "int32")

    refused = ops.convert_to_tensor(np.zeros(1, bool))
    if keras.backend.backend() == "jax":
        pytest.skip("JAX traces the loop, so its rounds cannot be counted")
    _, samples, decision = voting.vote(draw_votes, refused, 2, test, 64, False)
    assert drawn == [34]
    assert int(samples[0]) == test.min_samples == 544
    assert int(decision[0]) == Decision.ROBUST


@pytest.mark.parametrize("rows", [1, 7, 100_000])
def test_any_number_of_rows(rows):
    """Unanimous rows all stop where they must, and no copy is drawn in vain."""
    test = ExactTest(0.1, 0.05, 400)
    drawn = []

    def draw_votes(rows, first):
        if keras.backend.backend() == "tensorflow":
            drawn.append(int(rows.shape[0]))
        return ops.ones((rows.shape[0] * voting.COPIES_A_SLOT,), "int32")

    refused = ops.convert_to_tensor(np.zeros(rows, bool))
    votes, samples, decision = voting.vote(
        draw_votes, refused, 3, test, 1024, backend.STATIC_SHAPES
    )
    assert (ops.convert_to_numpy(samples) == test.min_samples).all()
    assert (ops.convert_to_numpy(decision) == Decision.ROBUST).all()
    assert (ops.convert_to_numpy(votes)[:, 1] == test.min_samples).all()
    if drawn:
        needed = -(-test.min_samples // voting.COPIES_A_SLOT) * rows
        assert sum(drawn) == needed
        # Every round is full, but for the last.
        assert all(count == 1024 for count in drawn[:-1])


@pytest.mark.tensorflow
@pytest.mark.parametrize("rows", [1, 3, 4, 7, 8, 31, 32, 33, 100])
def test_parts_of_a_pass(rows):
    """Each row once and in order, in parts of 4 and one of up to 7, in a graph too."""
    import tensorflow as tf

    parts = []

    def function(a, b):
        tf.numpy_function(lambda a: parts.append(len(a)), [a], [])
        return tf.repeat(10 * a + b, 2)

    a, b = np.arange(rows, dtype="int32"), np.arange(rows, dtype="int32") % 7

    @tf.function(input_signature=2 * [tf.TensorSpec((None,), tf.int32)])
    def graph(a, b):
        return backend.side_by_side(function, (a, b), 4)

    for run in (graph, graph.python_function):
        parts.clear()
        got = run(tf.constant(a), tf.constant(b))
        np.testing.assert_array_equal(got, np.repeat(10 * a + b, 2))
        full = max(0, rows // 4 - 1)
        assert sorted(parts) == sorted(full * [4] + [rows - 4 * full])


def test_what_votes():
    nan, inf = np.nan, np.inf
    outputs = np.array([[0, 2, 1], [nan, 2, 1], [0, inf, 1], [-inf, 2, 1], [3, 3, 1]])
    classes = voting.classes_from_outputs(ops.convert_to_tensor(outputs, "float32"))
    np.testing.assert_array_equal(ops.convert_to_numpy(classes), [1, 3, 3, 3, 0])
    unit = ops.convert_to_tensor([[0.2], [0.7], [nan]], "float32")
    classes = voting.classes_from_outputs(unit, threshold=0.5)
    np.testing.assert_array_equal(ops.convert_to_numpy(classes), [0, 1, 2])


def test_labels():
    votes = ops.convert_to_tensor([[0, 3, 1], [0, 0, 0], [2, 0, 2]])
    np.testing.assert_array_equal(
        ops.convert_to_numpy(voting.labels(votes)), [1, -1, 0]
    )
