"""Splitting noise: counts and certificates against going through everything."""

import itertools

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_probcert.certifiers.splitting_noise import (
    SplittingNoise,
    SplittingSmoothedClassifier,
)
from keras_probcert.metrics import certified_accuracy


def wild_model(features, classes=3, frequency=20.0):
    """A base whose class changes between any two inputs."""
    model = keras.Sequential(
        [
            keras.Input((features,)),
            layers.Dense(16, activation=ops.sin),
            layers.Dense(classes),
        ]
    )
    rng = np.random.default_rng(3)
    kernel = rng.normal(size=(features, 16)) * frequency
    model.layers[0].set_weights([kernel, rng.normal(size=16)])
    model.layers[1].set_weights([rng.normal(size=(16, classes)), np.zeros(classes)])
    return model


def grid(features, levels):
    points = itertools.product(range(levels), repeat=features)
    return np.array(list(points), "float32") / np.float32(levels - 1)


def split_by_the_paper(x, shifts, width):
    """Equation of theorem 2, in float64, for `s_i` in [0, 2λ]."""
    steps = np.ceil((x - shifts) / (2 * width))
    upper = np.minimum(2 * width * steps + shifts, 1)
    lower = np.maximum(2 * width * (steps - 1) + shifts, 0)
    return (upper + lower) / 2


def votes_by_hand(model, x, noise, classes):
    """Each value of the noise by itself, on float64 inputs."""
    q, n = noise.levels - 1, noise.num_shifts
    words = np.random.Philox(key=noise.seed).random_raw(x[0].size)
    fixed = (words % np.uint64(n)).astype(int).reshape(x[0].shape)
    votes = np.zeros((len(x), classes), int)
    for s in range(n):
        shifts = ((s + fixed) % n + 0.5) / q
        copies = split_by_the_paper(np.round(x * q) / q, shifts, noise.width)
        outputs = ops.convert_to_numpy(model(copies.astype("float32")))
        votes[np.arange(len(x)), outputs.argmax(1)] += 1
    return votes


@pytest.mark.parametrize(("width", "levels"), [(0.25, 5), (1.0, 5), (0.7, 256)])
def test_votes_are_exact(width, levels):
    model = wild_model(6, frequency=2.0)
    if levels == 256:
        width = 357 / 510
    smoothed = SplittingSmoothedClassifier(model, width, levels, seed=4)
    x = np.random.default_rng(0).integers(0, levels, (40, 6)) / (levels - 1)
    result = smoothed.predict(x.astype("float32"), verbose=0)
    votes = votes_by_hand(model, x, smoothed.perturbation, 3)
    np.testing.assert_array_equal(result["votes"], votes)
    np.testing.assert_array_equal(result["label"], votes.argmax(1))
    n = round(2 * width * (levels - 1))
    assert (votes.sum(1) == n).all() and (result["num_samples"] == n).all()
    assert (result["procedure"] == "exact").all()
    # λ (p_A − p_B), less at most half a level for a rival that wins ties.
    first, second = np.sort(votes / n)[:, :-3:-1].T
    np.testing.assert_allclose(result["lower_bound"], first, rtol=1e-6)
    np.testing.assert_allclose(result["upper_bound"], second, rtol=1e-6)
    short = width * (first - second) - result["radius"]
    assert (-1e-6 < short).all() and (short < 0.5 / (levels - 1) + 1e-6).all()
    assert (result["radius"] > 0).any()
    np.testing.assert_array_equal(result["certified"], result["radius"] > 0)


@pytest.mark.parametrize(
    ("features", "levels", "shifts", "reached"),
    [
        (1, 12, 5, True),
        (1, 12, 22, False),
        (2, 7, 3, True),
        (2, 7, 20, False),
        (3, 4, 7, True),
    ],
)
def test_certificate_holds_on_the_whole_grid(features, levels, shifts, reached):
    """Every quantized input within the radius has the label."""
    x, q = grid(features, levels), levels - 1
    distance = np.abs(x[:, None] - x[None]).sum(axis=2).astype(float)
    positive = tight = 0
    for frequency in (0.3, 5.0):
        model = wild_model(features, frequency=frequency)
        smoothed = SplittingSmoothedClassifier(model, shifts / (2 * q), levels)
        result = smoothed.predict(x, verbose=0)
        label, radius = result["label"], result["radius"]
        inside = distance <= radius[:, None] + 1e-6
        assert (~inside | (label[:, None] == label[None])).all()
        other = np.where(label[:, None] != label[None], distance, np.inf).min(axis=1)
        positive += (radius >= 1 / q - 1e-6).sum()
        tight += (other <= radius + 1 / q + 1e-6).sum()
    assert positive > 0
    # Where the label changes at all, it does so one step beyond some radius.
    assert (tight > 0) == reached


