"""A run that was killed and resumed ends where one that was not does."""

import keras
import numpy as np
import pytest

from keras_probcert import training
from keras_probcert.training import LinearRamp

ARGUMENTS = {
    "ibp": {"epsilon": LinearRamp(0.0, 0.1, length=3)},
    "pgdt": {"steps": 2},
    "smoothadv": {"epsilon": LinearRamp(0.1, 0.5, length=3), "steps": 2},
    "smoothmix": {"mixing_weight": LinearRamp(0.5, 5.0, length=3)},
}
EPOCHS = 4


class Killed(Exception):
    pass


class Kill(keras.callbacks.Callback):
    def on_train_batch_begin(self, batch, logs=None):
        if self.model.optimizer.iterations == 5:
            raise Killed


def new_model(name):
    keras.utils.set_random_seed(1)
    base = keras.Sequential(
        [
            keras.Input((4, 4, 1)),
            keras.layers.Conv2D(3, 2, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Flatten(),
            keras.layers.Dense(3),
        ]
    )
    model = training.get(name)(base, **ARGUMENTS.get(name, {}))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss)
    return model


def fit(model, callbacks=(), **kwargs):
    rng = np.random.default_rng(0)
    x = rng.random((16, 4, 4, 1), np.float32)
    y = rng.integers(0, 3, 16)
    return model.fit(
        *(x, y),
        batch_size=8,
        epochs=EPOCHS,
        shuffle=False,
        verbose=0,
        callbacks=list(callbacks),
        **kwargs,
    )


METHODS = ["variance_minimizing", "pgdt", "ibp", "smoothmix", "prl"]


@pytest.mark.parametrize("name", METHODS)
def test_backup_and_restore(name, tmp_path):
    """Killed in the second step of the third epoch."""
    whole = new_model(name)
    history = fit(whole)

    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
    with pytest.raises(Killed):
        fit(new_model(name), [backup, Kill()])
    keras.utils.set_random_seed(99)
    resumed = new_model(name)
    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
    rest = fit(resumed, [backup])
    assert rest.epoch == [2, 3]
    for key, values in rest.history.items():
        np.testing.assert_allclose(values, history.history[key][2:], rtol=1e-5)
    for a, b in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["variance_minimizing", "prl"])
def test_model_checkpoint(name, tmp_path):
    whole = new_model(name)
    fit(whole)
    path = str(tmp_path / "{epoch}.keras")
    fit(new_model(name), [keras.callbacks.ModelCheckpoint(path)])
    resumed = keras.models.load_model(path.format(epoch=2))
    rest = fit(resumed, initial_epoch=2)
    assert rest.epoch == [2, 3]
    for a, b in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
