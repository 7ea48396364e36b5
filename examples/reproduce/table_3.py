"""Table 3: defence success against AutoAttack, and against an attack on the vote."""

import table_1
from measures import attack, autoattack, defence, share
from paper import TABLE_3

from keras_probcert.attacks import SmoothedPGD


def transferred(run, dataset, method):
    return autoattack(run, table_1.config(run, dataset, method), run.size(dataset).few)


def on_the_vote(run, dataset, method):
    config = table_1.config(run, dataset, method)
    count = max(8, run.size(dataset).few // 10)
    given = run.preset.smoothed_pgd
    name = f"SmoothedPGD, {given}" if given else "SmoothedPGD"
    return attack(run, config, name, lambda: SmoothedPGD(**given), True, count)


def jobs(run):
    return [
        (f"{method} on {dataset}", lambda f=f, d=dataset, m=method: f(run, d, m))
        for f in (transferred, on_the_vote)
        for dataset in run.datasets
        for method in run.preset.methods
    ]


def table(run):
    rows = []
    for dataset in run.datasets:
        columns = {
            "plain model": lambda m, d=dataset: transferred(run, d, m)["plain"],
            "vote, transferred": lambda m, d=dataset: transferred(run, d, m)["vote"],
            "vote, SmoothedPGD": lambda m, d=dataset: on_the_vote(run, d, m)["vote"],
        }
        paper = {"vote, transferred": TABLE_3.get(dataset, {})}
        rows += [
            {
                "row": method,
                "column": f"{dataset} · {name}",
                **defence(of(method)),
                "paper": share(paper.get(name, {}).get(method)),
            }
            for name, of in columns.items()
            for method in run.preset.methods
        ]
    return {
        "kind": "table",
        "title": "Table 3: defence success against AutoAttack",
        "caption": f"AutoAttack ({run.preset.autoattack}) on the plain model; the same "
        "adversarial examples shown to the majority vote; and SmoothedPGD, which "
        "attacks the vote itself. The paper's numbers stand beside the second, the "
        "only one that can explain them.",
        "rows": rows,
    }
