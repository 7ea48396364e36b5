"""Random affine maps of images, and the resampling under all of them."""

import math

import keras
from keras import ops

from keras_probcert.perturbations.perturbation import Perturbation
from keras_probcert.validation import check_number


@keras.saving.register_keras_serializable(package="keras_probcert")
class Affine(Perturbation):
    """Rotates, scales and translates images by random amounts, in one resampling.

    The angle is uniform in ±`rotation`, the scale factor in 1 ± `scale`, the
    shift in ±`translation` of the width and, independently, of the height.
    Rotation and scaling are about the centre. Images are channels-last;
    interpolation is bilinear; what comes from outside the image is
    `fill_value`.

    Args:
        translation: the largest shift, as a fraction of the width (of the
            height, for vertical shifts), at least 0; 0 by default.
        rotation: the largest angle in degrees, at least 0; 0 by default.
        scale: the largest change of the scale factor, in [0, 1); 0 by default.
        clip: `(low, high)`, the valid input range, `(0, 1)` by default; `None`
            for no range.
        fill_value: the constant outside the image, inside `clip`; 0 by default.

    Raises:
        ValueError: if an argument is out of its range, or the inputs are not
            images `(rows, height, width, channels)`.

    Example:

    >>> import numpy as np
    >>> images = np.random.rand(4, 28, 28, 1).astype("float32")
    >>> tuple(Affine(translation=0.3, rotation=35, scale=0.3)(images).shape)
    (4, 28, 28, 1)

    Reference:

    - Table 6 of "Towards Certified Probabilistic Robustness with High
      Accuracy" (arXiv 2309.00879): translation ±0.3, rotation ±35°, scale
      factor ±0.3.
    """

    def __init__(
        self,
        translation=0.0,
        rotation=0.0,
        scale=0.0,
        clip=(0.0, 1.0),
        fill_value=0.0,
    ):
        super().__init__(clip)
        self.translation = check_number("translation", translation)
        self.rotation = check_number("rotation", rotation)
        self.scale = check_number("scale", scale)
        if self.scale >= 1:
            raise ValueError(f"`scale` must be below 1. Received: scale={scale}")
        self.fill_value = check_number("fill_value", fill_value, least=None)
        if clip is not None and not self.clip[0] <= self.fill_value <= self.clip[1]:
            raise ValueError(
                f"`fill_value` must lie in clip={self.clip}. "
                f"Received: fill_value={fill_value}"
            )

    def check_shape(self, shape):
        if len(shape) != 3:
            raise ValueError(
                f"{type(self).__name__} perturbs images, shape (rows, height, width, "
                f"channels). Received: rows of shape {tuple(shape)}"
            )

    def sample(self, x, noise):
        shape = x.shape[2:]
        self.check_shape(shape)
        height, width, _ = shape
        amount = noise.uniform((4,), -1.0, 1.0)
        angle = amount[..., 0] * math.radians(self.rotation)
        zoom = 1.0 + amount[..., 1] * self.scale
        right = amount[..., 2] * (self.translation * width)
        down = amount[..., 3] * (self.translation * height)
        images = ops.broadcast_to(x, (ops.shape(angle)[0], noise.num_copies, *shape))
        copies = resample(
            ops.reshape(images, (-1, *shape)),
            *(ops.reshape(a, (-1, 1, 1)) for a in (angle, zoom, right, down)),
            self.fill_value,
        )
        return self.clamp(ops.reshape(copies, (-1, noise.num_copies, *shape)))

    def get_config(self):
        return {
            "translation": self.translation,
            "rotation": self.rotation,
            "scale": self.scale,
            **super().get_config(),
            "fill_value": self.fill_value,
        }


def resample(images, angle, zoom, right, down, fill_value):
    """`images` rotated (counter-clockwise), scaled, then shifted.

    `keras.ops.image.affine_transform` would do, but its TensorFlow op has no
    XLA kernel.

    Args:
        images: `(copies, height, width, channels)`.
        angle, zoom, right, down: `(copies, 1, 1)`: radians, factor, pixels.
        fill_value: the constant outside the image.
    """
    _, height, width, channels = images.shape
    # Where each pixel of the result comes from: the inverse map, about the
    # centre.
    middle_y, middle_x = (height - 1) / 2, (width - 1) / 2
    y = ops.reshape(ops.arange(height, dtype="float32"), (1, height, 1))
    x = ops.reshape(ops.arange(width, dtype="float32"), (1, 1, width))
    y, x = y - middle_y - down, x - middle_x - right
    cos, sin = ops.cos(angle) / zoom, ops.sin(angle) / zoom
    source_y = sin * x + cos * y + middle_y
    source_x = cos * x - sin * y + middle_x

    # A frame of the fill value, so that everything outside reads it. Beyond the
    # frame nothing changes, so coordinates stop there.
    padded = ops.pad(
        images,
        ((0, 0), (1, 1), (1, 1), (0, 0)),
        constant_values=fill_value,
    )
    source_y = ops.clip(source_y + 1.0, 0.0, height + 1.0)
    source_x = ops.clip(source_x + 1.0, 0.0, width + 1.0)
    top = ops.minimum(ops.floor(source_y), float(height))
    left = ops.minimum(ops.floor(source_x), float(width))
    lower, later = (source_y - top)[..., None], (source_x - left)[..., None]

    stride = width + 2
    size = (height + 2) * stride
    pixels = ops.reshape(padded, (-1, channels))
    # Places run over all images: 42,000 of 224×224 overflow int32, and JAX has
    # no more.
    integer = "int64" if keras.backend.backend() == "tensorflow" else "int32"
    if integer == "int32" and images.shape[0] * size > 2**31 - 1:
        raise ValueError(
            f"Images of {height}×{width} must come in batches of at most "
            f"{(2**31 - 1) // size} copies. Received: {images.shape[0]} copies"
        )
    image = ops.arange(ops.shape(images)[0], dtype=integer)[:, None, None]
    corner = image * size + ops.cast(top * stride + left, integer)

    def at(offset):
        return ops.take(pixels, corner + offset, axis=0)

    above = at(0) + (at(1) - at(0)) * later
    below = at(stride) + (at(stride + 1) - at(stride)) * later
    return above + (below - above) * lower
