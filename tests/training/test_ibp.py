"""Interval bounds, IBP's objective and Shi's initialization."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_probcert import training
from keras_probcert.training import IBPModel, LinearRamp, initialize_for_ibp
from keras_probcert.training.interval_bounds import Interval, propagate


def box(x, epsilon, clip=None):
    lower, upper = x - epsilon, x + epsilon
    if clip is not None:
        lower, upper = lower.clip(*clip), upper.clip(*clip)
    return Interval(
        *(ops.convert_to_tensor(t, dtype="float32") for t in (x, lower, upper))
    )


def every_layer():
    """A network with one of each kind of layer."""
    inputs = keras.Input((8, 8, 2))
    x = layers.Rescaling(-2.0, offset=0.5)(inputs)
    x = layers.Conv2D(4, 3, strides=2, padding="same", activation="relu")(x)
    x = layers.BatchNormalization()(x)
    x = layers.DepthwiseConv2D(2, activation="tanh")(x)
    y = layers.ZeroPadding2D(1)(x)
    y = layers.Conv2D(4, 3, activation="sigmoid")(y)
    x = layers.Add()([x, y])
    x = layers.Concatenate()([x, layers.Subtract()([x, y])])
    x = layers.MaxPooling2D(2, 1)(x)
    x = layers.LeakyReLU()(x)
    x = keras.Sequential([keras.Input((2, 2, 8)), layers.Conv2D(3, 1), layers.ELU()])(x)
    x = layers.Flatten()(x)
    x = layers.Dropout(0.5)(x)
    return keras.Model(inputs, layers.Dense(5)(x))


@pytest.mark.parametrize("training", [False, True])
def test_bounds_hold(training):
    """Values at corners and inside never leave the bounds; some come near."""
    model = every_layer()
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            shape = layer.gamma.shape
            layer.gamma.assign(rng.normal(size=shape))  # Of either sign.
            layer.moving_variance.assign(rng.random(shape) + 0.5)
    x = rng.random((3, 8, 8, 2))
    epsilon = 0.05
    bounds = propagate(model, box(x, epsilon))
    lower, upper = (ops.convert_to_numpy(t) for t in (bounds.lower, bounds.upper))
    assert (lower < upper).all()
    for corner in (True, False):
        moves = rng.uniform(-1, 1, (300, *x.shape))
        moves = np.sign(moves) if corner else moves
        points = (x + epsilon * moves).reshape(-1, 8, 8, 2).astype("float32")
        values = ops.convert_to_numpy(model(points)).reshape(300, 3, 5)
        assert (values >= lower - 1e-5).all() and (values <= upper + 1e-5).all()
    if training:
        # The statistics of the values: the bounds of a box of no width are they.
        bounds = propagate(model, box(x, 0.0), training=True)
        for end in (bounds.lower, bounds.upper):
            np.testing.assert_allclose(
                *(ops.convert_to_numpy(t) for t in (end, bounds.value)), atol=1e-4
            )


def test_bounds_of_one_layer_are_attained():
    kernel = np.array([[1.0, -2.0], [-3.0, 0.5]])
    model = keras.Sequential([keras.Input((2,)), layers.Dense(2)])
    model.set_weights([kernel, np.array([0.1, 0.2])])
    x = np.array([[0.4, 0.6]])
    bounds = propagate(model, box(x, 0.1))
    centre = x @ kernel + [0.1, 0.2]
    width = 0.1 * np.abs(kernel).sum(axis=0)
    np.testing.assert_allclose(ops.convert_to_numpy(bounds.lower), centre - width, 1e-5)
    np.testing.assert_allclose(ops.convert_to_numpy(bounds.upper), centre + width, 1e-5)


X = np.array([[0.9, 0.1, 0.2], [0.2, 0.8, 0.5], [0.5, 0.5, 0.5], [0.0, 1.0, 0.3]])
Y = np.array([0, 2, 1, 1])


def network(weights):
    base = keras.Sequential(
        [keras.Input((3,)), layers.Dense(6, "relu"), layers.Dense(3)]
    )
    base.set_weights(weights)
    return base


@pytest.fixture
def weights():
    rng = np.random.default_rng(8)
    return [rng.normal(size=s) for s in ((3, 6), (6,), (6, 3), (3,))]


def cross_entropy(logits):
    logits = logits - logits.max(axis=1, keepdims=True)
    return np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(Y)), Y]


def formula(w, epsilon, clean_weight, elide, regularizer, tolerance=0.5):
    """Gowal's and Shi's objective in float64."""
    lower, upper = (X - epsilon).clip(0, 1), (X + epsilon).clip(0, 1)
    input_width = (upper - lower).mean()
    centre, radius = (lower + upper) / 2, (upper - lower) / 2
    middle, half = centre @ w[0] + w[1], radius @ np.abs(w[0])
    z_low, z_high = middle - half, middle + half
    h_low, h_high = np.maximum(z_low, 0), np.maximum(z_high, 0)
    rows = np.arange(len(Y))
    if elide:
        worst = np.zeros((len(Y), 3))
        for i in rows:
            for k in range(3):
                c = w[2][:, k] - w[2][:, Y[i]]
                ends = np.where(c > 0, h_high[i], h_low[i])
                worst[i, k] = ends @ c + w[3][k] - w[3][Y[i]]
    else:
        middle, half = (h_low + h_high) / 2, (h_high - h_low) / 2
        middle, half = middle @ w[2] + w[3], half @ np.abs(w[2])
        worst = middle + half
        worst[rows, Y] = (middle - half)[rows, Y]
    clean = np.maximum(X @ w[0] + w[1], 0) @ w[2] + w[3]
    loss = clean_weight * cross_entropy(clean)
    loss = loss + (1 - clean_weight) * cross_entropy(worst)
    tightness = max(0, tolerance - input_width / (z_high - z_low).mean())
    centre = (z_low + z_high) / 2
    active, inactive = z_low > 0, z_high < 0
    square = (centre - centre.mean()) ** 2
    relu = 0
    for value, a, b in ((centre, active, inactive), (square, active, inactive)):
        a, b = abs((value * a).sum()), abs((value * b).sum())
        relu += max(0, tolerance - min(a / b, b / a))
    return loss + regularizer * (tightness + relu) / tolerance


@pytest.mark.parametrize("elide", [True, False])
@pytest.mark.parametrize("clean_weight", [0.0, 0.3])
@pytest.mark.parametrize("scheduled", [False, True])
def test_objective_and_gradient(weights, elide, clean_weight, scheduled):
    """At a constant ε there is no regularizer; halfway up a ramp there is half."""
    epsilon = LinearRamp(0.1, 0.2, length=2) if scheduled else 0.1
    model = IBPModel(network(weights), epsilon, clean_weight, 0.8, elide=elide)
    model.compile(
        keras.optimizers.SGD(1.0),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    logs = model.train_on_batch(X.astype("float32"), Y, return_dict=True)

    def objective(w):
        weight = 0.8 * (1 - 0.1 / 0.2) if scheduled else 0.0
        return formula(w, 0.1, clean_weight, elide, weight).mean()

    np.testing.assert_allclose(logs["loss"], objective(weights), rtol=1e-5)
    after = model.base_model.get_weights()
    for w, new in zip(weights, after, strict=True):
        slope = np.zeros_like(w)
        for i in np.ndindex(w.shape):
            before, ends = w[i], []
            for moved in (before + 1e-6, before - 1e-6):
                w[i] = moved
                ends.append(objective(weights))
            w[i] = before
            slope[i] = (ends[0] - ends[1]) / 2e-6
        error = np.linalg.norm(w - new - slope) / np.linalg.norm(slope)
        assert error <= 1e-4


@pytest.mark.parametrize("elide", [True, False])
def test_softmax_outputs_give_the_same(weights, elide):
    losses = []
    for activation in (None, "softmax"):
        base = network(weights)
        base.layers[-1].activation = keras.activations.get(activation)
        model = IBPModel(base, epsilon=0.05, elide=elide)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=not activation)
        model.compile("sgd", loss)
        logs = model.train_on_batch(X.astype("float32"), Y, return_dict=True)
        losses.append(logs["loss"])
    np.testing.assert_allclose(*losses, rtol=1e-4)


def test_one_unit_is_bounded_from_the_side_of_its_class():
    base = keras.Sequential([keras.Input((2,)), layers.Dense(1, use_bias=False)])
    base.set_weights([np.array([[2.0], [-1.0]])])
    model = IBPModel(base, epsilon=0.1, clip=None)
    model.compile("sgd", keras.losses.BinaryCrossentropy(from_logits=True))
    x, y = np.array([[0.5, 0.5], [0.5, 0.5]], "float32"), np.array([[1.0], [0.0]])
    loss = model.train_on_batch(x, y, return_dict=True)["loss"]
    # 0.5 up or down by 0.1 * (2 + 1).
    expected = np.mean([np.log1p(np.exp(-0.2)), np.log1p(np.exp(0.8))])
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("layer", "named"),
    [
        (layers.LayerNormalization(name="odd"), "'odd', a LayerNormalization"),
        (layers.Dense(4, "gelu", name="odd"), "'odd', a Dense with activation gelu"),
        (layers.Dense(4, lambda x: -x, name="odd"), "'odd'"),
        (layers.Softmax(name="odd"), "'odd', a Softmax"),
        (layers.Dense(4, "softmax", name="odd"), "'odd', a Dense with"),
        (layers.ELU(-1.0, name="odd"), "'odd', a ELU"),
        (layers.BatchNormalization(renorm=True, name="odd"), "'odd', a Batch"),
    ],
)
def test_bad_layers_are_named(layer, named):
    base = keras.Sequential([keras.Input((4,)), layer, layers.Dense(3)])
    with pytest.raises(ValueError, match="layer whose outputs .* cannot") as error:
        IBPModel(base)
    assert named in str(error.value)


def test_bad_subclassed_base():
    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(3)

        def call(self, x):
            return self.dense(x)

    base = Subclassed()
    base(np.zeros((1, 4), "float32"))
    with pytest.raises(ValueError, match="functional or Sequential"):
        IBPModel(base)


def test_initialization_keeps_the_width_of_bounds():
    """Through ten layers; Keras' own initialization multiplies it by thousands."""
    widths = []
    for ours in (False, True):
        keras.utils.set_random_seed(1)
        base = keras.Sequential(
            [keras.Input((400,))]
            + [layers.Dense(400, "relu") for _ in range(10)]
            + [layers.Dense(10)]
        )
        if ours:
            initialize_for_ibp(base, seed=2)
        relus = []
        x = np.random.default_rng(0).random((4, 400))
        propagate(base, box(x, 0.01), relus=relus)
        widths.append(
            [float(ops.mean(i.upper - i.lower)) for i in (relus[0], relus[-1])]
        )
    (first, last), (our_first, our_last) = widths
    assert last / first > 1000
    assert 0.3 < our_last / our_first < 3


