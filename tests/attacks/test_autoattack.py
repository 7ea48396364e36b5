"""AutoAttack against the robust accuracy that linear models are known to have."""

import warnings

import keras
import numpy as np
import pytest

from keras_probcert.attacks import APGD, FAB, FGSM, PGD, AutoAttack, Deny

SHAPE = (4, 4, 1)
DUAL = {"linf": 1, "l2": 2, "l1": np.inf}


def linear(classes=5, activation=None):
    rng = np.random.default_rng(0)
    model = keras.Sequential(
        [
            keras.Input(SHAPE),
            keras.layers.Flatten(),
            keras.layers.Dense(classes, activation=activation),
        ]
    )
    kernel = rng.normal(size=(16, classes)).astype("float32")
    model.layers[-1].set_weights([kernel, np.zeros(classes, "float32")])
    return model


def network():
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [
            keras.Input(SHAPE),
            keras.layers.Flatten(),
            keras.layers.Dense(32, activation="relu"),
            keras.layers.Dense(5),
        ]
    )


def batch(model, rows):
    """Points far from the ends of the range, and the classes the model predicts."""
    x = np.random.default_rng(2).uniform(0.4, 0.6, (rows, *SHAPE)).astype("float32")
    return x, keras.ops.convert_to_numpy(model(x)).argmax(axis=1)


def right(model, x, y):
    return keras.ops.convert_to_numpy(model(x)).argmax(axis=1) == y


def distances(model, x, y, norm):
    """How far each row is from the nearest other class of a linear model."""
    kernel = model.layers[-1].get_weights()[0].astype("float64")
    z = x.reshape(len(x), -1).astype("float64") @ kernel
    gap = z[np.arange(len(x)), y][:, None] - z
    width = np.linalg.norm(kernel[:, y].T[:, :, None] - kernel, DUAL[norm], axis=1)
    with np.errstate(invalid="ignore"):
        ratio = gap / width
    ratio[np.arange(len(x)), y] = np.inf
    return ratio.min(axis=1)


@pytest.mark.parametrize(
    ("norm", "arguments"),
    [
        ("linf", {}),
        ("l2", {"version": "custom", "attacks": ["apgd-ce", "fab-t"]}),
        ("l1", {"version": "custom", "attacks": ["apgd-t", "fab-t"]}),
    ],
)
def test_a_linear_model_s_robust_accuracy(norm, arguments):
    model = linear()
    x, y = batch(model, 400)
    distance = distances(model, x, y, norm)
    # In a ball inside the range, about half of the rows are robust.
    epsilon = min(float(np.median(distance)), 0.39)
    assert 0.1 < (distance > epsilon).mean() < 0.9
    found = AutoAttack(norm, epsilon, **arguments)(model, x, y, seed=0)
    robust = right(model, found, y)
    # No row may fall that is out of reach; 0.5 points may stand that are not.
    assert robust[distance > epsilon * 1.0001].all()
    assert robust.mean() - (distance > epsilon).mean() <= 0.005


def test_no_part_alone_does_better():
    model = network()
    x, y = batch(model, 60)
    attack = AutoAttack("linf", 0.05)
    robust = right(model, attack(model, x, y, seed=3), y)
    assert 0 < robust.sum() < 60
    for _, part in attack.parts:
        alone = right(model, part(model, x, y, seed=3), y)
        assert not (robust & ~alone).any()


def test_apgd_is_no_weaker_than_pgd():
    model = network()
    x, y = batch(model, 400)
    attacks = (APGD(0.08, steps=100), PGD(0.08, steps=100))
    apgd, pgd = (
        np.mean([right(model, a(model, x, y, seed=s), y) for s in range(3)])
        for a in attacks
    )
    assert 0.1 < pgd < 0.9
    assert apgd <= pgd + 0.01


def test_a_softmax_is_attacked_at_its_logits_and_said():
    x, y = batch(linear(), 8)
    attack = AutoAttack("linf", 0.05, "custom", attacks=["apgd-ce"])
    with pytest.warns(UserWarning, match="softmax"):
        found = attack(linear(activation="softmax"), x, y, seed=0)
    np.testing.assert_array_equal(found, attack(linear(), x, y, seed=0))


def test_parts_that_need_more_classes_are_left_out_and_said():
    model = linear(classes=2)
    x, y = batch(model, 40)
    distance = distances(model, x, y, "linf")
    epsilon = float(np.median(distance))
    attack = AutoAttack(
        "linf", epsilon, "custom", attacks=["apgd-ce", "apgd-dlr", "apgd-t"]
    )
    with pytest.warns(UserWarning, match="apgd-dlr needs 3.*apgd-t needs 4"):
        found = attack(model, x, y, seed=0)
    np.testing.assert_array_equal(right(model, found, y), distance > epsilon)
    with pytest.raises(ValueError, match="apgd-t needs 4"):
        AutoAttack(version="custom", attacks=["apgd-t"])(model, x, y)


def test_a_model_that_draws_is_worth_a_warning():
    model = keras.Sequential([keras.Input(SHAPE), Noisy(), *linear().layers])
    x, y = batch(linear(), 4)
    attack = AutoAttack("linf", 0.05, "custom", attacks=["apgd-ce"])
    with pytest.warns(UserWarning, match="rand"):
        attack(model, x, y, seed=0)


class Noisy(keras.layers.Layer):
    """Draws in inference too."""

    def __init__(self):
        super().__init__()
        self.seeds = keras.random.SeedGenerator(0)

    def call(self, x):
        return x + 0.1 * keras.random.normal((4, *SHAPE), seed=self.seeds)


def test_settings_are_the_original_s():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parts = dict(AutoAttack("linf", 0.1).parts)
        assert list(parts) == ["apgd-ce", "apgd-t", "fab-t", "square"]
        assert parts["apgd-ce"].steps == parts["fab-t"].steps == 100
        assert parts["square"].queries == 5000
        sparse = dict(AutoAttack("l1", 10.0).parts)
        assert sparse["apgd-ce"].restarts == 5 and sparse["apgd-ce"].large_radii
        assert sparse["apgd-t"].targets == 5
        plus = dict(AutoAttack("l1", 10.0, "plus").parts)
        assert plus["apgd-ce"].restarts == plus["fab"].restarts == 5
        assert plus["apgd-t"].targets == 9
        assert not any(plus[f"apgd-{kind}"].large_radii for kind in ("ce", "dlr", "t"))
        rand = dict(AutoAttack(version="rand").parts)
        assert [a.eot_iter for a in rand.values()] == [20, 20]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epsilon": 0}, "`epsilon`.*above 0"),
        ({"norm": "l3"}, "`norm`.*l3"),
        ({"version": "fast"}, "`version`.*fast"),
        ({"version": "custom"}, "`attacks`.*None"),
        ({"attacks": ["fab"]}, "`attacks`.*custom"),
        ({"version": "custom", "attacks": ["pgd"]}, "`attacks`.*pgd"),
        ({"version": "custom", "attacks": [FGSM(0.1, clip=None)]}, "`attacks`.*clip"),
        ({"version": "custom", "attacks": [FAB(epsilon=0.5)]}, "`attacks`.*0.5"),
        (
            {"version": "custom", "attacks": [Deny(epsilon=0.1)], "clip": None},
            "`attacks`.*not a certificate.*Deny",
        ),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        AutoAttack(**{"epsilon": 0.1, **arguments})
