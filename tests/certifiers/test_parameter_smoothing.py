"""Smoothing over parameters: composition, closed forms, and what is not certified."""

import itertools
import math

import keras
import numpy as np
import pytest
import scipy.stats
from keras import layers, ops

from keras_probcert.certifiers.parameter_smoothing import ParameterSmoothedClassifier
from keras_probcert.certifiers.transformations import (
    Brightness,
    Contrast,
    CyclicShift,
    Gamma,
    InterpolatedRotation,
    InterpolatedTranslation,
    RandomTransformation,
)
from keras_probcert.metrics import average_certified_radius, certified_accuracy

COMPOSING = [Brightness(), Contrast(), Contrast(-0.3), Gamma(), CyclicShift()]
INTERPOLATED = [InterpolatedRotation(), InterpolatedTranslation(fill_value=0.5)]


def apply(transformation, x, beta):
    """The transformation of each row by its own parameters, in NumPy."""
    beta = np.reshape(beta, (len(x), 1, -1)).astype("float32")
    x = ops.convert_to_tensor(x.astype("float32"))[:, None]
    return ops.convert_to_numpy(transformation.transform(x, beta))[:, 0]


def parameters(transformation, rows, scale, whole):
    rng = np.random.default_rng(1)
    beta = rng.normal(size=(2, rows, transformation.num_parameters)) * scale
    if whole:
        beta[1] = np.round(beta[1])
    return beta


@pytest.mark.parametrize("transformation", COMPOSING, ids=repr)
def test_composition_is_exact(transformation):
    rng = np.random.default_rng(0)
    x = rng.random((50, 6, 5, 2))
    if transformation.domain is None:
        x = 3 * x - 1
    shifts = isinstance(transformation, CyclicShift)
    first, second = parameters(transformation, 50, 4 if shifts else 0.5, shifts)
    twice = apply(transformation, apply(transformation, x, second), first)
    once = apply(transformation, x, first + second)
    np.testing.assert_allclose(twice, once, atol=1e-5)
    # Not because nothing happens.
    assert np.abs(once - x).max() > 0.1


@pytest.mark.parametrize("transformation", INTERPOLATED, ids=repr)
def test_interpolation_does_not_compose(transformation):
    x = np.random.default_rng(0).random((5, 7, 7, 1))
    first, second = parameters(transformation, 5, 1.0, False) * 1.3
    twice = apply(transformation, apply(transformation, x, second), first)
    once = apply(transformation, x, first + second)
    assert np.abs(twice - once).max() > 0.01
    assert not transformation.composes


def test_transformations_are_what_they_say():
    x = np.random.default_rng(0).random((1, 4, 5, 1))
    np.testing.assert_allclose(apply(Brightness(), x, 0.3), x + 0.3, rtol=1e-6)
    double = apply(Contrast(0.25), x, math.log(2))
    np.testing.assert_allclose(double, 0.25 + 2 * (x - 0.25), atol=1e-6)
    np.testing.assert_allclose(apply(Gamma(), x, math.log(2)), x**2, atol=1e-6)
    assert apply(Gamma(), 0 * x, 0.7).max() == 0
    rolled = np.roll(x, (1, -2), axis=(1, 2)).astype("float32")
    np.testing.assert_array_equal(apply(CyclicShift(), x, [1.3, -2.4]), rolled)
    moved = apply(InterpolatedTranslation(0.5), x, [1.0, 0.0])
    np.testing.assert_allclose(moved[:, 1:], x[:, :-1], atol=1e-6)
    np.testing.assert_allclose(moved[:, 0], 0.5)
    square = x[:, :, :4]
    turned = apply(InterpolatedRotation(), square, 90.0)
    np.testing.assert_allclose(turned, np.rot90(square, axes=(1, 2)), atol=1e-5)


def linear_model(weights, bar):
    """Class 1 where the product with `weights` is above `bar`."""
    model = keras.Sequential([keras.Input((len(weights),)), layers.Dense(2)])
    kernel = np.stack([np.zeros(len(weights)), weights], axis=1)
    model.set_weights([kernel, np.array([bar, 0.0])])
    return model


