"""Table 1: standard accuracy, certified robustness rate, certified robust accuracy."""

import numpy as np
from measures import certify, rate, robust, share
from paper import TABLE_1
from settings import epsilon_of

MEASURES = {
    "standard accuracy": lambda cell: cell["standard"],
    "robustness rate": lambda cell: cell["certified"],
    "robust accuracy": robust,
}


def config(run, dataset, method):
    """Of the model in Table 1, which the other tables share."""
    return run.plan(method, dataset, ("linf", epsilon_of(dataset)))


def measure(run, dataset, method, **kwargs):
    """Its certificates in the vicinity of Table 1."""
    vicinity = ("linf", epsilon_of(dataset))
    return certify(run, config(run, dataset, method), vicinity, **kwargs)


def jobs(run):
    return [
        (f"{method} on {dataset}", lambda d=dataset, m=method: measure(run, d, m))
        for dataset in run.datasets
        for method in run.preset.methods
    ]


def table(run):
    rows = [
        {
            "row": method,
            "column": f"{dataset} · {name}",
            **rate(np.asarray(of(measure(run, dataset, method)))),
            "paper": share(TABLE_1.get((dataset, name), {}).get(method)),
        }
        for dataset in run.datasets
        for name, of in MEASURES.items()
        for method in run.preset.methods
    ]
    return {
        "kind": "table",
        "title": "Table 1: L∞ vicinities",
        "caption": f"{describe(run)} The vicinity is an L∞ ball, of radius "
        f"{radii(run, epsilon_of)}.",
        "settings": settings(run),
        "rows": rows,
    }


def radii(run, of):
    """The radius `of` each data set, in words."""
    return ", ".join(f"{of(dataset):.4g} ({dataset})" for dataset in run.datasets)


def describe(run, datasets=None):
    """A sentence on how large all was."""
    parts = []
    for dataset in datasets or run.datasets:
        size = run.size(dataset)
        network = size.networks[""]
        others = {m: n for m, n in size.networks.items() if m and n != network}
        if others:
            network += f" ({', '.join(f'{n} for {m}' for m, n in others.items())})"
        trained = "the epochs of C.1"
        if size.rows:
            trained = f"{size.rows:,} forward-backward rows"
        parts.append(f"{dataset}: {size.test:,} test images, {network}, {trained} each")
    kappa, alpha = run.preset.kappa, run.preset.alpha
    return "; ".join(parts) + f"; κ = {kappa:g}, α = {alpha:g}."


def settings(run):
    """The hyper-parameters of each training, plain."""
    found = {}
    for dataset in run.datasets:
        for method in run.preset.methods:
            plan = config(run, dataset, method)
            found[f"{dataset}, {method}"] = (
                f"{plan['network']}, {plan['epochs']} × {plan['steps']} steps of "
                f"{plan['batch_size']}, {plan['recipe']['optimizer']} "
                f"{plan['recipe']['learning_rate']:g}, {plan['arguments']}"
            )
    return found
