"""Denoising in one step, against the posterior mean of Gaussian data."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_probcert import models
from keras_probcert.certifiers.denoised import (
    OneStepDenoiser,
    denoised_classifier,
    diffusion_step,
)

LINEAR = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
COSINE = np.cos(np.linspace(0.01, 0.99, 200) * np.pi / 2) ** 2
MEAN, SPREAD = 0.55, 0.08


@keras.saving.register_keras_serializable(package="tests")
class ExactPredictor(keras.Model):
    """The expected noise at step t, for pixels N(MEAN, SPREAD²) in [0, 1]."""

    def __init__(self, variances=False, **kwargs):
        super().__init__(**kwargs)
        self.variances = variances

    def call(self, inputs):
        x_t, t = inputs
        alpha = ops.take(ops.convert_to_tensor(LINEAR, dtype="float32"), t)
        alpha = ops.reshape(alpha, (-1, 1, 1, 1))
        mean, variance = 2 * MEAN - 1, (2 * SPREAD) ** 2
        noise = ops.sqrt(1 - alpha) * (x_t - ops.sqrt(alpha) * mean)
        noise = noise / (alpha * variance + 1 - alpha)
        if self.variances:
            noise = ops.concatenate([noise, 100 + noise], axis=-1)
        return noise

    def get_config(self):
        return {**super().get_config(), "variances": self.variances}


def noisy(sigma, rows=20):
    rng = np.random.default_rng(0)
    shape = (rows, 4, 4, 2)
    clean = MEAN + SPREAD * rng.normal(size=shape)
    return clean, (clean + sigma * rng.normal(size=shape)).astype("float32")


@pytest.mark.parametrize("schedule", [LINEAR, COSINE])
@pytest.mark.parametrize("sigma", [0.12, 0.25, 0.5, 1.0])
def test_step_has_the_noise_of_smoothing(sigma, schedule):
    t, scale = diffusion_step(sigma, schedule)
    assert scale == pytest.approx(np.sqrt(schedule[t]))
    ratio = np.sqrt(1 - scale**2) / scale / (2 * sigma)
    assert ratio == pytest.approx(1, rel=0.03)
    # No neighbour is nearer.
    for other in (t - 1, t + 1):
        noise = np.sqrt((1 - schedule[other]) / schedule[other])
        assert abs(np.log(noise / (2 * sigma))) >= abs(np.log(ratio))


@pytest.mark.parametrize("variances", [False, True])
@pytest.mark.parametrize("sigma", [0.1, 0.5])
def test_one_step_gives_the_posterior_mean(sigma, variances):
    clean, y = noisy(sigma)
    denoiser = OneStepDenoiser(ExactPredictor(variances), LINEAR, sigma)
    got = denoiser.predict(y, verbose=0)
    # Bayes in units of the input, at the noise of the step that was chosen.
    alpha = LINEAR[denoiser.step]
    precision = 4 * alpha / (1 - alpha)
    posterior = (MEAN / SPREAD**2 + y * precision) / (1 / SPREAD**2 + precision)
    np.testing.assert_allclose(got, np.clip(posterior, 0, 1), atol=2e-6)
    # It denoises: the error is near the posterior's, far below sigma.
    error = np.sqrt(np.mean((got - clean) ** 2))
    expected = 1 / np.sqrt(1 / SPREAD**2 + 1 / sigma**2)
    assert error == pytest.approx(expected, rel=0.15)
    assert error < 0.7 * sigma


def test_result_is_clipped():
    denoiser = OneStepDenoiser(ExactPredictor(), LINEAR, 0.1)
    y = np.full((1, 4, 4, 2), 30.0, "float32")
    assert ops.convert_to_numpy(denoiser(y)).max() == 1.0
    assert ops.convert_to_numpy(denoiser(-y)).min() == 0.0


def classifier(activation="softmax"):
    return keras.Sequential(
        [
            keras.Input((4, 4, 2)),
            layers.Flatten(),
            layers.Dense(3, activation=activation),
        ]
    )


def test_denoised_classifier_is_the_composition(tmp_path):
    _, y = noisy(0.5)
    denoiser = OneStepDenoiser(ExactPredictor(), LINEAR, 0.5)
    base = classifier()
    both = denoised_classifier(denoiser, base)
    expected = base.predict(denoiser.predict(y, verbose=0), verbose=0)
    np.testing.assert_allclose(both.predict(y, verbose=0), expected, rtol=1e-5)
    # What certifiers and attacks ask of a base model.
    assert models.row_shape(both) == (4, 4, 2)
    assert models.output_units(both, (4, 4, 2)) == 3
    assert models.last_activation(both) is keras.activations.softmax
    both.save(tmp_path / "both.keras")
    loaded = keras.saving.load_model(tmp_path / "both.keras")
    np.testing.assert_allclose(loaded.predict(y, verbose=0), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("sigma", "alphas", "message"),
    [
        (0.0, LINEAR, "`sigma` must be more than 0.*sigma=0.0"),
        (-1, LINEAR, "`sigma` must be a finite number"),
        (1e3, LINEAR, "`sigma` must be.*at most that of the last step.*sigma=1000"),
        (0.5, LINEAR[::-1], "`alphas_cumprod` must be decreasing"),
        (0.5, [1.0, 0.5], "`alphas_cumprod` must be decreasing"),
        (0.5, [0.5, np.nan], "`alphas_cumprod` must be decreasing"),
        (0.5, [], "`alphas_cumprod` must be decreasing"),
    ],
)
def test_bad_schedules(sigma, alphas, message):
    with pytest.raises(ValueError, match=message):
        diffusion_step(sigma, alphas)


def test_bad_models():
    with pytest.raises(ValueError, match="`noise_predictor` must be a keras.Model"):
        OneStepDenoiser(print, LINEAR, 0.5)
    with pytest.raises(ValueError, match="`denoiser` must be a Keras model"):
        denoised_classifier(print, classifier())
    flat = keras.Sequential([keras.Input((4, 4, 2)), layers.Flatten()])
    with pytest.raises(ValueError, match=r"shape \(4, 4, 2\).*\(32,\)"):
        denoised_classifier(flat, classifier())
    with pytest.raises(ValueError, match="must be built"):
        denoised_classifier(
            keras.Sequential([layers.Dense(2)]), keras.Sequential([layers.Dense(3)])
        )