def test_brightness_radius_of_linear_models():
    """400 rows: above the true radius at most as often as α allows (1e-7)."""
    weights, bar, sigma, alpha = np.array([2.0, -0.5, 1.0]), 0.3, 0.4, 0.01
    smoothed = ParameterSmoothedClassifier(
        linear_model(weights, bar),
        Brightness(),
        sigma,
        n=2000,
        alpha=alpha,
    )
    x = np.random.default_rng(0).normal(size=(400, 3)).astype("float32")
    result = smoothed.predict(x, seed=0, verbose=0)
    score = x @ weights - bar
    truth = np.abs(score / weights.sum())
    label = result["label"]
    wrong = (label >= 0) & ((label != (score > 0)) | (result["radius"] > truth))
    assert wrong.sum() <= scipy.stats.binom.isf(1e-7, 400, alpha)
    # And near to it, where n allows: radii up to σ · Φ⁻¹(α^(1/n)) are possible.
    middle = (truth > 0.2) & (truth < 0.8)
    ratio = result["radius"][middle] / truth[middle]
    assert 0.7 < ratio.mean() < 1
    assert (result["guarantee"] == "certified").all()
    np.testing.assert_array_equal(result["certified"], result["radius"] > 0)


def test_contrast_radius_of_a_threshold():
    """The factor that brings the value to the bar: its logarithm is the radius."""
    bar, alpha = 0.75, 0.01
    smoothed = ParameterSmoothedClassifier(
        linear_model(np.array([1.0]), bar), Contrast(), 0.5, n=1000, alpha=alpha
    )
    x = np.linspace(0.55, 1.4, 300).astype("float32")[:, None]
    result = smoothed.predict(x, seed=1, verbose=0)
    truth = np.abs(np.log((bar - 0.5) / (x[:, 0].astype(float) - 0.5)))
    label = result["label"]
    wrong = (label >= 0) & ((label != (x[:, 0] > bar)) | (result["radius"] > truth))
    assert wrong.sum() <= scipy.stats.binom.isf(1e-7, 300, alpha)
    middle = (truth > 0.25) & (truth < 1)
    assert 0.7 < (result["radius"][middle] / truth[middle]).mean() < 1


def test_cyclic_shifts_within_the_radius_keep_the_label():
    """g itself, by the probabilities of all shifts, on every shift of every image."""
    size, sigma, alpha = 9, 0.8, 0.01
    # A bright pixel somewhere; class 1 where it is in 5 of the 9 columns.
    rng = np.random.default_rng(0)
    images = 0.02 * rng.random((12, size, size, 1)).astype("float32")
    images[np.arange(12), rng.integers(0, 9, 12), rng.integers(0, 9, 12)] = 1
    column = np.tile(np.cos(2 * np.pi * np.arange(size) / size), size)
    base = keras.Sequential(
        [
            keras.Input((size, size, 1)),
            layers.Flatten(),
            *linear_model(column, 0).layers,
        ]
    )
    places = list(itertools.product(range(size), repeat=2))
    rolled = np.stack([np.roll(images, p, axis=(1, 2)) for p in places], axis=1)
    outputs = base.predict(rolled.reshape(-1, size, size, 1), verbose=0)
    voted = outputs.argmax(1).reshape(12, size, size)
    # The probability of each shift modulo the size, in one dimension.
    k = np.arange(-20 * size, 20 * size)
    density = np.diff(scipy.stats.norm.cdf(np.append(k, k[-1] + 1) - 0.5, scale=sigma))
    density = np.bincount(k % size, weights=density)
    of_shifts = density[:, None] * density[None]
    # P(class 1) at the image shifted by γ.
    exact = np.zeros((12, size, size))
    for row, (a, b) in itertools.product(range(12), places):
        at = np.roll(voted[row], (-a, -b), axis=(0, 1))
        exact[row, a, b] = (of_shifts * at).sum()
    smoothed = ParameterSmoothedClassifier(
        base, CyclicShift(), sigma, n=4000, alpha=alpha
    )
    result = smoothed.predict(images, seed=0, verbose=0)
    # The votes follow the exact probability: 12 rows, 2e-9 each.
    here = exact[:, 0, 0]
    assert (result["votes"][:, 1] >= scipy.stats.binom.ppf(1e-9, 4000, here)).all()
    assert (result["votes"][:, 1] <= scipy.stats.binom.isf(1e-9, 4000, here)).all()
    checked = wrong = 0
    for row in range(12):
        bad = False
        for a, b in itertools.product(range(-3, 4), repeat=2):
            if result["label"][row] >= 0 and math.hypot(a, b) < result["radius"][row]:
                bad |= (exact[row, a, b] > 0.5) != result["label"][row]
                checked += (a, b) != (0, 0)
        wrong += bad
    assert wrong <= scipy.stats.binom.isf(1e-7, 12, alpha)
    assert checked > 30


