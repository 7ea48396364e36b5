"""What a Keras user expects of `VarianceMinimizingModel`."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_probcert import LInf, Translation, VarianceMinimizingModel

LOGITS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def sequential(activation=None, units=10):
    return keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            layers.Flatten(),
            layers.Dense(units, activation=activation),
        ]
    )


def functional():
    inputs = keras.Input((6, 6, 1))
    x = layers.Conv2D(4, 3)(inputs)
    x = layers.BatchNormalization()(x)
    x = layers.Dropout(0.2)(layers.Flatten()(x))
    return keras.Model(inputs, layers.Dense(10)(x))


@keras.saving.register_keras_serializable(package="tests")
class Subclassed(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.flatten = layers.Flatten()
        self.dense = layers.Dense(10)

    def build(self, input_shape):
        self.dense.build((input_shape[0], int(np.prod(input_shape[1:]))))
        self.built = True

    def call(self, inputs):
        return self.dense(self.flatten(inputs))


BASES = {"sequential": sequential, "functional": functional, "subclassed": Subclassed}


@pytest.mark.parametrize("base", BASES.values(), ids=BASES)
@pytest.mark.parametrize("chunk_size", [None, 2])
def test_fit_evaluate_predict_save_load(base, chunk_size, image_batch, tmp_path):
    x, y = image_batch
    base = base()
    model = VarianceMinimizingModel(
        base, LInf(0.1), num_samples=3, chunk_size=chunk_size, seed=1
    )
    model.compile("adam", LOGITS, metrics=["accuracy"])
    history = model.fit(
        x, y, epochs=2, batch_size=3, validation_data=(x, y), verbose=0
    ).history
    assert set(history) == {
        "loss",
        "loss_mean",
        "loss_std",
        "accuracy",
        "val_loss",
        "val_accuracy",
    }
    # Evaluating and predicting are the base model on clean inputs.
    outputs = base.predict(x, verbose=0)
    np.testing.assert_allclose(model.predict(x, verbose=0), outputs, atol=1e-5)
    logs = model.evaluate(x, y, verbose=0, return_dict=True)
    assert set(logs) == {"loss", "accuracy"}
    assert logs["accuracy"] == pytest.approx((outputs.argmax(1) == y).mean())
    assert logs["loss"] == pytest.approx(float(LOGITS(y, outputs)), rel=1e-4)

    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for name in ("perturbation", "num_samples", "std_weight", "chunk_size", "seed"):
        assert loaded.get_config()[name] == model.get_config()[name]
    np.testing.assert_allclose(loaded.predict(x, verbose=0), outputs, atol=1e-5)
    assert loaded.optimizer.iterations == model.optimizer.iterations
    loaded.fit(x, y, verbose=0)


def test_batchnorm_statistics_move_once_per_copy_batch(image_batch):
    """Chunked or not, the statistics are those of a training pass, not stale."""
    x, y = image_batch
    for chunk_size in (None, 2):
        base = functional()
        before = [keras.ops.convert_to_numpy(v) for v in base.non_trainable_variables]
        model = VarianceMinimizingModel(
            base, LInf(0.1), num_samples=4, chunk_size=chunk_size
        )
        model.compile("sgd", LOGITS)
        model.fit(x, y, batch_size=8, verbose=0)
        moving = next(
            v for v in base.non_trainable_variables if "moving_mean" in v.path
        )
        index = [v.path for v in base.non_trainable_variables].index(moving.path)
        assert (keras.ops.convert_to_numpy(moving) != before[index]).any()


CASES = {
    "string": ("sparse_categorical_crossentropy", "softmax", 10, "sparse"),
    "crossentropy": ("crossentropy", "softmax", 10, "sparse"),
    "one-hot": ("categorical_crossentropy", "softmax", 10, "one-hot"),
    "smoothed": (
        keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1),
        None,
        10,
        "one-hot",
    ),
    "binary": (keras.losses.BinaryCrossentropy(), "sigmoid", 1, "binary"),
    "focal": (keras.losses.BinaryFocalCrossentropy(), "sigmoid", 1, "binary"),
    "mse": ("mse", None, 10, "one-hot"),
    "function": (
        lambda y, p: keras.ops.mean(keras.ops.abs(y - p), axis=-1),
        None,
        10,
        "one-hot",
    ),
    "sum": (
        keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="sum"),
        None,
        10,
        "sparse",
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_any_loss_is_taken_per_copy(case, image_batch):
    """At radius 0 and λ = 0 the loss is the compiled loss on clean inputs."""
    loss, activation, units, kind = case
    x, y = image_batch
    y = {"sparse": y, "one-hot": np.eye(10)[y], "binary": y % 2}[kind]
    base = sequential(activation, units)
    plain = keras.models.clone_model(base)
    plain.set_weights(base.get_weights())
    model = VarianceMinimizingModel(base, LInf(0.0), num_samples=3, std_weight=0.0)
    weight = np.linspace(0.5, 2, len(x))
    logs = []
    for m in (model, plain):
        m.compile(keras.optimizers.SGD(0.1), loss, metrics=["accuracy"])
        logs.append(m.train_on_batch(x, y, sample_weight=weight, return_dict=True))
    for name in ("loss", "accuracy"):
        assert logs[0][name] == pytest.approx(logs[1][name], rel=1e-5), name
    for a, b in zip(base.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_callbacks_datasets_and_weighted_metrics(image_batch, tmp_path):
    x, y = image_batch
    model = VarianceMinimizingModel(sequential(), LInf(0.1), num_samples=2)
    model.compile("adam", LOGITS, weighted_metrics=["accuracy"])
    batches = [(x[:4], y[:4], np.ones(4)), (x[4:], y[4:], np.ones(4))]
    stop = keras.callbacks.EarlyStopping("loss_std", mode="max", patience=0)
    checkpoint = keras.callbacks.ModelCheckpoint(
        tmp_path / "best.keras", monitor="loss_mean", mode="min", save_best_only=True
    )
    history = model.fit(
        (batch for batch in batches * 10),
        steps_per_epoch=2,
        epochs=9,
        shuffle=False,
        callbacks=[stop, checkpoint],
        verbose=0,
    )
    assert "loss_std" in history.history
    assert (tmp_path / "best.keras").exists()
    model.summary(print_fn=lambda *_, **__: None)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(policy, image_batch):
    x, y = image_batch
    seen = []

    class Spy(LInf):
        def sample(self, x, noise):
            seen.append(keras.backend.standardize_dtype(x.dtype))
            return super().sample(x, noise)

    keras.config.set_dtype_policy(policy)
    try:
        base = sequential()
        for chunk_size in (None, 1):
            model = VarianceMinimizingModel(
                base, Spy(0.1), num_samples=2, chunk_size=chunk_size
            )
            model.compile("adam", LOGITS, metrics=["accuracy"])
            scales = type(model.optimizer).__name__ == "LossScaleOptimizer"
            assert scales == (policy == "mixed_float16")
            before = base.get_weights()
            history = model.fit(x, y, verbose=0).history
            assert np.isfinite(history["loss"][0])
            moved = zip(before, base.get_weights(), strict=True)
            assert all((a != b).any() for a, b in moved)
    finally:
        keras.config.set_dtype_policy("float32")
    # The input is perturbed before it is rounded.
    assert set(seen) == {"float32"}


@pytest.mark.tensorflow
def test_jit_compile_and_export(image_batch, tmp_path):
    import tensorflow as tf

    x, y = image_batch
    model = VarianceMinimizingModel(sequential(), Translation(0.2), num_samples=2)
    model.compile("adam", LOGITS, jit_compile=True)
    model.fit(x, y, verbose=0)
    model.export(tmp_path / "export", verbose=False)
    loaded = tf.saved_model.load(tmp_path / "export")
    served = loaded.serve(x)
    np.testing.assert_allclose(served, model.predict(x, verbose=0), atol=1e-5)


def scalar_loss(y, p):
    return keras.ops.mean(keras.ops.square(p))


def two_outputs():
    inputs = keras.Input((6, 6, 1))
    x = layers.Flatten()(inputs)
    return keras.Model(inputs, [layers.Dense(2)(x), layers.Dense(2)(x)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_samples": 1}, "`num_samples`.*at least 2.*num_samples=1"),
        ({"num_samples": 2.5}, "`num_samples`.*num_samples=2.5"),
        ({"std_weight": -1}, "`std_weight`.*std_weight=-1"),
        ({"std_weight": float("nan")}, "`std_weight`.*nan"),
        ({"chunk_size": 0}, "`chunk_size`.*chunk_size=0"),
        ({"perturbation": 0.3}, "`perturbation`.*0.3"),
        ({"model": two_outputs}, "`model`.*2 of them"),
        ({"model": lambda: "model"}, "`model`.*keras.Model"),
    ],
)
def test_bad_arguments(arguments, message):
    arguments = dict(arguments)
    model = arguments.pop("model", sequential)()
    with pytest.raises(ValueError, match=message):
        VarianceMinimizingModel(model, **arguments)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: (x * 255, y), "`x`.*valid input range"),
        (lambda x, y: ((x * 255).astype("uint8"), y), "`x`.*floating-point"),
        (lambda x, y: (x * np.nan, y), "`x` must be finite"),
        (lambda x, y: (x[:0], y[:0]), "`x`.*empty batch"),
        (lambda x, y: (x, None), "`y` must be given"),
        (lambda x, y: (x, y + 10), "`y` must hold classes 0 to 9"),
        (lambda x, y: (x, -y - 1), "`y` must hold classes 0 to 9"),
        (lambda x, y: (x, y[:3]), "`y` must hold one target for each of the 8"),
        (lambda x, y: (x, y.astype(str)), "`y` must hold targets as numbers"),
        (lambda x, y: (x, np.eye(10)[y] * np.nan), "`y` must hold finite targets"),
    ],
)
def test_bad_data(change, message, image_batch):
    model = VarianceMinimizingModel(sequential(), LInf(0.1))
    model.compile("adam", LOGITS)
    x, y = change(*image_batch)
    with pytest.raises(ValueError, match=message):
        model.fit(x, y, verbose=0)


def test_bad_validation_data(image_batch):
    model = VarianceMinimizingModel(sequential(), LInf(0.1))
    model.compile("adam", LOGITS)
    x, y = image_batch
    for pair in ((x * 255, y), [x * 255, y]):
        with pytest.raises(ValueError, match="`validation_data` must lie in"):
            model.fit(x, y, validation_data=pair, verbose=0)


def test_losses_are_scaled_where_the_base_is_half_precision():
    base = sequential()
    base.dtype_policy = "mixed_float16"
    for model in (base, VarianceMinimizingModel(base)):
        model.compile("adam", LOGITS)
        assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)


@pytest.mark.tensorflow
def test_bad_datasets(image_batch):
    import tensorflow as tf

    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 1

        def __getitem__(self, index):
            return x * 255, y

    model = VarianceMinimizingModel(sequential(), LInf(0.1))
    model.compile("adam", LOGITS)
    x, y = image_batch
    data = tf.data.Dataset.from_tensor_slices((x * 255, y)).batch(4)
    for bad in (data, Batches()):
        with pytest.raises(ValueError, match="`x`.*valid input range"):
            model.fit(bad, verbose=0)
    model.fit(tf.data.Dataset.from_tensor_slices((x, y)).batch(4), verbose=0)


@pytest.mark.parametrize(
    ("loss", "message"),
    [(scalar_loss, "gives a scalar"), (["mse", "mae"], "single loss")],
)
def test_bad_losses(loss, message, image_batch):
    x, y = image_batch
    model = VarianceMinimizingModel(sequential(), LInf(0.1))
    model.compile("adam", loss)
    with pytest.raises(ValueError, match=message):
        model.fit(x, np.eye(10)[y], verbose=0)


def test_batch_of_one_and_partial_batches(image_batch):
    x, y = image_batch
    model = VarianceMinimizingModel(sequential(), LInf(0.1), num_samples=2)
    model.compile("adam", LOGITS)
    model.fit(x[:1], y[:1], verbose=0)
    model.fit(x, y, batch_size=5, verbose=0)
    assert model.predict(x[:1], verbose=0).shape == (1, 10)


class WithAuxiliaryHead(keras.Model):
    """One of its layers is called by training alone."""

    def __init__(self):
        super().__init__()
        self.flatten = layers.Flatten()
        self.dense, self.head = layers.Dense(10), layers.Dense(2)

    def call(self, x, training=False):
        hidden = self.flatten(x)
        if training:
            self.add_loss(keras.ops.mean(self.head(hidden) ** 2))
        return self.dense(hidden)


@pytest.mark.tensorflow  # On JAX, Keras makes no variables of such a layer.
def test_layers_that_only_training_calls(image_batch):
    model = VarianceMinimizingModel(WithAuxiliaryHead(), LInf(0.1))
    model.compile("adam", LOGITS)
    model.fit(*image_batch, verbose=0)
    assert len(model.base_model.head.get_weights()) == 2


@pytest.mark.tensorflow  # JAX has no gradient of nothing.
def test_an_optimizer_that_meets_a_frozen_model_first(image_batch):
    model = VarianceMinimizingModel(sequential(), LInf(0.1))
    model.trainable = False
    optimizer = keras.optimizers.SGD()
    for arguments in (None, LOGITS), (optimizer, LOGITS):
        model.compile(*arguments)
        with pytest.warns(UserWarning, match="trainable weights"):
            model.fit(*image_batch, verbose=0)
    model.trainable = True
    model.compile(optimizer, LOGITS)
    before = model.get_weights()[0].copy()
    model.fit(*image_batch, verbose=0)
    assert (model.get_weights()[0] != before).any()
