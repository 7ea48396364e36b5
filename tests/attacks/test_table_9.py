"""The attacks of Table 9: each meets its own constraint and helps itself."""

import keras
import numpy as np
import pytest

from keras_probcert import attacks
from keras_probcert.attacks import TABLE_9, losses

# The norm of each attack's ball; the others move pixels or the whole range.
NORMS = {name: np.inf for name in TABLE_9} | {"PGDL2": 2}
UNBOUNDED = ("CW", "GaussianNoise", "OnePixel", "Pixle")
SLOW = {
    "APGD": {"steps": 5},
    "APGDT": {"steps": 5},
    "FAB": {"steps": 5},
    "Square": {"queries": 20},
    "OnePixel": {"steps": 3},
    "Pixle": {"restarts": 2},
    "CW": {"steps": 20, "learning_rate": 0.1},
}


def classifier(shape):
    """A network that uses every pixel, of five classes."""
    return keras.Sequential(
        [
            keras.Input(shape),
            keras.layers.Flatten(),
            keras.layers.Dense(8, activation="tanh"),
            keras.layers.Dense(5),
        ]
    )


def made(name, epsilon, clip):
    arguments = {"clip": clip, **SLOW.get(name, {})}
    if name not in UNBOUNDED:
        arguments["epsilon"] = epsilon
    return TABLE_9[name](**arguments)


def is_right_or_no_worse(attack, model, x, found, y):
    before, after = (keras.ops.convert_to_tensor(model(a)) for a in (x, found))
    labels = keras.ops.convert_to_tensor(y)
    value = getattr(attack, "objective", losses.cross_entropy)
    before_value, after_value = (
        keras.ops.convert_to_numpy(value(logits, labels)) for logits in (before, after)
    )
    wrong = keras.ops.convert_to_numpy(after).argmax(axis=1) != y
    return wrong | (after_value >= before_value - 1e-5)


def test_the_table_is_the_paper_s():
    assert len(TABLE_9) == 25
    assert all(issubclass(attack, attacks.Attack) for attack in TABLE_9.values())


@pytest.mark.parametrize("name", TABLE_9)
def test_constraints_hold_for_any_shape_range_and_dtype(name):
    rng = np.random.default_rng(list(TABLE_9).index(name))
    for dtype in ("float32", rng.choice(["float16", "float64"])):
        shape = (*rng.integers(3, 9, 2), rng.integers(1, 5))
        shape = tuple(int(size) for size in shape)
        low = float(rng.choice([0.0, -1.0, -3.5]))
        high = low + float(rng.choice([1.0, 2.0, 255.0]))
        epsilon = (high - low) * float(rng.uniform(0.01, 0.5))
        # Corners of the range are where projections go wrong.
        x = rng.uniform(low - 0.2, high + 0.2, (6, *shape)).clip(low, high)
        x = x.astype(dtype).clip(low, high)
        model = classifier(shape)
        # So that softmax is not saturated in wide ranges.
        model.layers[1].set_weights(
            [w / (high - low) for w in model.layers[1].get_weights()]
        )
        # Rows that are right, and others.
        y = keras.ops.convert_to_numpy(model(x)).argmax(axis=1)
        y[4:] = rng.integers(0, 5, 2)
        attack = made(name, epsilon, (low, high))
        found = attack(model, x, y, seed=0)

        assert found.dtype == x.dtype and found.shape == x.shape
        assert low <= found.min() and found.max() <= high
        step = found.astype("float64") - x.astype("float64")
        if name not in UNBOUNDED:
            norm = np.linalg.norm(step.reshape(6, -1), NORMS[name], axis=1)
            assert norm.max() <= epsilon + 1e-6
            # Some attacks bring back only what fools the model.
            assert norm.max() > 0 or issubclass(TABLE_9[name], attacks.SurvivorAttack)
        if name == "OnePixel":
            assert (step != 0).any(axis=-1).sum(axis=(1, 2)).max() <= attack.pixels
        if name == "Pixle":
            # Pixels are copied whole from elsewhere in the image.
            for image, moved in zip(x, found, strict=True):
                pixels = {tuple(p) for p in image.reshape(-1, shape[2])}
                assert {tuple(p) for p in moved.reshape(-1, shape[2])} <= pixels
        assert is_right_or_no_worse(attack, model, x, found, y).all()
