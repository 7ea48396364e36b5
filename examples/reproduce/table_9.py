"""Table 9: defence success against 25 attacks."""

import inspect

import table_1
from measures import attack, beside, defence, share
from paper import TABLE_9 as PAPER
from settings import epsilon_of

from keras_probcert.attacks import TABLE_9


def measure(run, name, method):
    dataset = run.one
    make = TABLE_9[name]
    # PGDL2 keeps its L2 radius of 1.
    bounded = "epsilon" in inspect.signature(make).parameters and name != "PGDL2"
    settings = {"epsilon": epsilon_of(dataset)} if bounded else {}
    config = table_1.config(run, dataset, method)
    count = max(8, run.size(dataset).few // 5)
    return attack(run, config, name, lambda: make(**settings), False, count)


def jobs(run):
    return [
        (f"{name} on {method}", lambda n=name, m=method: measure(run, n, m))
        for method in run.preset.methods
        for name in run.preset.attacks
    ]


def table(run):
    rows = [
        {
            "row": name,
            "column": f"{beside(run)}{method} · {victim}",
            **defence(measure(run, name, method)[victim]),
            "paper": share(PAPER[name][method]) if victim == "vote" else None,
        }
        for method in run.preset.methods
        for victim in ("plain", "vote")
        for name in run.preset.attacks
    ]
    return {
        "kind": "table",
        "title": "Table 9: defence success against 25 attacks",
        "caption": f"Ours on {run.one}: adversarial examples for the plain model, "
        "judged by it and by the vote. TorchAttacks' settings, its L∞ radii replaced "
        f"by {epsilon_of(run.one):.4g}. The paper's is on CIFAR-10 at 8/255.",
        "rows": rows,
    }
