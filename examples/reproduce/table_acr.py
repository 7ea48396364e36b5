"""Average certified radius (ACR) of smoothed classifiers."""

import sys
from pathlib import Path

import numpy as np
from datasets import load
from measures import bare, point

sys.path.append(str(Path(__file__).parents[1]))
import smoothing  # noqa: E402  (examples/smoothing.py)

from keras_probcert import SmoothedClassifier  # noqa: E402


def measure(run, sigma, method):
    dataset = run.datasets[0]
    preset, count = run.preset, run.count(dataset, 5)
    what = {
        "measure": "radius",
        "dataset": dataset,
        "method": method,
        "sigma": sigma,
        "rows": preset.smoothing_rows,
        "n": preset.smoothing_n,
        "count": count,
        "seed": run.seed,
    }

    def compute():
        base, seconds = smoothing.train(
            *(method, sigma, *load(dataset, "train")),
            *(preset.smoothing_rows, run.seed),
            verbose=0,
        )
        x, y = (rows[:count] for rows in load(dataset, "test"))
        smoothed = SmoothedClassifier(base, sigma, n0=100, n=preset.smoothing_n)
        found = smoothed.predict(x, seed=run.seed, verbose=0)
        right = found["label"] == y
        return {
            "radius": np.where(right, found["radius"], 0.0).tolist(),
            "right": right.tolist(),
            "seconds": seconds,
        }

    return run.cell(what, compute)


def jobs(run):
    return [
        (f"σ = {sigma:g}, {method}", lambda s=sigma, m=method: measure(run, s, m))
        for sigma in run.preset.sigmas
        for method in run.preset.smoothing_methods
    ]


def table(run):
    dataset = run.datasets[0]
    rows, curves = [], []
    for sigma in run.preset.sigmas:
        for method in run.preset.smoothing_methods:
            cell = measure(run, sigma, method)
            radii = np.asarray(cell["radius"])
            half = 1.96 * radii.std(ddof=1) / len(radii) ** 0.5
            published = smoothing.PUBLISHED[method][smoothing.SIGMAS.index(sigma)]
            rows.append(
                {
                    "row": method,
                    "column": f"σ = {sigma:g}",
                    "value": radii.mean(),
                    "low": radii.mean() - half,
                    "high": radii.mean() + half,
                    "paper": published if dataset == "mnist" else None,
                    "unit": "radius",
                    "count": len(radii),
                }
            )
            right = np.asarray(cell["right"])
            for radius in map(float, smoothing.RADII):
                found = bare(float(np.mean(right & (radii >= radius))), "percent")
                curves.append(
                    point(
                        f"σ = {sigma:g}",
                        *(method, radius, "radius (L2)", found),
                        "certified accuracy",
                    )
                )
    return {
        "kind": "table",
        "title": "Randomized smoothing: average certified radius",
        "caption": f"LeNet on {dataset}, {run.preset.smoothing_rows:,} "
        f"forward-backward rows each, n = {run.preset.smoothing_n:,}, α = 0.001. The "
        "published values are computed from the logs of the SmoothMix paper's code: "
        "90 epochs, n = 100,000.",
        "rows": rows,
        "curves": curves,
    }
