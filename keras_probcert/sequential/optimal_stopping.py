r"""The boundaries that save most, by backward induction.

Among all tests with errors alpha and beta, the one that minimizes a weighted sum
of expected samples minimizes, for some multipliers \(\lambda\), the Lagrangian

\[\sum_j w_j \, E_{q_j}[N]
  + \lambda_c P_\kappa(\text{certify}) + \lambda_r P_\kappa(\text{reject})
  - \sum_i \mu_i \, P_{q_i}(\text{decide rightly}).\]

Everything is written under the law at the bar, \(q = \kappa\), where another
law has the likelihood ratio
\(\ell_q = (q/\kappa)^d ((1-q)/(1-\kappa))^{n-d}\): stopping at (n, d) costs
\(\lambda_c - \sum_{q_i < \kappa} \mu_i \ell_{q_i}\) or
\(\lambda_r - \sum_{q_i > \kappa} \mu_i \ell_{q_i}\), one more vote costs
\(\sum_j w_j \ell_{q_j}\), and the least cost to go obeys

\[V(n, d) = \min\bigl(\text{certify}, \text{reject},
  \text{vote} + (1-\kappa) V(n+1, d) + \kappa V(n+1, d+1)\bigr).\]

The weights \(w_j\) are shares of samples in units of Wald's bound for the
agreement, \(\log(1/\alpha) / \mathrm{KL}(q_j \| \kappa)\): what a valid test
needs there at the least, to first order. So one table of shares serves every
kappa and alpha. The rewards \(\mu_i\) keep a test from saving samples by giving
up on inputs near the bar.

Only the shape is found here, on a grid of times that is as fine as one vote at
first and a hundredth of the time later; the exact errors are the business of
`keras_probcert.sequential.exact_test`, so nothing here can break a promise.
"""

import math

import numpy as np

from keras_probcert.sequential.stopping_law import (
    NEGLIGIBLE_IN_ERRORS,
    binomial_kernels,
    stopping_law,
)

# Shares of the objective, by the odds of a disagreement relative to the bar's.
# Chosen so that at kappa = alpha = 0.01 no agreement pays much for another.
SHARES = {0: 0.11, 0.01: 0.14, 0.1: 0.26, 0.3: 0.17, 0.5: 0.2, 2: 0.03, 5: 0.04}
SHARES[10] = 0.07
REWARDS = {0.7: 0.09, 0.8: 0.002, 1.3: 0.003}

FINENESS = 100
ROUNDS = 12


def optimal_stopping(kappa, alpha, beta, horizon, focus=None, last_ditch=True):
    """Real-valued boundaries whose errors are about alpha and beta.

    Args:
        kappa: the tolerated fraction of disagreeing votes, in (0, ½].
        alpha: the probability of certifying at the bar, in (0, 1).
        beta: the probability of rejecting at the bar, in (0, 1).
        horizon: the most votes.
        focus: an agreement that gets as much weight as all others together, or
            `None`.
        last_ditch: whether to reject all along what would be rejected at the
            horizon, or nothing for being close to it. (The boundary must not
            fall.) It saves samples unless beta is large.

    Returns:
        `(certify_times, reject_until)`, float64 arrays: by the number of
        disagreements, the votes from which they certify and up to which they
        reject.
    """
    problem = _Problem(kappa, alpha, horizon, focus, last_ditch)
    # What each multiplier times its error comes to, about.
    log_multipliers = np.log([0.2 / alpha, 0.04 / beta])
    for _ in range(ROUNDS):
        certify, reject = problem.solve(*np.exp(log_multipliers))
        errors = (
            error_of_certifying(_times(certify, horizon), horizon, kappa),
            error_of_rejecting(np.floor(reject), horizon, kappa),
        )
        wanted = np.log(np.maximum(errors, 1e-12)) - np.log([alpha, beta])
        if np.abs(wanted).max() < 0.01:
            break
        log_multipliers = log_multipliers + 0.8 * np.clip(wanted, -2, 2)
    return certify, reject


def _times(certify, horizon):
    times = np.ceil(certify)
    return times[times <= horizon]


def error_of_certifying(certify_times, horizon, q, two_classes=False):
    """P(certify) with the reject boundary switched off."""
    hopeless = np.zeros(len(certify_times))
    return stopping_law(
        certify_times,
        hopeless,
        horizon,
        q,
        two_classes,
        negligible=NEGLIGIBLE_IN_ERRORS,
    ).certified.sum()


def error_of_rejecting(reject_until, horizon, q):
    """P(reject) with the certify boundary switched off."""
    return stopping_law(
        [], reject_until, horizon, q, negligible=NEGLIGIBLE_IN_ERRORS
    ).rejected.sum()


