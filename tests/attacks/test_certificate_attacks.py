"""Attacks on a certificate against votes that are known in closed form."""

import keras
import numpy as np
import pytest
from scipy import special, stats

from keras_probcert import L1, L2, CertifiedPredictor, Gaussian, LInf, models, row_seeds
from keras_probcert.attacks import (
    Deny,
    Forge,
    SmoothedPGD,
    VoteSearch,
    evaluate_attack,
    goals,
)
from keras_probcert.backend import input_gradient
from keras_probcert.perturbations import Rotation

SIGMA, EPSILON, SIZE = 0.5, 0.1, 9
WEIGHT = np.random.default_rng(0).normal(size=SIZE).astype("float32")
# How far, in standard deviations of the noise, the ball reaches.
REACH = EPSILON * np.abs(WEIGHT).sum() / (SIGMA * np.linalg.norm(WEIGHT))


def half_space(*last):
    """Class 1 where `WEIGHT @ x` is positive."""
    model = keras.Sequential([keras.Input((SIZE,)), keras.layers.Dense(2), *last])
    kernel = np.stack([np.zeros_like(WEIGHT), WEIGHT], axis=1)
    model.layers[0].set_weights([kernel, np.zeros(2, "float32")])
    return model


def at(margins):
    """Points at which class 1 has the probability Φ(margin) under the noise."""
    direction = WEIGHT / np.linalg.norm(WEIGHT)
    offset = np.random.default_rng(1).normal(size=(len(margins), SIZE))
    offset -= offset @ direction[:, None] * direction
    return (offset + SIGMA * np.array(margins)[:, None] * direction).astype("float32")


def margins(x):
    return x.astype("float64") @ WEIGHT / (SIGMA * np.linalg.norm(WEIGHT))


@pytest.fixture(scope="module")
def certified():
    return CertifiedPredictor(half_space(), Gaussian(SIGMA, clip=None), kappa=0.05)


def arguments(**changes):
    given = {"num_samples": 8, "steps": 20, "restarts": 2, "check_samples": 64}
    return {**given, "epsilon": EPSILON, **changes}


def test_the_most_wrong_votes_in_the_ball(certified):
    # Every draw has its gradient along the weight, so the corner is the answer.
    x, y = at([0.3, 2.0, -0.4]), np.array([1, 1, 0])
    found = SmoothedPGD(**arguments())(certified, x, y, seed=0)
    sign = np.where(y == 1, -1, 1)[:, None]
    np.testing.assert_allclose(found, x + sign * EPSILON * np.sign(WEIGHT), atol=1e-6)
    # A row that is wrong beforehand goes on from there.
    wrong = SmoothedPGD(**arguments())(certified, x[:1], [0], seed=0)
    np.testing.assert_allclose(wrong, x[:1] + EPSILON * np.sign(WEIGHT), atol=1e-6)


def test_denial_ends_where_the_classes_are_even(certified):
    x = at([0.7 * REACH, -0.5 * REACH, 2.0 * REACH])
    attack = Deny(**arguments(num_samples=100, check_samples=500))
    left = np.abs(margins(attack(certified, x, [1, 0, 1], seed=0)))
    # A hundred draws tell which side they are on from 0.1 on, a step is 0.06.
    assert (left[:2] < 0.15).all()
    np.testing.assert_allclose(left[2], REACH, rtol=1e-5)


def test_a_forgery_where_there_can_be_one(certified):
    # Votes for the wrong class at the corner: 0.9999, and 0.8.
    certain, hopeless = stats.norm.ppf([0.9999, 0.8])
    x, y = at([REACH - certain, REACH - hopeless]), np.array([1, 1])
    for agreement, expected in ((0.9999, 1), (0.8, 0)):
        certify = certified.test.operating_characteristics(agreement)["certify"]
        assert abs(certify - expected) < 1e-6
    attack = Forge(**arguments())
    result = evaluate_attack(certified, attack, x, y, seed=0, verbose=0)
    np.testing.assert_array_equal(result.forged, [True, False])
    np.testing.assert_allclose(margins(result.x_adv), [-certain, -hopeless], rtol=1e-4)


@pytest.mark.parametrize("goal", ["misclassify", "deny"])
def test_votes_alone_are_enough(goal):
    """A model of the same votes whose gradient is zero everywhere."""
    step = keras.layers.Lambda(keras.ops.sign)
    certified = CertifiedPredictor(half_space(step), Gaussian(SIGMA, clip=None))
    x, y = at([0.6 * REACH, 2.0 * REACH]), np.array([1, 1])
    attack = VoteSearch(goal, num_samples=200, steps=150, epsilon=EPSILON)
    left = margins(attack(certified, x, y, seed=0))
    if goal == "deny":
        assert abs(left[0]) < 0.3 * REACH
    else:
        assert left[0] < -0.2 * REACH
    assert left[1] < 1.2 * REACH
    with pytest.warns(UserWarning, match="gradient of the logits is zero"):
        SmoothedPGD(**arguments(steps=1))(certified, x, y)


