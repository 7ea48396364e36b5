"""The mean + λ·std objective and its gradient, against plain NumPy."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_probcert import LInf, Perturbation, VarianceMinimizingModel
from keras_probcert.perturbations import Noise

ROWS, FEATURES, CLASSES = 5, 3, 4


class Recorded(Perturbation):
    """Copies given beforehand, so that NumPy can use the same ones."""

    def __init__(self, offsets):
        super().__init__(clip=None)
        self.offsets = offsets

    def sample(self, x, noise):
        first = noise._first[0]
        offsets = ops.convert_to_tensor(self.offsets)
        return x + ops.slice(
            offsets,
            (0, first, 0),
            (offsets.shape[0], noise.num_copies, offsets.shape[2]),
        )


def log_softmax(z):
    z = z - z.max(axis=-1, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=-1, keepdims=True))


def objective(kernel, bias, x, offsets, y, std_weight, weight=None):
    """The objective in float64, straight from the paper's formula."""
    logits = (x[:, None] + offsets) @ kernel + bias
    losses = -np.take_along_axis(log_softmax(logits), y[:, None, None], axis=2)[..., 0]
    values = losses.mean(axis=1)
    if std_weight:
        values = values + std_weight * losses.std(axis=1, ddof=1)
    return np.mean(values * (1.0 if weight is None else weight))


def gradient(function, point, step=1e-6):
    """Central differences."""
    result = np.empty_like(point)
    for i in np.ndindex(point.shape):
        ends = []
        for sign in (1, -1):
            moved = point.copy()
            moved[i] += sign * step
            ends.append(function(moved))
        result[i] = (ends[0] - ends[1]) / (2 * step)
    return result


@pytest.fixture
def problem():
    rng = np.random.default_rng(1)
    x = rng.random((ROWS, FEATURES))
    y = rng.integers(0, CLASSES, ROWS)
    kernel, bias = rng.normal(size=(FEATURES, CLASSES)), rng.normal(size=CLASSES)
    return x, y, kernel, bias


def trained(problem, offsets, std_weight, weight=None, chunk_size=None):
    """The loss of one SGD step at rate 1, and the gradient it applied."""
    x, y, kernel, bias = problem
    base = keras.Sequential([keras.Input((FEATURES,)), keras.layers.Dense(CLASSES)])
    base.set_weights([kernel, bias])
    model = VarianceMinimizingModel(
        base,
        Recorded(offsets.astype("float32")),
        num_samples=offsets.shape[1],
        std_weight=std_weight,
        chunk_size=chunk_size,
    )
    model.compile(
        keras.optimizers.SGD(1.0),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    logs = model.train_on_batch(
        x.astype("float32"), y, sample_weight=weight, return_dict=True
    )
    after = base.get_weights()
    return logs, [kernel - after[0], bias - after[1]]


@pytest.mark.parametrize("std_weight", [0.0, 1.0, 2.5])
@pytest.mark.parametrize("chunk_size", [None, 3, 4])
def test_value_and_gradient_are_the_formulas(problem, std_weight, chunk_size):
    offsets = np.random.default_rng(2).normal(0, 0.5, (ROWS, 8, FEATURES))
    logs, gradients = trained(problem, offsets, std_weight, chunk_size=chunk_size)
    x, y, kernel, bias = problem
    np.testing.assert_allclose(
        logs["loss"], objective(kernel, bias, x, offsets, y, std_weight), rtol=1e-5
    )
    expected = (
        gradient(lambda k: objective(k, bias, x, offsets, y, std_weight), kernel),
        gradient(lambda b: objective(kernel, b, x, offsets, y, std_weight), bias),
    )
    for got, wanted in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=2e-6)


def test_terms_are_shown(problem):
    offsets = np.random.default_rng(2).normal(0, 0.5, (ROWS, 8, FEATURES))
    logs, _ = trained(problem, offsets, std_weight=3.0)
    x, y, kernel, bias = problem
    mean = objective(kernel, bias, x, offsets, y, 0.0)
    std = objective(kernel, bias, x, offsets, y, 1.0) - mean
    np.testing.assert_allclose(logs["loss_mean"], mean, rtol=1e-5)
    np.testing.assert_allclose(logs["loss_std"], std, rtol=1e-5)
    np.testing.assert_allclose(
        logs["loss"], logs["loss_mean"] + 3 * logs["loss_std"], rtol=1e-5
    )


def test_zero_variance_has_the_gradient_of_the_mean(problem):
    offsets = np.zeros((ROWS, 4, FEATURES))
    logs, gradients = trained(problem, offsets, std_weight=1.0)
    plain_logs, plain = trained(problem, offsets, std_weight=0.0)
    assert logs["loss_std"] == 0
    for got, wanted in zip(gradients, plain, strict=True):
        assert np.isfinite(got).all()
        np.testing.assert_allclose(got, wanted, rtol=1e-6, atol=1e-7)


