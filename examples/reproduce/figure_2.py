"""Figure 2: what λ does."""

import numpy as np
from measures import autoattack, certify, defence, point, rate, robust
from settings import epsilon_of


def measures(run, weight):
    """Certificates and AutoAttack's success on the model trained with λ = `weight`."""
    dataset = run.datasets[0]
    vicinity = ("linf", epsilon_of(dataset))
    config = run.plan("variance_minimizing", dataset, vicinity, std_weight=weight)
    few = run.size(dataset).few
    count = run.count(dataset, 5)
    certified = certify(run, config, vicinity, count=count)
    return certified, autoattack(run, config, few)


def jobs(run):
    return [(f"λ = {w:g}", lambda w=w: measures(run, w)) for w in run.preset.lambdas]


def table(run):
    rows = []
    for weight in run.preset.lambdas:
        certified, attacked = measures(run, weight)
        curves = {
            "standard accuracy": rate(np.asarray(certified["standard"])),
            "certified robust accuracy": rate(robust(certified)),
            "defence success, vote": defence(attacked["vote"]),
            "defence success, plain model": defence(attacked["plain"]),
        }
        for name, found in curves.items():
            attacks = name.startswith("defence")
            panel = "against AutoAttack" if attacks else "accuracy"
            rows.append(point(panel, name, weight, "λ", found))
    return {
        "kind": "curve",
        "title": "Figure 2: the weight of the standard deviation",
        "caption": f"Variance-minimizing training on {run.datasets[0]} with λ from "
        f"{run.preset.lambdas[0]:g} to {run.preset.lambdas[-1]:g}. The paper finds λ "
        "near 1 best and less standard accuracy at large λ.",
        "rows": rows,
    }
