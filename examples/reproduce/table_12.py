"""Table 12: certified robust accuracy at other α."""

import table_1
from measures import beside, rate, robust, share
from paper import TABLE_12


def count(run):
    return run.count(run.one, 5)


def measure(run, method, alpha):
    # At the preset's α these are Table 1's.
    images = None if alpha == run.preset.alpha else count(run)
    return table_1.measure(run, run.one, method, alpha=alpha, count=images)


def jobs(run):
    return [
        (f"{method}, α = {alpha:g}", lambda m=method, a=alpha: measure(run, m, a))
        for alpha in run.preset.alphas
        for method in run.preset.methods
    ]


def table(run):
    rows = [
        {
            "row": method,
            "column": f"{beside(run)}1 − α = {1 - alpha:g}",
            **rate(robust(measure(run, method, alpha))[: count(run)]),
            "paper": share(TABLE_12.get(alpha, {}).get(method)),
        }
        for alpha in run.preset.alphas
        for method in run.preset.methods
    ]
    return {
        "kind": "table",
        "title": "Table 12: certified robust accuracy at other α",
        "caption": f"Ours on the first {count(run)} of "
        f"{table_1.describe(run, [run.one])} The paper's is on CIFAR-10.",
        "rows": rows,
    }
