"""Double-sampling randomized smoothing: closed forms, linear programs, soundness."""

import json

import keras
import numpy as np
import pytest
import scipy.stats
from keras import layers, ops
from scipy import optimize, special

from keras_probcert.certifiers import DSRSClassifier
from keras_probcert.certifiers.dsrs import DoubleSampling
from keras_probcert.perturbations import GeneralizedGaussian
from keras_probcert.training import get


class Law:
    """Generalized Gaussian noise on a fine grid of norms, independent of the code."""

    def __init__(self, sigma, k, dimension, truncate=None, size=20_000):
        shape, scale = (
            dimension / 2 - k,
            sigma * np.sqrt(dimension / (dimension - 2 * k)),
        )
        share = 1.0
        if truncate is not None:
            share = scipy.stats.gamma(shape).cdf((truncate / scale) ** 2 / 2)
        levels = (np.arange(size) + 0.5) / size * share
        self.norms = scale * np.sqrt(2 * scipy.stats.gamma(shape).ppf(levels))
        self.cosine = scipy.stats.beta((dimension - 1) / 2, (dimension - 1) / 2)

    def _below(self, cosine):
        return self.cosine.cdf((1 + cosine) / 2).mean()

    def half_space(self, distance):
        """P(z₁ < distance)."""
        return self._below(distance / self.norms)

    def ball(self, radius, offset):
        """P(‖z + m‖ ≤ radius) for an m of norm `offset` > 0."""
        return self._below(
            (radius**2 - offset**2 - self.norms**2) / (2 * offset * self.norms)
        )


def edge_of_ball(law, radius):
    """The distance from its centre at which a ball has probability ½."""
    return optimize.brentq(lambda m: law.ball(radius, m) - 0.5, 1e-3, 3 * radius)


SECOND = [{"second_sigma": 0.4}, {"truncate": 0.9}]


def pair(sigma, k, dimension, second):
    """`second`, with the truncation in units of the root of the mean squared norm."""
    if "truncate" in second:
        second = {"truncate": second["truncate"] * sigma * np.sqrt(dimension)}
    return DoubleSampling(sigma, k, dimension, **second), second


def second_law(sigma, k, dimension, second):
    return Law(second.get("second_sigma", sigma), k, dimension, second.get("truncate"))


@pytest.mark.parametrize(
    "share, published", [(0.5, 0.0), (0.9, 17.95), (0.99, 25.34), (0.999, 30.17)]
)
def test_ball_that_is_the_support_of_the_truncated_noise(share, published):
    """Q_A = 1 and P_A = P(supp Q) leave one classifier, the ball of radius T."""
    scale = np.sqrt(784 / 24)
    radius = scale * np.sqrt(2 * special.gammaincinv(12, share))
    found = DoubleSampling(1.0, 380, 784, truncate=radius).radius(share, 1.0)
    assert found == pytest.approx(published, abs=0.01)
    if share > 0.5:
        law = Law(1.0, 380, 784)
        exact = optimize.brentq(lambda r: law.ball(radius, r) - 0.5, 1, 100)
        assert exact - 2e-4 < found < exact + 2e-5


@pytest.mark.parametrize("second", SECOND, ids=str)
@pytest.mark.parametrize("dimension", [2, 16, 784])
def test_half_space_under_gaussian_noise(dimension, second, sigma=0.5):
    """Neyman-Pearson, DSRS and the truth are one; both noises know it."""
    both, second = pair(sigma, 0, dimension, second)
    for distance in (0.3, 1.0, 1.7):
        first = scipy.stats.norm.cdf(distance / sigma)
        if "second_sigma" in second:
            other = scipy.stats.norm.cdf(distance / second["second_sigma"])
        else:
            other = second_law(sigma, 0, dimension, second).half_space(distance)
        found = both.radius(first, other)
        assert found == pytest.approx(distance, abs=2e-4 * sigma)
        assert both.neyman_pearson_radius(first) == pytest.approx(distance)
        assert found >= both.neyman_pearson_radius(first)


