"""The networks: sizes, shapes, normalization, and which method runs on which."""

import keras
import numpy as np
import pytest

from keras_probcert import architectures, training
from keras_probcert.architectures import (
    basic_convnet,
    cifar_resnet110,
    cnn7,
    resnet18,
    small_convnet,
    wide_resnet8,
)
from keras_probcert.training import initialize_for_ibp


def parameters(model):
    return sum(int(np.prod(w.shape)) for w in model.trainable_weights)


@pytest.mark.parametrize(
    ("make", "count"),
    [
        (lambda: basic_convnet(), 1_663_370),
        (lambda: small_convnet(), 166_406),
        (lambda: resnet18((224, 224, 3), 1000, stem="imagenet"), 11_689_512),
        (lambda: resnet18(), 11_173_962),
        # The paper prints 1,730,474.
        (lambda: cifar_resnet110(), 1_730_714),
        # 3,000,074.
        (lambda: wide_resnet8(), 2_689_162),
        (lambda: wide_resnet8(widen_factor=7), 3_655_162),
        (lambda: wide_resnet8(widen_factor=8), 4_769_130),
        # 378,562.
        (lambda: cnn7(), 377_842),
    ],
)
def test_parameter_counts(make, count):
    assert parameters(make()) == count


@pytest.mark.parametrize("name", architectures.__all__)
def test_logits_of_any_shape(name, tmp_path):
    model = getattr(architectures, name)((16, 16, 2), 5, mean=0.4, std=(0.2, 0.3))
    assert model.output_shape == (None, 5)
    x = np.random.default_rng(0).random((3, 16, 16, 2), np.float32)
    outputs = model.predict(x, verbose=0)
    # Normalized inside: the same weights without it want normalized inputs.
    plain = getattr(architectures, name)((16, 16, 2), 5)
    plain.set_weights(model.get_weights())
    normalized = (x - 0.4) / np.array([0.2, 0.3], "float32")
    np.testing.assert_allclose(
        plain.predict(normalized, verbose=0), outputs, rtol=1e-3, atol=1e-4
    )
    if name == "cnn7":
        model.save(tmp_path / "model.keras")
        loaded = keras.models.load_model(tmp_path / "model.keras")
        np.testing.assert_allclose(loaded.predict(x, verbose=0), outputs, rtol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: resnet18(stem="mnist"), "`stem`.*'mnist'"),
        (lambda: wide_resnet8(widen_factor=0), "`widen_factor`"),
        (lambda: cnn7(width=1.5), "`width`"),
        (lambda: cnn7(mean=(0.1, 0.2)), "`mean`.*1 channels"),
        (lambda: basic_convnet(std=0.0), "`std` must be positive"),
        (lambda: basic_convnet(mean=float("nan")), "`mean`"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


SMALL = {
    "basic_convnet": lambda: basic_convnet((8, 8, 1), 3),
    "cnn7": lambda: cnn7((8, 8, 1), 3, width=2, linear_size=4),
    "wide_resnet8": lambda: wide_resnet8((8, 8, 1), 3, widen_factor=1),
    "resnet18": lambda: resnet18((8, 8, 1), 3),
    "cifar_resnet110": lambda: cifar_resnet110((8, 8, 1), 3),
}
# Every method runs on every network but IBP on the deepest; the deep ones are tried
# with one method of a kind.
FEW = ("variance_minimizing", "trades", "ibp", "smoothmix")
PAIRS = [
    (method, network)
    for network in SMALL
    for method in (FEW if "resnet1" in network else training.METHODS)
    if (method, network) != ("ibp", "cifar_resnet110")
]


def slow_if_deep(method, network):
    deep = network.startswith(("resnet", "cifar")) and method != "variance_minimizing"
    return pytest.param(method, network, marks=[pytest.mark.slow] * deep)


@pytest.mark.parametrize(("method", "network"), [slow_if_deep(*pair) for pair in PAIRS])
def test_table_7(method, network):
    steps = {"steps": 1}
    arguments = {
        "smoothadv": {"epsilon": 0.5, **steps},
        "smoothmix": {"mixing_weight": 5.0, **steps},
        "ibp": {"epsilon": 0.01},
        **dict.fromkeys(("pgdt", "trades", "mart", "kl_pgd"), steps),
    }.get(method, {})
    base = SMALL[network]()
    if method == "ibp":
        initialize_for_ibp(base, seed=0)
    model = training.get(method)(base, **arguments)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(1e-3), loss, run_eagerly=True)
    x = np.random.default_rng(0).random((2, 8, 8, 1), np.float32)
    logs = model.train_on_batch(x, np.array([0, 2]), return_dict=True)
    assert np.isfinite(logs["loss"])
    assert all(np.isfinite(w).all() for w in base.get_weights())


def test_ibp_cannot_bound_a_network_of_110_layers():
    model = training.get("ibp")(SMALL["cifar_resnet110"](), epsilon=0.1)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    x = np.random.default_rng(0).random((2, 8, 8, 1), np.float32)
    with pytest.raises(ValueError, match="too deep.*'cifar_resnet110'"):
        model.fit(x, np.array([0, 2]), verbose=0)
