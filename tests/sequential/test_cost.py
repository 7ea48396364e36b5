"""Plans against quantile grids, simulated streams and bad input."""

import numpy as np
import pytest
from scipy import special

from keras_probcert import ClopperPearsonTest, ExactTest, plan_certification
from keras_probcert.sequential.cost import DECISIONS

TEST = ExactTest(kappa=0.1, alpha=0.05, max_samples=1000)


def simulated(test, q, rng):
    """Votes on two classes and their number, for streams of disagreements q."""
    certify, reject = test.boundaries()
    votes = rng.random((len(q), test.max_samples)) < q[:, None]
    d = votes.cumsum(axis=1)
    stops = (d <= certify[1:]) | (d >= reject[1:])
    if test.futile:
        stops |= d > certify[-1]
    stops[:, -1] = True
    last = stops.argmax(axis=1)
    d = d[np.arange(len(q)), last]
    return np.stack([last + 1 - d, d], axis=1), last + 1


@pytest.mark.parametrize("test", [TEST, ClopperPearsonTest(0.1, 0.05, 300)])
def test_integral_equals_quadrature(test):
    """Over the margin by Gauss-Legendre, each point exactly."""
    t, w = np.polynomial.legendre.leggauss(120)
    t, w = 3 * (t + 1), 3 * w
    exact = test.operating_characteristics(1 - special.ndtr(-t))
    unanimous = test.operating_characteristics(1.0)
    for share in (0.4, 0.95):
        rate = np.log(share) / special.ndtri(test.kappa)

        def mean(name, rate=rate):
            beyond = np.exp(-6 * rate) * unanimous[name]
            return (w * rate * np.exp(-rate * t)) @ exact[name] + beyond

        plan = plan_certification(test, 50, robust_share=share)
        assert plan.votes_per_row == pytest.approx(mean("expected_samples"), rel=2e-3)
        assert plan.votes == 50 * plan.votes_per_row
        shares = plan.certified, plan.rejected, plan.futile, plan.undecided
        for name, value in zip(DECISIONS, shares, strict=True):
            assert value == pytest.approx(mean(name), abs=1e-3)


@pytest.mark.parametrize("agreement", [1.0, 0.97, 0.9, 0.85, 0.6, 0.0])
def test_one_agreement_is_exact(agreement):
    exact = TEST.operating_characteristics(agreement)
    plan = plan_certification(TEST, 7, agreement=agreement)
    assert plan.votes_per_row == pytest.approx(exact["expected_samples"], rel=0.03)
    assert plan.certified == pytest.approx(exact["certify"], abs=0.02)
    if agreement == 1:
        assert plan.votes == pytest.approx(7 * TEST.min_samples)
        assert plan.votes_deviation == pytest.approx(0, abs=1e-3)


def test_deviation_equals_simulation():
    """The spread of 5,000 streams at one agreement, within 8 %.

    Of its standard error, about 1 %, that is more than six.
    """
    q = np.full(5000, 0.11)
    _, n = simulated(TEST, q, np.random.default_rng(0))
    plan = plan_certification(TEST, 1, agreement=0.89)
    assert plan.votes_deviation == pytest.approx(n.std(), rel=0.08)
    # Of a mean over 100 agreements of two kinds, what else is unknown.
    plan = plan_certification(TEST, 10**9, agreement=[1.0] * 50 + [0.6] * 50)
    exact = TEST.operating_characteristics([1.0, 0.6])["expected_samples"]
    spread = abs(exact[0] - exact[1]) / 2 / np.sqrt(100)
    assert plan.votes_deviation / 1e9 == pytest.approx(spread, rel=0.03)


def test_deviation_where_the_first_disagreement_ends_a_row():
    """The number of votes is geometric, though the test looks only at its ends."""
    test = ExactTest(0.05, 0.01, max_samples=103)
    assert len(test.certify_times) == 1
    plan = plan_certification(test, 1, agreement=0.8)
    assert plan.votes_deviation == pytest.approx(np.sqrt(0.8) / 0.2, rel=0.05)


