"""`CertifiedPredictor`: its promise, and what a Keras user expects of it."""

import keras
import numpy as np
import pytest
import scipy.stats
from keras import layers, ops

from keras_probcert import (
    Algorithm2Test,
    CertifiedPredictor,
    Decision,
    ExactTest,
    LInf,
    Rotation,
    VarianceMinimizingModel,
    backend,
    row_seeds,
)
from keras_probcert.certifiers import certifier


def threshold_model(bar, features=1):
    """Votes for class 1 where the first coordinate exceeds `bar`: softmax outputs."""
    inputs = keras.Input((features,))
    dense = layers.Dense(2)
    model = keras.Model(inputs, layers.Softmax()(dense(inputs)))
    kernel = np.zeros((features, 2), "float32")
    kernel[0, 1] = 1.0
    dense.set_weights([kernel, np.array([bar, 0.0], "float32")])
    return model


def centre(rows, features=1):
    """Inputs whose first coordinate is uniform on [0, 1) under `LInf(0.5)`."""
    return np.full((rows, features), 0.5, "float32")


@pytest.fixture
def image_model():
    keras.utils.set_random_seed(3)
    return keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            layers.Conv2D(4, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(10),
        ]
    )


def same(first, second):
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)


@pytest.mark.slow
@pytest.mark.tensorflow
def test_error_at_the_bar_is_at_most_alpha():
    """20,000 inputs at agreement exactly 1 − kappa.

    The count of certified ones is Binomial(20,000, at most alpha); it exceeds
    the quantile below with probability at most 1e-7.
    """
    rows, alpha = 20_000, 0.05
    certified = CertifiedPredictor(
        threshold_model(0.05),
        LInf(0.5),
        kappa=0.05,
        alpha=alpha,
        max_samples=2000,
        forward_batch_size=32_768,
    )
    result = certified.predict(centre(rows), seed=1, batch_size=rows, verbose=0)
    wrong = int(result["certified"].sum())
    assert wrong <= scipy.stats.binom.isf(1e-7, rows, alpha)
    # Not vacuous: the exact probability, within 6 standard errors (1e-8).
    exact = certified.test.operating_characteristics(0.95)
    for name, count in (
        ("certify", wrong),
        ("reject", (result["decision"] == Decision.NOT_ROBUST).sum()),
    ):
        spread = np.sqrt(rows * exact[name] * (1 - exact[name]))
        assert abs(count - rows * exact[name]) < 6 * spread, name


def test_error_at_the_bar_on_any_backend():
    """1,000 inputs; see the test above for the bounds."""
    check_error(1_000, jit_compile=None)


@pytest.mark.tensorflow
def test_error_at_the_bar_under_xla():
    check_error(1_000, jit_compile=True)


def check_error(rows, jit_compile):
    certified = CertifiedPredictor(
        threshold_model(0.05),
        LInf(0.5),
        kappa=0.05,
        alpha=0.05,
        max_samples=2000,
        forward_batch_size=16_384,
        jit_compile=jit_compile,
    )
    result = certified.predict(centre(rows), seed=2, verbose=0)
    exact = certified.test.operating_characteristics(0.95)["certify"]
    wrong = int(result["certified"].sum())
    assert wrong <= scipy.stats.binom.isf(1e-7, rows, 0.05)
    assert abs(wrong - rows * exact) < 6 * np.sqrt(rows * exact)


def test_unanimous_inputs_are_all_certified():
    certified = CertifiedPredictor(
        threshold_model(0.0), LInf(0.4), kappa=0.05, alpha=0.05, max_samples=2000
    )
    result = certified.predict(centre(2_000), seed=0, verbose=0)
    assert result["certified"].all()
    assert (result["label"] == 1).all()
    assert (result["num_samples"] == certified.test.min_samples).all()
    assert (result["lower_bound"] > 0.95).all()
    assert (result["p_value"] < 0.05).all()


