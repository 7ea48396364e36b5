"""Trains every method on one device and on two, and compares the weights.

Run as a script, since the number of devices is fixed once a process has started.
"""

import os

TWO = "--xla_force_host_platform_device_count=2"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {TWO}"

import contextlib  # noqa: E402

import keras  # noqa: E402
import numpy as np  # noqa: E402

from keras_probcert import training  # noqa: E402

ARGUMENTS = {
    # Shi's regularizers are shares over a batch, each replica's own.
    "ibp": {
        "epsilon": training.LinearRamp(0.05, 0.1, length=2),
        "regularizer_weight": 0.0,
    },
    "smoothadv": {"epsilon": 0.5, "steps": 2},
    "smoothmix": {"mixing_weight": 5.0},
}


def two_devices():
    """A scope in which models train on two devices."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope()
    devices = keras.distribution.list_devices("cpu")
    assert len(devices) == 2
    return keras.distribution.DataParallel(devices=devices).scope()


# Methods, and those variants whose steps look at more than a row.
RUNS = {name: (name, ARGUMENTS.get(name, {})) for name in training.METHODS}
RUNS["prl by gradient"] = ("prl", {"threshold": "gradient"})


def trained(name, arguments, scope):
    """The weights after two epochs of two batches, and the losses."""
    rng = np.random.default_rng(0)
    x = rng.random((16, 4, 4, 1), np.float32)
    y = rng.integers(0, 3, 16)
    with scope:
        keras.utils.set_random_seed(1)
        base = keras.Sequential(
            [
                keras.Input((4, 4, 1)),
                keras.layers.Conv2D(3, 2, activation="relu"),
                keras.layers.Flatten(),
                keras.layers.Dense(3),
            ]
        )
        model = training.get(name)(base, **arguments)
        model.compile(
            keras.optimizers.SGD(0.1),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
        history = model.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0)
        if keras.backend.backend() == "tensorflow":
            # Of the last batch one device has no row.
            found = model.evaluate(x[:9], y[:9], 8, verbose=0, return_dict=True)
            outputs = model.predict(x[:9], verbose=0)
            right = np.mean(outputs.argmax(axis=1) == y[:9])
            np.testing.assert_allclose(found["accuracy"], right, rtol=1e-5)
        weights = [np.asarray(keras.ops.convert_to_numpy(w)) for w in base.weights]
    return weights, history.history


def main():
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.set_logical_device_configuration(
            tf.config.list_physical_devices("CPU")[0],
            [tf.config.LogicalDeviceConfiguration()] * 2,
        )
    for name, run in RUNS.items():
        weights, history = trained(*run, contextlib.nullcontext())
        both, both_history = trained(*run, two_devices())
        for a, b in zip(weights, both, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5, err_msg=name)
        assert history.keys() == both_history.keys()
        np.testing.assert_allclose(
            history["loss"], both_history["loss"], rtol=1e-4, err_msg=name
        )
        print(name, "the same", flush=True)


if __name__ == "__main__":
    main()
