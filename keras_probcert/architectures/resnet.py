"""Residual networks: ResNet-18, CifarResNet-110 and Wide-ResNet-8."""

import keras
from keras import layers

from keras_probcert.architectures.inputs import normalized_input
from keras_probcert.validation import check_integer


def _convolution(x, filters, size=3, strides=1, use_bias=False):
    return layers.Conv2D(
        filters,
        size,
        strides,
        padding="same",
        use_bias=use_bias,
        kernel_initializer="he_normal",
    )(x)


def _basic_block(x, filters, strides, use_bias=False):
    """Two 3×3 convolutions beside a shortcut, projected where the shape changes."""
    shortcut = x
    x = _convolution(x, filters, 3, strides, use_bias)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.BatchNormalization()(_convolution(x, filters, use_bias=use_bias))
    if shortcut.shape[1:] != x.shape[1:]:
        shortcut = _convolution(shortcut, filters, 1, strides, use_bias)
        shortcut = layers.BatchNormalization()(shortcut)
    return layers.ReLU()(layers.Add()([x, shortcut]))


def _stages(x, widths, blocks, use_bias=False):
    """Stages of basic blocks; each but the first halves the height and width."""
    for stage, width in enumerate(widths):
        for block in range(blocks):
            strides = 2 if stage and not block else 1
            x = _basic_block(x, width, strides, use_bias)
    return x


def resnet18(
    input_shape=(32, 32, 3),
    num_classes=10,
    stem="cifar",
    mean=None,
    std=None,
):
    """ResNet-18: four stages of two basic blocks; gives logits.

    With the ImageNet stem, 224×224×3 and 1,000 classes it has the paper's
    11,689,512 trainable parameters; with the CIFAR stem, 32×32×3 and 10 classes,
    11,173,962.

    Args:
        input_shape: `(height, width, channels)`; CIFAR's by default.
        num_classes: the number of classes, 10 by default.
        stem: `"cifar"` (default), one 3×3 convolution, or `"imagenet"`, a 7×7
            convolution with stride 2 and max pooling.
        mean: what is subtracted from the inputs inside the model, a number or one a
            channel; `None` (default) for nothing.
        std: what they are then divided by; `None` (default) for nothing.

    Returns:
        An uncompiled functional `keras.Model` from images to logits
        `(rows, num_classes)`.

    Raises:
        ValueError: if `stem` is another.

    Example:

    >>> import numpy as np
    >>> model = resnet18((224, 224, 3), 1000, stem="imagenet")
    >>> sum(int(np.prod(w.shape)) for w in model.trainable_weights)
    11689512

    Reference:

    - He, Zhang, Ren and Sun, "Deep Residual Learning for Image Recognition"
      (CVPR 2016), Table 1.
    """
    inputs, x = normalized_input(input_shape, mean, std)
    if stem == "imagenet":
        x = _convolution(x, 64, 7, 2)
    elif stem == "cifar":
        x = _convolution(x, 64)
    else:
        raise ValueError(
            f"`stem` must be 'cifar' or 'imagenet'. Received: stem={stem!r}"
        )
    x = layers.ReLU()(layers.BatchNormalization()(x))
    if stem == "imagenet":
        x = layers.MaxPooling2D(3, 2, padding="same")(x)
    x = _stages(x, (64, 128, 256, 512), 2)
    outputs = layers.Dense(num_classes)(layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, outputs, name="resnet18")


def cifar_resnet110(input_shape=(32, 32, 3), num_classes=10, mean=None, std=None):
    """CifarResNet-110: three stages of eighteen basic blocks; gives logits.

    On 32×32×3 with 10 classes it has 1,730,714 trainable parameters, as has the
    network of Cohen et al., which the paper says it takes. (The paper prints
    1,730,474, the same digits in another order; no option of shortcuts has that
    many: 1,730,522 with projections without BatchNorm, 1,727,962 with none.)

    Args:
        input_shape: `(height, width, channels)`; CIFAR's by default.
        num_classes: the number of classes, 10 by default.
        mean: what is subtracted from the inputs inside the model, a number or one a
            channel; `None` (default) for nothing.
        std: what they are then divided by; `None` (default) for nothing.

    Returns:
        An uncompiled functional `keras.Model` from images to logits
        `(rows, num_classes)`.

    Example:

    >>> import numpy as np
    >>> model = cifar_resnet110()
    >>> sum(int(np.prod(w.shape)) for w in model.trainable_weights)
    1730714

    Reference:

    - He, Zhang, Ren and Sun, "Deep Residual Learning for Image Recognition"
      (CVPR 2016), section 4.2, as in the code of Cohen, Rosenfeld and Kolter (ICML
      2019).
    """
    inputs, x = normalized_input(input_shape, mean, std)
    x = layers.ReLU()(layers.BatchNormalization()(_convolution(x, 16)))
    x = _stages(x, (16, 32, 64), 18)
    outputs = layers.Dense(num_classes)(layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, outputs, name="cifar_resnet110")


def wide_resnet8(
    input_shape=(32, 32, 3), num_classes=10, widen_factor=6, mean=None, std=None
):
    """Wide-ResNet-8: three stages of one wide basic block; gives logits.

    Convolutions have biases, as in the networks of Shi et al. The paper's count,
    3,000,074 on 32×32×3 with 10 classes, is not met: among networks of depth 8 with
    stages of 16, 32 and 64 times a whole `widen_factor` the nearest is the default
    6, with 2,689,162 (7 has 3,655,162). Shi's own have factor 8: with pooling, as here,
    4,769,130.

    Args:
        input_shape: `(height, width, channels)`; CIFAR's by default.
        num_classes: the number of classes, 10 by default.
        widen_factor: how many times as wide as 16, 32 and 64 the stages are; 6 by
            default.
        mean: what is subtracted from the inputs inside the model, a number or one a
            channel; `None` (default) for nothing.
        std: what they are then divided by; `None` (default) for nothing.

    Returns:
        An uncompiled functional `keras.Model` from images to logits
        `(rows, num_classes)`.

    Raises:
        ValueError: if `widen_factor` is not an integer of at least 1.

    Example:

    >>> import numpy as np
    >>> model = wide_resnet8()
    >>> sum(int(np.prod(w.shape)) for w in model.trainable_weights)
    2689162

    Reference:

    - Zagoruyko and Komodakis, "Wide Residual Networks" (BMVC 2016).
    - Shi, Wang, Zhang, Yi and Hsieh, "Fast Certified Robust Training with Short
      Warmup" (NeurIPS 2021).
    """
    widen_factor = check_integer("widen_factor", widen_factor)
    inputs, x = normalized_input(input_shape, mean, std)
    x = layers.BatchNormalization()(_convolution(x, 16, use_bias=True))
    x = layers.ReLU()(x)
    widths = [stage * widen_factor for stage in (16, 32, 64)]
    x = _stages(x, widths, 1, use_bias=True)
    outputs = layers.Dense(num_classes)(layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, outputs, name="wide_resnet8")
