"""What every attack promises: batches, labels, dtypes, and bad input."""

import keras
import numpy as np
import pytest

from keras_probcert import models
from keras_probcert.attacks import FGSM, MIFGSM, PGD, GaussianNoise, losses


@pytest.fixture
def classifier():
    return keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            keras.layers.Conv2D(4, 3, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(10),
        ]
    )


def ending_in(classifier, last):
    """`classifier` with a softmax at its end, of the same logits."""
    features, dense = classifier.layers[:-1], classifier.layers[-1]
    if last == "activation":
        end = [keras.layers.Dense(10, activation="softmax")]
    else:
        end = [keras.layers.Dense(10), last]
    model = keras.Sequential([keras.Input((6, 6, 1)), *features, *end])
    end[0].set_weights(dense.get_weights())
    return model


@pytest.mark.parametrize(
    "last",
    ["activation", keras.layers.Softmax(), keras.layers.Activation("softmax")],
    ids=["activation", "softmax", "layer"],
)
def test_a_softmax_at_the_end_is_left_out(classifier, image_batch, last):
    x, y = image_batch
    model = ending_in(classifier, last)
    expected = keras.ops.convert_to_numpy(classifier(x))
    logits = models.logits(model)(x)
    np.testing.assert_allclose(logits, expected, atol=1e-6)
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(model(x)).sum(axis=1), 1, rtol=1e-5
    )
    attack = PGD(0.1)
    np.testing.assert_array_equal(
        attack(model, x, y, seed=0), attack(classifier, x, y, seed=0)
    )


def nested(inner):
    inputs = keras.Input((6, 6, 1))
    return keras.Model(inputs, inner(inputs))


def built_again(inner):
    model = keras.Sequential([keras.Input((6, 6, 1)), *inner.layers])
    model.build((None, 6, 6, 1))
    return model


def by_operation(inner):
    inputs = keras.Input((6, 6, 1))
    x = inputs
    for layer in inner.layers[:-1]:
        x = layer(x)
    return keras.Model(inputs, keras.ops.softmax(x))


@pytest.mark.parametrize(
    "wrap",
    [
        nested,
        lambda inner: nested(nested(inner)),
        lambda inner: keras.Sequential([keras.Input((6, 6, 1)), nested(inner)]),
        # The second model around it.
        lambda inner: [nested(inner), nested(inner)][1],
        built_again,
        by_operation,
    ],
    ids=["nested", "twice", "sequential", "second", "built again", "operation"],
)
def test_a_softmax_is_found_wherever_its_layer_is_from(classifier, image_batch, wrap):
    x, _ = image_batch
    model = wrap(ending_in(classifier, keras.layers.Softmax()))
    expected = keras.ops.convert_to_numpy(classifier(x))
    np.testing.assert_allclose(models.logits(model)(x), expected, atol=1e-6)
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(model(x)).sum(axis=1), 1, rtol=1e-5
    )


def test_half_precision_does_not_lose_small_gradients(image_batch):
    x, y = image_batch

    def network(policy):
        keras.utils.set_random_seed(0)
        return keras.Sequential(
            [
                keras.Input((6, 6, 1)),
                keras.layers.Conv2D(8, 3, dtype=policy),
                keras.layers.GlobalAveragePooling2D(dtype=policy),
                keras.layers.Dense(10, dtype=policy),
            ]
        )

    half, full = network("mixed_float16"), network("float32")
    # A weight that takes float16's gradient below its least number, 6e-8.
    kernel = full.layers[-1].kernel
    kernel.assign(kernel * 1e-5)
    half.set_weights(full.get_weights())
    found, expected = (PGD(0.1)(model, x, y, seed=0) for model in (half, full))
    assert (found != x).reshape(8, -1).any(axis=1).all()
    assert np.mean(np.abs(found - expected) < 1e-3) > 0.9


def test_a_single_sigmoid_unit_is_two_classes(image_batch):
    x, _ = image_batch
    model = keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(1, activation="sigmoid"),
        ]
    )
    z = keras.ops.convert_to_numpy(models.logits(model)(x))
    p = keras.ops.convert_to_numpy(model(x))[:, 0]
    np.testing.assert_array_equal(z[:, 0], 0)
    np.testing.assert_allclose(1 / (1 + np.exp(-z[:, 1])), p, rtol=1e-5)
    # The gradient of a linear model is its weight.
    kernel = model.layers[-1].get_weights()[0].reshape(6, 6, 1)
    found = FGSM(0.1, clip=None)(model, x, np.ones(8, int))
    np.testing.assert_allclose(found, x - 0.1 * np.sign(kernel), atol=1e-6)


@pytest.mark.parametrize("attack", [PGD(0.1), MIFGSM(0.1)], ids=["pgd", "mifgsm"])
def test_rows_have_nothing_to_do_with_each_other(classifier, image_batch, attack):
    x, y = image_batch
    whole = attack(classifier, x, y, seed=3)
    parts = attack(classifier, x, y, seed=3, batch_size=3)
    np.testing.assert_allclose(whole, parts, atol=1e-6)
    one_hot = attack(classifier, x, np.eye(10)[y], seed=3)
    np.testing.assert_array_equal(whole, one_hot)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("clip", [(0.0, 1.0), (-1.0, 3.0), (0.0, 255.0)])
