"""How close `ExactTest` is to the best possible test, by weak duality.

The objective is its own: the shares of `optimal_stopping` of expected samples in
units of Wald's bound. Any test with errors of at most alpha and beta at the bar
and with the stated power has an objective of at least

    min over all tests of the Lagrangian − multipliers · what they may spend,

whatever the multipliers are. The minimum is found by backward induction, vote by
vote, over all tests: certifying and rejecting are allowed everywhere.

    python benchmarks/optimality.py
"""

import argparse
import math

import numpy as np

from keras_probcert import ExactTest
from keras_probcert.sequential.optimal_stopping import SHARES

# At kappa = alpha = beta = 0.01 and horizon 30,000: the power that is demanded,
# and multipliers that nearly maximize the bound.
POWER = {
    (0.993, "certify"): 0.97,
    (0.992, "certify"): 0.45,
    (0.987, "reject"): 0.85,
    (0.995, "certify"): 0.99,
    (1.0, "certify"): 0.99,
}
ERRORS = {"certify": 19.91, "reject": 3.319}
REWARDS = [0.1127, 0.00016, 0.00243, 0.56715, 0.10746]


def objective(kappa, alpha):
    """The agreements and the weights of a sample at each."""
    odds = np.array(list(SHARES)) * kappa / (1 - kappa)
    q, shares = odds / (1 + odds), np.array(list(SHARES.values()))
    with np.errstate(divide="ignore", invalid="ignore"):
        kl = np.where(q > 0, q * np.log(q / kappa), 0.0)
    kl = kl + (1 - q) * np.log((1 - q) / (1 - kappa))
    return 1 - q, shares / shares.sum() * kl / math.log(1 / alpha)


def least_lagrangian(kappa, horizon, agreements, weights):
    """The value at no votes of the best test, by backward induction."""
    rewarded = np.array([p for p, _ in POWER])
    certify = np.array([side == "certify" for _, side in POWER])
    rewards = np.array(REWARDS)

    def ratios(p, width):
        agree = np.log(p) - math.log1p(-kappa)
        with np.errstate(divide="ignore"):
            step = np.maximum(np.log1p(-p) - math.log(kappa) - agree, -1e4)
        steps = np.outer(step, np.arange(width))
        return agree, np.exp(np.clip(steps, -745, 600))

    def width(n):
        # Beyond it a stream rejects: it has 8 standard deviations too many.
        return min(n, int(kappa * n + 8 * math.sqrt(kappa * n) + 40)) + 1

    agree, table = ratios(agreements, width(horizon))
    agree_rewarded, table_rewarded = ratios(rewarded, width(horizon))
    value = None
    for n in range(horizon, -1, -1):
        w = width(n)
        reward = np.exp(agree_rewarded * n) * rewards
        certified = ERRORS["certify"] - reward[certify] @ table_rewarded[certify, :w]
        rejected = ERRORS["reject"] - reward[~certify] @ table_rewarded[~certify, :w]
        if value is None:
            go_on = np.zeros(w)
        else:
            beyond = np.append(value, value[-1])
            go_on = (weights * np.exp(agree * n)) @ table[:, :w]
            go_on += (1 - kappa) * beyond[:w] + kappa * beyond[1 : w + 1]
        value = np.minimum(go_on, np.minimum(certified, rejected)) if n else go_on
    return float(value[0])


def main():
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    kappa = alpha = 0.01
    horizon = 30_000
    agreements, weights = objective(kappa, alpha)
    test = ExactTest(kappa, alpha, horizon, futile=False)
    samples = test.operating_characteristics(agreements)["expected_samples"]
    reached = float(weights @ samples)
    spent = alpha * sum(ERRORS.values())
    bound = least_lagrangian(kappa, horizon, agreements, weights) - spent
    bound += float(np.dot(REWARDS, list(POWER.values())))
    for (p, side), least in POWER.items():
        power = test.operating_characteristics(p)[side]
        print(f"P({side} | {p}) = {power:.4f}, demanded {least}")
    print(f"objective {reached:.4f}, no test is below {bound:.4f}")
    print(f"gap {100 * (reached / bound - 1):.2f} %")


if __name__ == "__main__":
    main()
