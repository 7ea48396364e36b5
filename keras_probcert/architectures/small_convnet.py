"""The small network of certified training on CPUs."""

import keras
from keras import layers

from keras_probcert.architectures.inputs import normalized_input


def small_convnet(input_shape=(28, 28, 1), num_classes=10, mean=None, std=None):
    """Two 4×4 convolutions of stride 2 and a hidden layer; gives logits.

    A forward pass costs a twentieth of `basic_convnet`'s, so that a processor
    certifies many rows. On 28×28×1 with 10 classes it has 166,406 parameters.

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

    >>> small_convnet().count_params()
    166406

    Reference:

    - Wong and Kolter, "Provable Defenses against Adversarial Examples via the Convex
      Outer Adversarial Polytope" (ICML 2018), the network for MNIST.
    """
    inputs, x = normalized_input(input_shape, mean, std)
    for filters in (16, 32):
        x = layers.Conv2D(filters, 4, 2, padding="same", activation="relu")(x)
    x = layers.Flatten()(x)
    x = layers.Dense(100, activation="relu")(x)
    outputs = layers.Dense(num_classes)(x)
    return keras.Model(inputs, outputs, name="small_convnet")
