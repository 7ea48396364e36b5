"""The inner maximization, against cleverhans and a loop in NumPy, in float64."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_probcert.attacks import ProjectedGradient
from keras_probcert.training.probabilities import kl_divergence


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(4)
    return keras.Sequential(
        [
            keras.Input((6, 6, 1), dtype="float64"),
            layers.Conv2D(4, 3, activation="tanh", dtype="float64"),
            layers.Flatten(dtype="float64"),
            layers.Dense(3, dtype="float64"),
        ]
    )


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    return rng.random((5, 6, 6, 1)), rng.integers(0, 3, 5)


def cross_entropy(model, y):
    return lambda x: keras.losses.sparse_categorical_crossentropy(
        y, model(x), from_logits=True
    )


def found(search, value, x, start=None, dtype="float64"):
    x = ops.convert_to_tensor(x, dtype=dtype)
    if start is not None:
        start = ops.convert_to_tensor(start, dtype=dtype)
    return ops.convert_to_numpy(search(value, x, start))


@pytest.mark.tensorflow
@pytest.mark.parametrize("clip", [(0.0, 1.0), None])
@pytest.mark.parametrize(
    ("norm", "epsilon", "step_size"), [("linf", 0.1, 0.03), ("l2", 0.5, 0.2)]
)
def test_cleverhans_finds_the_same(model, batch, norm, epsilon, step_size, clip):
    module = "cleverhans.tf2.attacks.projected_gradient_descent"
    cleverhans = pytest.importorskip(module).projected_gradient_descent
    # cleverhans casts its points to float32; the models behind them are float64, so
    # that no sign is decided by rounding.
    x, y = batch[0].astype("float32"), batch[1]
    low, high = clip or (None, None)
    theirs = cleverhans(
        model,
        ops.convert_to_tensor(x),
        epsilon,
        step_size,
        8,
        norm=np.inf if norm == "linf" else 2,
        clip_min=low,
        clip_max=high,
        y=ops.convert_to_tensor(y),
        rand_init=False,
        sanity_checks=False,
    )
    search = ProjectedGradient(epsilon, 8, step_size, norm, clip)
    ours = found(search, cross_entropy(model, y), x, dtype="float32")
    np.testing.assert_allclose(ours, ops.convert_to_numpy(theirs), rtol=1e-4, atol=1e-7)
    assert np.abs(ours - x).max() > 0.01


@pytest.mark.tensorflow  # JAX has no float64 here.
@pytest.mark.parametrize(
    ("norm", "epsilon", "step_size"), [("linf", 0.1, 0.03), ("l2", 0.5, 0.2)]
)
def test_kl_against_numpy(batch, norm, epsilon, step_size):
    """KL has no gradient at the input, so the search starts beside it."""
    x, _ = batch
    x = x.reshape(5, -1)
    rng = np.random.default_rng(1)
    kernel = rng.normal(size=(36, 3))
    start = x + 0.001 * rng.normal(size=x.shape)

    def softmax(z):
        z = np.exp(z - z.max(axis=1, keepdims=True))
        return z / z.sum(axis=1, keepdims=True)

    p = softmax(x @ kernel)
    point = start
    for _ in range(6):
        # d/dz of Σ p (log p − log softmax(z)) is softmax(z) − p.
        slope = (softmax(point @ kernel) - p) @ kernel.T
        if norm == "linf":
            moved = (point + step_size * np.sign(slope)).clip(0, 1) - x
            moved = moved.clip(-epsilon, epsilon)
        else:
            slope = slope / np.linalg.norm(slope, axis=1, keepdims=True)
            moved = (point + step_size * slope).clip(0, 1) - x
            length = np.linalg.norm(moved, axis=1, keepdims=True)
            moved = moved * np.minimum(1, epsilon / length)
        point = x + moved

    log_p = ops.convert_to_tensor(np.log(p))
    weights = ops.convert_to_tensor(kernel)

    def divergence(x):
        return kl_divergence(log_p, ops.log_softmax(ops.matmul(x, weights), axis=-1))

    ours = found(ProjectedGradient(epsilon, 6, step_size, norm), divergence, x, start)
    np.testing.assert_allclose(ours, point, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_stays_in_ball_and_range(model, batch, norm):
    x, y = batch
    search = ProjectedGradient(0.3, 5, norm=norm)
    seeds = ops.reshape(ops.arange(10, dtype="int32"), (5, 2))
    start = search.random_start(ops.convert_to_tensor(x), seeds)
    ours = found(search, cross_entropy(model, y), x, start)
    for point in (ops.convert_to_numpy(start), ours):
        assert point.min() >= 0 and point.max() <= 1
        moved = (point - x).reshape(5, -1)
        size = np.abs(moved).max(1) if norm == "linf" else np.linalg.norm(moved, axis=1)
        assert (size <= 0.3 + 1e-6).all() and (size > 0.05).all()


def test_random_starts_are_uniform_in_the_ball():
    """Of 2,000 starts in two dimensions: the radius' square is uniform (L2).

    The mean of 2,000 uniform numbers is off by 5.2 standard errors with
    probability 2e-7.
    """
    search = ProjectedGradient(0.2, 1, norm="l2", clip=None)
    seeds = ops.reshape(ops.arange(4000, dtype="int32"), (2000, 2))
    start = search.random_start(ops.zeros((2000, 2)), seeds)
    squares = (ops.convert_to_numpy(start) ** 2).sum(axis=1) / 0.2**2
    assert abs(squares.mean() - 0.5) < 5.2 * np.sqrt(1 / 12 / 2000)
    assert squares.max() <= 1 + 1e-5


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_no_gradient_no_step(norm):
    """Zero and NaN gradients leave a row where it is, beside rows that move."""
    x = np.full((3, 4), 0.5)
    weights = np.array([1.0, 0.0, np.nan])
    value = lambda x: ops.sum(x, axis=1) * ops.convert_to_tensor(weights)  # noqa: E731
    ours = found(ProjectedGradient(0.1, 3, norm=norm), value, x)
    np.testing.assert_array_equal(ours[1:], x[1:])
    assert (ours[0] > 0.5).all()


def test_tiny_gradients_have_a_direction():
    """Their squares are zero in float32."""
    x = ops.full((1, 2), 0.5)
    scale = ops.convert_to_tensor([3e-30, -4e-30])
    search = ProjectedGradient(0.1, 1, 0.1, "l2")
    ours = ops.convert_to_numpy(search(lambda x: ops.sum(x * scale, axis=1), x))
    np.testing.assert_allclose(ours, [[0.56, 0.42]], rtol=1e-5)


def test_without_a_ball_only_the_range_binds():
    search = ProjectedGradient(None, 10, 0.2, "l2")
    ours = found(search, lambda x: ops.sum(x, axis=1), np.full((1, 2), 0.5))
    np.testing.assert_array_equal(ours, [[1.0, 1.0]])


def test_rows_do_not_influence_each_other(model, batch):
    x, y = batch
    search = ProjectedGradient(0.1, 4)
    together = found(search, cross_entropy(model, y), x)
    alone = found(search, cross_entropy(model, y[2:3]), x[2:3])
    np.testing.assert_allclose(together[2:3], alone, atol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epsilon": -0.1, "steps": 1}, "`epsilon`.*at least 0.*-0.1"),
        ({"epsilon": float("nan"), "steps": 1}, "`epsilon`"),
        ({"epsilon": 0.1, "steps": 0}, "`steps`.*at least 1.*0"),
        ({"epsilon": 0.1, "steps": 2.5}, "`steps`"),
        ({"epsilon": 0.1, "steps": 2, "step_size": -1}, "`step_size`"),
        ({"epsilon": None, "steps": 2}, "`step_size`.*no ball"),
        ({"epsilon": 0.1, "steps": 2, "norm": "l3"}, "`norm`.*'l3'"),
        ({"epsilon": 0.1, "steps": 2, "clip": (1, 0)}, "`clip`"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        ProjectedGradient(**arguments)