def test_squares_on_images(image_batch):
    """Class 1 is a mean above ½; the noise of the mean has a deviation of 0.01."""
    x, _ = image_batch
    model = keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(2),
        ]
    )
    kernel = np.stack([np.zeros(36), np.full(36, 1.0)], axis=1)
    model.set_weights([kernel, np.array([0.0, -18.0])])
    certified = CertifiedPredictor(model, LInf(0.1, clip=None))
    # Up to one standard deviation of the noise's mean from the boundary.
    x += np.linspace(-0.01, 0.01, 8).reshape(-1, 1, 1, 1) - x.mean(
        (1, 2, 3), keepdims=True
    )
    x += 0.5
    y = (x.mean(axis=(1, 2, 3)) > 0.5).astype(int)
    attack = VoteSearch(num_samples=100, steps=100, epsilon=0.02)
    found = attack(certified, x, y, seed=0)
    moved = (found - x).mean(axis=(1, 2, 3)) * np.where(y == 1, -1, 1)
    assert (moved > 0.5 * 0.02).all()


def log_mean_probability(logits, y):
    p = special.softmax(logits, axis=2)
    return np.log(p[np.arange(len(y)), :, y].mean(axis=1))


def harmonic(logits, y):
    p = special.softmax(logits, axis=2)
    return -np.log((1 / p[np.arange(len(y)), :, y]).mean(axis=1))


def largest(logits, y):
    p = special.softmax(logits, axis=2).mean(axis=1)
    return -np.log(p.max(axis=1))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("misclassify", lambda *given: -log_mean_probability(*given)),
        ("deny", largest),
        ("forge", harmonic),
    ],
)
@pytest.mark.tensorflow  # JAX has no float64 unless it is switched on.
def test_values_and_gradients_against_numpy(name, expected):
    rng = np.random.default_rng(3)
    logits, y = 3 * rng.normal(size=(4, 5, 6)), np.array([0, 3, 5, 2])
    goal = goals.get(name)
    tensor = keras.ops.convert_to_tensor(logits)
    value = keras.ops.convert_to_numpy(goal.value(tensor, y))
    np.testing.assert_allclose(value, expected(logits, y), rtol=1e-12)
    gradient = input_gradient(lambda logits: goal.value(logits, y), tensor)
    step = 1e-6
    for place in np.ndindex(5, 6):
        moved = np.zeros((5, 6))
        moved[place] = step
        slope = expected(logits + moved, y) - expected(logits - moved, y)
        np.testing.assert_allclose(
            gradient[:, place[0], place[1]], slope / (2 * step), atol=1e-8
        )


def test_gradients_do_not_vanish_where_the_model_is_sure():
    logits = np.zeros((1, 2, 3), "float32")
    logits[0, :, 1] = 40.0, 42.0
    gradient = input_gradient(
        lambda logits: goals.get("misclassify").value(logits, np.array([1])),
        keras.ops.convert_to_tensor(logits),
    )
    # (1 − p) / m for the class itself, p of the others over m.
    other = np.exp(-np.array([40.0, 42.0])) / 2
    expected = np.stack([other, -2 * other, other], axis=1)[None]
    np.testing.assert_allclose(gradient, expected, rtol=1e-5)


def test_the_mean_softmax_is_not_the_mean_cross_entropy():
    """One draw that is very wrong is one vote; four a little wrong are four."""
    one, four = np.zeros((2, 1, 4, 2), "float32")
    one[0, :, 0] = 5.0, 5.0, 5.0, -100.0
    four[0, :, 0] = -1.0
    y = np.array([0])
    goal = goals.get("misclassify")
    cross_entropies = [np.logaddexp(0, -z[0, :, 0]).mean() for z in (one, four)]
    values = [float(goal.value(z, y)[0]) for z in (one, four)]
    assert cross_entropies[0] > cross_entropies[1]
    assert values[0] < values[1]
    np.testing.assert_allclose(values[1], np.log1p(np.e), rtol=1e-5)


def test_scores():
    frequencies = keras.ops.convert_to_tensor([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]])
    for name, expected in (
        ("misclassify", [-0.5, 0.3]),
        ("deny", [-0.7, -0.6]),
        ("forge", [0.2, 0.6]),
    ):
        score = goals.get(name).score(frequencies, np.array([0, 1]))
        np.testing.assert_allclose(score, expected, atol=1e-6)


