"""A picture of a sequential test."""

import numpy as np


def plot(test, agreements=None):
    """Boundaries, expected samples and decisions of a test.

    Args:
        test: a `SequentialTest`.
        agreements: the true agreements of the right half, increasing, in
            [0, 1]; by default 60 of them around 1 − kappa.

    Returns:
        A matplotlib figure with three axes.
    """
    try:
        from matplotlib import figure
    except ImportError as error:
        raise ImportError("Plots need matplotlib: pip install '.[plots]'") from error
    if agreements is None:
        odds = np.geomspace(0.02, min(12, 0.9 / test.kappa), 60)
        agreements = 1 - odds[::-1] * test.kappa
    agreements = np.asarray(agreements, np.float64)
    exact = test.operating_characteristics(agreements)

    fig = figure.Figure(figsize=(13, 4), layout="constrained")
    boundaries, samples, decisions = fig.subplots(1, 3)

    certify, reject = test.boundaries()
    n = np.arange(len(certify))
    shown = certify >= 0
    boundaries.step(n[shown], certify[shown], where="post", label="certify")
    shown = reject <= n
    boundaries.step(n[shown], reject[shown], where="post", label="reject")
    if test.futile:
        boundaries.axhline(certify[-1] + 1, linestyle=":", color="gray", label="futile")
    boundaries.plot(n, test.kappa * n, "--", color="gray", label="kappa · votes")
    boundaries.set(xlabel="votes", ylabel="disagreeing votes", title="Boundaries")

    samples.plot(agreements, exact["expected_samples"])
    samples.set(yscale="log", ylabel="expected votes", title="Samples")
    for name in ("certify", "reject", "futile", "undecided"):
        decisions.plot(agreements, exact[name], label=name)
    decisions.set(ylabel="probability", title="Decisions")
    for axes in (samples, decisions):
        axes.axvline(1 - test.kappa, linestyle="--", color="gray")
        axes.set_xlabel("true agreement")
    boundaries.legend()
    decisions.legend()
    return fig
