"""What a base model says of itself."""

import keras
import pytest
from keras import layers

from keras_probcert import VarianceMinimizingModel, models


class Tangled(layers.Layer):
    """Gives two tensors, and has an `output` of its own."""

    def output(self):
        raise NotImplementedError

    def call(self, x):
        return {"sum": x + 1.0, "parts": [x]}


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.first, self.second = layers.Conv2D(5, 3), layers.Conv2D(7, 3)
        self.pool, self.dense = layers.GlobalMaxPooling2D(), layers.Dense(3)

    def call(self, x):
        return self.dense(self.pool(self.second(self.first(x))))


def functional():
    x = keras.Input((4, 4, 2))
    y = layers.Conv2D(3, 3, padding="same")(x)
    return keras.Model(x, layers.Dense(2)(layers.Flatten()(layers.Add()([y, y]))))


def tangled():
    x = keras.Input((4,))
    y = Tangled()(x)
    return keras.Model(x, layers.Dense(2)(y["parts"][0]))


def nested():
    block = [layers.Conv2D(50, 3, padding="same"), layers.GlobalMaxPooling2D()]
    return keras.Sequential([keras.Input((4, 4, 1)), keras.Sequential(block)])


@pytest.mark.parametrize(
    ("model", "values"),
    [
        (functional, 4 * 4 * 3),
        (nested, 4 * 4 * 50),
        (tangled, 4),
        # What the first layer hands to the second; nobody tells what that gives.
        (Subclassed, 6 * 6 * 5),
        (lambda: keras.Sequential([keras.Input((None, 3)), layers.LSTM(2)]), 3),
        (lambda: keras.Sequential([keras.Input((9,)), layers.Dense(2)]), 9),
    ],
)
def test_largest_activation(model, values):
    model = model()
    models.build(model, (None, 8, 8, 2))
    assert models.largest_activation(model) == values
    assert models.largest_activation(VarianceMinimizingModel(model)) == values
