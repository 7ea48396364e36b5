"""Every method's objective and gradient, against NumPy from the paper's formula.

The network is one hidden layer, the batch holds rows that are right, wrong, tied
and saturated. NumPy runs in float64 and differentiates by central differences.
"""

import keras
import numpy as np
import pytest
from keras import ops

from keras_probcert import Perturbation, training
from keras_probcert.perturbations import Noise

FEATURES, HIDDEN, CLASSES = 3, 6, 4
X = np.array(
    [
        [0.9, 0.1, 0.2],
        [0.2, 0.8, 0.5],
        [0.0, 0.0, 0.0],  # Tied: without biases all logits are 0.
        [40.0, 30.0, 5.0],  # Saturated, and right.
        [40.0, 30.0, 5.0],  # Saturated, and wrong.
        [0.3, 0.4, 0.9],
    ]
)
ROWS = len(X)


@pytest.fixture(scope="module")
def weights():
    rng = np.random.default_rng(3)
    kernels = rng.normal(size=(FEATURES, HIDDEN)), rng.normal(size=(HIDDEN, CLASSES))
    return [kernels[0], 8.0 * kernels[1]]


@pytest.fixture(scope="module")
def labels(weights):
    best = net(weights, X).argmax(axis=1)
    y = best.copy()
    y[1] = (best[1] + 1) % CLASSES
    y[4] = (best[4] + 1) % CLASSES
    y[5] = (best[5] + 2) % CLASSES
    return y


def net(weights, x):
    return np.tanh(x @ weights[0]) @ weights[1]


def log_softmax(z):
    z = z - z.max(axis=-1, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=-1, keepdims=True))


def nll(logits, y):
    """Cross-entropy of `(rows, copies, classes)`."""
    return -np.take_along_axis(log_softmax(logits), y[:, None, None], axis=2)[..., 0]


def kl(p, q):
    return (p * (np.log(p) - np.log(q))).sum(axis=-1)


def of_class(p, y):
    return np.take_along_axis(p, y[:, None], axis=-1)[:, 0]


def gradient(function, weights, step=1e-6):
    """Central differences with respect to all weights, flat."""
    result = []
    for w in weights:
        for i in np.ndindex(w.shape):
            before = w[i]
            ends = []
            for moved in (before + step, before - step):
                w[i] = moved
                ends.append(function(weights))
            w[i] = before
            result.append((ends[0] - ends[1]) / (2 * step))
    return np.array(result)


def base_model(weights, activation=None):
    base = keras.Sequential(
        [
            keras.Input((FEATURES,)),
            keras.layers.Dense(HIDDEN, "tanh", use_bias=False),
            keras.layers.Dense(CLASSES, activation, use_bias=False),
        ]
    )
    base.set_weights(weights)
    return base


def compiled(model, from_logits=True):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=from_logits)
    model.compile(keras.optimizers.SGD(1.0), loss, jit_compile=False)
    return model


def step(model, y, from_logits=True):
    """The loss of one SGD step at rate 1, and the gradient it applied, flat."""
    compiled(model, from_logits)
    before = [w.copy() for w in model.base_model.get_weights()]
    logs = model.train_on_batch(X.astype("float32"), y, return_dict=True)
    after = model.base_model.get_weights()
    moved = [(b - a).ravel() for b, a in zip(before, after, strict=True)]
    return logs, np.concatenate(moved)


def check(model, y, weights, objective, from_logits=True, **kwargs):
    """The step against `objective`, a function of weights to one value a row."""
    logs, moved = step(model, y, from_logits)
    weights = [w.copy() for w in weights]
    expected = objective(weights).mean()
    np.testing.assert_allclose(logs["loss"], expected, rtol=1e-4)
    slope = gradient(lambda w: objective(w).mean(), weights)
    error = np.linalg.norm(moved - slope) / np.linalg.norm(slope)
    assert error <= 1e-4, error
    return logs


class Recorded(Perturbation):
    """Copies given beforehand, so that NumPy can use the same ones."""

    def __init__(self, offsets):
        super().__init__(clip=None)
        self.offsets = offsets

    def sample(self, x, noise):
        return x + ops.convert_to_tensor(self.offsets, dtype="float32")


@pytest.fixture
def offsets():
    offsets = np.random.default_rng(5).normal(0, 0.4, (ROWS, 7, FEATURES))
    offsets[2, :3] = 0  # Copies that stay tied.
    return offsets


def copies_net(weights, x, offsets):
    return net(weights, x[:, None] + offsets)


def test_erm(weights, labels):
    model = training.get("erm")(base_model(weights))
    check(model, labels, weights, lambda w: nll(net(w, X)[:, None], labels)[:, 0])


