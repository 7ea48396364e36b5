"""Schedules: their values, when they are read, and how they are shown."""

import keras
import numpy as np
import pytest

from keras_probcert.training import LinearRamp, PGDTModel, SmoothedRamp, TRADESModel


def values(schedule, epochs):
    return [float(schedule(epoch)) for epoch in epochs]


def test_linear_ramp():
    ramp = LinearRamp(0.5, 2.5, length=4, start=1)
    got = values(ramp, [0, 1, 2, 3.5, 5, 9])
    np.testing.assert_allclose(got, [0.5, 0.5, 1.0, 1.75, 2.5, 2.5], rtol=1e-6)
    assert ramp.end == 5


def test_smoothed_ramp():
    """Against the two pieces, joined where value and slope agree."""
    ramp = SmoothedRamp(0.4, length=20, start=1)
    assert values(ramp, [0, 1, 21, 50]) == pytest.approx([0, 0, 0.4, 0.4])
    # t⁴ up to epoch 6, then straight: c·5⁴ + 4c·5³·15 = 0.4.
    c = 0.4 / (5**4 + 4 * 5**3 * 15)
    assert values(ramp, [3, 6]) == pytest.approx([c * 2**4, c * 5**4], rel=1e-5)
    assert values(ramp, [11]) == pytest.approx([c * (5**4 + 4 * 5**3 * 5)], rel=1e-5)


class Spy(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.seen = []

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append(float(self.model.value("epsilon")))


def data(rows=12):
    rng = np.random.default_rng(0)
    return rng.random((rows, 4), np.float32), rng.integers(0, 2, rows)


def model(**arguments):
    base = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    ramp = LinearRamp(0.0, 0.4, length=2, start=1)
    model = PGDTModel(base, epsilon=ramp, steps=1, **arguments)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss)
    return model


@pytest.mark.tensorflow  # JAX holds the weights back between steps.
def test_every_step_reads_its_own_time():
    spy = Spy()
    model().fit(*data(), batch_size=4, epochs=3, verbose=0, callbacks=[spy])
    thirds = np.array([0, 0, 0, 0, 1, 2, 3, 4, 5]) / 3
    np.testing.assert_allclose(spy.seen, 0.2 * thirds, atol=1e-6)


def test_logs_show_the_mean_of_an_epoch():
    history = model().fit(*data(), batch_size=4, epochs=3, verbose=0).history
    np.testing.assert_allclose(history["epsilon"], [0, 0.2 / 3, 0.8 / 3], atol=1e-6)


def test_a_schedule_starts_where_training_does():
    history = (
        model().fit(*data(), batch_size=4, epochs=3, initial_epoch=2, verbose=0).history
    )
    np.testing.assert_allclose(history["epsilon"], [0.8 / 3], atol=1e-6)


def test_it_stands_still_in_batches_after_training():
    x, y = data()
    trained = model()
    trained.fit(x, y, batch_size=4, epochs=3, verbose=0)
    before = float(trained.value("epsilon"))
    trained.train_on_batch(x, y)
    assert float(trained.value("epsilon")) == before


def test_it_stands_still_in_epochs_of_unknown_length():
    x, y = data()

    def batches():
        while True:
            yield x[:4], y[:4]

    history = model().fit(batches(), steps_per_epoch=3, epochs=3, verbose=0).history
    known = history["epsilon"]
    np.testing.assert_allclose(known, [0, 0.2 / 3, 0.8 / 3], atol=1e-6)


@pytest.mark.tensorflow
def test_tensorboard_shows_it(tmp_path):
    import tensorflow as tf

    board = keras.callbacks.TensorBoard(tmp_path)
    model().fit(*data(), epochs=3, verbose=0, callbacks=[board])
    (file,) = (tmp_path / "train").iterdir()
    tags = {
        value.tag
        for event in tf.compat.v1.train.summary_iterator(str(file))
        for value in event.summary.value
    }
    assert "epoch_epsilon" in tags


def test_late_ends_are_warned_of():
    with pytest.warns(UserWarning, match="`epsilon` ends at epoch 3.*epochs=2"):
        model().fit(*data(), epochs=2, verbose=0)


def test_callback_lists_are_kept():
    class Count(keras.callbacks.Callback):
        epochs = 0

        def on_epoch_end(self, epoch, logs=None):
            Count.epochs += 1

    trained = model()
    callbacks = keras.callbacks.CallbackList(
        [Count()], add_history=True, model=trained, epochs=3, steps=1, verbose=0
    )
    history = trained.fit(*data(), epochs=3, verbose=0, callbacks=callbacks).history
    assert Count.epochs == 3
    np.testing.assert_allclose(history["epsilon"], [0, 0, 0.2], atol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LinearRamp(0.0, 1.0, length=0), "`length` must be more than 0"),
        (lambda: LinearRamp(0.0, 1.0, length=1, start=-1), "`start`"),
        (lambda: LinearRamp(0.0, float("nan"), length=1), "`last`"),
        (lambda: SmoothedRamp(-0.1, length=1), "`last`"),
        (
            lambda: TRADESModel(
                keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]),
                beta=LinearRamp(1.0, -1.0, length=1),
            ),
            "`beta`.*-1",
        ),
    ],
)
def test_bad_schedules(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_half_precision_keeps_the_time():
    """Steps of 1/240 epoch vanish beside epoch 16 in bfloat16."""
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        base = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        ramp = LinearRamp(0.0, 0.4, length=16)
        model = PGDTModel(base, epsilon=ramp, steps=1)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("sgd", loss)
        history = model.fit(
            *data(240), batch_size=1, epochs=16, initial_epoch=15, verbose=0
        )
    finally:
        keras.config.set_dtype_policy("float32")
    mean = 0.4 * (15 + 0.5 * 239 / 240) / 16
    np.testing.assert_allclose(history.history["epsilon"], [mean], rtol=1e-5)


def test_epochs_of_unknown_length_are_warned_of():
    x, y = data()
    tf = pytest.importorskip("tensorflow")
    batches = tf.data.Dataset.from_generator(
        lambda: iter([(x[:4], y[:4])]),
        output_signature=(
            tf.TensorSpec((None, 4), "float32"),
            tf.TensorSpec((None,), "int32"),
        ),
    )
    with pytest.warns(UserWarning, match="unknown number of steps"):
        model().fit(batches, epochs=3, verbose=0)