def test_a_pilot_plans_a_run():
    """Within 6 of its deviations (1e-8 for a normal law), which are small."""
    rng = np.random.default_rng(2)
    q = special.ndtr(-rng.exponential(10, size=2400))
    votes, n = simulated(TEST, q, rng)
    pilot = {"votes": votes[:400], "num_samples": n[:400]}
    plan = plan_certification(TEST, 2000, pilot=pilot)
    assert plan.votes_deviation < 0.12 * plan.votes
    assert abs(plan.votes - n[400:].sum()) < 6 * plan.votes_deviation


def test_rows_without_votes_tell_nothing():
    votes, n = np.array([[50, 0], [3, 2], [0, 0]]), np.array([50, 5, 0])
    with_refused = plan_certification(TEST, 9, pilot={"votes": votes, "num_samples": n})
    pilot = {"votes": votes[:2], "num_samples": n[:2]}
    assert plan_certification(TEST, 9, pilot=pilot) == with_refused


def test_time_and_workers():
    plan = plan_certification(TEST, 1000, robust_share=0.9)
    assert plan.seconds is None and plan.hours is None and plan.workers == 1
    timed = plan_certification(TEST, 1000, robust_share=0.9, rate=10.0, workers=4)
    assert timed.seconds == pytest.approx(plan.votes / 10)
    assert timed.hours == pytest.approx(timed.seconds / 4 / 3600)
    assert timed.workers_needed is None
    hours = timed.seconds / 3600 / 2.5
    asked = plan_certification(TEST, 1000, robust_share=0.9, rate=10.0, hours=hours)
    assert asked.workers == asked.workers_needed == 3 and asked.hours < hours
    both = plan_certification(TEST, 1000, agreement=1, rate=1, workers=2, hours=1e-9)
    assert (both.workers, both.workers_needed) == (2, 1000)
    assert "workers needed" in str(both) and "share certified" in str(both)
    assert f"{both.rows:,}" in str(both)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"test": ExactTest}, "`test` must be a SequentialTest"),
        ({"rows": 0}, "`rows` must be an integer of at least 1"),
        ({"robust_share": 1.0}, "`robust_share` must be a number in"),
        ({"robust_share": None}, "Exactly one of"),
        ({"agreement": 0.9}, "Exactly one of"),
        ({"robust_share": None, "agreement": [0.5, 1.1]}, "`agreement` must hold"),
        ({"robust_share": None, "agreement": []}, "`agreement` must hold"),
        ({"robust_share": None, "pilot": [1, 2]}, "`pilot` must be a dict"),
        ({"rate": 0}, "`rate` must be above 0"),
        ({"rate": float("nan")}, "`rate` must be a finite number"),
        ({"workers": 0}, "`workers` must be an integer"),
        ({"hours": 1}, "`rate` must be given with `hours`"),
        ({"rate": 1, "hours": -1}, "`hours` must be a finite number"),
        ({"test": ExactTest(0.5, 0.05, 100)}, "`robust_share` needs a test"),
    ],
)
def test_bad_input(arguments, message):
    given = {"test": TEST, "rows": 10, "robust_share": 0.9, **arguments}
    with pytest.raises(ValueError, match=message):
        plan_certification(**given)


@pytest.mark.parametrize(
    "votes, n, message",
    [
        ([[0, 0]], [0], "with votes in at least one row"),
        ([1, 2], [3, 3], "of shape \\(rows, classes\\)"),
        ([[5, 0]], [4], "must hold counts"),
        ([[5, -1]], [5], "must hold counts"),
    ],
)
def test_bad_pilots(votes, n, message):
    with pytest.raises(ValueError, match=message):
        plan_certification(TEST, 10, pilot={"votes": votes, "num_samples": n})
