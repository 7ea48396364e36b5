"""FAB, and its steps onto a hyperplane against exact ones."""

import keras
import numpy as np
import pytest
from keras import ops
from scipy import optimize

from keras_probcert.attacks import FAB, norms
from keras_probcert.attacks.hyperplane import step_to_hyperplane


def problem(seed, rows=12, size=9):
    """Points in [0, 1], many on its border, normals with zeros, and gaps."""
    rng = np.random.default_rng(seed)
    x = np.clip(rng.uniform(-0.4, 1.4, (rows, size)), 0, 1)
    normal = rng.normal(size=(rows, size)) * (rng.random((rows, size)) < 0.8)
    # From gaps next to nothing to some that the box is too small for.
    gap = rng.normal(size=rows) * rng.choice([0.01, 1.0, 3.0, 9.0], rows)
    return x, normal, gap


def reach(x, normal, gap, clip):
    """The corner that closes the gap best, and whether it does."""
    if clip is None:
        return None, True
    corner = np.where(normal * np.sign(gap) > 0, 1 - x, -x) * (normal != 0)
    return corner, abs(normal @ corner) >= abs(gap)


def shortest(x, normal, gap, norm, clip):
    """The length of the shortest step by a linear program, or for L2 by bisection."""
    size = len(x)
    low, high = (-x, 1 - x) if clip else (np.full(size, -1e3), np.full(size, 1e3))
    if norm == "l2":
        way = normal * np.sign(gap)

        def step(t):
            return np.clip(t * way, low, high)

        t = optimize.brentq(lambda t: way @ step(t) - abs(gap), 0, 1e6, xtol=1e-15)
        return np.linalg.norm(step(t))
    # |d_i| <= b_i, where all b_i are one in L∞, and their sum is the length in L1.
    bounds = [*zip(low, high, strict=True)]
    eye = np.eye(size)
    if norm == "linf":
        above = np.block([[eye, -np.ones((size, 1))], [-eye, -np.ones((size, 1))]])
        cost, more = np.r_[np.zeros(size), 1], 1
    else:
        above = np.block([[eye, -eye], [-eye, -eye]])
        cost, more = np.r_[np.zeros(size), np.ones(size)], size
    result = optimize.linprog(
        cost,
        A_ub=above,
        b_ub=np.zeros(2 * size),
        A_eq=np.r_[normal, np.zeros(more)][None],
        b_eq=[gap],
        bounds=[*bounds, *[(0, None)] * more],
    )
    assert result.success
    return result.fun


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("clip", [(0.0, 1.0), None], ids=["box", "free"])
def test_steps_onto_hyperplanes_are_the_shortest(norm, clip):
    kinds = set()
    for seed in range(3):
        x, normal, gap = problem(seed)
        arguments = (ops.convert_to_tensor(a, "float32") for a in (x, normal, gap))
        step = ops.convert_to_numpy(step_to_hyperplane(*arguments, norm, clip))
        if clip:
            assert (x + step).min() > -1e-6 and (x + step).max() < 1 + 1e-6
        assert (step[normal == 0] == 0).all()
        for i in range(len(x)):
            corner, feasible = reach(x[i], normal[i], gap[i], clip)
            kinds.add(bool(feasible))
            if feasible:
                np.testing.assert_allclose(normal[i] @ step[i], gap[i], atol=2e-6)
                expected = shortest(x[i], normal[i], gap[i], norm, clip)
                length = norms.lengths(step[i : i + 1], norm)[0]
                np.testing.assert_allclose(length, expected, atol=2e-6, rtol=1e-5)
            else:
                np.testing.assert_allclose(step[i], corner, atol=1e-6)
    assert kinds == ({True, False} if clip else {True})


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_a_normal_of_zero_moves_nothing(norm):
    step = step_to_hyperplane(
        ops.ones((2, 3)) / 2, ops.zeros((2, 3)), ops.ones(2), norm
    )
    np.testing.assert_array_equal(step, 0)


