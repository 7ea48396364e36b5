"""Operating characteristics against enumeration and simulation."""

import itertools
import sys

import numpy as np
import pytest

from keras_probcert import Algorithm2Test, BetaMixtureTest, ExactTest
from keras_probcert.sequential import operating_characteristics


def first_crossing(votes, certify, reject, futile):
    """(decision, samples); a vote is 1 where it disagrees."""
    disagreements = 0
    for n, vote in enumerate(votes, start=1):
        disagreements += vote
        if disagreements <= certify[n]:
            return "certify", n
        if disagreements >= reject[n]:
            return "reject", n
        if futile and disagreements > max(certify[-1], 0):
            return "futile", n
    return "undecided", len(votes)


NAMES = ("certify", "reject", "futile", "undecided", "expected_samples")


def enumerated(certify, reject, p, futile):
    """The same numbers from all 2^n streams of votes."""
    horizon = len(certify) - 1
    total = dict.fromkeys(NAMES, 0.0)
    stops = np.zeros(horizon + 1)
    for votes in itertools.product((0, 1), repeat=horizon):
        weight = p ** (horizon - sum(votes)) * (1 - p) ** sum(votes)
        decision, n = first_crossing(votes, certify, reject, futile)
        total[decision] += weight
        total["expected_samples"] += weight * n
        stops[n] += weight
    return total, stops


BOUNDARIES = [
    BetaMixtureTest(0.5, 0.2, max_samples=11).boundaries(),
    ExactTest(0.45, 0.2, max_samples=12).boundaries(),
    Algorithm2Test(0.3, 0.2, max_samples=12).boundaries(),
    ([-1] * 9, [9] * 9),
    ([-1, 0], [1, 1]),
    ([-1, -1, -1, 1, 1, 2], [1, 2, 3, 3, 3, 3]),
    ([-1, -1, -1, -1, 0, 0, 0, 1, 1], [1, 2, 3, 3, 3, 4, 4, 5, 9]),
]


@pytest.mark.parametrize("futile", [False, True])
@pytest.mark.parametrize("certify, reject", BOUNDARIES)
def test_equals_enumeration(certify, reject, futile):
    grid = [0.0, 0.2, 0.5, 0.55, 0.9, 1.0]
    levels = (0.1, 0.5, 0.93)
    together = operating_characteristics(
        certify, reject, np.reshape(grid, (2, 3)), futile, quantiles=levels
    )
    for i, p in enumerate(grid):
        want, stops = enumerated(certify, reject, p, futile)
        exact = operating_characteristics(certify, reject, p, futile)
        assert tuple(exact) == tuple(want)
        for name, value in want.items():
            assert isinstance(exact[name], float)
            assert exact[name] == pytest.approx(value, abs=1e-10)
            assert together[name].shape == (2, 3)
            assert together[name].flat[i] == pytest.approx(value, abs=1e-10)
        quantiles = together["sample_quantiles"].reshape(6, 3)[i]
        for level, n in zip(levels, quantiles, strict=True):
            below = stops[: int(n)].sum()
            assert below < level + 1e-12 and below + stops[int(n)] >= level - 1e-12


@pytest.mark.parametrize("futile", [False, True])
@pytest.mark.parametrize("p", [(0.7, 0.3), (0.5, 0.5), (0.6, 0.3, 0.1), (0, 1, 0)])
@pytest.mark.parametrize(
    "certify, reject",
    [
        *(BOUNDARIES[i] for i in (2, 6)),
        ([-1] * 3 + [0] * 6, [1, 2, 2, 2, 2, 2, 3, 3, 3]),
    ],
)
def test_classes_equal_enumeration(certify, reject, p, futile):
    horizon = 8
    certify, reject = certify[: horizon + 1], reject[: horizon + 1]
    total = dict.fromkeys(NAMES, 0.0)
    for votes in itertools.product(range(len(p)), repeat=horizon):
        for n in range(1, horizon + 1):
            d = n - np.bincount(votes[:n]).max()
            if d <= certify[n]:
                decision = "certify"
            elif d >= reject[n]:
                decision = "reject"
            elif futile and d > certify[-1]:
                decision = "futile"
            else:
                decision = "undecided"
                continue
            break
        weight = np.prod([p[vote] for vote in votes])
        total[decision] += weight
        total["expected_samples"] += weight * n
    exact = operating_characteristics(
        certify, reject, futile=futile, class_probabilities=p
    )
    for name, value in total.items():
        assert exact[name] == pytest.approx(value, abs=1e-12), name


