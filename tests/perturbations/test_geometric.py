"""Affine maps of images, against SciPy and by the coordinates they read.

Every Kolmogorov-Smirnov test alarms falsely with probability 1e-9 (the draws are
fixed, so they pass or fail for good).
"""

import numpy as np
import pytest
from keras import ops
from scipy import ndimage, stats

from keras_probcert import Affine, Rotation, Scale, Translation, row_seeds
from keras_probcert.perturbations import Noise, affine

RNG = np.random.default_rng


def resample(images, angle, zoom, right, down, fill_value=0.0):
    amounts = [np.float32(a).reshape(-1, 1, 1) for a in (angle, zoom, right, down)]
    images = ops.convert_to_tensor(images)
    return ops.convert_to_numpy(affine.resample(images, *amounts, fill_value))


def scipy_resample(image, angle, zoom, right, down, fill_value):
    """Rotates counter-clockwise as displayed, scales, then shifts.

    `grid-constant` blends into the constant between the outermost pixel and the
    first one outside; `constant` cuts there.
    """
    cos, sin = np.cos(angle), np.sin(angle)
    # (y, x) with y downwards: to the right of the centre turns to above it.
    forward = zoom * np.array([[cos, -sin], [sin, cos]])
    inverse = np.linalg.inv(forward)
    centre = (np.array(image.shape[:2]) - 1) / 2
    offset = centre - inverse @ (centre + [down, right])
    return np.stack(
        [
            ndimage.affine_transform(
                channel, inverse, offset, order=1, mode="grid-constant", cval=fill_value
            )
            for channel in np.moveaxis(image.astype(np.float64), -1, 0)
        ],
        axis=-1,
    )


@pytest.mark.parametrize("size", [(9, 14), (16, 7), (1, 5)], ids=str)
@pytest.mark.parametrize("fill_value", [0.0, 0.7])
def test_resampling_agrees_with_scipy(size, fill_value):
    rng = RNG(1)
    images = rng.random((40, *size, 3)).astype("float32")
    angle, zoom = rng.uniform(-np.pi, np.pi, 40), rng.uniform(0.4, 2, 40)
    right = rng.uniform(-1.2, 1.2, 40) * size[1]
    down = rng.uniform(-1.2, 1.2, 40) * size[0]
    got = resample(images, angle, zoom, right, down, fill_value)
    for i in range(40):
        want = scipy_resample(
            images[i], angle[i], zoom[i], right[i], down[i], fill_value
        )
        # Coordinates up to 50 pixels, in float32.
        np.testing.assert_allclose(got[i], want, rtol=0, atol=5e-5)


def test_shifts_agree_with_scipy():
    rng = RNG(2)
    images = rng.random((20, 8, 11, 3)).astype("float32")
    right, down = rng.uniform(-12, 12, (2, 20))
    got = resample(images, np.zeros(20), np.ones(20), right, down, 0.25)
    for i in range(20):
        want = ndimage.shift(
            images[i], (down[i], right[i], 0), order=1, mode="grid-constant", cval=0.25
        )
        np.testing.assert_allclose(got[i], want, rtol=0, atol=1e-5)


@pytest.mark.parametrize("right, down", [(0, 0), (3, 0), (0, -2), (-4, 5), (40, 1)])
def test_integer_shifts_are_exact(right, down):
    image = RNG(3).random((1, 8, 11, 3)).astype("float32")
    want = np.full_like(image, 0.5)
    height, width = image.shape[1:3]
    for y in range(height):
        for x in range(width):
            if 0 <= y - down < height and 0 <= x - right < width:
                want[0, y, x] = image[0, y - down, x - right]
    got = resample(image, 0, 1, right, down, 0.5)
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_quarter_turns_are_counter_clockwise(turns):
    image = RNG(4).random((1, 9, 9, 3)).astype("float32")
    got = resample(image, turns * np.pi / 2, 1, 0, 0)
    np.testing.assert_allclose(got[0], np.rot90(image[0], turns), rtol=0, atol=1e-5)


def test_zoom_above_one_enlarges():
    # One bright pixel in the middle grows to the pixels around it.
    image = np.zeros((1, 5, 5, 1), "float32")
    image[0, 2, 2] = 1
    assert resample(image, 0, 1.9, 0, 0)[0, 2, 3, 0] == pytest.approx(1 - 1 / 1.9)
    assert resample(image, 0, 0.9, 0, 0)[0, 2, 3, 0] == 0


HEIGHT, WIDTH = 9, 13


