"""`SmoothedClassifier` and `SmoothedPredictor` against SciPy, and against the truth."""

import keras
import numpy as np
import pytest
import scipy.stats
from keras import layers, ops
from scipy.special import ndtr, ndtri
from statsmodels.stats.proportion import proportion_confint

from keras_probcert import CertifiedPredictor, SmoothedClassifier, SmoothedPredictor
from keras_probcert.certifiers import voting
from keras_probcert.sequential import ClopperPearsonTest


def half_space(normal):
    """Class 1 where `normal @ x` is positive."""
    inputs = keras.Input((len(normal),))
    dense = layers.Dense(2, use_bias=False)
    model = keras.Model(inputs, dense(inputs))
    dense.set_weights([np.stack([np.zeros_like(normal), normal], axis=1)])
    return model


def ball(dimension, radius):
    """Class 1 inside a ball around 0."""
    inputs = keras.Input((dimension,))
    inside = radius**2 - ops.sum(inputs**2, axis=1, keepdims=True)
    return keras.Model(inputs, ops.concatenate([ops.zeros_like(inside), inside], 1))


def small_model(classes=3):
    return keras.Sequential([keras.Input((4,)), layers.Dense(classes)])


def replayed(classes, total):
    """A `draw_votes` that deals out the columns of `classes`, `(rows, copies)`."""
    padding = -total % voting.COPIES_A_SLOT
    table = ops.convert_to_tensor(np.pad(classes, ((0, 0), (0, padding))))

    def draw_votes(rows, first):
        columns = first[:, None] + ops.arange(voting.COPIES_A_SLOT)
        flat = ops.reshape(rows[:, None] * table.shape[1] + columns, (-1,))
        return ops.take(ops.reshape(table, (-1,)), flat)

    return draw_votes


def random_votes(rng, rows, copies, classes):
    """Streams of votes with class probabilities of many kinds."""
    sharp = rng.choice([0.1, 0.5, 2.0], size=(rows, 1))
    p = np.stack([rng.dirichlet(np.full(classes, s)) for s in sharp[:, 0]])
    p[::7] = np.eye(classes)[0]
    return np.stack([rng.choice(classes, copies, p=row) for row in p]).astype("int32")


@pytest.mark.tensorflow
@pytest.mark.parametrize("features", [2, 16])
def test_radius_of_a_half_space_is_the_true_one_but_for_sampling(features):
    """2,000 points whose radius is their distance from a plane.

    The radius is above the true one with probability at most alpha a row; the count
    exceeds the quantile below with probability at most 1e-7. The mean is within 6
    standard errors of its exact value (1e-8).
    """
    rng = np.random.default_rng(features)
    rows, n0, n, sigma, alpha = 2000, 15, 500, 0.5, 0.05
    normal = rng.normal(size=features).astype("float32")
    model = half_space(normal)
    truth = np.linspace(-1.2, 1.2, rows)
    points = rng.normal(size=(rows, features))
    unit = normal / np.linalg.norm(normal)
    points += (truth - points @ unit)[:, None] * unit
    smoothed = SmoothedClassifier(
        model, sigma, n0=n0, n=n, alpha=alpha, forward_batch_size=2**16
    )
    result = smoothed.predict(points.astype("float32"), seed=1, verbose=0)
    radius, label = result["radius"].astype(float), result["label"]
    # A wrong label is a radius beyond the truth, too.
    right = label == (truth > 0)
    above = result["certified"] & ~(right & (radius <= np.abs(truth) + 1e-5))
    assert above.sum() <= scipy.stats.binom.isf(1e-7, rows, alpha)

    k = np.arange(n + 1)
    lower = proportion_confint(k, n, 2 * alpha, method="beta")[0]
    lower[0] = 0
    of_count = np.where(lower > 0.5, sigma * ndtri(lower), 0.0)
    p = ndtr(truth / sigma)
    chosen = scipy.stats.binom.sf(n0 / 2, n0, p)  # n0 is odd: no ties.
    law = scipy.stats.binom.pmf(k, n, p[:, None])
    mean, square = (
        chosen * (law @ value) + (1 - chosen) * (law[:, ::-1] @ value)
        for value in (of_count, of_count**2)
    )
    error = np.sqrt((square - mean**2).sum()) / rows
    assert abs(radius.mean() - mean.mean()) <= 6 * error
    assert mean.mean() > 0.4  # Not vacuous.