def test_a_distant_leader_counts_as_one_class():
    test = ExactTest(0.01, 0.01, 3000)
    one = test.operating_characteristics(0.995)
    many = test.operating_characteristics(class_probabilities=[0.995, 0.003, 0.002])
    for name in NAMES:
        assert many[name] == pytest.approx(one[name], rel=1e-4, abs=1e-12)


def test_futility_changes_no_certificate():
    test = ExactTest(0.05, 0.05, 1000)
    p = [0.93, 0.95, 0.96, 0.97]
    on = test.operating_characteristics(p, futile=True)
    off = test.operating_characteristics(p, futile=False)
    np.testing.assert_allclose(on["certify"], off["certify"], rtol=1e-12)
    assert (on["expected_samples"] < off["expected_samples"]).all()
    assert (on["undecided"] == 0).all() and (off["futile"] == 0).all()


def test_summary():
    lines = []
    ExactTest(0.05, 0.05, 1000).summary([1, 0.95], print_fn=lines.append)
    exact = ExactTest(0.05, 0.05, 1000).operating_characteristics(0.95)
    assert f"{exact['certify']:.4f}" in lines[0] and "futile" in lines[0]


@pytest.mark.parametrize("p", [(0.5,), (0.5, 0.6), (1.2, -0.2), [[0.5, 0.5]]])
def test_class_probabilities_must_add_up(p):
    with pytest.raises(ValueError, match="`class_probabilities` must hold at least"):
        ExactTest(0.3, 0.2, 50).operating_characteristics(class_probabilities=p)


def test_too_many_states(monkeypatch):
    test = ExactTest(0.5, 0.05, 100)
    # `keras_probcert.sequential.operating_characteristics` is the function.
    module = sys.modules[operating_characteristics.__module__]
    monkeypatch.setattr(module, "MOST_STATES", 500)
    with pytest.raises(ValueError, match="too many classes"):
        test.operating_characteristics(class_probabilities=np.full(10, 0.1))


@pytest.mark.parametrize("quantiles", [(0,), (0.5, 1), (-1,)])
def test_quantiles_must_be_probabilities(quantiles):
    with pytest.raises(ValueError, match="`quantiles` must lie in"):
        ExactTest(0.5, 0.05, 100).operating_characteristics(0.5, quantiles=quantiles)


def test_equals_simulation():
    """5 standard errors on 3 numbers: a false alarm in 6e-7 of the seeds."""
    test = BetaMixtureTest(kappa=0.1, alpha=0.1, max_samples=400, futile=False)
    certify, reject = test.boundaries()
    p, streams = 0.93, 20_000
    votes = np.random.default_rng(7).random((streams, 400)) >= p
    disagreements = votes.cumsum(axis=1)
    certified = disagreements <= certify[1:]
    stopped = certified | (disagreements >= reject[1:])
    decided = stopped.any(axis=1)
    first = np.where(decided, stopped.argmax(axis=1), 399)
    is_certified = certified[np.arange(streams), first]
    exact = test.operating_characteristics(p)
    assert exact["certify"] > 0.1 and exact["undecided"] > 0.1
    for sample, value in (
        (is_certified, exact["certify"]),
        (decided & ~is_certified, exact["reject"]),
        (first + 1, exact["expected_samples"]),
    ):
        error = sample.std() / np.sqrt(streams)
        assert abs(sample.mean() - value) < 5 * error


@pytest.mark.parametrize("agreement", [-0.1, 1.1, float("nan"), [0.5, 2.0]])
def test_agreement_must_be_a_probability(agreement):
    test = BetaMixtureTest(0.5, 0.2, max_samples=13)
    with pytest.raises(ValueError) as error:
        test.operating_characteristics(agreement)
    assert "`agreement` must lie in [0, 1]" in str(error.value)
    assert f"Received: agreement={agreement!r}" in str(error.value)


def test_plot():
    pytest.importorskip("matplotlib")
    test = ExactTest(0.05, 0.05, 1000)
    boundaries, samples, decisions = test.plot([0.9, 0.95, 1.0]).axes
    lines = {line.get_label(): line.get_ydata() for line in decisions.lines}
    exact = test.operating_characteristics([0.9, 0.95, 1.0])
    for name in ("certify", "reject", "futile"):
        np.testing.assert_array_equal(lines[name], exact[name])
    assert samples.lines and len(boundaries.lines) == 4
