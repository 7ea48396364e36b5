"""Evaluations against what a loop by hand gives, whatever the input comes in."""

import keras
import numpy as np
import pytest
from scipy import stats

from keras_probcert import CertifiedPredictor, LInf
from keras_probcert.attacks import (
    FGSM,
    MIFGSM,
    PGD,
    Deny,
    attack_suite,
    evaluate_attack,
)
from keras_probcert.metrics import success_rate


@pytest.fixture(scope="module")
def model():
    """Class 1 where the first coordinate is above ½."""
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    kernel = np.zeros((3, 2), "float32")
    kernel[0, 1] = 20.0
    model.set_weights([kernel, np.array([0.0, -10.0], "float32")])
    return model


@pytest.fixture(scope="module")
def certified(model):
    return CertifiedPredictor(model, LInf(0.1), kappa=0.1, alpha=0.01)


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(1)
    x = rng.random((23, 3), np.float32)
    y = (x[:, 0] > 0.5).astype("int32")
    y[:3] = 1 - y[:3]
    return x, y


def shift(amount):
    """An attack that moves the first coordinate, as from another library."""

    def attack(model, x, y):
        moved = np.array(x)
        moved[:, 0] = np.clip(moved[:, 0] + amount * np.where(y == 1, -1, 1), 0, 1)
        return moved

    return attack


def test_a_plain_model_by_hand(model, rows):
    x, y = rows
    attack = PGD(0.1, steps=3)
    result = evaluate_attack(model, attack, x, y, seed=0, verbose=0, epsilon=0.1)
    right = (x[:, 0] > 0.5) == y
    still = np.where(y == 1, x[:, 0] - 0.1, x[:, 0] + 0.1)
    defended = right & ((still > 0.5) == y)
    assert 0 < defended.sum() < right.sum() == 20
    np.testing.assert_array_equal(result.defended, defended)
    np.testing.assert_array_equal(result.clean_label, x[:, 0] > 0.5)
    np.testing.assert_array_equal(result.y, y)
    assert result.defence_success_rate.successes == defended.sum()
    assert result.standard_accuracy.rate == 20 / 23
    assert (result.forward_passes, result.backward_passes) == (23 * 6, 23 * 3)
    assert result.seconds > 0 and result.certified is None
    figures = result.to_dict()
    assert figures["defence_success_rate"] == defended.mean()
    assert "denied_rate" not in figures and "defence_success_rate=" in repr(result)


def test_batches_change_nothing(model, rows):
    x, y = rows
    attack = PGD(0.1, steps=3)
    expected = evaluate_attack(model, attack, x, y, seed=5, verbose=0)
    again = [
        evaluate_attack(model, attack, x, y, seed=5, verbose=0, batch_size=7),
        evaluate_attack(model, attack, x, np.eye(2)[y], seed=5, verbose=0),
        evaluate_attack(model, attack, [(x[:9], y[:9]), (x[9:], y[9:])], seed=5),
        evaluate_attack(model, attack, iter([(x[:9], y[:9]), (x[9:], y[9:])]), seed=5),
    ]
    for result in again:
        np.testing.assert_allclose(result.x_adv, expected.x_adv, atol=1e-6)
        np.testing.assert_array_equal(result.label, expected.label)
    other = evaluate_attack(model, attack, x, y, seed=6, verbose=0)
    assert np.abs(other.x_adv - expected.x_adv).max() > 1e-3


@pytest.mark.tensorflow
def test_datasets(model, rows):
    import tensorflow as tf

    x, y = rows
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(10)
    result = evaluate_attack(model, FGSM(0.1), data, verbose=0)
    expected = evaluate_attack(model, FGSM(0.1), x, y, verbose=0)
    np.testing.assert_array_equal(result.x_adv, expected.x_adv)


@pytest.mark.tensorflow
@pytest.mark.parametrize("as_batches", [False, True])
def test_the_bar_ends_with_the_result(model, rows, as_batches, capsys):
    x, y = rows
    data = ([(x[:10], y[:10]), (x[10:], y[10:])],) if as_batches else (x, y)
    data = (iter(data[0]),) if as_batches else data
    result = evaluate_attack(model, shift(0.1), *data, batch_size=10, verbose=2)
    assert result.defence_success_rate.rate not in (0.0, 1.0)
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert last.endswith(
        f"defence_success_rate: {result.defence_success_rate.rate:.4f}"
    )