@pytest.fixture(scope="module")
def linear():
    """A linear model of four classes on 6×6 images, and rows it gets right."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [keras.Input((6, 6, 1)), keras.layers.Flatten(), keras.layers.Dense(4)]
    )
    x = np.random.default_rng(0).random((60, 6, 6, 1), np.float32)
    y = ops.convert_to_numpy(model(x)).argmax(axis=1)
    return model, x, y


def distances(model, x, y, norm):
    """How far the boundary of a linear model is from each row, in the box."""
    kernel, bias = (w.astype("float64") for w in model.layers[-1].get_weights())
    x = x.reshape(len(x), -1).astype("float64")
    found = []
    for row, label in zip(x, y, strict=True):
        each = []
        for other in set(range(4)) - {label}:
            normal = kernel[:, other] - kernel[:, label]
            gap = -(normal @ row + bias[other] - bias[label])
            if reach(row, normal, gap, (0, 1))[1]:
                each.append(shortest(row, normal, gap, norm, (0, 1)))
        found.append(min(each))
    return np.array(found)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_on_a_linear_model_it_finds_the_nearest_point(linear, norm):
    model, x, y = linear
    x, y = x[:20], y[:20]
    exact = distances(model, x, y, norm)
    found = FAB(2 * exact.max(), norm, steps=15)(model, x, y, seed=0)
    assert (ops.convert_to_numpy(model(found)).argmax(axis=1) != y).all()
    length = norms.lengths(found - x, norm)
    assert (length >= exact * (1 - 1e-4)).all()
    assert (length <= exact * 1.01).all()


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_what_it_fools_is_what_is_near_enough(linear, norm):
    model, x, y = linear
    x, y = x[:20], y[:20]
    exact = distances(model, x, y, norm)
    epsilon = float(np.median(exact)) * 1.02
    attack = FAB(epsilon, norm, steps=15, targeted=True)
    found = attack(model, x, y, seed=0)
    fooled = ops.convert_to_numpy(model(found)).argmax(axis=1) != y
    certain = np.abs(exact / epsilon - 1) > 0.01
    assert certain.sum() > 15
    np.testing.assert_array_equal(fooled[certain], exact[certain] < epsilon)
    assert norms.lengths(found - x, norm).max() <= epsilon + 1e-6
    np.testing.assert_array_equal(found[~fooled], x[~fooled])


def test_rows_have_nothing_to_do_with_each_other(linear):
    model, x, y = linear
    attack = FAB(0.02, steps=5, restarts=2, targeted=True)
    whole = attack(model, x, y, seed=3)
    parts = attack(model, x, y, seed=3, batch_size=7)
    np.testing.assert_allclose(whole, parts, atol=1e-6)


def test_two_classes():
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(1)])
    x = np.random.default_rng(0).random((10, 5), np.float32)
    y = (ops.convert_to_numpy(model(x))[:, 0] > 0).astype(int)
    for targeted in (False, True):
        found = FAB(1.0, steps=10, targeted=targeted)(model, x, y)
        after = ops.convert_to_numpy(model(found))[:, 0] > 0
        kernel, bias = (w.astype("float64") for w in model.layers[-1].get_weights())
        corners = np.where(kernel[:, 0] * np.where(y, -1, 1)[:, None] > 0, 1.0, 0.0)
        possible = ((corners @ kernel[:, 0] + bias) > 0) != y
        np.testing.assert_array_equal(after != y, possible)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epsilon": 0}, "`epsilon`.*above 0"),
        ({"epsilon": None}, "`epsilon`.*None"),
        ({"norm": "l3"}, "`norm`.*l3"),
        ({"steps": 0}, "`steps`.*0"),
        ({"restarts": 0}, "`restarts`.*0"),
        ({"targeted": 1}, "`targeted`.*1"),
        ({"targets": 0}, "`targets`.*0"),
        ({"alpha_max": 0}, "`alpha_max`.*0"),
        ({"eta": 0.9}, "`eta`.*0.9"),
        ({"beta": 1.0}, "`beta`.*1.0"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        FAB(**arguments)
