"""Square: a search by scores alone, for images of any channels and any norm."""

import keras
import numpy as np
import pytest

from keras_probcert.attacks import Square

ORDERS = {"linf": np.inf, "l2": 2, "l1": 1}


def classifier(shape, rounds=False):
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Flatten(), keras.layers.Dense(5)]
    if rounds:  # No gradient goes through.
        layers.insert(0, keras.layers.Lambda(lambda x: keras.ops.round(8 * x)))
    return keras.Sequential([keras.Input(shape), *layers])


def labelled(model, shape, rows=20):
    x = np.random.default_rng(0).random((rows, *shape), np.float32)
    return x, keras.ops.convert_to_numpy(model(x)).argmax(axis=1)


@pytest.mark.parametrize(
    ("norm", "epsilon", "shape"),
    [("linf", 0.1, (7, 5, 3)), ("l2", 0.8, (6, 6, 1)), ("l1", 3.0, (5, 8, 2))],
)
def test_fools_within_the_ball_and_the_range(norm, epsilon, shape):
    model = classifier(shape)
    x, y = labelled(model, shape)
    found = Square(epsilon=epsilon, norm=norm, queries=200)(model, x, y, seed=0)
    wrong = keras.ops.convert_to_numpy(model(found)).argmax(axis=1) != y
    assert wrong.sum() >= 5
    step = (found.astype("float64") - x).reshape(len(x), -1)
    assert np.linalg.norm(step, ORDERS[norm], axis=1).max() <= epsilon + 1e-6
    assert found.min() >= 0 and found.max() <= 1
    # A row that still is right comes back as it was.
    np.testing.assert_array_equal(found[~wrong], x[~wrong])


def test_needs_no_gradients_and_more_queries_fool_more():
    shape = (6, 6, 1)
    model = classifier(shape, rounds=True)
    x, y = labelled(model, shape, 40)
    few, many = (
        (
            keras.ops.convert_to_numpy(
                model(Square(epsilon=0.15, queries=queries)(model, x, y, seed=0))
            ).argmax(axis=1)
            != y
        )
        for queries in (1, 300)
    )
    assert many.sum() > few.sum()
    # The same draws come first.
    assert many[few].all()


def test_rows_have_nothing_to_do_with_each_other():
    shape = (6, 6, 1)
    model = classifier(shape)
    x, y = labelled(model, shape, 12)
    attack = Square(epsilon=0.1, queries=50)
    whole = attack(model, x, y, seed=3)
    np.testing.assert_allclose(
        whole, attack(model, x, y, seed=3, batch_size=5), atol=1e-6
    )


def test_bad_input():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    with pytest.raises(ValueError, match="`x` must be images"):
        Square(0.1)(model, np.zeros((2, 4), "float32"), [0, 1])
    with pytest.raises(ValueError, match="`queries`.*0"):
        Square(0.1, queries=0)
    with pytest.raises(ValueError, match="`epsilon`.*above 0"):
        Square(0.0)