def test_bounds_hold_the_agreement():
    """At agreement .9, each bound misses with probability at most alpha.

    Binomial(2,000, .05) exceeds the quantile with probability at most 1e-7.
    """
    certified = CertifiedPredictor(
        threshold_model(0.1), LInf(0.5), kappa=0.05, alpha=0.05, max_samples=500
    )
    result = certified.predict(centre(2_000), seed=0, verbose=0)
    for missed in (result["lower_bound"] > 0.9, result["upper_bound"] < 0.9):
        assert missed.sum() <= scipy.stats.binom.isf(1e-7, 2_000, 0.05)
    robust = result["decision"] == Decision.ROBUST
    np.testing.assert_array_equal(robust, result["lower_bound"] > 1 - 0.05)
    np.testing.assert_array_equal(robust, result["p_value"] <= 0.05)
    assert (result["lower_bound"] <= result["upper_bound"]).all()


def test_a_row_does_not_depend_on_its_batch(image_model, image_batch):
    x = np.random.default_rng(0).random((300, 6, 6, 1), np.float32)
    settings = {"kappa": 0.05, "alpha": 0.05, "max_samples": 400}
    certified = CertifiedPredictor(image_model, LInf(0.1), **settings)
    whole = certified.predict(x, seed=5, verbose=0)
    assert len(np.unique(whole["decision"])) == 3
    for start, stop in ((0, 1), (41, 42), (60, 67)):
        alone = certified.predict(
            x[start:stop], seed=row_seeds(5, stop - start, start), verbose=0
        )
        same(alone, {k: v[start:stop] for k, v in whole.items()})
    # Small loops, small forward passes, a partial last batch: the same.
    small = CertifiedPredictor(
        image_model, LInf(0.1), forward_batch_size=48, **settings
    )
    same(whole, small.predict(x, seed=5, batch_size=77, verbose=0))


@pytest.fixture
def slots_a_part(monkeypatch):
    """A list of what `side_by_side` is asked for."""
    asked, side_by_side = [], backend.side_by_side

    def noted(function, arrays, size):
        asked.append(size)
        return side_by_side(function, arrays, size)

    monkeypatch.setattr(backend, "side_by_side", noted)
    return asked


