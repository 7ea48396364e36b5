"""Figure 3: convergence of the mean, of the standard deviation, and of the metrics."""

import numpy as np
from measures import bare, certify, point, rate, robust
from settings import epsilon_of


def config_of(run):
    dataset = run.datasets[0]
    return run.plan(
        "variance_minimizing",
        dataset,
        ("linf", epsilon_of(dataset)),
        points=run.preset.points,
    )


def training(run):
    """Its history, a dict of means of the logs a point."""
    config = config_of(run)
    what = {"measure": "training", "model": config}
    return run.cell(what, lambda: run.record(config)["history"])


def certified_at(run, point):
    """Certificates of validation images by the model at a point of training."""
    config = config_of(run)
    few = run.size(config["dataset"]).few
    return certify(
        run,
        {**config, "at": point},
        ("linf", epsilon_of(config["dataset"])),
        count=2 * few,
        split="validation",
    )


def jobs(run):
    points = range(1, run.preset.points + 1)
    return [("training", lambda: training(run))] + [
        (f"point {point}", lambda p=point: certified_at(run, p)) for point in points
    ]


def table(run):
    config = config_of(run)
    history = training(run)
    steps = config["steps"]
    rows = []

    for i, logs in enumerate(history):
        cell = certified_at(run, i + 1)
        parts = {
            "mean": ("loss", bare(logs["loss_mean"])),
            "standard deviation": ("loss", bare(logs["loss_std"])),
            "standard accuracy": ("metrics", rate(np.asarray(cell["standard"]))),
            "certified robustness rate": (
                "metrics",
                rate(np.asarray(cell["certified"])),
            ),
            "certified robust accuracy": ("metrics", rate(robust(cell))),
        }
        rows += [
            point(panel, name, steps * (i + 1), "steps", found, panel)
            for name, (panel, found) in parts.items()
        ]
    return {
        "kind": "curve",
        "title": "Figure 3: convergence",
        "caption": f"Variance-minimizing training on {config['dataset']}: means of the "
        f"two terms of Objective (5) since the point before, and certificates of "
        f"{2 * run.size(config['dataset']).few} validation images at each.",
        "rows": rows,
    }
