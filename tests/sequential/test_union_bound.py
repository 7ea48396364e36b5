"""The union-bound test against SciPy's binomial tests at its looks."""

import numpy as np
from scipy import stats

from keras_probcert import UnionBoundTest


def looks(horizon):
    """The first number of votes above each power of 1.1 that has no look yet."""
    power, times = 11, []
    for n in range(1, horizon + 1):
        if n > 1.1**power:
            times.append(n)
            power += 1
    return times


def test_decisions_are_those_of_binomial_tests_at_the_looks():
    horizon, kappa, alpha = 2000, 0.1, 0.05
    test = UnionBoundTest(kappa, alpha, horizon, futile=False)
    certify, reject = test.boundaries()
    times = looks(horizon)
    assert times[:3] == [3, 4, 5]
    shares = [5 / ((t + 4) * (t + 5)) for t in range(1, len(times) + 1)]
    assert sum(shares) < 1
    rng = np.random.default_rng(1)
    seen = set()
    for agreement in np.repeat([1.0, 0.95, 0.9, 0.8, 0.5], 3):
        d = np.cumsum(rng.random(horizon) >= agreement)
        want = "undecided"
        for n, share in zip(times, shares, strict=True):
            if stats.binom.cdf(d[n - 1], n, kappa) <= alpha * share:
                want, last = "certify", n
                break
            if stats.binom.sf(d[n - 1] - 1, n, kappa) <= alpha * share:
                want, last = "reject", n
                break
        n = np.arange(1, horizon + 1)
        certified, rejected = d <= certify[1:], d >= reject[1:]
        stops = np.flatnonzero(certified | rejected)
        if want == "undecided":
            # A look beyond the horizon may be passed already.
            assert not len(stops) or stops[0] + 1 > times[-1]
            continue
        first = stops[0]
        assert ("certify" if certified[first] else "reject") == want
        # As soon as the next look is sure to be passed, and not before.
        assert first + 1 <= last
        seen.add(want)
    assert seen == {"certify", "reject"}