@pytest.fixture(scope="module")
def classifier():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            keras.layers.Conv2D(4, 3, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(5, activation="softmax"),
        ]
    )


@pytest.mark.parametrize(
    "attack",
    [
        SmoothedPGD(4, 5, 2, check_samples=32),
        Deny(4, 5, 2, check_samples=32),
        Forge(4, 5, 5, check_samples=32),
        VoteSearch("forge", num_samples=8, steps=10, check_samples=32),
    ],
    ids=lambda attack: type(attack).__name__,
)
def test_rows_have_nothing_to_do_with_each_other(classifier, image_batch, attack):
    x, y = image_batch[0][:4], np.arange(4)
    certified = CertifiedPredictor(classifier, LInf(0.1))
    whole = attack(certified, x, y, seed=3)
    assert 0.09 < np.abs(whole - x).max() <= 0.1
    assert 0 <= whole.min() and whole.max() <= 1
    np.testing.assert_array_equal(whole, attack(certified, x, np.eye(5)[y], seed=3))
    # In passes of two rows.
    small = CertifiedPredictor(classifier, LInf(0.1), forward_batch_size=32)
    np.testing.assert_allclose(whole, attack(small, x, y, seed=3), atol=1e-6)
    seeds = row_seeds(3, 2, first_row=2)
    part = attack(small, x[2:], y[2:], seed=seeds)
    np.testing.assert_allclose(whole[2:], part, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "vicinity", "given", "norm"),
    [
        (SmoothedPGD, L2(0.5), {}, "l2"),
        (VoteSearch, L1(2.0), {}, "l1"),
        (VoteSearch, Gaussian(0.25), {"epsilon": 0.1}, "linf"),
        (SmoothedPGD, LInf(0.3), {"epsilon": 0.5, "norm": "l2"}, "l2"),
    ],
)
def test_balls(classifier, image_batch, kind, vicinity, given, norm):
    """`evaluate_attack` raises if a point is outside the ball or the range."""
    x, y = image_batch[0][:3].astype("float16"), np.arange(3)
    certified = CertifiedPredictor(classifier, vicinity, kappa=0.3)
    attack = kind(num_samples=4, steps=6, check_samples=16, **given)
    epsilon = given.get("epsilon") or vicinity.epsilon
    result = evaluate_attack(
        certified, attack, x, y, 0, verbose=0, epsilon=epsilon, norm=norm, clip=(0, 1)
    )
    assert result.x_adv.dtype == "float16"
    order = {"linf": np.inf, "l2": 2, "l1": 1}[norm]
    step = (result.x_adv.astype("float64") - x).reshape(3, -1)
    assert np.linalg.norm(step, order, axis=1).max() > 0.3 * epsilon


@pytest.mark.parametrize("known", [False, True])
def test_known_draws(certified, known):
    """They are those that the predictor votes with, and otherwise others.

    60 rows of 16 coins agree by chance with probability below 1e-40.
    """
    x = at(np.zeros(60))
    seeds = row_seeds(5, 60)
    result = certified.predict(x, seed=seeds, verbose=0)
    attack = SmoothedPGD(known_seed=known, epsilon=EPSILON)._bound_to(certified)
    count = int(result["num_samples"].max())
    logits = attack._draw(models.logits(certified.base_model), seeds, x, 0, count)
    votes = keras.ops.convert_to_numpy(logits)[..., 1] > 0
    taken = np.arange(count) < result["num_samples"][:, None]
    same = (votes & taken).sum(axis=1) == result["votes"][:, 1]
    assert same.all() == known
    assert (int(attack.first_draw(1, 3)) == 0) == known


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    "attack",
    [
        SmoothedPGD(3, 4, 2, epsilon=0.1, check_samples=40),
        Forge(3, 4, 2, epsilon=0.1, check_samples=40),
        VoteSearch(num_samples=3, steps=4, epsilon=0.1, check_samples=40),
    ],
    ids=lambda attack: type(attack).__name__,
)
def test_passes_are_what_the_base_model_sees(attack):
    class Counter(keras.layers.Layer):
        def build(self, shape):
            self.seen = self.add_weight(shape=(), dtype="int32", initializer="zeros")

        def call(self, x):
            self.seen.assign_add(keras.ops.shape(x)[0])
            return x

    counter = Counter(trainable=False)
    base = keras.Sequential(
        [keras.Input((SIZE,)), counter, keras.layers.Dense(3, trainable=False)]
    )
    certified = CertifiedPredictor(base, LInf(0.1, clip=None))
    x, y = at([0.0, 1.0]), np.array([1, 1])
    attack(certified, x, y, seed=0)
    counter.seen.assign(0)
    attack(certified, x, y, seed=0)
    # Two rows more tell whether there are gradients.
    assert int(counter.seen) == 2 * attack.passes[0] + 2 * attack.uses_gradients


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        (SmoothedPGD, {"epsilon": 0}, "`epsilon`.*above 0"),
        (Deny, {"epsilon": -1.0}, "`epsilon`.*-1"),
        (Forge, {"restarts": 0}, "`restarts`.*0"),
        (Deny, {"num_samples": 0}, "`num_samples`.*0"),
        (VoteSearch, {"steps": 0}, "`steps`.*0"),
        (SmoothedPGD, {"check_samples": 0}, "`check_samples`.*0"),
        (SmoothedPGD, {"norm": "l3"}, "`norm`.*l3"),
        (SmoothedPGD, {"known_seed": 1}, "`known_seed`.*1"),
        (SmoothedPGD, {"step_size": -0.1}, "`step_size`.*-0.1"),
        (Forge, {"step_size": 0.0}, "`step_size`.*above 0"),
        (VoteSearch, {"goal": "win"}, "`goal`.*win"),
        (VoteSearch, {"share": 0}, "`share`.*0"),
    ],
)
def test_bad_arguments(kind, changes, message):
    with pytest.raises(ValueError, match=message):
        kind(**changes)