@pytest.mark.tensorflow
def test_parts_change_no_result(image_model, slots_a_part, monkeypatch):
    x = np.random.default_rng(0).random((300, 6, 6, 1), np.float32)
    arguments = (image_model, LInf(0.1), 0.05, 0.05, 400)
    whole = CertifiedPredictor(*arguments).predict(x, seed=5, verbose=0)
    assert not slots_a_part
    monkeypatch.setattr(certifier, "_VALUES_A_PART", 1)
    same(whole, CertifiedPredictor(*arguments).predict(x, seed=5, verbose=0))
    assert set(slots_a_part) == {4}


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("shape", "hidden", "parts"),
    [
        # 28 * 28 * 32 values a copy: the least, 64 copies.
        ((28, 28, 1), layers.Conv2D(32, 5, padding="same"), {4}),
        # 28 * 28 * 6: 222 copies have 2 ** 20 values.
        ((28, 28, 1), layers.Conv2D(6, 5, padding="same"), {222 // 16}),
        # 4,096: 1,024 copies have as many as the weights, 256 have 2 ** 20.
        ((4096,), layers.Dense(1024), {1024 // 16}),
        ((4096,), layers.Dense(4), {256 // 16}),
        # 784: 1,337 copies, more than half a pass.
        ((784,), layers.Dense(256), set()),
    ],
)
def test_networks_that_go_in_parts(shape, hidden, parts, slots_a_part):
    base = keras.Sequential(
        [keras.Input(shape), hidden, layers.Flatten(), layers.Dense(2)]
    )
    certified = CertifiedPredictor(base, LInf(0.1), 0.5, 0.5, 16)
    certified.predict(np.full((1, *shape), 0.5, "float32"), verbose=0)
    assert set(slots_a_part) == parts


@pytest.mark.tensorflow
def test_xla_gives_the_same_result(image_model):
    x = np.random.default_rng(0).random((64, 6, 6, 1), np.float32)
    for perturbation in (LInf(0.1), Rotation(30)):
        arguments = (image_model, perturbation, 0.05, 0.05, 400)
        plain = CertifiedPredictor(*arguments, jit_compile=False)
        compiled = CertifiedPredictor(*arguments, jit_compile=True)
        a, b = (c.predict(x, seed=5, verbose=0) for c in (plain, compiled))
        # Rounding differs between compilers; a vote on the edge may flip.
        agree = (a["decision"] == b["decision"]) & (a["label"] == b["label"])
        assert agree.mean() > 0.98
        if isinstance(perturbation, LInf):
            assert (a["votes"] == b["votes"]).all(axis=1).mean() > 0.98


def test_noise_is_fresh_without_a_seed(image_model):
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).random((32, 6, 6, 1), np.float32)
    certified = CertifiedPredictor(image_model, LInf(0.3), 0.05, 0.05, 400)
    first, second = (certified.predict(x, verbose=0)["votes"] for _ in range(2))
    keras.utils.set_random_seed(0)
    third = certified.predict(x, verbose=0)["votes"]
    assert (first != second).any() and (first != third).any()
    # Rows that are the same input get noise of their own.
    x[:] = x[:1]
    votes = certified.predict(x, seed=0, verbose=0)["votes"]
    assert len(np.unique(votes, axis=0)) > 1


def test_evaluate(image_model, image_batch):
    x, y = image_batch
    certified = CertifiedPredictor(image_model, LInf(0.05), 0.1, 0.05, 400)
    result = certified.predict(x, seed=1, verbose=0)
    weight = np.arange(1.0, 9.0)
    clean = image_model.predict(x, verbose=0).argmax(1)
    expected = {
        "standard_accuracy": clean == y,
        "certified_robustness_rate": result["certified"],
        "certified_robust_accuracy": result["certified"] & (result["label"] == y),
        "undecided_rate": result["decision"] == Decision.UNDECIDED,
        "futile_rate": result["decision"] == Decision.FUTILE,
        "mean_num_samples": result["num_samples"],
    }
    for weights in (None, weight):
        for labels in (y, np.eye(10)[y], y[:, None]):
            got = certified.evaluate(
                x, labels, sample_weight=weights, seed=1, verbose=0, return_dict=True
            )
            assert list(got) == list(expected)
            for name, value in expected.items():
                assert got[name] == pytest.approx(np.average(value, weights=weights))
    assert list(got.values()) == certified.evaluate(
        x, y, sample_weight=weight, seed=1, verbose=0
    )


def test_datasets(image_model, image_batch):
    x, y = image_batch
    certified = CertifiedPredictor(image_model, LInf(0.05), 0.1, 0.05, 400)
    batches = [(x[:3], y[:3]), (x[3:6], y[3:6]), (x[6:], y[6:])]
    whole = certified.predict(x, seed=4, verbose=0)
    same(whole, certified.predict(iter(batches), seed=4, verbose=0))
    arrays = certified.evaluate(x, y, seed=4, verbose=0)
    np.testing.assert_allclose(
        arrays, certified.evaluate(iter(batches), seed=4, verbose=0)
    )
    # What comes after `steps` batches is left for others.
    given = iter(batches)
    certified.predict(given, steps=2, verbose=0)
    np.testing.assert_array_equal(next(given)[0], x[6:])


@pytest.mark.tensorflow
def test_tf_data(image_model, image_batch):
    import tensorflow as tf

    x, y = image_batch
    certified = CertifiedPredictor(image_model, LInf(0.05), 0.1, 0.05, 400)
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(3)
    same(
        certified.predict(x, seed=4, verbose=0),
        certified.predict(data, seed=4, verbose=0),
    )
    np.testing.assert_allclose(
        certified.evaluate(x, y, seed=4, verbose=0),
        certified.evaluate(data, seed=4, verbose=0),
    )
    same(
        certified.predict(x[:6], seed=4, verbose=0),
        certified.predict(data, seed=4, steps=2, verbose=0),
    )


@pytest.mark.parametrize("kind", ["logits", "softmax", "sigmoid", "logit"])
def test_kinds_of_classifiers(kind):
    """The same threshold in four guises gives the same votes."""
    inputs = keras.Input((1,))
    if kind in ("logits", "softmax"):
        model = threshold_model(0.3)
        if kind == "logits":
            model = keras.Model(model.inputs, model.layers[1].output)
    else:
        dense = layers.Dense(1, activation="sigmoid" if kind == "sigmoid" else None)
        model = keras.Model(inputs, dense(inputs))
        dense.set_weights([np.array([[1.0]]), np.array([-0.3])])
    certified = CertifiedPredictor(
        model,
        LInf(0.5),
        kappa=0.1,
        alpha=0.05,
        max_samples=100,
        from_logits=True if kind == "logit" else None,
    )
    assert certified.num_classes == 2
    votes = certified.predict(centre(20), seed=0, verbose=0)["votes"]
    expected = CertifiedPredictor(
        threshold_model(0.3), LInf(0.5), kappa=0.1, alpha=0.05, max_samples=100
    ).predict(centre(20), seed=0, verbose=0)["votes"]
    np.testing.assert_array_equal(votes, expected)


@keras.saving.register_keras_serializable(package="tests")
class Broken(keras.layers.Layer):
    """NaN where the first coordinate exceeds a bar."""

    def __init__(self, bar=0.5, **kwargs):
        super().__init__(**kwargs)
        self.bar = bar

    def call(self, x):
        return ops.where(
            x[:, :1] > self.bar, np.nan, ops.concatenate([x * 0.0 + 1.0, x * 0.0], 1)
        )

    def compute_output_shape(self, input_shape):
        return (input_shape[0], 2)


@pytest.mark.parametrize(
    ("bar", "decision"), [(-1.0, Decision.NOT_ROBUST), (2.0, Decision.ROBUST)]
)
def test_nan_outputs_never_vote(bar, decision):
    inputs = keras.Input((1,))
    certified = CertifiedPredictor(
        keras.Model(inputs, Broken(bar)(inputs)), LInf(0.5), 0.05, 0.05, 500
    )
    result = certified.predict(centre(5), seed=0, verbose=0)
    assert (result["decision"] == decision).all()
    if decision == Decision.NOT_ROBUST:
        assert (result["label"] == -1).all()
        assert (result["votes"] == 0).all()


def test_some_nan_outputs_count_against():
    """3 % NaN leaves an agreement of .97: certified at kappa .05, not at .01."""
    inputs = keras.Input((1,))
    model = keras.Model(inputs, Broken(0.97)(inputs))
    for kappa, decision in ((0.1, Decision.ROBUST), (0.01, Decision.NOT_ROBUST)):
        test = ExactTest(kappa, 0.01, 3000, futile=False)
        certified = CertifiedPredictor(model, LInf(0.5), test=test)
        result = certified.predict(centre(5), seed=0, verbose=0)
        assert (result["decision"] == decision).all()
    assert (result["num_samples"] > result["votes"].sum(axis=1)).all()


def test_refused_in_a_graph():
    """Called as a layer, where nothing can raise, bad rows are refused."""
    certified = CertifiedPredictor(threshold_model(0.0, 3), LInf(0.1), 0.1, 0.1, 200)
    x = np.full((6, 3), 0.5, "float32")
    x[1, 2], x[2, 0], x[3, 1], x[4, 1] = np.nan, 1.001, -0.001, np.inf
    result = {
        k: ops.convert_to_numpy(v)
        for k, v in certified(x, seed=row_seeds(0, 6)).items()
    }
    np.testing.assert_array_equal(result["decision"], [1, 3, 3, 3, 3, 1])
    np.testing.assert_array_equal(result["certified"], result["decision"] == 1)
    assert (result["label"][1:5] == -1).all()
    assert (result["num_samples"][1:5] == 0).all()
    assert (result["lower_bound"][1:5] == 0).all()
    assert (result["upper_bound"][1:5] == 1).all()
    alone = certified(x[5:], seed=row_seeds(0, 1, 5))
    assert int(alone["num_samples"][0]) == result["num_samples"][5]


@pytest.mark.tensorflow
def test_refused_under_xla():
    import tensorflow as tf

    certified = CertifiedPredictor(
        threshold_model(0.0, 3), LInf(0.1), 0.1, 0.1, 200, jit_compile=True
    )
    x = np.full((3, 3), 0.5, "float32")
    x[1] = 255
    run = tf.function(lambda x, s: certified(x, seed=s), jit_compile=True)
    decision = run(tf.constant(x), tf.constant(row_seeds(0, 3)))["decision"]
    np.testing.assert_array_equal(decision, [1, 3, 1])


def test_radius_zero_is_certified(image_model, image_batch):
    x, _ = image_batch
    certified = CertifiedPredictor(image_model, LInf(0.0), 0.1, 0.1, 200)
    result = certified.predict(x, seed=0, verbose=0)
    assert result["certified"].all()
    clean = image_model.predict(x, verbose=0).argmax(axis=1)
    np.testing.assert_array_equal(result["label"], clean)


def test_in_a_functional_model(image_model, image_batch):
    x, _ = image_batch
    certified = CertifiedPredictor(image_model, LInf(0.01), 0.1, 0.1, 200)
    inputs, seed = keras.Input((6, 6, 1)), keras.Input((2,), dtype="int32")
    outputs = certified({"inputs": inputs, "seed": seed})
    assert outputs["votes"].shape == (None, 10)
    model = keras.Model([inputs, seed], outputs["num_samples"])
    seeds = row_seeds(0, len(x))
    np.testing.assert_array_equal(
        model.predict([x, seeds], verbose=0),
        certified.predict(x, seed=seeds, verbose=0)["num_samples"],
    )


@keras.saving.register_keras_serializable(package="tests")
class Unbuilt(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.flatten, self.dense = layers.Flatten(), layers.Dense(3)

    def call(self, x):
        return self.dense(self.flatten(x))


@pytest.mark.parametrize("base", [Unbuilt, None])
def test_save_and_load(base, image_model, image_batch, tmp_path):
    x, _ = image_batch
    base = image_model if base is None else base()
    model = VarianceMinimizingModel(base, LInf(0.02))
    certified = CertifiedPredictor(
        model, test=ExactTest(0.1, 0.05, 300, beta=0.1), forward_batch_size=64
    )
    assert certified.perturbation is model.perturbation
    before = certified.predict(x, seed=0, verbose=0)
    certified.save(tmp_path / "certified.keras")
    loaded = keras.saving.load_model(tmp_path / "certified.keras")
    assert repr(loaded.test) == repr(certified.test)
    assert repr(loaded.perturbation) == repr(model.perturbation)
    same(before, loaded.predict(x, seed=0, verbose=0))
    certified.summary(print_fn=lambda *_, **__: None)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_perturbs_before_rounding(policy, image_batch):
    x, _ = image_batch
    seen = []

    class Spy(LInf):
        def sample(self, x, noise):
            seen.append(keras.backend.standardize_dtype(x.dtype))
            return super().sample(x, noise)

    keras.config.set_dtype_policy(policy)
    try:
        base = keras.Sequential(
            [keras.Input((6, 6, 1)), layers.Flatten(), layers.Dense(3)]
        )
        certified = CertifiedPredictor(base, Spy(0.01), 0.1, 0.1, 200)
        result = certified.predict(x, seed=0, verbose=0)
    finally:
        keras.config.set_dtype_policy("float32")
    assert set(seen) == {"float32"}
    assert result["lower_bound"].dtype == np.float32
    assert result["certified"].any()


def test_the_test_in_use(image_model):
    perturbation = LInf(0.1)
    certified = CertifiedPredictor(image_model, perturbation)
    assert (certified.kappa, certified.alpha) == (0.01, 0.01)
    assert certified.max_samples == 37_000
    assert isinstance(certified.test, ExactTest)
    paper = CertifiedPredictor(
        image_model, perturbation, 0.05, 0.02, 999, test=Algorithm2Test
    )
    assert isinstance(paper.test, Algorithm2Test)
    assert (paper.kappa, paper.alpha, paper.max_samples) == (0.05, 0.02, 999)
    assert CertifiedPredictor(image_model, perturbation, test=paper.test).kappa == 0.05
    with pytest.raises(ValueError, match="`kappa` must be that of `test`, 0.05"):
        CertifiedPredictor(image_model, perturbation, kappa=0.1, test=paper.test)


def test_fit_is_refused(image_model, image_batch):
    certified = CertifiedPredictor(image_model, LInf(0.1))
    with pytest.raises(ValueError, match="is not trained: call `fit` of the model"):
        certified.fit(*image_batch)


def dense(units, **arguments):
    return keras.Sequential([keras.Input((3,)), layers.Dense(units, **arguments)])


def no_fixed_classes():
    inputs = keras.Input((None,))
    return keras.Model(inputs, layers.Activation("softmax")(inputs))


def images_out():
    inputs = keras.Input((6, 6, 1))
    return keras.Model(inputs, layers.Conv2D(3, 3)(inputs))


def two_outputs():
    inputs = keras.Input((3,))
    return keras.Model(inputs, [layers.Dense(2)(inputs), layers.Dense(2)(inputs)])


@keras.saving.register_keras_serializable(package="tests")
class TwoOutputs(keras.Model):
    def call(self, x):
        return {"a": x, "b": x}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kappa": 0}, r"`kappa` must be a number in \(0, 0.5\].*kappa=0"),
        ({"kappa": 1}, "`kappa`.*kappa=1"),
        ({"kappa": 0.7}, "`kappa`.*kappa=0.7"),
        ({"alpha": 0.0}, "`alpha`.*alpha=0.0"),
        ({"alpha": 1.0}, "`alpha`.*alpha=1.0"),
        ({"alpha": "0.1"}, "`alpha`.*alpha=.0.1"),
        ({"max_samples": 458}, "`max_samples` must be at least 459.*max_samples=458"),
        ({"max_samples": -1}, "`max_samples`.*max_samples=-1"),
        ({"test": 3}, "`test` must be a SequentialTest.*3"),
        ({"perturbation": None}, "`perturbation` must be given"),
        ({"perturbation": "linf"}, "`perturbation` must be.*'linf'"),
        ({"forward_batch_size": 100}, "`forward_batch_size`.*multiple of 16.*100"),
        ({"model": lambda: print}, "`model` must be a keras.Model"),
        ({"model": lambda: dense(1)}, "`from_logits` must be given"),
        ({"model": lambda: dense(1, activation="softmax")}, "at least two classes"),
        ({"model": no_fixed_classes}, "fixed number of classes"),
        ({"model": images_out}, "fixed number of classes"),
        ({"model": two_outputs}, "`model`.*2 of them"),
    ],
)
def test_bad_arguments(change, message):
    arguments = {"model": lambda: dense(4), "perturbation": LInf(0.1), **change}
    model = arguments.pop("model")()
    with pytest.raises(ValueError, match=message):
        CertifiedPredictor(model, **arguments)


def test_multiple_outputs_known_only_when_called():
    certified = CertifiedPredictor(TwoOutputs(), LInf(0.1), 0.1, 0.1)
    with pytest.raises(ValueError, match="exactly one output"):
        certified.predict(np.full((2, 3), 0.5, "float32"), verbose=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x * 255, r"`x` must lie in the valid input range clip=\(0.0, 1.0\)"),
        (lambda x: (x * 255).astype("uint8"), "`x` must have a floating-point dtype"),
        (lambda x: x - 0.9, "from -0.*valid|valid.*from -0"),
        (lambda x: np.where(x > 0.5, np.nan, x), "`x` must be finite"),
        (lambda x: x[:0], "empty batch"),
        (lambda x: x[:, 0, 0, 0], r"`x` must be a batch.*shape=\(8,\)"),
        (
            lambda x: x[:, :5],
            r"`x` must have shape \(rows, 6, 6, 1\).*\(8, 5, 6, 1\)",
        ),
    ],
)
def test_bad_inputs(change, message, image_model, image_batch):
    certified = CertifiedPredictor(image_model, LInf(0.1), 0.1, 0.1, 200)
    x, y = image_batch
    with pytest.raises(ValueError, match=message):
        certified.predict(change(x), verbose=0)
    with pytest.raises(ValueError, match=message):
        certified.evaluate(change(x), y, verbose=0)
    # And the predictor still works.
    assert certified.predict(x, verbose=0)["label"].shape == (8,)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (None, "`y` must be given"),
        (np.full(8, 10), "`y` must hold classes 0 to 9.*10"),
        (np.full(8, -1), "`y` must hold classes 0 to 9.*-1"),
        (np.zeros(7, int), "`y` must hold one label for each of the 8 rows"),
        (np.full((8, 10), 0.1), "one-hot"),
        (np.full(8, 0.5), "`y` must hold classes"),
    ],
)
def test_bad_labels(y, message, image_model, image_batch):
    certified = CertifiedPredictor(image_model, LInf(0.1), 0.1, 0.1, 200)
    with pytest.raises(ValueError, match=message):
        certified.evaluate(image_batch[0], y, verbose=0)


