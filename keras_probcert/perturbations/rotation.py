"""Rotation of images."""

import keras

from keras_probcert.perturbations.affine import Affine


@keras.saving.register_keras_serializable(package="keras_probcert")
class Rotation(Affine):
    """Rotates images about their centre by up to an angle.

    The angle is uniform in ±`rotation`.
    Images are channels-last; interpolation is bilinear; what comes from outside
    the image is `fill_value`.

    Args:
        rotation: the largest angle in degrees, at least 0.
        clip: `(low, high)`, the valid input range, `(0, 1)` by default; `None`
            for no range.
        fill_value: the constant outside the image, inside `clip`; 0 by default.

    Raises:
        ValueError: if an argument is out of its range, or the inputs are not
            images `(rows, height, width, channels)`.

    Example:

    >>> import numpy as np
    >>> images = np.random.rand(4, 28, 28, 1).astype("float32")
    >>> tuple(Rotation(35)(images).shape)
    (4, 28, 28, 1)

    Reference:

    - Table 6 of "Towards Certified Probabilistic Robustness with High
      Accuracy" (arXiv 2309.00879).
    """

    def __init__(self, rotation, clip=(0.0, 1.0), fill_value=0.0):
        super().__init__(rotation=rotation, clip=clip, fill_value=fill_value)

    def get_config(self):
        return {
            "rotation": self.rotation,
            "clip": self.clip,
            "fill_value": self.fill_value,
        }