def test_interpolated_families_are_heuristic():
    transformation = InterpolatedRotation()
    base = keras.Sequential([keras.Input((6, 6, 1)), layers.Flatten(), layers.Dense(2)])
    base.set_weights([np.zeros((36, 2)), np.array([0.0, 1.0])])
    smoothed = ParameterSmoothedClassifier(base, transformation, 2.0, n0=16, n=64)
    x = np.random.default_rng(0).random((5, 6, 6, 1), np.float32)
    results = [smoothed.predict(x, seed=0, verbose=0)]
    results.append(smoothed.predict_adaptively(x, seed=0, verbose=0))
    for result in results:
        assert (result["guarantee"] == "heuristic").all()
        assert not result["certified"].any()
        assert (result["label"] == 1).all() and (result["radius"] > 0).all()
    assert not ops.convert_to_numpy(smoothed(x[:1])["certified"]).any()
    values = smoothed.evaluate(x, np.ones(5), seed=0, verbose=0, return_dict=True)
    assert not any(name.startswith(("certified", "average_cert")) for name in values)
    assert values["smoothed_accuracy"] == 1 and values["abstention_rate"] == 0
    for metric in (lambda *a: certified_accuracy(*a, 0.0), average_certified_radius):
        with pytest.raises(ValueError, match="`results` must be certificates"):
            metric(results[0], np.ones(5, int))
    with pytest.raises(ValueError, match="`transformation` must compose"):
        smoothed.at_radius(1.0)


def test_other_ways_to_certify():
    weights, sigma = np.array([1.0, 1.0]), 0.4
    smoothed = ParameterSmoothedClassifier(
        linear_model(weights, 0.0), Brightness(), sigma, n=2000
    )
    x = np.array([[0.25, 0.25], [0.02, 0.02], [-0.3, -0.3]], "float32")
    adaptive = smoothed.predict_adaptively(x, seed=0, verbose=0)
    assert (adaptive["guarantee"] == "certified").all()
    assert (adaptive["radius"] <= np.abs(x[:, 0]) + 0.05).all()
    at_radius = smoothed.at_radius(0.1, alpha=0.05, max_samples=500)
    assert at_radius.perturbation.transformation is smoothed.transformation
    assert at_radius.kappa == pytest.approx(scipy.stats.norm.sf(0.25), rel=1e-6)
    values = smoothed.evaluate(x, [1, 1, 0], seed=0, verbose=0, return_dict=True)
    assert values["average_certified_radius"] > 0.15


def test_saving(tmp_path):
    smoothed = ParameterSmoothedClassifier(
        linear_model(np.ones(2), 0.1), Contrast(0.2), 0.3, n0=32, n=500, alpha=0.02
    )
    x = np.random.default_rng(0).random((4, 2), np.float32)
    result = smoothed.predict(x, seed=3, verbose=0)
    smoothed.save(tmp_path / "smoothed.keras")
    loaded = keras.saving.load_model(tmp_path / "smoothed.keras")
    assert isinstance(loaded.transformation, Contrast)
    assert (loaded.transformation.center, loaded.sigma, loaded.n) == (0.2, 0.3, 500)
    again = loaded.predict(x, seed=3, verbose=0)
    for name in result:
        np.testing.assert_array_equal(result[name], again[name])


def test_noise_for_training():
    noise = RandomTransformation(CyclicShift(), sigma=2.0)
    config = keras.saving.serialize_keras_object(noise)
    copy = keras.saving.deserialize_keras_object(config)
    x = np.random.default_rng(0).random((3, 5, 5, 1), np.float32)
    first, second = (ops.convert_to_numpy(n(x, seed=4)) for n in (noise, copy))
    np.testing.assert_array_equal(first, second)
    assert first.shape == x.shape and (first != x).any()
    np.testing.assert_allclose(np.sort(first.ravel()), np.sort(x.ravel()))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"transformation": "brightness"}, "`transformation` must be a Transformation"),
        ({"sigma": 0.0}, "`sigma` must be more than 0"),
        ({"n": 5}, "`n` must be large enough"),
        ({"bound": "both"}, "`bound` must be one of"),
        ({"model": print}, "`model` must be a keras.Model"),
    ],
)
def test_bad_arguments(arguments, message):
    arguments = {
        "model": linear_model(np.ones(2), 0.0),
        "transformation": Brightness(),
        "sigma": 0.3,
        **arguments,
    }
    with pytest.raises(ValueError, match=message):
        ParameterSmoothedClassifier(**arguments)


def test_bad_inputs():
    flat = linear_model(np.ones(2), 0.0)
    x = np.full((2, 2), 0.5, "float32")
    with pytest.raises(ValueError, match="CyclicShift transforms images"):
        ParameterSmoothedClassifier(flat, CyclicShift(), 1.0).predict(x, verbose=0)
    gamma = ParameterSmoothedClassifier(flat, Gamma(), 1.0, n=100)
    with pytest.raises(ValueError, match=r"valid input range clip=\(0.0, 1.0\)"):
        gamma.predict(-x, verbose=0)