@pytest.mark.parametrize("second", SECOND, ids=str)
def test_half_space_under_generalized_gaussian_noise(second, sigma=0.5):
    both, second = pair(sigma, 380, 784, second)
    for distance in (0.2, 0.6):
        first = Law(sigma, 380, 784).half_space(distance)
        other = second_law(sigma, 380, 784, second).half_space(distance)
        alone, found = both.neyman_pearson_radius(first), both.radius(first, other)
        assert 0.8 * distance < alone <= found <= distance + 2e-5


def solve_linear_program(sigma, k, dimension, r, first, second_probability, second):
    """The least P_δ(f) over f that are constant on 150² cells of equal P."""
    size, half = 150, (dimension - 1) / 2
    scale = sigma * np.sqrt(dimension / (dimension - 2 * k))
    levels = (np.arange(size) + 0.5) / size
    norms = scale * np.sqrt(2 * special.gammaincinv(dimension / 2 - k, levels))
    norms, cosines = np.meshgrid(
        norms, 2 * special.betaincinv(half, half, levels) - 1, indexing="ij"
    )

    def log_density(squares, scale):
        return -k * np.log(squares) - squares / (2 * scale**2)

    shifted = norms**2 + r**2 - 2 * r * norms * cosines
    shifted = np.exp(log_density(shifted, scale) - log_density(norms**2, scale))
    if "truncate" in second:
        ratio = (norms <= second["truncate"]).astype(float)
    else:
        ratio = log_density(norms**2, scale * second["second_sigma"] / sigma)
        ratio = np.exp(ratio - log_density(norms**2, scale))
    mass = np.full(norms.size, 1 / norms.size)
    return optimize.linprog(
        shifted.ravel() * mass,
        A_ub=-np.stack([mass, ratio.ravel() / ratio.sum()]),
        b_ub=[-first, -second_probability],
        bounds=(0, 1),
    ).fun


@pytest.mark.parametrize(
    "k, dimension, second, first, second_probability",
    [
        (0, 2, {"second_sigma": 0.3}, 0.8, 0.97),
        (0.5, 4, {"second_sigma": 0.35}, 0.8, 0.95),
        (1, 5, {"second_sigma": 0.4}, 0.6, 0.99),  # Q decides alone.
        (1, 5, {"second_sigma": 0.4}, 0.7, 0.6),  # P decides alone.
        (0.5, 4, {"truncate": 1.0}, 0.8, 0.97),
        (0, 2, {"truncate": 0.6}, 0.7, 0.97),
    ],
)
def test_bound_is_the_value_of_the_linear_program(
    k, dimension, second, first, second_probability, sigma=0.5
):
    found = DoubleSampling(sigma, k, dimension, **second).lower_bound(
        0.3, first, second_probability
    )
    exact = solve_linear_program(
        sigma, k, dimension, 0.3, first, second_probability, second
    )
    # The cells' midpoints err by about that much.
    assert found == pytest.approx(exact, abs=3e-3)


@pytest.mark.parametrize("second", SECOND, ids=str)
def test_no_multipliers_give_more_than_the_best(second, sigma=0.5):
    """The dual is concave, and its maximum is found."""
    both, _ = pair(sigma, 1, 5, second)
    r, misses = 0.5, (0.1, 0.02)
    best = both.lower_bound(r * both._scale, 1 - misses[0], 1 - misses[1])
    random = np.random.default_rng(0)
    one, two = both._multipliers(r, *misses)
    for scale in (0.01, 0.1, 1.0):
        for step in random.normal(0, scale, (5, 2)):
            value, _ = both._bound(r, (one + step[0], two + step[1]), *misses, 48)
            assert value <= best + 5e-6
    assert best <= both._bound(r, (one, two), *misses, 96)[0]


@pytest.mark.parametrize("second", SECOND, ids=str)
@pytest.mark.parametrize("k, dimension", [(380, 784), (1, 5)])
def test_never_below_neyman_pearson_nor_falling(k, dimension, second, sigma=0.5):
    both, _ = pair(sigma, k, dimension, second)
    for first in (0.6, 0.95, 0.9998):
        alone = both.neyman_pearson_radius(first)
        radii = [both.radius(first, other) for other in (0.0, first, 0.9998)]
        assert radii[0] >= alone > 0
        assert np.all(np.diff(radii) > -2e-4 * sigma)
    assert radii[-1] > 0
    # The bound at a distance, too.
    bounds = [both.lower_bound(r, 0.95, 0.99) for r in np.linspace(0.01, 1.5, 12)]
    assert np.all(np.diff(bounds) < 0)
    assert bounds[0] == pytest.approx(0.95, abs=0.03)