def test_radius_zero_trains(image_batch):
    x, y = image_batch
    base = keras.Sequential(
        [keras.Input((6, 6, 1)), keras.layers.Flatten(), keras.layers.Dense(10)]
    )
    model = VarianceMinimizingModel(base, LInf(0.0), num_samples=3)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(x, y, verbose=0)
    assert all(np.isfinite(w).all() for w in model.get_weights())


@pytest.mark.parametrize("chunk_size", [None, 2])
def test_sample_weights_weigh_examples(problem, chunk_size):
    offsets = np.random.default_rng(3).normal(0, 0.5, (ROWS, 6, FEATURES))
    weight = np.array([0.0, 1.0, 2.0, 0.5, 3.0])
    logs, gradients = trained(problem, offsets, 1.0, weight, chunk_size)
    x, y, kernel, bias = problem
    np.testing.assert_allclose(
        logs["loss"], objective(kernel, bias, x, offsets, y, 1.0, weight), rtol=1e-5
    )
    wanted = gradient(lambda k: objective(k, bias, x, offsets, y, 1.0, weight), kernel)
    np.testing.assert_allclose(gradients[0], wanted, rtol=1e-4, atol=2e-6)


def test_class_weights_are_sample_weights(problem):
    x, y, kernel, bias = problem
    class_weight = {0: 1.0, 1: 0.5, 2: 2.0, 3: 0.0}

    def fit(**weights):
        base = keras.Sequential([keras.Input((FEATURES,)), keras.layers.Dense(CLASSES)])
        base.set_weights([kernel, bias])
        model = VarianceMinimizingModel(base, LInf(0.1), num_samples=4, seed=5)
        model.compile(
            keras.optimizers.SGD(1.0),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
        model.fit(x.astype("float32"), y, verbose=0, shuffle=False, **weights)
        return base.get_weights()

    by_class = fit(class_weight=class_weight)
    by_row = fit(sample_weight=np.array([class_weight[int(c)] for c in y]))
    for a, b in zip(by_class, by_row, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


@pytest.mark.parametrize("num_samples", [5, 6])
def test_chunks_give_the_same_model(image_batch, num_samples):
    """With the library's own noise: chunks of any size, dividing n or not."""
    x, y = image_batch

    def fit(chunk_size):
        keras.utils.set_random_seed(0)
        base = keras.Sequential(
            [
                keras.Input((6, 6, 1)),
                keras.layers.Conv2D(4, 3, activation="relu"),
                keras.layers.Flatten(),
                keras.layers.Dense(10, kernel_regularizer="l2"),
            ]
        )
        model = VarianceMinimizingModel(
            base, LInf(0.3), num_samples=num_samples, chunk_size=chunk_size, seed=7
        )
        model.compile(
            keras.optimizers.SGD(0.1),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
        history = model.fit(x, y, epochs=2, batch_size=4, verbose=0, shuffle=False)
        return base.get_weights(), history.history["loss"]

    whole, whole_loss = fit(None)
    for chunk_size in (1, 2, 4):
        chunked, loss = fit(chunk_size)
        np.testing.assert_allclose(loss, whole_loss, rtol=1e-5)
        for a, b in zip(chunked, whole, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_noise_differs_between_steps_and_rows():
    """Rows and steps that shared noise would show the same copies."""
    seen = []

    class Spy(LInf):
        def sample(self, x, noise):
            copies = super().sample(x, noise)
            seen.append(np.asarray(ops.convert_to_numpy(copies)))
            return copies

    base = keras.Sequential([keras.Input((FEATURES,)), keras.layers.Dense(CLASSES)])
    model = VarianceMinimizingModel(base, Spy(0.1), num_samples=4)
    for _ in range(2):
        model.forward(ops.full((3, FEATURES), 0.5), None)
    assert (
        len({copy.tobytes() for batch in seen for row in batch for copy in row}) == 24
    )


def test_expected_noise_is_drawn_by_row():
    """A row's copies depend on the step's seed and its index alone."""
    x = np.full((4, FEATURES), 0.5, "float32")

    def copies(rows):
        from keras_probcert import backend

        seeds = backend.split_seed(ops.convert_to_tensor([3, 4], dtype="uint32"), rows)
        noise = Noise(seeds, 6)
        return ops.convert_to_numpy(LInf(0.2).sample(x[:rows, None], noise))

    np.testing.assert_array_equal(copies(4)[:2], copies(2))