def test_cleverhans_plugs_in(model, certified, rows):
    module = "cleverhans.tf2.attacks.fast_gradient_method"
    theirs = pytest.importorskip(module).fast_gradient_method
    x, y = rows

    def attack(model, x, y):
        return theirs(model, x, 0.1, np.inf, clip_min=0.0, clip_max=1.0, y=y)

    for victim in (model, certified):
        result = evaluate_attack(
            victim, attack, x, y, verbose=0, epsilon=0.1, clip=(0, 1)
        )
        ours = evaluate_attack(victim, FGSM(0.1), x, y, verbose=0)
        assert result.forward_passes is None
        np.testing.assert_allclose(result.x_adv, ours.x_adv, atol=1e-6)
    assert result.certified is not None


def test_a_predictor_by_hand(certified):
    """The agreement at a first coordinate of t is known: P(t + U(−0.1, 0.1) > ½).

    It is far enough from 0.9 everywhere that no verdict is wrong with probability
    above 1e-9.
    """
    x = np.full((5, 3), 0.5, "float32")
    x[:, 0] = [0.7, 0.7, 0.7, 0.45, 0.1]
    y = np.array([1, 1, 0, 0, 0])

    def attack(model, x, y):
        assert model is certified.base_model
        moved = x.copy()
        moved[:, 0] = [0.5, 0.3, 0.7, 0.45, 0.1]
        return moved

    result = evaluate_attack(certified, attack, x, y, seed=0, verbose=0)
    np.testing.assert_array_equal(result.clean_certified, [1, 1, 1, 0, 1])
    np.testing.assert_array_equal(result.certified, [0, 1, 1, 0, 1])
    np.testing.assert_array_equal(result.denied, [1, 0, 0, 0, 0])
    np.testing.assert_array_equal(result.forged, [0, 1, 1, 0, 0])
    assert result.denied_rate[3:] == (1, 3)  # Rows 0, 1 and 4 were right, certified.
    assert result.forged_rate[3:] == (2, 5)
    np.testing.assert_array_equal(result.clean_label, [1, 1, 1, 0, 0])
    np.testing.assert_array_equal(result.label[1:], [0, 1, 0, 0])


def test_a_predictor_is_attacked_through_its_base(model, certified, rows):
    x, y = rows
    attack = PGD(0.1, steps=3)
    on_base = attack(model, x, y, seed=1)
    np.testing.assert_array_equal(attack(certified, x, y, seed=1), on_base)
    whole = evaluate_attack(certified, attack, x, y, seed=1, verbose=0)
    parts = evaluate_attack(certified, attack, x, y, seed=1, verbose=0, batch_size=4)
    for name in ("label", "certified", "clean_label", "clean_certified"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(parts, name))


def test_what_the_predictor_votes_with_is_not_what_the_attack_was_handed(certified):
    """Unless the seed is known."""
    seen = []

    def attack(model, x, y, seed):
        seen.append(seed)
        return x

    # Labels here are a coin's: 60 rows agree by chance with probability 1e-18.
    x, y = np.full((60, 3), 0.5, "float32"), np.ones(60, int)
    for known in (False, True):
        result = evaluate_attack(
            certified, attack, x, y, seed=2, verbose=0, known_seed=known
        )
        votes = certified.predict(x, verbose=0, seed=seen[-1])
        assert (result.label == votes["label"]).all() == known
    np.testing.assert_array_equal(seen[0], seen[1])