@pytest.mark.tensorflow
def test_radius_of_a_ball_is_never_above_the_true_one():
    """As above: beyond the quantile with probability at most 1e-7."""
    rows, alpha, dimension = 2000, 0.05, 2
    truth = np.linspace(0.02, 1.0, rows)
    points = np.zeros((rows, dimension), "float32")
    points[:, 0] = 1.0 - truth
    smoothed = SmoothedClassifier(
        ball(dimension, 1.0),
        0.25,
        n0=15,
        n=500,
        alpha=alpha,
        forward_batch_size=2**16,
    )
    result = smoothed.predict(points, seed=2, verbose=0)
    # The smoothed classifier's own ball, where the base says "inside" half the time.
    noise = scipy.stats.ncx2
    centre_distance = np.linspace(0, 1.5, 3001)
    inside = noise.cdf(
        1 / 0.25**2, dimension, np.maximum(centre_distance / 0.25, 1e-9) ** 2
    )
    border = centre_distance[inside > 0.5].max()
    true_radius = border - (1.0 - truth)
    label = result["label"]
    wrong = (label == 1) & (result["radius"] > true_radius + 1e-3)
    wrong |= (label == 0) & (result["radius"] > -true_radius + 1e-3)
    assert wrong.sum() <= scipy.stats.binom.isf(1e-7, rows, alpha)
    assert (result["radius"] > 0.1).mean() > 0.5


@pytest.mark.tensorflow
@pytest.mark.parametrize("bound", ["one-sided", "two-sided"])
@pytest.mark.parametrize("alpha", [0.05, 0.01, 0.001])
def test_decisions_and_radii_from_the_same_votes(alpha, bound):
    rng = np.random.default_rng(0)
    rows, n0, n, classes, sigma = 300, 20, 400, 4, 0.5
    votes = random_votes(rng, rows, n0 + n, classes)
    smoothed = SmoothedClassifier(
        small_model(classes), sigma, n0=n0, n=n, alpha=alpha, bound=bound
    )
    refused = ops.zeros((rows,), "bool")
    found = smoothed.certify(replayed(votes, n0 + n), refused)
    found = {k: ops.convert_to_numpy(v) for k, v in found.items()}
    for i in range(rows):
        first, rest = (
            np.bincount(part, minlength=classes)
            for part in (votes[i, :n0], votes[i, n0:])
        )
        np.testing.assert_array_equal(found["votes"][i], rest)
        a = first.argmax()
        assert found["guess"][i] == a
        level = alpha if bound == "one-sided" else alpha / classes
        # `alternative="greater"` and "less" are one-sided at that level.
        test = [scipy.stats.binomtest(int(v), n) for v in rest]
        p_a = scipy.stats.binomtest(int(rest[a]), n, alternative="greater")
        p_a = p_a.proportion_ci(1 - level, "exact").low
        p_b = 1 - p_a
        if bound == "two-sided":
            others = [
                scipy.stats.binomtest(t.k, n, alternative="less")
                .proportion_ci(1 - level, "exact")
                .high
                for c, t in enumerate(test)
                if c != a
            ]
            p_b = min(p_b, max(others))
        assert found["label"][i] == (a if p_a > p_b else -1)
        expected = sigma / 2 * (ndtri(p_a) - ndtri(p_b)) if p_a > p_b else 0.0
        assert found["radius"][i] <= expected
        assert found["radius"][i] == pytest.approx(expected, rel=1e-5, abs=1e-6)
    assert 0.2 < found["certified"].mean() < 1


@pytest.mark.tensorflow
@pytest.mark.parametrize("rule", ["runner_up", "half"])
@pytest.mark.parametrize("alpha", [0.05, 0.01, 0.001])
def test_predictions_from_the_same_votes(alpha, rule):
    rng = np.random.default_rng(1)
    rows, n, classes = 400, 60, 4
    votes = random_votes(rng, rows, n, classes)
    predictor = SmoothedPredictor(
        small_model(classes), 0.5, n=n, alpha=alpha, rule=rule
    )
    found = predictor.certify(replayed(votes, n), ops.zeros((rows,), "bool"))
    for i in range(rows):
        counts = np.bincount(votes[i], minlength=classes)
        second, first = np.sort(counts)[-2:]
        test = (
            scipy.stats.binomtest(first, first + second)
            if rule == "runner_up"
            else scipy.stats.binomtest(first, n, alternative="greater")
        )
        expected = counts.argmax() if test.pvalue <= alpha else -1
        assert int(found["label"][i]) == expected


