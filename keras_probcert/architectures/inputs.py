"""The beginning of every network: images, normalized inside the model."""

import keras
import numpy as np
from keras import layers


def normalized_input(input_shape, mean=None, std=None):
    """An input and the tensor after normalization, `(x - mean) / std`.

    Inside the model, so that ε stays in units of the input.
    """
    inputs = keras.Input(input_shape)
    if mean is None and std is None:
        return inputs, inputs
    mean = np.zeros(()) if mean is None else np.asarray(mean, "float64")
    std = np.ones(()) if std is None else np.asarray(std, "float64")
    for name, value in (("mean", mean), ("std", std)):
        if value.shape not in ((), (input_shape[-1],)) or not np.isfinite(value).all():
            raise ValueError(
                f"`{name}` must be a finite number or one for each of the "
                f"{input_shape[-1]} channels. Received: {name}={value}"
            )
    if (std <= 0).any():
        raise ValueError(f"`std` must be positive. Received: std={std}")
    scale, offset = (1 / std).tolist(), (-mean / std).tolist()
    return inputs, layers.Rescaling(scale, offset)(inputs)