@pytest.mark.parametrize("second", SECOND, ids=str)
@pytest.mark.parametrize("k, dimension", [(380, 784), (0.5, 2), (2, 6)])
def test_soundness_on_balls(k, dimension, second, sigma=0.5):
    """Exact probabilities of a ball around another point, which moves away."""
    both, second = pair(sigma, k, dimension, second)
    law, other = Law(sigma, k, dimension), second_law(sigma, k, dimension, second)
    gains = []
    for radius in np.array([1.2, 1.6]) * sigma * np.sqrt(dimension):
        edge = edge_of_ball(law, radius)
        for offset in (0.01, edge / 2, 0.9 * edge):
            first, second_probability = (
                each.ball(radius, offset) for each in (law, other)
            )
            found = both.radius(first, second_probability)
            assert found <= edge - offset + 2e-5
            gains.append(found / both.neyman_pearson_radius(first))
    assert min(gains) >= 1 and max(gains) > 1.01


def test_neyman_pearson_radius():
    both = DoubleSampling(0.5, 0, 784, second_sigma=0.4)
    assert both.neyman_pearson_radius(0.5) == both.radius(0.4, 1.0) == 0
    # The largest float64 below 1.
    assert both.neyman_pearson_radius(1.0) == pytest.approx(0.5 * 8.2095, abs=1e-4)
    # The general search finds what is closed for Gaussian noise.
    for first in (0.51, 0.9, 0.9998):
        exact = 0.5 * scipy.stats.norm.ppf(first)
        assert both.neyman_pearson_radius(first) == pytest.approx(exact, rel=1e-8)
        assert both._search(1 - first, 1.0, 0.0) == pytest.approx(exact, abs=1e-4)


def test_bad_pairs():
    good = {"sigma": 0.5, "k": 380, "dimension": 784, "second_sigma": 0.4}
    for name, values in {
        "sigma": [0, -1, np.nan, "1", None],
        "k": [-1, 392, 400, "1", None],
        "dimension": [1, 2.5, None],
        "second_sigma": [0, -0.1, 0.5, 0.6, "0.4"],
    }.items():
        for value in values:
            with pytest.raises(
                ValueError, match=f"^`{name}` must be .*Received: {name}"
            ):
                DoubleSampling(**{**good, name: value})
    for truncate in (0, -1, 0.1, 1e6, "1"):
        with pytest.raises(ValueError, match="^`truncate` must .*Received: truncate"):
            DoubleSampling(0.5, 380, 784, truncate=truncate)
    for both in ({}, {"second_sigma": 0.4, "truncate": 13.0}):
        with pytest.raises(ValueError, match="Either `second_sigma` or `truncate`"):
            DoubleSampling(0.5, 380, 784, **both)
    for name in ("first", "second"):
        for value in (-0.1, 1.1, np.nan, "1"):
            arguments = {"first": 0.9, "second": 0.9, name: value}
            with pytest.raises(
                ValueError, match=f"^`{name}` must be .*Received: {name}"
            ):
                DoubleSampling(**good).radius(**arguments)


def linear_model(dimension=8):
    """Class 1 where the first coordinate is more than 0."""
    model = keras.Sequential([keras.Input((dimension,)), layers.Dense(2)])
    kernel = np.zeros((dimension, 2), "float32")
    kernel[0, 1] = 1.0
    model.set_weights([kernel, np.zeros(2, "float32")])
    return model


def ball_model(radius, dimension=8):
    """Class 1 in the ball of this radius around 0."""
    inputs = keras.Input((dimension,))
    inside = radius**2 - ops.sum(inputs**2, axis=1, keepdims=True)
    return keras.Model(inputs, ops.concatenate([ops.zeros_like(inside), inside], 1))