def amounts_read(perturbation, num_rows=10, num_copies=2000):
    """Angle (degrees), zoom, shifts (fractions), from the pixels of copies.

    Each pixel of the image holds its own coordinates, which bilinear
    interpolation keeps, so a copy says where its pixels came from.
    """
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype("float32")
    image = np.stack([y - (HEIGHT - 1) / 2, x - (WIDTH - 1) / 2], axis=-1)
    rows = ops.convert_to_tensor(np.tile(image, (num_rows, 1, 1, 1, 1)))
    noise = Noise(row_seeds(31, num_rows), num_copies)
    copies = ops.convert_to_numpy(perturbation.sample(rows, noise))
    copies = copies.reshape(-1, HEIGHT, WIDTH, 2).astype(np.float64)
    y, x = (HEIGHT - 1) // 2, (WIDTH - 1) // 2
    centre = copies[:, y, x]
    along_x = copies[:, y, x] - copies[:, y, x - 1]
    zoom = 1 / np.hypot(*along_x.T)
    angle = np.arctan2(along_x[:, 0], along_x[:, 1])
    # centre = -inverse @ shift
    cos, sin = np.cos(angle) * zoom, np.sin(angle) * zoom
    down = -(cos * centre[:, 0] - sin * centre[:, 1])
    right = -(sin * centre[:, 0] + cos * centre[:, 1])
    return np.degrees(angle), zoom, right / WIDTH, down / HEIGHT


@pytest.mark.parametrize(
    "make, translation, rotation, scale",
    [
        (lambda **a: Translation(0.3, **a), 0.3, 0, 0),
        (lambda **a: Rotation(35, **a), 0, 35, 0),
        (lambda **a: Scale(0.3, **a), 0, 0, 0.3),
        (lambda **a: Affine(0.15, 35, 0.2, **a), 0.15, 35, 0.2),
    ],
    ids=["Translation", "Rotation", "Scale", "Affine"],
)
def test_amounts_are_uniform_in_their_ranges(make, translation, rotation, scale):
    angle, zoom, right, down = amounts_read(make(clip=None))
    uniform = []
    for values, middle, half in (
        (angle, 0, rotation),
        (zoom, 1, scale),
        (right, 0, translation),
        (down, 0, translation),
    ):
        if not half:
            np.testing.assert_allclose(values, middle, rtol=0, atol=5e-4)
            continue
        assert np.abs(values - middle).max() <= half * (1 + 1e-4)
        law = stats.uniform(middle - half, 2 * half)
        assert stats.kstest(values, law.cdf).pvalue > 1e-9
        uniform.append(values)
    # At most 6 correlations of 6 sigma: 1e-8.
    correlation = np.corrcoef(np.atleast_2d(uniform)) - np.eye(len(uniform))
    assert np.abs(correlation).max() < 6 / np.sqrt(len(angle))


@pytest.mark.parametrize(
    "single, affine",
    [
        (Translation(0.3, fill_value=0.2), Affine(translation=0.3, fill_value=0.2)),
        (Rotation(35, fill_value=0.2), Affine(rotation=35, fill_value=0.2)),
        (Scale(0.3, fill_value=0.2), Affine(scale=0.3, fill_value=0.2)),
    ],
    ids=repr,
)
def test_each_is_an_affine_map(single, affine):
    images = RNG(5).random((6, 8, 11, 3)).astype("float32")
    np.testing.assert_array_equal(
        ops.convert_to_numpy(single(images, seed=1)),
        ops.convert_to_numpy(affine(images, seed=1)),
    )


@pytest.mark.parametrize(
    "perturbation", [Affine(), Translation(0), Rotation(0), Scale(0)], ids=repr
)
def test_amount_zero_gives_the_image_back(perturbation):
    images = RNG(5).random((6, 8, 11, 3)).astype("float32")
    np.testing.assert_array_equal(
        ops.convert_to_numpy(perturbation(images, seed=1)), images
    )


def test_outside_is_the_fill_value():
    images = np.zeros((50, 8, 11, 3), "float32")
    copies = ops.convert_to_numpy(Translation(0.9, fill_value=0.75)(images, seed=1))
    # Some corner came from outside, and only the frame blends.
    assert (copies == 0.75).any() and (copies == 0).any()
    assert copies.min() == 0 and copies.max() == 0.75
    white = np.full_like(images, 0.75)
    copies = ops.convert_to_numpy(Affine(0.9, 180, 0.5, fill_value=0.75)(white, seed=1))
    np.testing.assert_array_equal(copies, white)


@pytest.mark.parametrize(
    "perturbation", [Affine(0.1, 10, 0.1), Translation(0.1), Rotation(9), Scale(0.1)]
)
@pytest.mark.parametrize("shape", [(2, 5), (2, 5, 5), (2, 5, 5, 1, 1)], ids=str)
def test_only_images_are_accepted(perturbation, shape):
    name = type(perturbation).__name__
    with pytest.raises(ValueError, match=rf"{name} perturbs images.*{shape[-1]}"):
        perturbation(np.zeros(shape, "float32"), seed=0)