def test_initialization_halves_what_follows_an_addition():
    inputs = keras.Input((300,))
    x = layers.Dense(300, "relu")(inputs)
    x = layers.ReLU()(layers.Add()([x, inputs]))
    x = layers.Dense(300, name="after")(x)
    model = keras.Model(inputs, layers.Dense(2)(x))
    initialize_for_ibp(model, seed=0)
    stds = [np.std(layer.kernel) for layer in model.layers if hasattr(layer, "kernel")]
    full = np.sqrt(2 * np.pi) / 300
    np.testing.assert_allclose(stds[:2], [full, full / 2], rtol=0.02)


def test_default_is_shi_s_warm_up():
    model = training.get("ibp")(network([np.zeros(s) for s in ((3, 6), 6, (6, 3), 3)]))
    assert (model.epsilon.start, model.epsilon.end) == (1, 21)
    assert model.clean_weight == 0 and model.regularizer_weight == 0.5


def test_bad_causal_padding_and_constants():
    causal = keras.Sequential(
        [
            keras.Input((8, 2)),
            layers.Conv1D(2, 3, padding="causal", name="odd"),
            layers.Flatten(),
            layers.Dense(2),
        ]
    )
    inputs = keras.Input((4,))
    x = layers.Add(name="odd")([inputs, np.ones((1, 4), "float32")])
    for base in (causal, keras.Model(inputs, layers.Dense(2)(x))):
        with pytest.raises(ValueError, match="'odd'"):
            IBPModel(base)