NOISES = [{"second_sigma": 0.4}, {"share": 0.6}]


def check_radii(model, x, truth, k, second, alpha=0.05, n=300):
    """A radius exceeds the truth, or a label is wrong, with probability below alpha.

    In `rows` inputs more often than binom.isf(1e-7, rows, alpha) with probability
    below 1e-7.
    """
    smoothed = DSRSClassifier(model, 0.5, k, n=n, alpha=alpha, **second)
    result = smoothed.predict(x, seed=7, verbose=0)
    certified = result["certified"]
    wrong = (result["radius"] > truth) | (certified & (result["label"] != 1))
    assert wrong.sum() <= scipy.stats.binom.isf(1e-7, len(x), alpha)
    assert (certified == (result["radius"] > 0)).all() and certified.mean() > 0.5
    assert (result["label"][~certified] == -1).all()
    assert (result["radius"] >= result["neyman_pearson_radius"]).all()
    assert (result["num_samples"] == 100 + 2 * n).all()
    assert (result["procedure"] == "dsrs").all()
    # Directly from the votes.
    both = smoothed._double_sampling()
    totals = {"votes": np.full(len(x), n), "second_votes": np.full(len(x), n)}
    if "share" in second:
        totals = {"votes": 2 * totals["votes"]}
        totals["second_votes"] = result["second_num_samples"]
        # Binomials at 7 sigma: 1e-10.
        share = second["share"]
        spread = np.sqrt(2 * n * share * (1 - share))
        assert (abs(totals["second_votes"] - 2 * n * share) < 7 * spread).all()
    bounds = {}
    for name, total in totals.items():
        assert (result[name].sum(axis=1) == total).all()
        votes = result[name][np.arange(len(x)), result["guess"]]
        bounds[name] = scipy.stats.beta.ppf(alpha / 2, votes, total - votes + 1)
    np.testing.assert_allclose(result["lower_bound"], bounds["votes"], rtol=1e-6)
    np.testing.assert_allclose(
        result["second_lower_bound"], bounds["second_votes"], rtol=1e-6
    )
    for row in range(3):
        exact = both.radius(float(bounds["votes"][row]), bounds["second_votes"][row])
        assert result["radius"][row] == pytest.approx(exact, rel=1e-6)
    return result


def check_share(votes, total, exact):
    """Binomials at 7 sigma: 1e-11 each."""
    spread = np.sqrt(total * exact * (1 - exact)) + 1
    assert (abs(votes - total * exact) < 7 * spread).all()


@pytest.mark.parametrize("second", NOISES, ids=str)
def test_linear_model(second):
    x = np.zeros((16, 8), "float32")
    x[:, 0] = np.linspace(0.1, 1.2, 16)
    result = check_radii(linear_model(), x, x[:, 0], 0, second)
    total = result["votes"].sum(axis=1)
    check_share(result["votes"][:, 1], total, scipy.stats.norm.cdf(x[:, 0] / 0.5))
    if "second_sigma" in second:
        exact = scipy.stats.norm.cdf(x[:, 0] / 0.4)
    else:
        radius = GeneralizedGaussian(0.5, 0).norm_quantile(second["share"], 8)
        law = Law(0.5, 0, 8, radius)
        exact = np.array([law.half_space(distance) for distance in x[:, 0]])
    check_share(result["second_votes"][:, 1], result["second_num_samples"], exact)


@pytest.mark.parametrize("second", NOISES, ids=str)
def test_ball_model(second, dimension=8, k=3):
    law = Law(0.5, k, dimension)
    edge = edge_of_ball(law, 2.2)
    x = np.zeros((12, dimension), "float32")
    x[:, 3] = np.linspace(0.01, edge - 0.3, 12)
    result = check_radii(ball_model(2.2), x, edge - x[:, 3], k, second)
    gain = result["radius"] / np.maximum(result["neyman_pearson_radius"], 1e-9)
    assert gain.max() > 1.02
    exact = np.array([law.ball(2.2, offset) for offset in x[:, 3]])
    check_share(result["votes"][:, 1], result["votes"].sum(axis=1), exact)