@pytest.mark.parametrize(("k", "n"), [(0, 10), (3, 10), (10, 10), (417, 1000)])
def test_intervals_against_scipy_and_statsmodels(k, n):
    proportion = pytest.importorskip("statsmodels.stats.proportion")
    rate = success_rate(np.arange(n) < k, level=0.9)
    expected = proportion.proportion_confint(k, n, 0.1, method="beta")
    np.testing.assert_allclose(rate[1:3], np.nan_to_num(expected), atol=1e-9)
    interval = stats.binomtest(k, n).proportion_ci(0.9)
    np.testing.assert_allclose(rate[1:3], interval, atol=1e-12)
    assert rate.rate == k / n and rate.successes == k and rate.trials == n


def test_no_trials_tell_nothing():
    rate = success_rate([])
    assert np.isnan(rate.rate) and rate[1:] == (0, 1, 0, 0)


def test_a_suite_puts_attacks_side_by_side(model, certified, rows, tmp_path, capsys):
    pytest.importorskip("rich")
    pytest.importorskip("matplotlib")
    x, y = rows
    attacks = {"FGSM": FGSM(0.1), "up": lambda m, x, y: np.minimum(x + 0.2, 1)}
    suite = attack_suite(
        {"plain": model, "voting": certified},
        attacks,
        iter([(x[:20], y[:20]), (x[20:], y[20:])]),
        seed=0,
        figure=tmp_path / "attacks.png",
    )
    assert (tmp_path / "attacks.png").stat().st_size > 1000
    printed = capsys.readouterr().out
    for word in ("No Attack", "FGSM", "up", "Worst Case", "forged", "voting"):
        assert word in printed
    for name in ("plain", "voting"):
        each = suite.evaluations[name]
        assert list(each) == ["No Attack", "FGSM", "up"]
        worst = suite.rates(name)["Worst Case"]
        defended = np.all([e.defended for e in each.values()], axis=0)
        assert worst["defence_success_rate"].successes == defended.sum()
        assert 0 < defended.sum() < min(e.defended.sum() for e in each.values())
    assert each["FGSM"].clean_label is not None
    np.testing.assert_array_equal(
        each["FGSM"].clean_certified, each["No Attack"].clean_certified
    )
    denied = np.any([e.denied for e in each.values()], axis=0)
    assert worst["denied_rate"][3:] == (denied.sum(), each["up"].deniable.sum())
    assert len(suite.plot().axes) == 2
    assert "Worst Case" in repr(suite)
    alone = evaluate_attack(certified, MIFGSM(0.1), x, y, clean=each["up"], verbose=0)
    np.testing.assert_array_equal(alone.clean_label, each["up"].clean_label)


def test_a_suite_that_cannot_end_does_not_begin(model, certified, rows, tmp_path):
    def never(model, x, y):
        raise AssertionError("an attack ran")

    both = {"plain": model, "vote": certified}
    with pytest.raises(ValueError, match="`models` must be .* 'Deny'.* 'plain'"):
        attack_suite(both, {"never": never, "Deny": Deny()}, *rows, verbose=0)
    with pytest.raises(ValueError, match="`figure` must lie in a folder"):
        path = tmp_path / "nowhere" / "a.png"
        attack_suite(model, {"never": never}, *rows, verbose=0, figure=path)


def test_a_suite_with_a_seed_that_leaked(certified, rows):
    x, y = rows[0][:4], rows[1][:4]
    attack = Deny(4, 3, 1, check_samples=16, known_seed=True)
    suite = attack_suite(
        certified, {"Deny": attack}, x, y, seed=0, verbose=0, known_seed=True
    )
    alone = evaluate_attack(certified, attack, x, y, 0, verbose=0, known_seed=True)
    found = suite.evaluations["model"]["Deny"]
    np.testing.assert_array_equal(found.x_adv, alone.x_adv)
    np.testing.assert_array_equal(found.certified, alone.certified)


def test_what_leaves_the_predictor_s_range_is_the_attack_s_fault(certified, rows):
    with pytest.raises(ValueError, match="`attack` must stay in the valid input range"):
        evaluate_attack(certified, FGSM(0.9, clip=None), *rows, verbose=0)


def test_an_evaluation_of_another_kind_of_model(model, certified, rows):
    x, y = rows
    for one, other in ((model, certified), (certified, model)):
        clean = evaluate_attack(one, shift(0), x, y, verbose=0)
        with pytest.raises(ValueError, match="`clean`.*same model"):
            evaluate_attack(other, shift(0), x, y, verbose=0, clean=clean)


