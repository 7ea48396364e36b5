"""The paper's Basic ConvNet."""

import keras
from keras import layers

from keras_probcert.architectures.inputs import normalized_input


def basic_convnet(input_shape=(28, 28, 1), num_classes=10, mean=None, std=None):
    """Two 5×5 convolutions with pooling and a hidden layer; gives logits.

    On 28×28×1 with 10 classes it has the paper's 1,663,370 parameters.

    Args:
        input_shape: `(height, width, channels)`; MNIST's by default.
        num_classes: the number of classes, 10 by default.
        mean: what is subtracted from the inputs inside the model, a number or one a
            channel; `None` (default) for nothing.
        std: what they are then divided by; `None` (default) for nothing.

    Returns:
        An uncompiled functional `keras.Model` from images to logits
        `(rows, num_classes)`.

    Example:

    >>> basic_convnet().count_params()
    1663370

    Reference:

    - Table 5 of "Towards Certified Probabilistic Robustness with High
      Accuracy" (arXiv 2309.00879).
    """
    inputs, x = normalized_input(input_shape, mean, std)
    for filters in (32, 64):
        x = layers.Conv2D(filters, 5, padding="same", activation="relu")(x)
        x = layers.MaxPooling2D(2)(x)
    x = layers.Flatten()(x)
    x = layers.Dense(512, activation="relu")(x)
    outputs = layers.Dense(num_classes)(x)
    return keras.Model(inputs, outputs, name="basic_convnet")
