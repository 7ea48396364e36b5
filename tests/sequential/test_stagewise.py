"""Bounds at the stop: exact coverage, agreement with the decision, p-values."""

import functools
import pickle

import numpy as np
import pytest

from keras_probcert import (
    SPRT,
    Algorithm2Test,
    BetaMixtureTest,
    ClopperPearsonTest,
    ExactTest,
    UnionBoundTest,
)
from keras_probcert.sequential.stopping_law import stopping_law

TESTS = {
    "exact": ExactTest(0.05, 0.05, 600),
    "not futile": ExactTest(0.05, 0.05, 600, futile=False),
    "beta": ExactTest(0.05, 0.01, 700, beta=0.1, futile=False),
    "wide": ExactTest(0.4, 0.05, 200, futile=False),
    "half": ExactTest(0.5, 0.05, 150),
    "mixture": BetaMixtureTest(0.05, 0.05, 600),
    "union": UnionBoundTest(0.1, 0.05, 500, futile=False),
    "fixed": ClopperPearsonTest(0.05, 0.05, 300),
    "ratio": SPRT(0.1, 0.05, 400),
}
each = pytest.mark.parametrize("name", TESTS)
AGREEMENTS = [0.5, 0.6, 0.75, 0.85, 0.9, 0.93, 0.95, 0.96, 0.98, 0.995, 1.0]


@functools.cache
def stops(name, p, two_classes):
    """`{decision: probabilities by (n, d)}`, vote by vote.

    The state is the number of votes against a class of probability p; for two
    classes d counts the votes against the leading one.
    """
    test = TESTS[name]
    certify, reject = test.boundaries()
    horizon = test.max_samples
    shape = (horizon + 1, horizon + 1)
    ends = {k: np.zeros(shape) for k in ("certify", "reject", "futile", "undecided")}
    alive = np.ones(1)
    for n in range(1, horizon + 1):
        following = np.append(alive * p, 0.0)
        following[1:] += alive * (1 - p)
        d = np.arange(n + 1)
        d = np.minimum(d, n - d) if two_classes else d
        certified, rejected = d <= certify[n], d >= reject[n]
        futile = test.futile & (d > certify[-1]) & ~rejected
        for decision, here in (
            ("certify", certified),
            ("reject", rejected),
            ("futile", futile),
        ):
            np.add.at(ends[decision][n], d[here], following[here])
        alive = np.where(certified | rejected | futile, 0.0, following)
    np.add.at(ends["undecided"][n], d, alive)
    return ends


def bounds_at(test, decision, n, d):
    """What a device reads from the tables."""
    table = test.stop_bounds
    if decision == "certify":
        return table.certified[d].T
    if decision == "undecided":
        return table.undecided[d - len(table.certified)].T
    return table.stopped[np.searchsorted(table.stopped_by, n)].T


@each
def test_certified_exactly_when_the_lower_bound_passes(name):
    test = TESTS[name]
    bar = 1 - test.kappa
    seen = set()
    for decision, mass in stops(name, 1 - 1.2 * min(test.kappa, 0.4), True).items():
        n, d = np.nonzero(mass)
        if not len(n):
            continue
        seen.add(decision)
        lower, upper, p_value = bounds_at(test, decision, n, d)
        assert (0 <= lower).all() and (lower <= upper).all() and (upper <= 1).all()
        assert ((lower > bar) == (decision == "certify")).all()
        assert ((lower > np.float32(bar)) == (decision == "certify")).all()
        if decision == "reject":
            assert (upper <= np.float32(bar) + 1e-6).all()
        else:
            assert (upper >= bar).all()
        assert ((p_value <= test.alpha) == (decision == "certify")).all() or (
            # A test that does not spend alpha may leave a small p-value uncertified.
            not isinstance(test, ExactTest) and decision != "certify"
        )
        assert (lower == 0).any() or (lower > 0.5).all()
    assert "certify" in seen and len(seen) > 1


@each
@pytest.mark.parametrize("two_classes", [False, True])
def test_coverage(name, two_classes):
    """P(lower > p) ≤ alpha, P(upper < p) ≤ beta, at every p, by calculation."""
    test = TESTS[name]
    worst = {"lower": 0.0, "upper": 0.0}
    for p in [*AGREEMENTS, 1 - test.kappa]:
        above = below = 0.0
        for decision, mass in stops(name, p, two_classes).items():
            n, d = np.nonzero(mass)
            if len(n):
                lower, upper, _ = bounds_at(test, decision, n, d)
                # At ½ and beyond, the other class is the more likely one.
                above += mass[n, d][lower > max(p, 1 - p)].sum()
                below += mass[n, d][upper < p].sum()
        assert above <= test.alpha and below <= test.beta
        worst["lower"] = max(worst["lower"], above)
        worst["upper"] = max(worst["upper"], below)
    if isinstance(test, ExactTest) and (two_classes or test.kappa < 0.4):
        assert worst["lower"] > 0.9 * test.alpha
        assert worst["upper"] > (0.5 if test.kappa < 0.4 else 0.1) * test.beta