def test_half_precision(model, rows):
    x = keras.ops.cast(rows[0], "bfloat16")
    result = evaluate_attack(
        model, PGD(0.1), x, rows[1], verbose=0, epsilon=0.1, clip=(0, 1)
    )
    assert result.x_adv.dtype.name == "bfloat16"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": len}, "`model`.*keras.Model"),
        ({"attack": None}, "`attack`.*callable"),
        ({"attack": lambda m, x, y: x[:, :2]}, "`attack`.*shape.*2"),
        ({"attack": lambda m, x, y: x * np.nan}, "`attack`.*finite"),
        ({"attack": lambda m, x, y: y}, "`attack`.*shape"),
        ({"attack": shift(0.3), "epsilon": 0.1}, r"`attack`.*epsilon=0.1.*0\.[23]"),
        ({"attack": lambda m, x, y: x + 1, "clip": (0, 1)}, "`attack`.*clip"),
        ({"y": None}, "`y`.*None"),
        ({"y": np.zeros(7, int)}, "`y`.*23 rows"),
        ({"y": np.full(23, 2)}, "`y`.*classes 0 to 1.*2"),
        ({"x": iter([]), "y": None}, "`x`.*empty dataset"),
        ({"x": [np.zeros((2, 3))], "y": None}, "`x`.*batches"),
        ({"x": iter([])}, "`y`.*dataset"),
        ({"x": np.zeros((23, 4), "float32")}, "`x`.*shape"),
        ({"x": np.full((23, 3), np.nan)}, "`x`.*finite"),
        ({"batch_size": 0}, "`batch_size`.*0"),
        ({"verbose": 3}, "`verbose`.*3"),
        ({"level": 1}, "`level`.*1"),
        ({"epsilon": -1}, "`epsilon`.*-1"),
        ({"norm": "l3"}, "`norm`.*l3"),
        ({"seed": -1}, "`seed`.*-1"),
        ({"seed": 0.5}, "`seed`"),
        ({"known_seed": True}, "`known_seed`"),
    ],
)
def test_bad_calls(model, rows, changes, message):
    x, y = rows
    arguments = {"model": model, "attack": shift(0.0), "x": x, "y": y, "verbose": 0}
    with pytest.raises(ValueError, match=message):
        evaluate_attack(**{**arguments, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"models": {}}, "`models`"),
        ({"attacks": {}}, "`attacks`"),
        ({"attacks": {"No Attack": shift(0)}}, "`attacks`.*No Attack"),
    ],
)
def test_bad_suites(model, rows, changes, message):
    x, y = rows
    arguments = {"models": model, "attacks": {"a": shift(0)}, "x": x, "y": y}
    with pytest.raises(ValueError, match=message):
        attack_suite(**{**arguments, **changes})


def test_a_rounding_error_beyond_the_range_is_not_the_attack_s_fault(certified):
    x = np.ones((2, 3), "float32")

    def beyond(model, x, y):
        return np.nextafter(x, np.float32(2))

    found = evaluate_attack(certified, beyond, x, [0, 1], verbose=0)
    assert found.x_adv.max() == 1


def test_bad_known_seeds(certified, rows):
    for attack, known in (
        (Deny(4, 3, 1), True),
        (Deny(4, 3, 1, known_seed=True), False),
    ):
        with pytest.raises(ValueError, match="`known_seed` must be what `attack`"):
            evaluate_attack(certified, attack, *rows, verbose=0, known_seed=known)


def test_bad_clean_evaluations(model, rows):
    x, y = rows
    clean = evaluate_attack(model, FGSM(0.1), x, y, verbose=0)
    with pytest.raises(ValueError, match="`clean` must be an evaluation of the same r"):
        evaluate_attack(model, FGSM(0.1), x[:3], y[:3], verbose=0, clean=clean)
    with pytest.raises(ValueError, match="`clean` must be an AttackEvaluation"):
        evaluate_attack(model, FGSM(0.1), x, y, verbose=0, clean="yes")
