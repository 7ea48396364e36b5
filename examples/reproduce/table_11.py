"""Table 11: certified robust accuracy at other κ; κ = 0 by interval bounds."""

import numpy as np
import table_1
from datasets import load
from keras import ops
from measures import beside, rate, robust, share
from paper import TABLE_11
from settings import epsilon_of

from keras_probcert.training.interval_bounds import (
    Interval,
    last_dense,
    propagate,
    worst_logits,
)


def count(run):
    return run.count(run.one, 2)


def measure(run, method, kappa):
    return table_1.measure(run, run.one, method, kappa=kappa, count=count(run))


def deterministic(run):
    """Which images IBP's network classifies rightly in the whole vicinity, proven."""
    config = table_1.config(run, run.one, "ibp")
    epsilon = epsilon_of(run.one)
    images = count(run)
    what = {"measure": "margins", "model": config, "epsilon": epsilon, "count": images}

    def compute():
        model = run.model(config)
        x, y = (rows[:images] for rows in load(run.one, "test"))
        proven = [
            _proven(model, x[i : i + 100], y[i : i + 100], epsilon)
            for i in range(0, images, 100)
        ]
        return np.concatenate(proven).tolist()

    return run.cell(what, compute)


def _proven(model, x, y, epsilon):
    box = Interval(x, ops.maximum(x - epsilon, 0.0), ops.minimum(x + epsilon, 1.0))
    bounds = propagate(model, box, last=False)
    own = np.arange(model.output_shape[1]) == y[:, None]
    target = ops.convert_to_tensor(own.astype("float32"))
    _, worst = worst_logits(last_dense(model), bounds, target)
    return np.where(own, -np.inf, ops.convert_to_numpy(worst)).max(axis=1) < 0


def jobs(run):
    proven = [("interval bounds", lambda: deterministic(run))]
    return (proven if "ibp" in run.preset.methods else []) + [
        (f"{method}, κ = {kappa:g}", lambda m=method, k=kappa: measure(run, m, k))
        for kappa in reversed(run.preset.kappas)
        for method in run.preset.methods
    ]


def table(run):
    rows = [
        {
            "row": method,
            "column": f"{beside(run)}κ = {kappa:g}",
            **rate(robust(measure(run, method, kappa))),
            "paper": share(TABLE_11.get(kappa, {}).get(method)),
        }
        for kappa in run.preset.kappas
        for method in run.preset.methods
    ]
    if "ibp" in run.preset.methods:
        rows.append(
            {
                "row": "ibp",
                "column": f"{beside(run)}κ = 0 (deterministic)",
                **rate(np.asarray(deterministic(run))),
                "paper": share(TABLE_11[0]["ibp"]),
            }
        )
    return {
        "kind": "table",
        "title": "Table 11: certified robust accuracy at other κ",
        "caption": f"Ours on the first {count(run)} of "
        f"{table_1.describe(run, [run.one])} The paper's is on CIFAR-10.",
        "rows": rows,
    }
