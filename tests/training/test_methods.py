"""What every training method promises as a Keras model."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_probcert import LInf, training
from keras_probcert.training import LinearRamp

# Without warm-ups, which would outlast these trainings; each step of a search is
# traced.
ARGUMENTS = {
    "ibp": {"epsilon": LinearRamp(0.0, 0.1, length=1)},
    "kl_pgd": {"steps": 2},
    "mart": {"steps": 2},
    "pgdt": {"steps": 2},
    "smoothadv": {"epsilon": 0.5, "steps": 2},
    "smoothmix": {"mixing_weight": 5.0},
    "trades": {"steps": 2},
}
every_method = pytest.mark.parametrize("name", training.METHODS)


def base_model(units=3):
    return keras.Sequential(
        [
            keras.Input((4, 4, 1)),
            keras.layers.Conv2D(3, 2, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Flatten(),
            keras.layers.Dropout(0.1),
            keras.layers.Dense(units),
        ]
    )


def new_model(name, base=None, **arguments):
    base = base or base_model()
    return training.get(name)(base, **{**ARGUMENTS.get(name, {}), **arguments})


def compiled(model, **arguments):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    arguments = {"optimizer": "sgd", "loss": loss, "metrics": ["accuracy"], **arguments}
    model.compile(**arguments)
    return model


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    return rng.random((12, 4, 4, 1), np.float32), rng.integers(0, 3, 12)


@every_method
def test_fit_evaluate_predict_save_load(name, batch, tmp_path):
    x, y = batch
    model = compiled(new_model(name))
    before = [w.copy() for w in model.base_model.get_weights()]
    history = model.fit(
        x, y, batch_size=8, epochs=2, validation_data=(x, y), verbose=0
    ).history
    assert {"loss", "accuracy", "val_loss", "val_accuracy", *model.parts} <= set(
        history
    )
    assert all(np.isfinite(v).all() for v in history.values())
    moved = zip(before, model.base_model.get_weights(), strict=True)
    assert any((a != b).any() for a, b in moved)

    # Evaluation is the base on clean inputs, with no part of the objective in it.
    results = model.evaluate(x, y, verbose=0, return_dict=True)
    assert set(results) == {"loss", "accuracy"}
    outputs = model.predict(x, verbose=0)
    base = ops.convert_to_numpy(model.base_model(x, training=False))
    np.testing.assert_allclose(outputs, base, rtol=1e-4, atol=1e-5)

    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded) is type(model)
    configs = loaded.get_config(), model.get_config()
    assert [c.pop("model")["class_name"] for c in configs] == ["Sequential"] * 2
    assert configs[0] == configs[1]
    np.testing.assert_allclose(loaded.predict(x, verbose=0), outputs, rtol=1e-5)
    loaded.fit(x, y, verbose=0)
    assert model.count_params() >= model.base_model.count_params()


@every_method
def test_rows_of_weight_zero_count_for_nothing(name, batch):
    """Targets of rows that weigh nothing do not matter."""
    x, y = batch
    weight = np.array([1.0, 0.0] * 6, "float32")
    trained = []
    for targets in (y, np.where(weight > 0, y, (y + 1) % 3)):
        keras.utils.set_random_seed(2)
        base = keras.Sequential(
            [keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(3)]
        )
        arguments = {"regularizer_weight": 0.0} if name == "ibp" else {}
        model = compiled(new_model(name, base, **arguments), run_eagerly=True)
        model.train_on_batch(x, targets, sample_weight=weight)
        trained.append(base.get_weights())
    for a, b in zip(*trained, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


@every_method
def test_one_hot_targets_are_classes(name, batch):
    x, y = batch
    trained = []
    for one_hot in (False, True):
        keras.utils.set_random_seed(2)
        kind = keras.losses.CategoricalCrossentropy
        if not one_hot:
            kind = keras.losses.SparseCategoricalCrossentropy
        loss = kind(from_logits=True)
        model = compiled(new_model(name), loss=loss, run_eagerly=True)
        targets = np.eye(3, dtype="float32")[y] if one_hot else y
        trained.append(model.train_on_batch(x, targets, return_dict=True)["loss"])
    np.testing.assert_allclose(*trained, rtol=1e-5)


@every_method
def test_one_unit(name, batch):
    x, y = batch
    y = (y > 0).astype("float32")
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    model = compiled(new_model(name, base_model(1)), loss=loss, run_eagerly=True)
    assert np.isfinite(model.train_on_batch(x, y, return_dict=True)["loss"])


@every_method
def test_mixed_precision(name, batch):
    x, y = batch
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = compiled(new_model(name), run_eagerly=True)
        logs = model.train_on_batch(x, y, return_dict=True)
    finally:
        keras.config.set_dtype_policy("float32")
    assert all(np.isfinite(v) for v in logs.values())
    assert all(w.dtype == "float32" for w in model.trainable_weights)


@pytest.mark.tensorflow  # JAX traces loops even in eager steps.
@every_method
def test_the_search_leaves_no_trace(name, batch):
    """BatchNorm's statistics move by the training passes alone."""
    x, y = batch
    model = compiled(new_model(name), run_eagerly=True)
    calls = []
    norm = model.base_model.layers[1]
    call = norm.call

    def counted(inputs, training=None, **kwargs):
        calls.append(bool(training))
        return call(inputs, training=training, **kwargs)

    norm.call = counted
    model.train_on_batch(x, y)
    passes = {"trades": 2, "mart": 2, "smoothmix": 2}.get(name, 1)
    assert sum(calls) == passes