@pytest.mark.parametrize("noise", ["gaussian", "uniform", "laplace"])
def test_axis_aligned_half_spaces_show_each_theorem_tight(noise):
    """p_A of a half-space orthogonal to an axis gives back its distance."""
    smoothed = SmoothedClassifier(half_space(np.float32([1, 0, 0])), 0.7, noise=noise)
    distance = np.array([0.1, 0.5, 1.1])
    law = {
        "gaussian": scipy.stats.norm(scale=0.7),
        "uniform": scipy.stats.uniform(-0.7 * 3**0.5, 2 * 0.7 * 3**0.5),
        "laplace": scipy.stats.laplace(scale=0.7 / 2**0.5),
    }[noise]
    np.testing.assert_allclose(law.std(), 0.7)
    np.testing.assert_allclose(smoothed._radius(law.cdf(distance)), distance)
    draws = ops.convert_to_numpy(
        smoothed.perturbation(np.zeros((50, 2000), "float32"), seed=3)
    )
    # False alarm: 1e-7.
    assert scipy.stats.kstest(draws.ravel(), law.cdf).pvalue > 1e-7


def test_other_norms():
    """Each ball of the given radius lies in the noise's own certified ball."""
    p, d = np.array([0.6, 0.9, 0.999]), 3
    rng = np.random.default_rng(0)
    for noise, own in (("gaussian", 2), ("uniform", 1), ("laplace", 1)):
        base = half_space(np.float32([1, 0, 0]))
        certified = SmoothedClassifier(base, 0.5, noise=noise)._radius(p)
        for norm in ("l1", "l2", "linf", 3):
            smoothed = SmoothedClassifier(base, 0.5, noise=noise, norm=norm)
            order = {"l1": 1, "l2": 2, "linf": np.inf, 3: 3}[norm]
            radius = smoothed._radius(p)
            directions = rng.normal(size=(2000, d))
            directions[:3], directions[3] = np.eye(d), 1.0
            size = np.linalg.norm(directions, order, axis=1, keepdims=True)
            size = np.linalg.norm(directions / size, own, axis=1).max()
            by_norms = certified / size
            if noise == "uniform":
                # By the overlap of cubes, whose least value in the ball is sought.
                step = directions / np.linalg.norm(directions, order, axis=1)[:, None]
                half_width = 0.5 * 3**0.5
                for r, q in zip(radius, p, strict=True):
                    share = 1 - np.abs(r * step) / (2 * half_width)
                    assert share.clip(0).prod(axis=1).min() >= 1.5 - q - 1e-9
                assert (radius >= by_norms - 1e-9).all()
            else:
                np.testing.assert_allclose(radius, by_norms)


def test_at_radius_is_the_test_of_the_agreement_that_gives_it():
    smoothed = SmoothedClassifier(small_model(), 0.5)
    certified = smoothed.at_radius(0.5)
    assert isinstance(certified, CertifiedPredictor)
    assert certified.kappa == pytest.approx(ndtr(-1.0), abs=1e-12)
    assert smoothed._radius(1 - certified.kappa) >= 0.5
    assert certified.alpha == 0.001
    for noise in ("uniform", "laplace"):
        other = SmoothedClassifier(small_model(), 0.5, noise=noise)
        assert other._radius(1 - other.at_radius(0.3).kappa) == pytest.approx(0.3)
    with pytest.raises(ValueError, match="`radius` must be one"):
        SmoothedClassifier(small_model(), 0.5, noise="uniform").at_radius(0.9)
    test = ClopperPearsonTest(certified.kappa, 0.001, 500)
    assert smoothed.at_radius(0.5, test=test).test is test


@pytest.mark.tensorflow
def test_adaptive_radii_hold_and_take_fewer_samples():
    """Above the true radius more often than the quantile with probability 1e-7."""
    rows, alpha = 500, 0.05
    truth = np.linspace(-1.2, 1.2, rows)
    smoothed = SmoothedClassifier(
        half_space(np.float32([1.0])),
        0.5,
        n0=16,
        n=4096,
        alpha=alpha,
        forward_batch_size=2**14,
    )
    x = truth[:, None].astype("float32")
    fixed = smoothed.predict(x, seed=4, verbose=0)
    result = smoothed.predict_adaptively(x, tolerance=0.1, seed=4, verbose=0)
    assert set(result) == set(fixed)
    np.testing.assert_array_equal(result["guess"], fixed["guess"])
    right = result["label"] == (truth > 0)
    above = result["certified"] & ~(right & (result["radius"] <= np.abs(truth) + 1e-5))
    assert above.sum() <= scipy.stats.binom.isf(1e-7, rows, alpha)
    assert result["num_samples"].mean() < fixed["num_samples"].mean() / 2.5
    whole = result["num_samples"] == 16 + 4096
    np.testing.assert_array_equal(result["votes"][whole], fixed["votes"][whole])
    both = result["certified"] & fixed["certified"]
    share = result["radius"][both].sum() / fixed["radius"][both].sum()
    assert 0.85 < share < 1.0
    # From the votes at the last look.
    taken = result["num_samples"] - 16
    top = result["votes"][np.arange(rows), np.maximum(result["guess"], 0)]
    last = scipy.stats.beta.ppf(alpha / 8, top, taken - top + 1)
    assert (result["lower_bound"] >= np.nan_to_num(last) - 1e-6).all()


