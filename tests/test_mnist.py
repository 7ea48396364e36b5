"""The whole path on real data: train, certify, better than not training."""

import keras
import pytest

from keras_probcert import CertifiedPredictor, LInf, VarianceMinimizingModel
from keras_probcert.architectures import basic_convnet
from keras_probcert.metrics import paired_difference


def test_basic_convnet_has_the_papers_size():
    assert basic_convnet().count_params() == 1_663_370
    assert basic_convnet().output_shape == (None, 10)


@pytest.mark.tensorflow
def test_variance_minimizing_certifies_more(mnist):
    """On 1,000 training images; paired by test image."""
    (x, y), (x_test, y_test) = mnist
    success = {}
    for name in ("plain", "variance-minimizing"):
        keras.utils.set_random_seed(0)
        model = keras.Sequential(
            [
                keras.Input((28, 28, 1)),
                keras.layers.Conv2D(8, 5, strides=2, activation="relu"),
                keras.layers.Flatten(),
                keras.layers.Dense(64, activation="relu"),
                keras.layers.Dense(10),
            ]
        )
        if name != "plain":
            model = VarianceMinimizingModel(model, LInf(0.3), num_samples=5)
        model.compile(
            "adam",
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            jit_compile=False,
        )
        model.fit(x, y, batch_size=32, epochs=8, verbose=0)
        certified = CertifiedPredictor(model, LInf(0.3), 0.05, 0.05, max_samples=600)
        result = certified.predict(x_test, seed=0, verbose=0)
        success[name] = result["certified"] & (result["label"] == y_test)
    difference = paired_difference(success["variance-minimizing"], success["plain"])
    print({name: rows.mean() for name, rows in success.items()}, difference)
    assert success["variance-minimizing"].mean() > 0.7
    assert difference.lower > 0
