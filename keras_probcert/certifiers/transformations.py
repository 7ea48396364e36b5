"""Families of transformations with a parameter, and random ones among them."""

import math

import keras
from keras import ops

from keras_probcert.perturbations import Perturbation
from keras_probcert.perturbations.affine import resample
from keras_probcert.validation import check_number


class Transformation:
    r"""A family of transformations \(\psi_\beta\) of inputs.

    Subclasses implement `transform`, and say whether they compose:
    \(\psi_\beta(\psi_\gamma(x)) = \psi_{\beta + \gamma}(x)\) for every β and every γ
    and x that the certificate speaks of. Nothing is clipped: after clipping no family
    here would compose.

    Example:

    A family of one's own, which adds β to every coordinate:

    >>> import numpy as np
    >>> class Shift(Transformation):
    ...     composes = True
    ...
    ...     def transform(self, x, parameters):
    ...         return x + parameters
    >>> shifted = Shift().transform(np.zeros((2, 1, 3)), np.ones((2, 4, 1)))
    >>> tuple(shifted.shape)
    (2, 4, 3)
    """

    composes = False
    """Whether the family composes, exactly and not only nearly."""

    num_parameters = 1
    """How many numbers β has."""

    domain = None
    """`(low, high)`, the inputs it is defined on; `None` for all."""

    def transform(self, x, parameters):
        r"""\(\psi_\beta(x)\) for one β a copy.

        Args:
            x: float32 tensor, `(rows, 1, …)`.
            parameters: float32 tensor, `(rows, copies, num_parameters)`.

        Returns:
            A float32 tensor, `(rows, copies, …)`.
        """
        raise NotImplementedError

    def get_config(self):
        return {}

    @classmethod
    def from_config(cls, config):
        return cls(**config)

    def __repr__(self):
        arguments = ", ".join(f"{k}={v!r}" for k, v in self.get_config().items())
        return f"{type(self).__name__}({arguments})"


def _like_rows(parameters, x):
    """One parameter a copy, in as many dimensions as `x` has."""
    ones = (1 for _ in x.shape[2:])
    return ops.reshape(parameters, (*ops.shape(parameters)[:2], *ones))


@keras.saving.register_keras_serializable(package="keras_probcert")
class Brightness(Transformation):
    r"""Adds a number to every value: \(\psi_\beta(x) = x + \beta\). Composes.

    β is in units of the input.

    Example:

    >>> Brightness()
    Brightness()
    """

    composes = True

    def transform(self, x, parameters):
        return x + _like_rows(parameters, x)


@keras.saving.register_keras_serializable(package="keras_probcert")
class Contrast(Transformation):
    r"""Stretches values: \(\psi_\beta(x) = c + e^\beta(x - c)\). Composes.

    β is the logarithm of the factor: a radius r covers factors from \(e^{-r}\) to
    \(e^r\).

    Args:
        center: c, in units of the input; 0.5 by default. At 0 it is the exposure of
            an image, or the loudness of a sound.

    Raises:
        ValueError: if `center` is no finite number.

    Example:

    >>> Contrast(center=0.0)
    Contrast(center=0.0)
    """

    composes = True

    def __init__(self, center=0.5):
        self.center = check_number("center", center, least=None)

    def transform(self, x, parameters):
        return self.center + ops.exp(_like_rows(parameters, x)) * (x - self.center)

    def get_config(self):
        return {"center": self.center}


@keras.saving.register_keras_serializable(package="keras_probcert")
class Gamma(Transformation):
    r"""Gamma correction of inputs in [0, 1]: \(\psi_\beta(x) = x^{e^\beta}\). Composes.

    β is the logarithm of gamma.

    Example:

    >>> Gamma().domain
    (0.0, 1.0)
    """

    composes = True
    domain = (0.0, 1.0)

    def transform(self, x, parameters):
        # Logarithms of 0 would make NaN of what stays 0.
        some = ops.maximum(x, 1e-30)
        power = ops.exp(ops.exp(_like_rows(parameters, x)) * ops.log(some))
        return ops.where(x > 0, power, 0.0)