@each
def test_p_values_are_small_no_more_often_than_they_say(name):
    test = TESTS[name]
    mass, p_values = [], []
    for decision, probabilities in stops(name, 1 - test.kappa, True).items():
        n, d = np.nonzero(probabilities)
        if len(n):
            mass.append(probabilities[n, d])
            p_values.append(bounds_at(test, decision, n, d)[2])
    mass, p_values = np.concatenate(mass), np.concatenate(p_values)
    order = np.argsort(p_values)
    at_most = np.cumsum(mass[order])
    last = np.append(np.diff(p_values[order]) > 0, True)
    excess = at_most[last] - p_values[order][last]
    assert excess.max() <= 1e-12, (at_most[last][excess.argmax()], excess.max())


LONG = {
    "exact": (ExactTest, {"futile": False, "beta": 0.1}),
    "fixed": (ClopperPearsonTest, {}),
    "ratio": (SPRT, {"futile": False, "alternatives": (0.999, 0.5)}),
}


@pytest.mark.parametrize("name", LONG)
def test_coverage_at_a_long_horizon(name):
    """The same at kappa = alpha = 0.01 and 30,000 votes, from 0.6 to 0.9995."""
    kind, arguments = LONG[name]
    test = kind(0.01, 0.01, 30_000, **arguments)
    table = test.stop_bounds
    certify, reject = test.boundaries()
    hopeless = len(test.certify_times) if test.futile else 30_001
    until = test.reject_until[: min(hopeless, len(test.reject_until))]
    for p in (0.6, 0.9, 0.96, 0.98, 0.99, 0.995, 0.9995):
        law = stopping_law(
            test.certify_times, until, 30_000, 1 - p, looks=np.arange(1, 30_001)
        )
        d = np.arange(len(law.undecided))
        left = np.clip(d - len(table.certified), 0, len(table.undecided) - 1)
        stage = np.searchsorted(table.stopped_by, law.times)
        above = below = 0.0
        for mass, bounds in (
            (law.certified, table.certified),
            (law.rejected, table.stopped[stage]),
            (law.undecided, table.undecided[left]),
        ):
            above += mass[bounds[:, 0] > p].sum()
            below += mass[bounds[:, 1] < p].sum()
        assert above <= test.alpha * (1 + 1e-6) and below <= test.beta * (1 + 1e-6)
    # Far from the bar the bounds still say something.
    assert (table.certified[5:, 1] < 1).all()
    rejected = reject[table.stopped_by] < table.stopped_by
    rejected &= table.stopped_by <= (until[-1] if test.futile else 30_000)
    assert (table.stopped[rejected, 1] <= np.float32(0.99) + 1e-6).all()


def test_bounds_are_sharp():
    """Unanimous votes give Clopper and Pearson's bound for them."""
    test = TESTS["exact"]
    lower, upper, p_value = test.stop_bounds.certified[0]
    n = test.min_samples
    assert lower == pytest.approx(0.05 ** (1 / n), abs=2e-6)
    assert upper == 1
    assert p_value == pytest.approx(0.95**n, rel=1e-6)


def test_an_invalid_test_certifies_without_a_bound():
    """Algorithm 2 spends more than alpha: late certificates prove nothing."""
    test = Algorithm2Test(0.05, 0.05, 600)
    certified = test.stop_bounds.certified
    assert certified[0, 0] > 0.95 and certified[-1, 0] <= 0.95
    assert certified[0, 2] <= 0.05 < certified[-1, 2]


def test_tables_are_small():
    table = ExactTest(0.001, 0.01, 60_000).stop_bounds
    size = sum(
        array.nbytes
        for array in (table.certified, table.undecided, table.stopped, table.stopped_by)
    )
    assert size < 100_000


def test_tests_of_the_same_boundaries_share_their_bounds():
    first, second = (ExactTest(0.05, 0.05, 300) for _ in range(2))
    assert first.stop_bounds is second.stop_bounds
    for other in (
        ExactTest(0.05, 0.05, 301),
        ExactTest(0.05, 0.05, 300, beta=0.04),
        ExactTest(0.05, 0.05, 300, futile=False),
    ):
        assert other.stop_bounds is not first.stop_bounds
    with pytest.raises(ValueError, match="read-only"):
        first.stop_bounds.certified[0] = 1.0


def test_shared_bounds_keep_no_test():
    class Local(ExactTest):
        pass

    bounds = Local(0.05, 0.05, 210).stop_bounds
    test = ExactTest(0.05, 0.05, 210)
    assert test.stop_bounds is bounds
    again = pickle.loads(pickle.dumps(test))
    np.testing.assert_array_equal(again.stop_bounds.stopped, bounds.stopped)