@pytest.mark.parametrize(
    ("vicinity", "given"),
    [
        (Gaussian(0.25), {}),
        (Rotation(35), {}),
        (LInf(0.0), {}),
        (LInf(0.1), {"norm": "l2"}),
    ],
)
def test_bad_balls(classifier, image_batch, vicinity, given):
    x, y = image_batch[0], np.zeros(8, int)
    certified = CertifiedPredictor(classifier, vicinity)
    message = f"`epsilon` must be given.*{type(vicinity).__name__}"
    with pytest.raises(ValueError, match=message):
        SmoothedPGD(**given)(certified, x, y)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": np.full((2, 6, 6, 1), 1.5, "float32")}, "`x`.*clip.*1.5"),
        ({"y": [0, 5]}, "`y`.*classes 0 to 4.*5"),
        ({"batch_size": 0}, "`batch_size`.*0"),
        ({"seed": 0.5}, "`seed`"),
    ],
)
def test_bad_calls(classifier, changes, message):
    certified = CertifiedPredictor(classifier, LInf(0.1))
    given = {"x": np.zeros((2, 6, 6, 1), "float32"), "y": [0, 1], **changes}
    with pytest.raises(ValueError, match=message):
        Deny()(certified, **given)
    with pytest.raises(ValueError, match="`model`.*CertifiedPredictor for Deny"):
        Deny()(classifier, **given)


def threshold(shape, at, weight, bias):
    """Class 1 by the inputs `at`, with their weights."""
    size = int(np.prod(shape))
    model = keras.Sequential(
        [keras.Input(shape), keras.layers.Flatten(), keras.layers.Dense(2)]
    )
    kernel = np.zeros((size, 2), "float32")
    kernel[at, 1] = weight
    model.set_weights([kernel, np.array([0, bias], "float32")])
    return model


def test_steps_in_l1_leave_a_coordinate_without_room():
    # The largest gradient is that of the first coordinate, which is at its end.
    model = threshold((4,), [0, 1], [-30, -3], 31.6)
    certified = CertifiedPredictor(model, Gaussian(0.02), kappa=0.1)
    x = np.array([[1, 0.2, 0.5, 0.5]], "float32")
    attack = SmoothedPGD(restarts=1, steps=50, norm="l1", epsilon=0.6)
    found = attack(certified, x, [1], seed=0)
    np.testing.assert_allclose(found[0, 1], 0.8, atol=0.02)
    assert certified.predict(x, seed=0, verbose=0)["label"] == 1
    assert certified.predict(found, seed=0, verbose=0)["label"] == 0


@pytest.mark.parametrize("shape", [(8, 8, 1), (20,)])
@pytest.mark.parametrize(("norm", "epsilon"), [("l1", 1.0), ("l2", 0.7)])
def test_votes_find_the_one_coordinate_that_counts(shape, norm, epsilon):
    # Far from what each coordinate has where all of them share the ball.
    model = threshold(shape, 11, 40, -20)
    certified = CertifiedPredictor(model, Gaussian(0.05, clip=None), kappa=0.1)
    x = np.full((4, *shape), 0.8, "float32")
    y = np.ones(4, int)
    attack = VoteSearch(norm=norm, epsilon=epsilon, restarts=2, steps=400)
    found = attack(certified, x, y, seed=0)
    length = np.linalg.norm((found - x).reshape(4, -1), int(norm[1]), axis=1)
    assert (length <= epsilon + 1e-5).all()
    assert (certified.predict(found, seed=0, verbose=0)["label"] == 0).all()
