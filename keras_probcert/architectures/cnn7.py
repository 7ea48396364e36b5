"""CNN7, the network of certified training."""

import keras
from keras import layers

from keras_probcert.architectures.inputs import normalized_input
from keras_probcert.validation import check_integer


def cnn7(
    input_shape=(28, 28, 1),
    num_classes=10,
    width=16,
    linear_size=56,
    mean=None,
    std=None,
):
    """Five 3×3 convolutions and a hidden layer, each with BatchNorm; gives logits.

    The layers are those of Shi et al.: convolutions of `width`, `width` and three
    times `2 * width` filters, the third with stride 2, then `linear_size` units.
    Shi's sizes are 64 and 512, which makes 13 million parameters on MNIST. The
    paper's count of 378,562 is met by no width in this layout; the defaults come
    within 0.2 % of it on 28×28×1 with 10 classes: 377,842.

    Args:
        input_shape: `(height, width, channels)`; MNIST's by default.
        num_classes: the number of classes, 10 by default.
        width: filters of the first convolutions, 16 by default.
        linear_size: units of the hidden layer, 56 by default.
        mean: what is subtracted from the inputs inside the model, a number or one a
            channel; `None` (default) for nothing.
        std: what they are then divided by; `None` (default) for nothing.

    Returns:
        An uncompiled functional `keras.Model` from images to logits
        `(rows, num_classes)`.

    Raises:
        ValueError: if a size is not an integer of at least 1.

    Example:

    >>> import numpy as np
    >>> model = cnn7()
    >>> sum(int(np.prod(w.shape)) for w in model.trainable_weights)
    377842

    Reference:

    - Shi, Wang, Zhang, Yi and Hsieh, "Fast Certified Robust Training with Short
      Warmup" (NeurIPS 2021).
    """
    width = check_integer("width", width)
    linear_size = check_integer("linear_size", linear_size)
    inputs, x = normalized_input(input_shape, mean, std)
    for filters, strides in (
        (width, 1),
        (width, 1),
        (2 * width, 2),
        (2 * width, 1),
        (2 * width, 1),
    ):
        x = layers.Conv2D(filters, 3, strides, padding="same")(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.Dense(linear_size)(layers.Flatten()(x))
    x = layers.ReLU()(layers.BatchNormalization()(x))
    return keras.Model(inputs, layers.Dense(num_classes)(x), name="cnn7")