@every_method
def test_fit_does_not_retrace(name, batch):
    x, y = batch
    traces = []

    class Traced(training.get(name)):
        def forward(self, x, y):
            traces.append(1)
            return super().forward(x, y)

    model = compiled(Traced(base_model(), **ARGUMENTS.get(name, {})))
    model.fit(x, y, batch_size=6, epochs=2, verbose=0)
    first = len(traces)
    model.fit(x, y, batch_size=6, epochs=2, verbose=0)
    assert first <= 2 and len(traces) == first


COMPARES = (
    *("trades", "mart", "consistency", "smoothadv", "smoothmix", "kl_pgd", "ibp"),
)


@pytest.mark.parametrize("name", COMPARES)
def test_bad_losses_that_name_no_probabilities(name, batch):
    x, y = batch
    model = compiled(new_model(name), loss="mse")
    with pytest.raises(ValueError, match="`loss` must be a cross-entropy"):
        model.fit(x, np.eye(3, dtype="float32")[y], verbose=0)


@every_method
def test_bad_losses_without_a_value_a_row(name, batch):
    x, y = batch

    def scalar(y_true, y_pred):
        return ops.mean(y_pred)

    model = compiled(new_model(name), loss=scalar)
    with pytest.raises(ValueError, match="`loss` must"):
        model.fit(x, y, verbose=0)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("pgdt", {"epsilon": -0.1}, "`epsilon`.*-0.1"),
        ("trades", {"steps": 0}, "`steps`.*at least 1.*0"),
        ("trades", {"beta": -1.0}, "`beta`.*-1"),
        ("mart", {"step_size": -0.1}, "`step_size`"),
        ("pgdt", {"norm": "l3"}, "`norm`"),
        ("pgdt", {"random_start": 1}, "`random_start` must be True or False"),
        ("kl_pgd", {"clip": (1.0, 0.0)}, "`clip`"),
        ("da", {"num_samples": 0}, "`num_samples`"),
        ("consistency", {"num_samples": 1}, "`num_samples`.*at least 2"),
        ("consistency", {"entropy_weight": -1}, "`entropy_weight`"),
        ("rs", {"sigma": -1.0}, "`sigma`"),
        ("prl", {"beta": 0.0}, r"`beta`.*\(0, 1\]"),
        ("prl", {"threshold": "median"}, "`threshold`.*'median'"),
        ("prl", {"threshold_steps": 0}, "`threshold_steps`"),
        ("ibp", {"epsilon": -0.1}, "`epsilon`"),
        ("ibp", {"clean_weight": -0.1}, "`clean_weight`"),
        ("ibp", {"clean_weight": 1.1}, "`clean_weight`"),
        ("ibp", {"tolerance": 0.0}, "`tolerance`"),
        ("ibp", {"elide": 1}, "`elide`"),
        ("smoothmix", {"step_size": float("inf")}, "`step_size`"),
        ("corruption", {"perturbation": 0.3}, "`perturbation`"),
    ],
)
def test_bad_arguments(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        training.get(name)(base_model(), **arguments)


def test_bad_names():
    with pytest.raises(ValueError, match="`name` must be one of .*'trades'.*'fgsm'"):
        training.get("fgsm")


def test_prl_of_all_copies_is_da(batch):
    x, y = batch
    losses = []
    for name, arguments in (("da", {}), ("prl", {"beta": 1.0, "num_samples": 10})):
        keras.utils.set_random_seed(2)
        model = compiled(new_model(name, seed=3, **arguments), run_eagerly=True)
        losses.append(model.train_on_batch(x, y, return_dict=True)["loss"])
    np.testing.assert_allclose(*losses, rtol=1e-5)


@pytest.mark.parametrize("size", [2, 3])
def test_prl_s_threshold_is_the_same_in_chunks(size):
    x = np.random.default_rng(0).random((6, 4)).astype("float32")
    y = np.arange(6) % 3
    drawn = []

    class Spy(LInf):
        def sample(self, x, noise):
            drawn.append(noise.num_copies)
            return super().sample(x, noise)

    def loss_of(chunk_size):
        keras.utils.set_random_seed(2)
        base = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        model = training.get("prl")(
            base,
            Spy(0.5),
            num_samples=6 + size // 3,
            beta=0.3,
            threshold="gradient",
            chunk_size=chunk_size,
            seed=3,
        )
        model = compiled(model, run_eagerly=True)
        return model.train_on_batch(x, y, return_dict=True)["loss"]

    whole = loss_of(None)
    drawn.clear()
    np.testing.assert_allclose(loss_of(size), whole, rtol=1e-5)
    assert max(drawn) == size


SEVERAL_LABELS = [
    "binary_crossentropy",
    "bce",
    keras.losses.BinaryCrossentropy(from_logits=True, name="cross-entropy"),
    keras.losses.BinaryFocalCrossentropy(from_logits=True, name="focal"),
]


@pytest.mark.parametrize(
    "loss", SEVERAL_LABELS, ids=["name", "short", "class", "focal"]
)
def test_bad_losses_of_several_labels_by_any_name(loss, batch):
    x, y = batch
    model = compiled(new_model("trades"), loss=loss)
    with pytest.raises(ValueError, match="`loss` must be a cross-entropy"):
        model.train_on_batch(x, np.eye(3, dtype="float32")[y])


@pytest.mark.parametrize("name", COMPARES)
def test_bad_losses_of_several_labels(name, batch):
    x, y = batch
    model = compiled(new_model(name), loss="binary_crossentropy")
    with pytest.raises(ValueError, match="`loss` must be a cross-entropy"):
        model.fit(x, np.eye(3, dtype="float32")[y], verbose=0)


class Bare(keras.Model):
    """Hands no training mode on, and adds to the losses."""

    def __init__(self):
        super().__init__()
        self.parts = [
            keras.layers.Conv2D(3, 2, activity_regularizer="l2"),
            keras.layers.BatchNormalization(),
            keras.layers.Flatten(),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(3),
        ]

    def call(self, x):
        for part in self.parts:
            x = part(x)
        return x


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        *((name, {}) for name in training.METHODS if name != "ibp"),
        ("prl", {"threshold": "gradient"}),
        ("variance_minimizing", {"chunk_size": 4}),
    ],
)
def test_bases_that_hand_no_training_mode_on(name, arguments, batch):
    """Statistics move in training, and searches add nothing to the losses."""
    x, y = batch
    base = Bare()
    base(x)
    model = compiled(new_model(name, base, **arguments))
    model.fit(x, y, verbose=0)
    mean = ops.convert_to_numpy(base.parts[1].moving_mean)
    assert np.abs(mean).max() > 0