def test_every_copy_is_counted_once_whatever_the_passes():
    x = np.random.default_rng(0).normal(size=(5, 4)).astype("float32")
    base = small_model()
    results = [
        SmoothedClassifier(
            base, 0.5, n0=7, n=101, alpha=0.05, forward_batch_size=size
        ).predict(x, seed=0, verbose=0)
        for size in (16, 2048)
    ]
    for name in results[0]:
        np.testing.assert_array_equal(results[0][name], results[1][name])
    assert (results[0]["votes"].sum(axis=1) == 101).all()
    # All looks together are the same copies.
    adaptive = SmoothedClassifier(base, 0.5, n0=7, n=101, alpha=0.05)
    adaptive = adaptive.predict_adaptively(x, tolerance=1e-9, seed=0, verbose=0)
    whole = adaptive["num_samples"] == 108
    assert whole.any()
    np.testing.assert_array_equal(adaptive["votes"][whole], results[0]["votes"][whole])
    assert (results[0]["num_samples"] == 108).all()


def test_a_base_that_is_not_built_yet():
    x = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
    base = keras.Sequential([layers.Dense(3)])
    smoothed = SmoothedClassifier(base, 0.5, n=64, bound="two-sided")
    with pytest.raises(ValueError, match="`model` must be built"):
        smoothed.at_radius(0.1)
    result = smoothed.predict_adaptively(x, seed=0, verbose=0)
    assert result["votes"].shape == (3, 3)
    assert smoothed.at_radius(0.1).kappa < 0.5
    base = keras.Sequential([layers.Dense(3)])
    few = SmoothedClassifier(base, 0.5, n=10, bound="two-sided")
    with pytest.raises(ValueError, match="`n` must be .* at least 12 "):
        few.predict(x, verbose=0)


def test_rows_in_batches_and_datasets():
    smoothed = SmoothedClassifier(small_model(), 0.5, n0=16, n=64, alpha=0.05)
    x = np.random.default_rng(0).normal(size=(6, 4)).astype("float32")
    y = np.array([0, 1, 2, 0, 1, 2])
    whole = smoothed.predict(x, seed=0, verbose=0)
    parts = smoothed.predict([x[:4], x[4:]].__iter__(), seed=0, verbose=0)
    for name in whole:
        np.testing.assert_array_equal(whole[name], parts[name])
    metrics = smoothed.evaluate(x, y, seed=0, verbose=0, return_dict=True)
    right = whole["label"] == y
    assert metrics["certified_accuracy"] == pytest.approx(right.mean())
    assert metrics["average_certified_radius"] == pytest.approx(
        (whole["radius"] * right).mean()
    )
    assert metrics["abstention_rate"] == pytest.approx((whole["label"] < 0).mean())


def test_saved_and_loaded(tmp_path):
    x = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
    for model in (
        SmoothedClassifier(
            small_model(), 0.5, "laplace", "linf", 10, 99, 0.01, "two-sided"
        ),
        SmoothedPredictor(small_model(), 0.5, n=50, rule="half"),
    ):
        model.save(tmp_path / "smoothed.keras")
        loaded = keras.saving.load_model(tmp_path / "smoothed.keras")
        configs = [{**m.get_config(), "model": None} for m in (loaded, model)]
        assert configs[0] == configs[1]
        first, second = (m.predict(x, seed=0, verbose=0) for m in (model, loaded))
        for name in first:
            np.testing.assert_array_equal(first[name], second[name])


@pytest.mark.tensorflow
def test_exported(tmp_path):
    import tensorflow as tf

    x = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
    smoothed = SmoothedClassifier(small_model(), 0.5, n0=16, n=64, alpha=0.05)
    smoothed.export(str(tmp_path / "served"))
    served = tf.saved_model.load(str(tmp_path / "served"))
    seeds = tf.constant([[1, 2], [3, 4], [5, 6]])
    expected = smoothed.predict(x, seed=seeds.numpy(), verbose=0)
    found = served.seeded(tf.constant(x), seeds)
    for name in found:
        np.testing.assert_array_equal(found[name].numpy(), expected[name])
    with pytest.raises(tf.errors.InvalidArgumentError):
        served.serving_default(tf.constant(np.full((1, 4), np.nan, "float32")))