@pytest.mark.parametrize(
    "seed",
    [
        -1,
        1.5,
        True,
        np.zeros((3, 2), "int32"),
        np.zeros(8, "int32"),
        np.random.default_rng(0).random((8, 2)),
        np.full((8, 2), 2**40),
    ],
)
def test_bad_seeds(seed, image_model, image_batch):
    certified = CertifiedPredictor(image_model, LInf(0.1), 0.1, 0.1, 200)
    with pytest.raises(ValueError, match="`seed`"):
        certified.predict(image_batch[0], seed=seed, verbose=0)


def test_empty_dataset(image_model):
    certified = CertifiedPredictor(image_model, LInf(0.1), 0.1, 0.1, 200)
    with pytest.raises(ValueError, match="empty dataset"):
        certified.predict(iter([]), verbose=0)


@pytest.mark.skipif(
    keras.backend.backend() == "tensorflow", reason="TensorFlow can export"
)
def test_export_needs_tensorflow(image_model, tmp_path):
    certified = CertifiedPredictor(image_model, LInf(0.1), 0.1, 0.1, 200)
    with pytest.raises(RuntimeError, match="KERAS_BACKEND=tensorflow"):
        certified.export(tmp_path)


def unit(activation="sigmoid", size=2):
    model = keras.Sequential(
        [keras.Input((size,)), keras.layers.Dense(1, activation=activation)]
    )
    model.set_weights([np.zeros((size, 1)), np.array([-9.0])])
    return model


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"from_logits": True}, "`from_logits` must be False or None.*sigmoid"),
        ({"from_logits": "False"}, "`from_logits` must be True or False.*'False'"),
        ({"jit_compile": "false"}, "`jit_compile` must be True or False.*'false'"),
    ],
)
def test_bad_flags(arguments, message):
    with pytest.raises(ValueError, match=message):
        CertifiedPredictor(unit(), LInf(0.1), kappa=0.1, **arguments)


