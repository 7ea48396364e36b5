"""Table 4: the time of training and of inference, over ERM's."""

import table_1
from paper import TABLE_4


def jobs(run):
    return [
        (f"{method}", lambda m=method: table_1.measure(run, run.datasets[0], m))
        for method in run.preset.methods
    ]


def table(run):
    dataset = run.datasets[0]
    rows = []

    def add(column, method, value, unit, paper=None):
        rows.append(
            {"row": method, "column": column, "value": value, "low": None}
            | {
                "high": None,
                "paper": paper,
                "unit": unit,
                "count": None,
                "better": "lower",
            }
        )

    seconds = {}
    for method in run.preset.methods:
        config = table_1.config(run, dataset, method)
        seconds[method] = run.record(config)["seconds"]
        examples = config["epochs"] * config["steps"] * config["batch_size"]
        seconds[method] /= examples
        add("training, μs an example", method, 1e6 * seconds[method], "ratio")
    erm = TABLE_4["training"]["erm"]
    for method, value in seconds.items() if "erm" in seconds else ():
        paper = TABLE_4["training"][method] / erm if dataset == "mnist" else None
        add("training over erm's", method, value / seconds["erm"], "ratio", paper)
    for method in run.preset.methods:
        cell = table_1.measure(run, dataset, method)
        images = len(cell["samples"])
        plain, certified = cell["plain_seconds"], cell["seconds"]
        add("prediction, s for 10,000", method, plain * 1e4 / images, "seconds")
        add("certificate, s for 10,000", method, certified * 1e4 / images, "seconds")
        add("samples an image", method, sum(cell["samples"]) / images, "ratio")
    return {
        "kind": "table",
        "title": "Table 4: time",
        "caption": f"{table_1.describe(run, [dataset])} As measured, so "
        "nothing else may have run beside it. Training: for as many examples "
        "as erm sees, over erm's. Every method is certified by the same test. "
        "The paper gives 27 s of an RTX 2080 Ti for the prediction of 10,000 images, "
        "4,700 s for certificates by Algorithm 2, 270,000 s for randomized smoothing.",
        "rows": rows,
    }
