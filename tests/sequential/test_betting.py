"""The betting test against a bettor who bets vote by vote."""

import numpy as np

from keras_probcert import BettingTest


def test_wealth_is_that_of_a_bettor():
    test = BettingTest(0.1, 0.05, 400, futile=False)
    certify, reject = test.boundaries()
    rng = np.random.default_rng(0)
    decisions = set()
    for agreement in np.repeat([1.0, 0.97, 0.9, 0.8, 0.5], 4):
        wealth, agree, want = 1.0, 0, ("undecided", 400)
        votes = rng.random(400) < agreement
        for n, vote in enumerate(votes):
            estimate = (agree + 0.5) / (n + 1)
            wealth *= estimate / 0.9 if vote else (1 - estimate) / 0.1
            agree += int(vote)
            # At kappa = 0.1 choosing the label by the votes costs 1e-11 of alpha.
            if wealth >= 20 * (1 + 1e-9):
                above = agree >= 0.9 * (n + 1)
                want = ("certify" if above else "reject", n + 1)
                break
        got = ("undecided", 400)
        d = np.cumsum(~votes)
        for n in range(1, 401):
            if d[n - 1] <= certify[n] or d[n - 1] >= reject[n]:
                got = ("certify" if d[n - 1] <= certify[n] else "reject", n)
                break
        if want == ("reject", 1):
            continue  # A stream's first vote agrees with its own label.
        assert got == want
        decisions.add(got[0])
    assert {"certify", "reject"} <= decisions
