"""What a sequential test does at a given agreement, by dynamic programming."""

import numpy as np


def operating_characteristics(certify, reject, agreement):
    """Decisions and expected samples of a test, exactly.

    Votes agree or disagree with one given class, each with probability
    `agreement` or 1 − `agreement`. The state after n votes is the number d of
    disagreeing ones among streams that go on. Each vote shifts it by one with
    probability 1 − agreement; what crosses a boundary leaves. Nothing is
    simulated or cut off.

    Args:
        certify: int array of length `max_samples + 1`: certify after n votes if
            d ≤ `certify[n]`.
        reject: int array of the same length: reject if d ≥ `reject[n]`.
        agreement: a float in [0, 1], or an array of them.

    Returns:
        A dict of floats, or of float64 arrays of the shape of `agreement`:
        `certify`, `reject`, `undecided` (probabilities) and `expected_samples`.

    Raises:
        ValueError: if an agreement lies outside [0, 1].
    """
    p = np.asarray(agreement, np.float64)
    if not ((0 <= p) & (p <= 1)).all():
        raise ValueError(
            f"`agreement` must lie in [0, 1]. Received: agreement={agreement}"
        )
    shape, p = p.shape, p.reshape(-1, 1)
    q = 1.0 - p
    horizon = len(certify) - 1

    # Column i of `alive` is d = start + i.
    start, alive = 0, np.ones((len(p), 1))
    certified, rejected = np.zeros(len(p)), np.zeros(len(p))
    samples = np.zeros(len(p))
    for n in range(1, horizon + 1):
        samples += alive.sum(axis=1)
        following = np.empty((len(p), alive.shape[1] + 1))
        np.multiply(alive, p, out=following[:, :-1])
        following[:, -1] = 0.0
        following[:, 1:] += alive * q
        below = min(max(certify[n] + 1 - start, 0), following.shape[1])
        above = min(max(reject[n] - start, below), following.shape[1])
        if below:
            certified += following[:, :below].sum(axis=1)
        if above < following.shape[1]:
            rejected += following[:, above:].sum(axis=1)
        alive = following[:, below:above]
        start += below
        if not alive.size:
            break
    undecided = alive.sum(axis=1)

    total = certified + rejected + undecided
    if not np.allclose(total, 1.0, rtol=0, atol=1e-9):
        raise RuntimeError(f"Probabilities must add up to 1. Received: {total}")
    values = {
        "certify": certified,
        "reject": rejected,
        "undecided": undecided,
        "expected_samples": samples,
    }
    return {
        name: value.reshape(shape) if shape else float(value[0])
        for name, value in values.items()
    }
