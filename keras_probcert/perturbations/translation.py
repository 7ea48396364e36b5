"""Translation of images."""

import keras

from keras_probcert.perturbations.affine import Affine


@keras.saving.register_keras_serializable(package="keras_probcert")
class Translation(Affine):
    """Shifts images by up to a fraction of their width and height.

    The horizontal and the vertical shift are independent, each uniform.
    Images are channels-last; interpolation is bilinear; what comes from outside
    the image is `fill_value`.

    Args:
        translation: the largest shift, as a fraction of the width (of the
            height, for vertical shifts), at least 0.
        clip: `(low, high)`, the valid input range, `(0, 1)` by default; `None`
            for no range.
        fill_value: the constant outside the image, inside `clip`; 0 by default.

    Raises:
        ValueError: if an argument is out of its range, or the inputs are not
            images `(rows, height, width, channels)`.

    Example:

    >>> import numpy as np
    >>> images = np.random.rand(4, 28, 28, 1).astype("float32")
    >>> tuple(Translation(0.3)(images).shape)
    (4, 28, 28, 1)

    Reference:

    - Table 6 of "Towards Certified Probabilistic Robustness with High
      Accuracy" (arXiv 2309.00879).
    """

    def __init__(self, translation, clip=(0.0, 1.0), fill_value=0.0):
        super().__init__(translation=translation, clip=clip, fill_value=fill_value)

    def get_config(self):
        return {
            "translation": self.translation,
            "clip": self.clip,
            "fill_value": self.fill_value,
        }