def test_classes_0_and_1_are_no_one_hot_rows(weights):
    """As a two-class problem has them, or a batch by chance."""
    model = IBPModel(network(weights), epsilon=0.05)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss)
    history = model.fit(X.astype("float32"), np.array([0, 1, 1, 0]), verbose=0)
    assert np.isfinite(history.history["loss"]).all()


def test_bad_soft_targets(weights):
    model = IBPModel(network(weights), epsilon=0.05)
    model.compile("sgd", keras.losses.CategoricalCrossentropy(from_logits=True))
    with pytest.raises(ValueError, match="`y` must hold classes or one-hot rows"):
        model.fit(X.astype("float32"), np.full((4, 3), 1 / 3), verbose=0)
    smooth = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1)
    model.compile("sgd", smooth)
    with pytest.raises(ValueError, match="without label smoothing"):
        model.fit(X.astype("float32"), np.eye(3)[Y], verbose=0)


def test_falling_radius_has_no_negative_regularizer(weights):
    model = IBPModel(network(weights), epsilon=LinearRamp(0.3, 0.1, length=2))
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    logs = model.train_on_batch(X.astype("float32"), Y, return_dict=True)
    assert logs["regularizer"] == 0


def test_wrappers_are_looked_through(weights):
    model = IBPModel(training.get("erm")(network(weights)), epsilon=0.05)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    assert np.isfinite(
        model.train_on_batch(X.astype("float32"), Y, return_dict=True)["loss"]
    )