@keras.saving.register_keras_serializable(package="keras_probcert")
class CyclicShift(Transformation):
    r"""Shifts images around their edges by β rounded to whole pixels.

    β is in pixels, down and to the right. It composes where γ is whole, since then
    \(\operatorname{round}(\beta) + \gamma = \operatorname{round}(\beta + \gamma)\): the
    certificate covers shifts by whole pixels, \(\|\gamma\|_2\) below the radius.

    Example:

    >>> CyclicShift().num_parameters
    2
    """

    composes = True
    num_parameters = 2

    def transform(self, x, parameters):
        _check_images(self, x)
        copies = ops.shape(parameters)[1]
        x = ops.broadcast_to(x, (ops.shape(x)[0], copies, *x.shape[2:]))
        # Rounded so that halves go up: they stay halves under whole shifts.
        whole = ops.cast(ops.floor(parameters + 0.5), "int32")
        for axis in (0, 1):
            size = x.shape[2 + axis]
            source = (ops.arange(size, dtype="int32") - whole[..., axis, None]) % size
            ones = [1] * 3
            ones[axis] = size
            source = ops.reshape(source, (*ops.shape(whole)[:2], *ones))
            source = ops.broadcast_to(source, ops.shape(x))
            x = ops.take_along_axis(x, source, axis=2 + axis)
        return x


class _Interpolated(Transformation):
    """What moves the pixels of images by parts of a pixel."""

    def __init__(self, fill_value=0.0):
        self.fill_value = check_number("fill_value", fill_value, least=None)

    def _resampled(self, x, parameters, angle=0.0, down=0.0, right=0.0):
        _check_images(self, x)
        shape = x.shape[2:]
        one = ops.ones_like(parameters[..., 0])
        images = ops.broadcast_to(x, (*ops.shape(one), *shape))
        moved = resample(
            ops.reshape(images, (-1, *shape)),
            *(ops.reshape(a * one, (-1, 1, 1)) for a in (angle, 1.0, right, down)),
            self.fill_value,
        )
        return ops.reshape(moved, (*ops.shape(one), *shape))

    def get_config(self):
        return {"fill_value": self.fill_value}


@keras.saving.register_keras_serializable(package="keras_probcert")
class InterpolatedRotation(_Interpolated):
    """Rotates images about their centre by β degrees. Does not compose.

    Bilinear interpolation blurs each time, and corners leave the image: a rotation
    after a rotation is another image than one rotation by the sum.

    Args:
        fill_value: the constant outside the image; 0 by default.

    Example:

    >>> InterpolatedRotation().composes
    False
    """

    def transform(self, x, parameters):
        return self._resampled(x, parameters, angle=parameters[..., 0] * math.pi / 180)


@keras.saving.register_keras_serializable(package="keras_probcert")
class InterpolatedTranslation(_Interpolated):
    """Shifts images by β pixels, down and to the right. Does not compose.

    Parts of a pixel are interpolated, and what leaves the image is lost.

    Args:
        fill_value: the constant outside the image; 0 by default.

    Example:

    >>> InterpolatedTranslation().num_parameters
    2
    """

    num_parameters = 2

    def transform(self, x, parameters):
        down, right = parameters[..., 0], parameters[..., 1]
        return self._resampled(x, parameters, down=down, right=right)


@keras.saving.register_keras_serializable(package="keras_probcert")
class RandomTransformation(Perturbation):
    """A transformation with Gaussian parameters: the noise of parameter smoothing.

    For training as well, as by `training.get("da")`. Copies may leave the input range.

    Args:
        transformation: a `Transformation`.
        sigma: the standard deviation of each parameter, in its own units, at least 0.

    Raises:
        ValueError: if an argument is out of its range.

    Example:

    >>> import numpy as np
    >>> other_light = RandomTransformation(Brightness(), sigma=0.3)
    >>> copies = np.asarray(other_light(np.zeros((2, 3), "float32"), seed=0))
    >>> bool((copies == copies[:, :1]).all()), bool(copies[0, 0] != copies[1, 0])
    (True, True)
    """

    def __init__(self, transformation, sigma):
        if isinstance(transformation, dict):
            transformation = keras.saving.deserialize_keras_object(transformation)
        super().__init__(clip=check_transformation(transformation).domain)
        self.transformation = transformation
        self.sigma = check_number("sigma", sigma)

    def sample(self, x, noise):
        parameters = self.sigma * noise.normal((self.transformation.num_parameters,))
        return self.transformation.transform(x, parameters)

    def get_config(self):
        return {
            "transformation": keras.saving.serialize_keras_object(self.transformation),
            "sigma": self.sigma,
        }

    def __repr__(self):
        return f"RandomTransformation({self.transformation!r}, sigma={self.sigma!r})"


def check_transformation(transformation):
    if not isinstance(transformation, Transformation):
        raise ValueError(
            "`transformation` must be a Transformation, such as Brightness(). "
            f"Received: transformation={transformation!r}"
        )
    return transformation


def _check_images(transformation, x):
    if len(x.shape) != 5:
        raise ValueError(
            f"{type(transformation).__name__} transforms images, shape (rows, height, "
            f"width, channels). Received: rows of shape {tuple(x.shape[2:])}"
        )
