"""The fixed-n test against statsmodels' Clopper-Pearson intervals."""

import numpy as np
from statsmodels.stats.proportion import proportion_confint

from keras_probcert import ClopperPearsonTest


def test_decisions_are_those_of_the_interval():
    kappa, alpha, n = 0.1, 0.05, 400
    test = ClopperPearsonTest(kappa, alpha, n, futile=False)
    certify, reject = test.boundaries()
    d = np.arange(n)
    lower, _ = proportion_confint(n - d, n, alpha=2 * alpha, method="beta")
    _, upper = proportion_confint(n - d, n, alpha=2 * alpha, method="beta")
    np.testing.assert_array_equal(d <= certify[n], lower > 1 - kappa)
    np.testing.assert_array_equal(d >= reject[n], upper < 1 - kappa)


def test_stops_early_only_where_the_rest_cannot_matter():
    test = ClopperPearsonTest(0.1, 0.05, 400, futile=False)
    certify, reject = test.boundaries()
    n = np.arange(1, 401)
    # Even if all other votes disagreed, or agreed.
    n_certified = n[certify[n] >= 0]
    assert (certify[n_certified] + 400 - n_certified == certify[400]).all()
    assert (reject[n[n >= reject[400]]] == reject[400]).all()