def test_first_class_wins_ties():
    """A class of higher number must lead by one vote more."""
    model = keras.Sequential([keras.Input((1,)), layers.Dense(2)])
    # Class 1 where the middle of the piece is above 1/2.
    model.set_weights([np.array([[0.0, 1.0]]), np.array([0.5, 0.0])])
    smoothed = SplittingSmoothedClassifier(model, 3 / 6, 4)
    result = smoothed.predict(grid(1, 4), verbose=0)
    # The 3 cuts lie at 1/6, 1/2 and 5/6: the middles are on either side of them.
    assert result["votes"].tolist() == [[3, 0], [2, 1], [1, 2], [0, 3]]
    assert result["label"].tolist() == [0, 0, 1, 1]
    # Class 0 would win with equal votes, so 2/3 has no radius and 1/3 has.
    np.testing.assert_allclose(result["radius"] * 6, [3, 1, 0, 2], rtol=1e-6)
    y = result["label"]
    values = smoothed.evaluate(grid(1, 4), y, verbose=0, return_dict=True)
    assert values["certified_accuracy"] == certified_accuracy(result, y, 0.0) == 0.75


def test_noise_for_training_is_among_the_values():
    noise = SplittingNoise(0.5, levels=5, seed=1)
    x = np.tile(grid(2, 5), (40, 1))
    drawn = ops.convert_to_numpy(noise(x, seed=3))
    every = noise.split(ops.convert_to_tensor(x)[:, None], np.tile(range(4), (1000, 1)))
    every = ops.convert_to_numpy(every)
    found = (drawn[:, None] == every).all(axis=2)
    assert found.any(axis=1).all()
    # Each of them is drawn: a fourth each, within 6 standard deviations (3e-9 each).
    share = np.mean([(drawn == every[:, s]).all(axis=1) for s in range(4)], axis=1)
    assert np.abs(share - 0.25).max() < 6 * np.sqrt(0.25 * 0.75 / 1000)


def test_rows_do_not_depend_on_batches_or_seeds():
    model = wild_model(4)
    smoothed = SplittingSmoothedClassifier(model, 1.0, 9, forward_batch_size=32)
    x = grid(4, 9)[::97]
    whole = smoothed.predict(x, verbose=0, seed=1)
    parts = smoothed.predict(x, batch_size=7, verbose=0, seed=2)
    for name in whole:
        np.testing.assert_array_equal(whole[name], parts[name])


def test_other_values_are_refused():
    smoothed = SplittingSmoothedClassifier(wild_model(2), 0.5, 5)
    x = grid(2, 5)
    x[3, 1] = 0.1
    with pytest.raises(ValueError, match="`x` must hold the levels 0, 1/4.*1 rows"):
        smoothed.predict(x, verbose=0)
    # In a graph that one row gets no certificate.
    result = {k: ops.convert_to_numpy(v) for k, v in smoothed(x).items()}
    refused = np.arange(len(x)) == 3
    np.testing.assert_array_equal(result["label"] < 0, refused)
    assert result["radius"][3] == 0 and not result["certified"][3]
    with pytest.raises(ValueError, match="valid input range"):
        smoothed.predict(x * 2, verbose=0)
    # What float32 makes of 8-bit images is quantized.
    images = np.arange(256, dtype="uint8").reshape(128, 2)
    eight_bit = SplittingSmoothedClassifier(wild_model(2), 0.5)
    for scaled in (images.astype("float32") / 255, images * np.float32(1 / 255)):
        assert (eight_bit.predict(scaled, verbose=0)["label"] >= 0).all()


def test_outputs_that_are_not_finite_do_not_vote():
    model = wild_model(2)
    weights = model.get_weights()
    model.set_weights([*weights[:3], np.full(3, np.nan)])
    result = SplittingSmoothedClassifier(model, 0.5, 5).predict(grid(2, 5), verbose=0)
    assert (result["label"] == -1).all() and (result["radius"] == 0).all()
    assert not result["certified"].any() and (result["votes"] == 0).all()


def test_evaluate_and_saving(tmp_path):
    smoothed = SplittingSmoothedClassifier(wild_model(2, frequency=1.0), 0.5, 5, seed=7)
    x, y = grid(2, 5), np.arange(25) % 3
    result = smoothed.predict(x, verbose=0)
    values = smoothed.evaluate(x, y, verbose=0, return_dict=True)
    right = (result["label"] == y) & result["certified"]
    assert values["certified_accuracy"] == pytest.approx(right.mean())
    assert values["average_certified_radius"] == pytest.approx(
        (right * result["radius"]).mean()
    )
    smoothed.save(tmp_path / "smoothed.keras")
    loaded = keras.saving.load_model(
        tmp_path / "smoothed.keras", custom_objects={"sin": ops.sin}
    )
    again = loaded.predict(x, verbose=0)
    for name in result:
        np.testing.assert_array_equal(result[name], again[name])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"width": 0.0}, "`width` must be a multiple of 1 / 510"),
        ({"width": 0.5005}, "`width` must be a multiple.*width=0.5005"),
        ({"width": -1}, "`width` must be a finite number"),
        ({"levels": 1}, "`levels` must be an integer of at least 2"),
        ({"seed": -1}, "`seed` must be an integer of at least 0"),
        ({"model": print}, "`model` must be a keras.Model"),
    ],
)
def test_bad_arguments(arguments, message):
    arguments = {"model": wild_model(2), "width": 0.5, **arguments}
    with pytest.raises(ValueError, match=message):
        SplittingSmoothedClassifier(**arguments)