def test_da(weights, labels, offsets):
    model = training.get("da")(base_model(weights), Recorded(offsets), num_samples=7)
    check(
        model,
        labels,
        weights,
        lambda w: nll(copies_net(w, X, offsets), labels).mean(axis=1),
    )


def test_corruption(weights, labels, offsets):
    model = training.get("corruption")(base_model(weights), Recorded(offsets[:, :1]))
    check(
        model,
        labels,
        weights,
        lambda w: nll(copies_net(w, X, offsets[:, :1]), labels)[:, 0],
    )


def test_variance_minimizing(weights, labels, offsets):
    model = training.get("variance_minimizing")(
        base_model(weights), Recorded(offsets), num_samples=7, std_weight=2.0
    )

    def objective(w):
        losses = nll(copies_net(w, X, offsets), labels)
        return losses.mean(axis=1) + 2.0 * losses.std(axis=1, ddof=1)

    check(model, labels, weights, objective)


@pytest.mark.parametrize("beta", [0.1, 0.5, 3 / 7, 0.9, 1.0])
def test_prl(weights, labels, offsets, beta):
    """CVaR as the minimum over the threshold, found among the losses themselves."""
    model = training.get("prl")(
        base_model(weights), Recorded(offsets), num_samples=7, beta=beta
    )

    def objective(w):
        losses = nll(copies_net(w, X, offsets), labels)
        thresholds = losses[:, :, None]
        excess = np.maximum(losses[:, None] - thresholds, 0).mean(axis=2)
        return (losses + excess / beta).min(axis=1)

    check(model, labels, weights, objective)


def test_prl_with_the_authors_loop(weights, labels, offsets):
    """From t = 1, steps of 1 on the batch's mean; the same copies at every step."""
    model = training.get("prl")(
        base_model(weights), Recorded(offsets), num_samples=7, threshold="gradient"
    )
    losses = nll(copies_net(weights, X, offsets), labels)
    t = np.ones(ROWS)
    for _ in range(4):
        t = t - (1 - (losses > t[:, None]).mean(axis=1) / 0.5) / ROWS

    def objective(w):
        losses = nll(copies_net(w, X, offsets), labels)
        return t + np.maximum(losses - t[:, None], 0).mean(axis=1) / 0.5

    check(model, labels, weights, objective)


# Any points will do for the objective; the search has tests of its own.
WORST = X + np.random.default_rng(6).normal(0, 0.3, X.shape)


def with_worst_points(name, weights, activation=None, **arguments):
    model = training.get(name)(base_model(weights, activation), clip=None, **arguments)
    model.worst_points = lambda value, x, start=None: ops.convert_to_tensor(
        WORST, dtype="float32"
    )
    return model


@pytest.mark.parametrize("name", ["pgdt", "kl_pgd"])
def test_adversarial(name, weights, labels):
    model = with_worst_points(name, weights)
    check(model, labels, weights, lambda w: nll(net(w, WORST)[:, None], labels)[:, 0])


def trades(w, y, beta):
    p, q = (np.exp(log_softmax(net(w, x))) for x in (X, WORST))
    return -np.log(of_class(p, y)) + beta * kl(p, q)


def test_trades(weights, labels):
    model = with_worst_points("trades", weights, beta=3.0)
    logs = check(model, labels, weights, lambda w: trades(w, labels, 3.0))
    np.testing.assert_allclose(
        logs["loss"], logs["loss_clean"] + 3 * logs["loss_kl"], rtol=1e-5
    )


def test_mart(weights, labels):
    model = with_worst_points("mart", weights, beta=2.0)

    def objective(w):
        p, q = (np.exp(log_softmax(net(w, x))) for x in (X, WORST))
        # 1 - max of the wrong classes, as the sum of the others.
        wrong = q.copy()
        np.put_along_axis(wrong, labels[:, None], -1.0, axis=1)
        others = q.copy()
        np.put_along_axis(others, wrong.argmax(axis=1)[:, None], 0.0, axis=1)
        boosted = -np.log(of_class(q, labels)) - np.log(others.sum(axis=1))
        return boosted + 2.0 * kl(p, q) * (1 - of_class(p, labels))

    check(model, labels, weights, objective)


def test_probabilities_give_the_objective_of_logits(weights, labels):
    """Where float32 probabilities still tell classes apart."""
    mild = [weights[0], weights[1] / 8]
    logs = [
        step(with_worst_points("trades", mild, activation), labels, not activation)
        for activation in (None, "softmax")
    ]
    np.testing.assert_allclose(logs[0][0]["loss"], logs[1][0]["loss"], rtol=1e-4)
    np.testing.assert_allclose(logs[0][1], logs[1][1], rtol=1e-3, atol=1e-5)


SEEDS = np.arange(2 * ROWS, dtype="int32").reshape(ROWS, 2)


