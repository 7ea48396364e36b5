"""`LogitEnsemble` against the same means in NumPy."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_probcert import CertifiedPredictor, LInf, backend
from keras_probcert.certifiers.ensemble import LogitEnsemble


def member(classes=3, activation=None):
    return keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(8, activation="relu"),
            layers.Dense(classes, activation=activation),
        ]
    )


def forward(model, x):
    """The member's logits in NumPy."""
    first, bias, second, last = model.get_weights()
    logits = np.maximum(x @ first + bias, 0) @ second + last
    if logits.shape[1] == 1:
        logits = np.concatenate([np.zeros_like(logits), logits], axis=1)
    return logits


def by_hand(models, x, consensus):
    logits = np.stack([forward(m, x) for m in models])
    out = []
    for row in range(len(x)):
        asked = logits[:consensus, row]
        agree = len(set(asked.argmax(-1))) == 1
        out.append((asked if agree else logits[:, row]).mean(0))
    return np.array(out)


@pytest.fixture
def inputs():
    return np.random.default_rng(0).normal(size=(200, 4)).astype("float32")


@pytest.mark.parametrize("consensus", [None, 2, 3, 5])
@pytest.mark.parametrize("static_shapes", [True, backend.STATIC_SHAPES])
def test_mean_of_the_logits(consensus, static_shapes, inputs, monkeypatch):
    monkeypatch.setattr(backend, "STATIC_SHAPES", static_shapes)
    models = [member() for _ in range(4)] + [member(activation="softmax")]
    ensemble = LogitEnsemble(models, consensus)
    expected = by_hand(models, inputs, consensus or 5)
    for got in (ensemble(inputs), ensemble.predict(inputs, verbose=0, batch_size=77)):
        np.testing.assert_allclose(ops.convert_to_numpy(got), expected, atol=1e-5)
    # Not vacuous: neither all rows nor none are agreed on.
    if consensus == 2:
        all_of_them = by_hand(models, inputs, 5)
        changed = np.abs(expected - all_of_them).max(1) > 1e-3
        assert 0.1 < changed.mean() < 0.9


def test_probabilities_count_by_their_logits():
    """A sure softmax of 1 and 0 in float32 keeps its logits."""
    models = [member(activation="softmax"), member()]
    weights = models[0].get_weights()
    models[0].set_weights([*weights[:3], np.array([200.0, 0.0, -200.0])])
    x = np.ones((1, 4), "float32")
    expected = (forward(models[0], x) + forward(models[1], x)) / 2
    got = ops.convert_to_numpy(LogitEnsemble(models)(x))
    np.testing.assert_allclose(got, expected, rtol=1e-5)


@pytest.mark.parametrize("activation", [None, "sigmoid"])
def test_single_units_have_two_classes(activation, inputs):
    models = [member(1, activation) for _ in range(3)]
    ensemble = LogitEnsemble(models, consensus=2)
    got = ops.convert_to_numpy(ensemble(inputs))
    np.testing.assert_allclose(got, by_hand(models, inputs, 2), atol=1e-5)


class Counting(keras.Model):
    """Remembers how many rows it was asked about."""

    def __init__(self, model):
        super().__init__()
        self.model, self.rows = model, []

    def call(self, inputs):
        self.rows.append(inputs.shape[0])
        return self.model(inputs)


@pytest.mark.tensorflow
def test_only_rows_in_dispute_go_to_the_others(inputs):
    models = [member() for _ in range(3)]
    last = Counting(models[2])
    ensemble = LogitEnsemble([*models[:2], last], consensus=2)
    ensemble(inputs)
    labels = [forward(m, inputs).argmax(1) for m in models]
    assert last.rows[-1] == 1 + (labels[0] != labels[1]).sum() > 10
    # And one, where there are none: no layer sees an empty batch.
    agreed = inputs[labels[0] == labels[1]]
    got = ops.convert_to_numpy(ensemble(agreed))
    assert last.rows[-1] == 1
    np.testing.assert_allclose(got, by_hand(models, agreed, 2), atol=1e-5)


def test_as_the_base_of_a_certifier(inputs):
    models = [member() for _ in range(3)]
    certified = CertifiedPredictor(
        LogitEnsemble(models, 2), LInf(1e-6, clip=None), 0.4, 0.05, max_samples=50
    )
    result = certified.predict(inputs, seed=0, verbose=0)
    expected = by_hand(models, inputs, 2)
    np.testing.assert_array_equal(result["label"], expected.argmax(1))


def test_under_xla(inputs):
    models = [member() for _ in range(3)]
    ensemble = LogitEnsemble(models, consensus=2)
    ensemble.compile(jit_compile=True)
    np.testing.assert_allclose(
        ensemble.predict(inputs, verbose=0), by_hand(models, inputs, 2), atol=1e-5
    )


def test_saving(tmp_path, inputs):
    ensemble = LogitEnsemble([member() for _ in range(3)], consensus=2)
    ensemble.save(tmp_path / "ensemble.keras")
    loaded = keras.saving.load_model(tmp_path / "ensemble.keras")
    assert loaded.consensus == 2
    np.testing.assert_array_equal(
        loaded.predict(inputs, verbose=0), ensemble.predict(inputs, verbose=0)
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (lambda: {"models": []}, "`models` must be a non-empty list"),
        (lambda: {"models": [print]}, "`model` must be a keras.Model"),
        (lambda: {"models": [member(), member(4)]}, r"one number of classes.*\[3, 4\]"),
        (
            lambda: {
                "models": [
                    member(),
                    keras.Sequential([keras.Input((5,)), layers.Dense(3)]),
                ]
            },
            r"one input shape.*\[\(4,\), \(5,\)\]",
        ),
        (lambda: {"consensus": 1}, "`consensus` must be an integer of at least 2"),
        (lambda: {"consensus": 4}, "`consensus` must be at most.*3.*consensus=4"),
    ],
)
def test_bad_arguments(arguments, message):
    arguments = {"models": [member() for _ in range(3)], **arguments()}
    with pytest.raises(ValueError, match=message):
        LogitEnsemble(**arguments)


def test_logits_are_taken_of_probabilities_whatever_is_said(inputs):
    member = keras.Sequential(
        [keras.Input(inputs.shape[1:]), keras.layers.Dense(3, activation="softmax")]
    )
    said, found = (
        keras.ops.convert_to_numpy(
            LogitEnsemble([member, member], from_logits=f)(inputs)
        )
        for f in (True, None)
    )
    np.testing.assert_array_equal(said, found)


def test_a_single_unit_must_say_what_it_is(inputs):
    """A hidden sigmoid taken for a logit would make every row class 1."""
    inner = member(classes=1, activation="sigmoid")
    hidden = keras.Sequential([keras.Input((4,)), inner, layers.Reshape((1,))])
    ensemble = LogitEnsemble([hidden, hidden])
    with pytest.raises(ValueError, match="`from_logits` must be given"):
        ensemble(inputs)
    told = LogitEnsemble([hidden, hidden], from_logits=False)
    expected = forward(inner, inputs)
    np.testing.assert_allclose(ops.convert_to_numpy(told(inputs)), expected, atol=1e-4)
