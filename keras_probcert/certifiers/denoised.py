"""Denoised smoothing: a denoiser in front of a classifier that never saw noise."""

import math

import keras
import numpy as np
from keras import ops

from keras_probcert import models
from keras_probcert.validation import check_number


def denoised_classifier(denoiser, classifier):
    """Puts a denoiser in front of a classifier.

    The result is a base model like any other, so that
    `SmoothedClassifier(denoised_classifier(denoiser, classifier), sigma)` certifies a
    classifier that was trained on clean inputs: the certificate holds for the two
    together. It is `keras.Sequential([denoiser, classifier])` after a look at their
    shapes. The denoiser should have learned to remove noise of the same sigma, and may
    clip its result to the input range: clipping inside the base model is sound.

    Args:
        denoiser: a Keras model from inputs to inputs of one shape, such as a
            `OneStepDenoiser`.
        classifier: a Keras classifier of the same inputs.

    Returns:
        A `keras.Sequential`, which shares the weights of both.

    Raises:
        ValueError: if the denoiser gives another shape than it takes or than the
            classifier takes, or neither of them is built.

    Example:

    >>> import keras
    >>> denoiser = keras.Sequential([
    ...     keras.Input((8, 8, 1)), keras.layers.Conv2D(1, 3, padding="same")])
    >>> classifier = keras.Sequential([
    ...     keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(3)])
    >>> denoised_classifier(denoiser, classifier).output_shape
    (None, 3)

    Reference:

    - Salman, Sun, Yang, Kapoor and Kolter, "Denoised Smoothing: A Provable Defense
      for Pretrained Classifiers" (NeurIPS 2020).
    """
    if not isinstance(denoiser, keras.layers.Layer):
        raise ValueError(
            f"`denoiser` must be a Keras model or layer. Received: {denoiser!r}"
        )
    models.check_classifier(classifier)
    shape = models.row_shape(classifier) or models.row_shape(denoiser)
    if shape is None:
        raise ValueError(
            "`denoiser` or `classifier` must be built, so that the shape of an input "
            "is known. Received: two models that are not"
        )
    given = denoiser.compute_output_spec(keras.KerasTensor((None, *shape))).shape[1:]
    if tuple(given) != tuple(shape):
        raise ValueError(
            f"`denoiser` must give inputs of the classifier's shape {tuple(shape)}. "
            f"Received: outputs of shape {tuple(given)}"
        )
    return keras.Sequential([keras.Input(shape), denoiser, classifier])


def diffusion_step(sigma, alphas_cumprod):
    r"""The step of a diffusion model whose noise is that of smoothing.

    At step t a diffusion model sees \(x_t = \sqrt{\bar\alpha_t}\,x + \sqrt{1 -
    \bar\alpha_t}\,\epsilon\) with x in [−1, 1]. Inputs in [0, 1] with noise of sigma
    are inputs in [−1, 1] with noise of 2 sigma, so the step solves

    \[\frac{1 - \bar\alpha_t}{\bar\alpha_t} = (2\sigma)^2,\]

    and \(\sqrt{\bar\alpha_t}\) times the noisy input is what it expects. The schedule
    is discrete: t is the step whose noise, as a ratio, is nearest to 2 sigma.

    Args:
        sigma: the standard deviation of the noise on inputs in [0, 1], more than 0.
        alphas_cumprod: \(\bar\alpha_0, \bar\alpha_1, \dots\), the cumulative products
            of the schedule, decreasing in (0, 1).

    Returns:
        A pair: t, an int, and \(\sqrt{\bar\alpha_t}\), a float.

    Raises:
        ValueError: if `sigma` is out of its range or more than the schedule's last
            step has, or `alphas_cumprod` is no schedule.

    Example:

    >>> alphas_cumprod = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    >>> t, scale = diffusion_step(0.5, alphas_cumprod)
    >>> t, round(scale, 2)
    (258, 0.71)

    Reference:

    - Carlini, Tramèr, Dvijotham, Rice, Sun and Kolter, "(Certified!!) Adversarial
      Robustness for Free!" (ICLR 2023), section 3.
    """
    sigma = check_number("sigma", sigma)
    alphas = np.asarray(alphas_cumprod, np.float64)
    decreasing = alphas.ndim == 1 and alphas.size and (np.diff(alphas) < 0).all()
    if not (decreasing and 0 < alphas[-1] and alphas[0] < 1):
        raise ValueError(
            "`alphas_cumprod` must be decreasing numbers in (0, 1). "
            f"Received: alphas_cumprod={alphas_cumprod!r}"
        )
    noise = np.sqrt((1 - alphas) / alphas)
    if not 0 < 2 * sigma <= noise[-1]:
        raise ValueError(
            "`sigma` must be more than 0 and at most that of the last step, "
            f"{noise[-1] / 2:.4g}. Received: sigma={sigma}"
        )
    t = int(np.argmin(np.abs(np.log(noise / (2 * sigma)))))
    return t, math.sqrt(alphas[t])