def with_known_noise(name, weights, **arguments):
    """The method with fixed seeds, and the noise that they stand for."""
    model = training.get(name)(base_model(weights), sigma=0.3, **arguments)
    model.seeds = lambda rows: ops.convert_to_tensor(SEEDS)
    noise = model.samples(ops.zeros((ROWS, FEATURES)), model.seeds(ROWS))
    compiled(model)
    return model, np.asarray(ops.convert_to_numpy(noise), "float64")


def test_rs(weights, labels):
    model, noise = with_known_noise("rs", weights, num_samples=3)
    assert noise.std() == pytest.approx(0.3, rel=0.3)
    check(
        model,
        labels,
        weights,
        lambda w: nll(copies_net(w, X, noise), labels).mean(axis=1),
    )


def test_consistency(weights, labels):
    model, noise = with_known_noise(
        "consistency", weights, num_samples=3, consistency_weight=4.0
    )

    def objective(w):
        logits = copies_net(w, X, noise)
        p = np.exp(log_softmax(logits))
        mean = p.mean(axis=1)
        entropy = -(mean * np.log(mean)).sum(axis=-1)
        agreement = kl(mean[:, None], p).mean(axis=1)
        return nll(logits, labels).mean(axis=1) + 4.0 * agreement + 0.5 * entropy

    check(model, labels, weights, objective)


def smoothed_search(weights, noise, y, steps, step_size, epsilon=None):
    """L2 ascent on −log of the mean probability, gradients by differences."""

    def value(x):
        p = np.exp(log_softmax(copies_net(weights, x, noise))).mean(axis=1)
        return -np.log(of_class(p, y))

    point = X.copy()
    for _ in range(steps):
        slope = np.zeros_like(point)
        for j in range(FEATURES):
            move = np.zeros(FEATURES)
            move[j] = 1e-6
            slope[:, j] = (value(point + move) - value(point - move)) / 2e-6
        length = np.linalg.norm(slope, axis=1, keepdims=True)
        point = point + step_size * slope / np.where(length > 0, length, 1)
        if epsilon is not None:
            moved = point - X
            length = np.linalg.norm(moved, axis=1, keepdims=True)
            point = X + moved * np.minimum(1, epsilon / np.maximum(length, 1e-30))
    return point


# Saturated rows have slopes of 1e-16, of which float32 and differences see noise.
UNSATURATED = np.array([True, True, True, False, False, True])


def test_smoothadv(weights, labels):
    mild = [weights[0], weights[1] / 8]
    model, noise = with_known_noise(
        "smoothadv", mild, epsilon=0.5, steps=4, num_samples=3, clip=None
    )
    worst = smoothed_search(mild, noise, labels, 4, 2 * 0.5 / 4, 0.5)
    found = model.smoothed_worst_points(
        ops.convert_to_tensor(X, dtype="float32"),
        ops.convert_to_tensor(labels),
        model.seeds(ROWS),
        0.5,
        2 * 0.5 / 4,
    )
    found = np.asarray(ops.convert_to_numpy(found), "float64")
    np.testing.assert_allclose(found[UNSATURATED], worst[UNSATURATED], atol=1e-4)
    check(
        model,
        labels,
        mild,
        lambda w: nll(copies_net(w, found, noise), labels).mean(axis=1),
    )


def test_smoothmix(weights, labels):
    mild = [weights[0], weights[1] / 8]
    model, noise = with_known_noise(
        "smoothmix",
        mild,
        mixing_weight=3.0,
        steps=3,
        step_size=0.2,
        num_samples=3,
        clip=None,
    )
    seeds = ops.convert_to_tensor(SEEDS)
    found = model.smoothed_worst_points(
        ops.convert_to_tensor(X, dtype="float32"),
        ops.convert_to_tensor(labels),
        seeds,
        None,
        0.2,
    )
    found = np.asarray(ops.convert_to_numpy(found), "float64")
    worst = smoothed_search(mild, noise, labels, 3, 0.2)
    np.testing.assert_allclose(found[UNSATURATED], worst[UNSATURATED], atol=1e-4)

    share = np.asarray(Noise(seeds, 1).uniform((1,), 0.0, 0.5), "float64")[:, 0]
    assert 0 < share.min() and share.max() < 0.5
    mixed = (1 - share) * X + share * found
    start = np.exp(log_softmax(copies_net(mild, X, noise))).mean(axis=1)
    right = start.argmax(axis=1) == labels
    assert 0 < right.sum() < ROWS

    def objective(w):
        logits = copies_net(w, X, noise)
        mean = np.exp(log_softmax(logits)).mean(axis=1)
        target = (1 - share) * mean + share / CLASSES
        q = np.exp(log_softmax(copies_net(w, mixed, noise)))
        divergence = kl(target[:, None], q).mean(axis=1)
        return nll(logits, labels).mean(axis=1) + 3.0 * right * divergence

    check(model, labels, mild, objective)