def test_bad_changes(image_model):
    certified = CertifiedPredictor(image_model, LInf(0.1), kappa=0.1)
    for name in ("base_model", "perturbation", "test", "forward_batch_size"):
        with pytest.raises(AttributeError, match=f"`{name}` of a CertifiedPredictor"):
            setattr(certified, name, None)
    assert certified.perturbation.epsilon == 0.1


@pytest.mark.tensorflow  # JAX has no float64 unless it is switched on.
def test_double_precision_votes_as_it_answers():
    base = keras.Sequential(
        [keras.Input((1,), dtype="float64"), keras.layers.Dense(2, dtype="float64")]
    )
    # Equal in float32.
    base.set_weights([np.zeros((1, 2)), np.array([2.0**24, 2.0**24 + 1])])
    x = np.full((3, 1), 0.5, "float32")
    certified = CertifiedPredictor(base, LInf(0.1), kappa=0.1)
    assert (certified.predict(x, seed=0, verbose=0)["label"] == 1).all()


@pytest.mark.tensorflow  # JAX refuses.
def test_inputs_are_not_rounded_to_floatx():
    before = keras.config.floatx()
    keras.config.set_floatx("bfloat16")
    try:
        inputs = keras.Input((1,), dtype="float32")
        dense = keras.layers.Dense(2, dtype="float32")
        base = keras.Model(inputs, dense(inputs))
        # bfloat16 knows no 0.3, only 0.30078.
        dense.set_weights([np.array([[0.0, 1.0]]), np.array([0.3004, 0.0])])
        certified = CertifiedPredictor(base, LInf(0.0), kappa=0.1)
        x = np.full((4, 1), 0.3, "float32")
        for batch_size in (4, 2):
            found = certified.predict(x, batch_size, seed=0, verbose=0)
            assert (found["label"] == 0).all()
    finally:
        keras.config.set_floatx(before)