def test_what_a_subclass_passes_on_is_saved(tmp_path):
    @keras.saving.register_keras_serializable(package="tests")
    class Own(training.get("pgdt")):
        def __init__(self, model, extra=1, **rest):
            super().__init__(model, **rest)
            self.extra = extra

    model = Own(base_model(), extra=2, epsilon=0.3, steps=3, clip=None, seed=5)
    again = Own.from_config(model.get_config())
    for name in ("extra", "epsilon", "steps", "clip", "seed"):
        assert getattr(again, name) == getattr(model, name)


def test_arguments_that_are_not_kept_are_named():
    class Forgetful(training.get("erm")):
        def __init__(self, model, amount=1):
            super().__init__(model)

    with pytest.raises(ValueError, match="Forgetful must keep its argument `amount`"):
        Forgetful(base_model()).get_config()


def test_bad_radius_in_other_units():
    for name in ("pgdt", "ibp"):
        with pytest.raises(ValueError, match="`epsilon` must be in units of the input"):
            training.get(name)(base_model(), epsilon=8.0)
    training.get("pgdt")(base_model(), epsilon=8.0, clip=(0.0, 255.0))


def test_bad_validation_data_by_position(batch):
    x, y = batch
    model = compiled(new_model("erm"))
    with pytest.raises(ValueError, match="`validation_data` must hold classes"):
        model.fit(x, y, None, 1, 0, None, 0.0, (x, y + 7))