@keras.saving.register_keras_serializable(package="keras_probcert")
class OneStepDenoiser(keras.Model):
    r"""Removes Gaussian noise by one step of a diffusion model.

    An input y in [0, 1] with noise of sigma becomes \(x_t = \sqrt{\bar\alpha_t}\,
    (2y - 1)\) at the step t of `diffusion_step`; the noise predicted there gives the
    clean input in one step,

    \[\hat x = \frac{x_t - \sqrt{1 - \bar\alpha_t}\,\hat\epsilon(x_t, t)}
    {\sqrt{\bar\alpha_t}},\]

    which goes back to [0, 1] and is clipped to it. Deterministic, as the base model of
    a certificate must be (see `denoised_classifier`).

    Args:
        noise_predictor: a Keras model that is called on `[x_t, t]`, t int32 `(rows,)`,
            and gives the noise in the shape of x_t. More channels than x_t has
            (learned variances) come last and are not used.
        alphas_cumprod: the schedule it was trained with, see `diffusion_step`.
        sigma: the standard deviation of the noise on inputs in [0, 1], more than 0.
        **kwargs: passed to `keras.Model`, such as `name`.

    Raises:
        ValueError: as in `diffusion_step`, and if `noise_predictor` is no Keras model.

    Example:

    >>> import keras
    >>> x_t, t = keras.Input((8, 8, 3)), keras.Input((), dtype="int32")
    >>> noise = keras.layers.Conv2D(3, 3, padding="same")(x_t)
    >>> alphas_cumprod = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    >>> denoiser = OneStepDenoiser(keras.Model([x_t, t], noise), alphas_cumprod, 0.25)
    >>> denoiser.predict(np.random.randn(2, 8, 8, 3), verbose=0).shape, denoiser.step
    ((2, 8, 8, 3), 144)

    Reference:

    - Carlini et al. (ICLR 2023), algorithm 1. Ho, Jain and Abbeel, "Denoising
      Diffusion Probabilistic Models" (NeurIPS 2020), equation 15.
    """

    def __init__(self, noise_predictor, alphas_cumprod, sigma, **kwargs):
        # The noise is large against half precision.
        super().__init__(autocast=False, **kwargs)
        if not isinstance(noise_predictor, keras.Model):
            raise ValueError(
                "`noise_predictor` must be a keras.Model. "
                f"Received: {noise_predictor!r}"
            )
        self.step, self.scale = diffusion_step(sigma, alphas_cumprod)
        self.noise_predictor = noise_predictor
        self.sigma = float(sigma)
        self.alphas_cumprod = [float(a) for a in np.asarray(alphas_cumprod)]
        if getattr(noise_predictor, "inputs", None):
            self.build((None, *noise_predictor.inputs[0].shape[1:]))

    def build(self, input_shape):
        if not self.noise_predictor.built:
            x_t = keras.KerasTensor((None, *input_shape[1:]), "float32")
            self.noise_predictor([x_t, keras.KerasTensor((None,), "int32")])
        self.built = True

    def call(self, inputs, training=False):
        """Clean inputs of the shape of `inputs`, in [0, 1]."""
        x_t = self.scale * (2.0 * ops.cast(inputs, "float32") - 1.0)
        t = ops.full((ops.shape(inputs)[0],), self.step, dtype="int32")
        noise = ops.cast(self.noise_predictor([x_t, t], training=False), "float32")
        noise = noise[..., : inputs.shape[-1]]
        clean = (x_t - math.sqrt(1.0 - self.scale**2) * noise) / self.scale
        return ops.clip((clean + 1.0) / 2.0, 0.0, 1.0)

    def compute_output_spec(self, inputs, training=False):
        if not self.built:
            self.build(inputs.shape)
        return keras.KerasTensor(inputs.shape, "float32")

    def get_config(self):
        return {
            **super().get_config(),
            "noise_predictor": keras.saving.serialize_keras_object(
                self.noise_predictor
            ),
            "alphas_cumprod": self.alphas_cumprod,
            "sigma": self.sigma,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        predictor = keras.saving.deserialize_keras_object(
            config["noise_predictor"], custom_objects=custom_objects
        )
        return cls(**{**config, "noise_predictor": predictor})