def test_the_ball_and_the_range_hold_in_the_input_s_dtype(
    classifier, image_batch, dtype, clip
):
    x, y = image_batch
    low, high = clip
    x = np.clip((low + x * (high - low)).astype(dtype), low, high)
    epsilon = 0.1 * (high - low)
    found = PGD(epsilon, clip=clip)(classifier, x, y, seed=0)
    assert found.dtype == dtype
    step = found.astype("float64") - x.astype("float64")
    assert 0.9 * epsilon < np.abs(step).max() <= epsilon + 1e-6
    assert low <= found.min() and found.max() <= high


def test_where_a_search_lowers_the_loss_the_input_comes_back():
    # The loss of class 1 is largest at 0.55.
    model = keras.Sequential(
        [
            keras.Input((1,)),
            keras.layers.Lambda(
                lambda x: keras.ops.concatenate(
                    [-keras.ops.abs(x - 0.55), keras.ops.zeros_like(x)], axis=1
                ),
                output_shape=(2,),
            ),
        ]
    )
    x = np.full((1, 1), 0.5, "float32")
    np.testing.assert_allclose(FGSM(0.04)(model, x, [1]), 0.54, atol=1e-6)
    np.testing.assert_array_equal(FGSM(0.45)(model, x, [1]), x)


def test_rounding_to_the_input_s_dtype_lowers_no_loss(classifier):
    """Steps of less than a float16's last digit, of which rounding leaves some."""
    x = np.random.default_rng(0).random((200, 6, 6, 1)).astype("float16")

    def logits(x):
        return keras.ops.convert_to_numpy(classifier(x.astype("float32")))

    y = logits(x).argmax(axis=1)
    found = GaussianNoise(0.0005)(classifier, x, y, seed=0)
    assert (found != x).any()
    before, after = (losses.cross_entropy(logits(each), y) for each in (x, found))
    wrong = logits(found).argmax(axis=1) != y
    assert (wrong | (np.asarray(after) >= np.asarray(before) - 1e-6)).all()


def test_a_model_without_gradients_is_worth_a_warning(image_batch):
    x, y = image_batch
    model = keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            keras.layers.Flatten(),
            keras.layers.Lambda(lambda x: keras.ops.round(x)),
            keras.layers.Dense(10),
        ]
    )
    with pytest.warns(UserWarning, match="gradient of the logits is zero"):
        PGD(0.1)(model, x, y)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": np.full((8, 6, 6, 1), 1.5, "float32")}, "`x`.*clip.*1.5"),
        ({"x": np.full((8, 6, 6, 1), np.nan, "float32")}, "`x`.*finite"),
        ({"x": np.zeros((8, 6, 6, 1), int)}, "`x`.*floating-point.*int"),
        ({"x": np.zeros((8, 5, 6, 1), "float32")}, "`x`.*shape"),
        ({"x": np.zeros((0, 6, 6, 1), "float32")}, "`x`.*empty"),
        ({"y": np.full(8, 10)}, "`y`.*classes 0 to 9.*10"),
        ({"y": np.zeros(7, int)}, "`y`.*8 rows"),
        ({"y": np.full((8, 10), 0.1)}, "`y`.*one-hot"),
        ({"y": None}, "`y`.*None"),
        ({"model": lambda x: x}, "`model`.*keras.Model"),
        ({"batch_size": 0}, "`batch_size`.*0"),
        ({"seed": 1.5}, "`seed`"),
    ],
)
def test_bad_calls(classifier, image_batch, changes, message):
    x, y = image_batch
    arguments = {"model": classifier, "x": x, "y": y, **changes}
    with pytest.raises(ValueError, match=message):
        FGSM(0.1)(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epsilon": 0}, "`epsilon`.*above 0"),
        ({"epsilon": -0.1}, "`epsilon`.*-0.1"),
        ({"steps": 0}, "`steps`.*0"),
        ({"step_size": -1.0}, "`step_size`"),
        ({"step_size": 0}, "`step_size`.*above 0"),
        ({"clip": (1, 0)}, "`clip`"),
        ({"random_start": 2}, "`random_start`"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        PGD(**arguments)


def test_no_attack_makes_a_row_right():
    # The cross-entropy rises while the row becomes right.
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(3)])
    model.set_weights(
        [
            np.array([[0, -1.5, 9.5]], "float32"),
            np.array([0, 0.85, -5.75], "float32"),
        ]
    )
    x = np.array([[0.5]], "float32")

    found = FGSM(0.1, clip=None)(model, x, [0])
    before, after = (
        keras.ops.convert_to_numpy(model(point)).argmax(axis=1) for point in (x, found)
    )
    assert before != 0 and after != 0


def test_bad_changes():
    attack = PGD(0.01)
    with pytest.raises(AttributeError, match="`epsilon` of a PGD cannot be changed"):
        attack.epsilon = 0.3