class _Problem:
    """The Lagrangian of one setting, on its grid of times."""

    def __init__(self, kappa, alpha, horizon, focus, last_ditch):
        def law(relative_odds):
            odds = np.array(list(relative_odds), np.float64) * kappa / (1 - kappa)
            return odds / (1 + odds)

        q, shares = law(SHARES), np.array(list(SHARES.values()))
        if focus is not None:
            q, shares = np.append(q, 1 - focus), np.append(shares, shares.sum())
        self.kappa, self.last_ditch = kappa, last_ditch
        self.weights = shares / shares.sum() * _divergence(q, kappa)
        self.weights /= math.log(1 / alpha)
        rewarded = law(REWARDS)
        self.rewards = np.array(list(REWARDS.values()))
        self.below = rewarded < kappa

        times = [1]
        while times[-1] < horizon:
            times.append(min(horizon, times[-1] + max(1, times[-1] // FINENESS)))
        self.times = np.array(times)
        # Outside the band the decision is plain.
        mean, spread = kappa * self.times, 8 * np.sqrt(kappa * self.times)
        self.low = np.maximum(mean - spread, 0).astype(np.int64)
        high = np.minimum(mean + spread + 40, self.times).astype(np.int64)
        self.widths = high - self.low + 1
        # From each d to the states at the next time, edges repeated.
        kernels = binomial_kernels(np.diff(self.times, append=horizon + 1), kappa)[:-1]
        self.laws = [law[::-1] for _, law in kernels]
        self.reach = [
            np.clip(
                self.low[i]
                + least
                - self.low[i + 1]
                + np.arange(self.widths[i] + len(law) - 1),
                0,
                self.widths[i + 1] - 1,
            )
            for i, (least, law) in enumerate(kernels)
        ]

        def ratios(q):
            """log of the likelihood ratio per agreeing vote, and per further one."""
            with np.errstate(divide="ignore"):
                agree = np.log1p(-q) - math.log1p(-kappa)
                disagree = np.maximum(np.log(q) - math.log(kappa) - agree, -1e4)
            steps = np.outer(disagree, np.arange(self.widths.max()))
            return agree[:, None], disagree[:, None], np.exp(np.clip(steps, -745, 600))

        def weighted(weights, ratios):
            """The weighted sum of likelihood ratios over each time's band."""
            agree, disagree, table = ratios
            start = self.times * agree + self.low * disagree
            start = weights[:, None] * np.exp(np.clip(start, -745, 600))
            return [
                column @ table[:, :width]
                for column, width in zip(start.T, self.widths, strict=True)
            ]

        votes = np.diff(self.times, append=horizon)
        self.cost_of_votes = [
            n * cost
            for n, cost in zip(votes, weighted(self.weights, ratios(q)), strict=True)
        ]
        reward_ratios = ratios(rewarded)
        self.reward_certify, self.reward_reject = (
            weighted(np.where(side, self.rewards, 0.0), reward_ratios)
            for side in (self.below, ~self.below)
        )

    def solve(self, certify_multiplier, reject_multiplier):
        """Backward induction; boundaries between grid points by interpolation."""
        highest = (self.low + self.widths).max()
        certify = np.full(highest, np.inf)
        reject = np.zeros(highest)
        value = following = None
        for i in range(len(self.times) - 1, -1, -1):
            n, low, width = self.times[i], self.low[i], self.widths[i]
            d = low + np.arange(width)
            cost_certify = certify_multiplier - self.reward_certify[i]
            cost_reject = reject_multiplier - self.reward_reject[i]
            if value is None:
                go_on = np.zeros(width)
            else:
                go_on = np.convolve(value[self.reach[i]], self.laws[i], "valid")
                go_on += self.cost_of_votes[i]
            # What stopping saves; it must be on the right side of the bar.
            saves_certify = np.where(d < self.kappa * n, go_on - cost_certify, -1.0)
            saves_reject = np.where(
                (d > self.kappa * n) & (d < n), go_on - cost_reject, -1.0
            )
            value = np.where(saves_certify >= 0, cost_certify, go_on)
            value = np.where(saves_reject >= 0, cost_reject, value)
            self._mark(i, certify, reject, saves_certify, saves_reject, following)
            following = (saves_certify, saves_reject)
        return np.maximum.accumulate(certify), np.maximum.accumulate(reject)

    def _mark(self, i, certify, reject, saves_certify, saves_reject, following):
        """Writes the boundaries that lie between this time and the next."""
        n, low = self.times[i], self.low[i]
        d = low + np.arange(len(saves_certify))
        if following is None:
            certify[d[saves_certify >= 0]] = n
            reject[d[saves_reject >= 0]] = n
            return
        following_low, step = self.low[i + 1], self.times[i + 1] - n
        next_certify, next_reject = following
        # Below the next band all are certified there; above this one, none here.
        certify[low:following_low] = np.minimum(certify[low:following_low], n + step)
        end = max(low + len(saves_certify), following_low)
        beyond = end + np.flatnonzero(next_certify[end - following_low :] >= 0)
        certify[beyond] = np.minimum(certify[beyond], n + step)

        # The states of both times: at most a few of them cross a boundary.
        first, last = following_low, min(end, following_low + len(next_certify))
        here, there = slice(first - low, last - low), slice(0, last - first)
        before, after = saves_certify[here], next_certify[there]
        starts = np.flatnonzero((before < 0) & (after >= 0))
        if starts.size:
            before, after, at = before[starts], after[starts], first + starts
            rate = np.where(at < self.kappa * n, before / (before - after), 1.0)
            certify[at] = n + step * np.clip(rate, 0, 1)
        if i == 0:
            certify[d[saves_certify >= 0]] = n

        before, after = saves_reject[here], next_reject[there]
        ends = (before >= 0) & (after < 0)
        if self.last_ditch:
            # The last end counts: what rejects at the horizon, where there is
            # nothing left to wait for, rejects before it as well.
            ends &= reject[first:last] == 0
        ends = np.flatnonzero(ends)
        if ends.size:
            before, after, at = before[ends], after[ends], first + ends
            late = at > self.kappa * (n + step)
            rate = np.where(late, before / (before - after), 0.0)
            reject[at] = n + step * np.clip(rate, 0, 1)


def _divergence(q, kappa):
    """KL(q ‖ kappa) of one vote."""
    with np.errstate(divide="ignore", invalid="ignore"):
        disagree = np.where(q > 0, q * np.log(q / kappa), 0.0)
        agree = np.where(q < 1, (1 - q) * np.log((1 - q) / (1 - kappa)), 0.0)
    return disagree + agree
