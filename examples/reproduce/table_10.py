"""Table 10: certified robust accuracy in smaller vicinities."""

import table_1
from measures import certify, rate, robust, share
from paper import TABLE_10
from settings import small_epsilon_of


def measure(run, dataset, method):
    vicinity = ("linf", small_epsilon_of(dataset))
    return certify(run, table_1.config(run, dataset, method), vicinity)


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
            "column": dataset,
            **rate(robust(measure(run, dataset, method))),
            "paper": share(TABLE_10.get(dataset, {}).get(method)),
        }
        for dataset in run.datasets
        for method in run.preset.methods
    ]
    return {
        "kind": "table",
        "title": "Table 10: smaller vicinities, certified robust accuracy",
        "caption": "The models of Table 1, certified at "
        f"{table_1.radii(run, small_epsilon_of)}. {table_1.describe(run)}",
        "rows": rows,
    }