@pytest.fixture
def model():
    keras.utils.set_random_seed(4)
    return keras.Sequential([keras.Input((8,)), layers.Dense(3)])


def test_rows_are_what_they_are_in_any_batch_and_their_metrics(model):
    x = np.random.default_rng(0).normal(size=(6, 8)).astype("float32")
    smoothed = DSRSClassifier(model, 0.5, 2, n=200)
    full = smoothed.predict(x, seed=3, verbose=0)
    parts = smoothed.predict(iter([x[:2], x[2:]]), seed=3, verbose=0)
    for name in full:
        np.testing.assert_array_equal(full[name], parts[name], err_msg=name)
    # Q is P in a ball, and its votes are among those of P.
    assert (full["second_votes"] <= full["votes"]).all()

    y = model.predict(x, verbose=0).argmax(axis=1)
    right = full["label"] == y
    metrics = smoothed.evaluate(x, y, seed=3, verbose=0, return_dict=True)
    assert metrics == {
        "standard_accuracy": 1.0,
        "certified_accuracy": pytest.approx(right.mean()),
        "average_certified_radius": pytest.approx((full["radius"] * right).mean()),
        "abstention_rate": pytest.approx((~full["certified"]).mean()),
        "mean_num_samples": 500.0,
    }


def test_noise_of_the_training(model):
    trained = get("da")(model, GeneralizedGaussian(0.25, 3), num_samples=1)
    smoothed = DSRSClassifier(trained, n=100)
    assert (smoothed.sigma, smoothed.k, smoothed.share) == (0.25, 3, 0.7)
    for name in ("sigma", "k"):
        with pytest.raises(ValueError, match=f"^`{name}` must be given.*{name}=None"):
            DSRSClassifier(model, **{"sigma": 0.5, "k": 1, name: None})


def test_config_round_trip(model):
    smoothed = DSRSClassifier(model, 0.5, 2, 0.6, n0=20, n=300, alpha=0.01)
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(smoothed)))
    again = keras.saving.deserialize_keras_object(config)
    configs = again.get_config(), smoothed.get_config()
    for config in configs:
        config.pop("model")  # Its own layers, built again.
    assert configs[0] == configs[1]
    with pytest.raises(NotImplementedError, match="cannot be exported"):
        smoothed.export("anywhere")


def test_a_model_that_is_not_finite_is_not_certified():
    inputs = keras.Input((8,))
    nothing = layers.Dense(3)(inputs) * np.float32("nan")
    smoothed = DSRSClassifier(keras.Model(inputs, nothing), 0.5, 2, n=100)
    with pytest.warns(UserWarning, match="not finite on 100.00%"):
        result = smoothed.predict(np.zeros((2, 8), "float32"), seed=0, verbose=0)
    assert (result["label"] == -1).all() and (result["radius"] == 0).all()
    assert (result["guess"] == -1).all() and not result["certified"].any()


def test_bad_arguments(model):
    good = {"sigma": 0.5, "k": 2}
    for name, values in {
        "sigma": [0, -1, np.nan, "1"],
        "k": [-1, 4, 4.5, "1"],
        "second_sigma": [0, 0.5, 0.6, "0.4"],
        "share": [0, 1, -1, "1"],
        "n0": [0, 1.5],
        "n": [0, 5, "100"],
        "alpha": [0, 1, "0.1"],
        "forward_batch_size": [0, 17],
    }.items():
        for value in values:
            with pytest.raises(ValueError, match=f"^`{name}` must .*Received: {name}="):
                DSRSClassifier(model, **{**good, name: value})
    with pytest.raises(ValueError, match="at least 6 for alpha=0.001. Received: n=5"):
        DSRSClassifier(model, **good, n=5)
    with pytest.raises(ValueError, match="at least 11 for alpha=0.001. Received: n=10"):
        DSRSClassifier(model, **good, second_sigma=0.4, n=10)
    with pytest.raises(ValueError, match="`share` must not be given beside"):
        DSRSClassifier(model, **good, second_sigma=0.4, share=0.5)
    with pytest.raises(ValueError, match="`x` must be finite"):
        DSRSClassifier(model, **good).predict(np.full((1, 8), np.nan, "float32"))