def test_a_base_that_refuses_noise_is_warned_of():
    inputs = keras.Input((4,))
    inside = ops.all(ops.logical_and(inputs >= 0, inputs <= 1), axis=1, keepdims=True)
    outputs = ops.where(inside, layers.Dense(2)(inputs), float("nan"))
    smoothed = SmoothedClassifier(keras.Model(inputs, outputs), 0.5, n=64)
    with pytest.warns(UserWarning, match="not finite on [78]"):
        result = smoothed.predict(np.full((2, 4), 0.5, "float32"), seed=0, verbose=0)
    assert not result["certified"].any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sigma": 0.0}, "`sigma` must be more than 0"),
        ({"sigma": -1.0}, "`sigma` must be a finite number"),
        ({"sigma": None}, "`sigma` must be given"),
        ({"sigma": float("nan")}, "`sigma` must be"),
        ({"noise": "normal"}, "`noise` must be one of"),
        ({"norm": "l3"}, "`norm` must be"),
        ({"norm": 0.5}, "`norm` must be"),
        ({"alpha": 0.0}, "`alpha` must be a number in"),
        ({"alpha": 1.0}, "`alpha` must be a number in"),
        ({"n0": 0}, "`n0` must be an integer"),
        ({"n": 9}, "`n` must be large enough.* at least 10 "),
        ({"n": 10, "bound": "two-sided"}, "`n` must be .* at least 12 "),
        ({"bound": "both"}, "`bound` must be one of"),
        ({"forward_batch_size": 10}, "`forward_batch_size` must be"),
        ({"model": "model"}, "`model` must be a keras.Model"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        SmoothedClassifier(**{"model": small_model(), "sigma": 0.5, **arguments})


def test_bad_inputs():
    smoothed = SmoothedClassifier(small_model(), 0.5, n=64)
    for x, message in (
        (np.zeros((0, 4), "float32"), "at least one row"),
        (np.zeros((2, 5), "float32"), "must have shape"),
        (np.zeros((2, 4), "int32"), "floating-point"),
        (np.full((2, 4), np.nan, "float32"), "must be finite"),
    ):
        for method in (smoothed.predict, smoothed.predict_adaptively):
            with pytest.raises(ValueError, match=f"`x`.*{message}"):
                method(x, verbose=0)
    x = np.zeros((2, 4), "float32")
    with pytest.raises(ValueError, match="`x` must be an array"):
        smoothed.predict_adaptively(iter([x]))
    with pytest.raises(ValueError, match="`tolerance` must be"):
        smoothed.predict_adaptively(x, tolerance=0.0)
    with pytest.raises(ValueError, match="`batch_size` must be"):
        smoothed.predict_adaptively(x, batch_size=0)
    with pytest.raises(ValueError, match="`n` must be large enough.*13 .*8 looks"):
        SmoothedClassifier(small_model(), 0.5, n=12).predict_adaptively(x)
    with pytest.raises(ValueError, match="`n` must be large enough.* at least 11 "):
        SmoothedPredictor(small_model(), 0.5, n=10)
    # With 3 votes for 3 classes, a majority is a wrong one's in 14 of 27 cases.
    with pytest.raises(ValueError, match=r"`alpha` must be a number in \(0, 0.5\)"):
        SmoothedPredictor(small_model(), 0.5, n=3, alpha=0.5, rule="half")
    with pytest.raises(ValueError, match="not trained"):
        smoothed.fit(x, x)


def test_rows_of_no_fixed_shape():
    base = keras.Sequential(
        [
            keras.Input((None, None, 1)),
            keras.layers.Conv2D(4, 3),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(3),
        ]
    )
    with pytest.raises(ValueError, match="`model` must take rows of a fixed shape"):
        SmoothedClassifier(base, 0.25)


def test_batches_are_what_int32_can_count():
    base = keras.Sequential([keras.Input((1,)), keras.layers.Dense(2)])
    smoothed = SmoothedClassifier(base, 0.25, n=10_000_000)
    seen = []

    class Seen(Exception):
        pass

    def spy(inputs, batch_size):
        seen.append(batch_size)
        raise Seen

    x = np.zeros((4000, 1), "float32")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("keras_probcert.backend.batches", spy)
        with pytest.raises(Seen):
            smoothed.predict(x, batch_size=4000, verbose=0)
    # Copies, and slots of 16 of them, rounded up.
    assert seen[0] * (10_000_100 / 16 + 1) < 2**31
