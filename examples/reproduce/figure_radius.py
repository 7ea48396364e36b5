"""Beyond the paper: certified robust accuracy and samples against ε, and lost ones."""

import matplotlib.pyplot as plt
import numpy as np
import table_1
from datasets import load
from measures import bare, certify, point, rate, robust
from settings import epsilon_of
from training import vicinity_of

from keras_probcert import row_seeds

SHOWN = 3
PARTS = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
METHODS = ("erm", "pgdt", "variance_minimizing")


def measure(run, method, part):
    dataset = run.datasets[0]
    config = table_1.config(run, dataset, method)
    epsilon = round(part * epsilon_of(dataset), 6)
    return certify(run, config, ("linf", epsilon), count=2 * run.size(dataset).few)


def methods(run):
    return [method for method in METHODS if method in run.preset.methods]


def jobs(run):
    return [
        (f"{method}, ε × {part:g}", lambda m=method, p=part: measure(run, m, p))
        for method in methods(run)
        for part in PARTS
    ] + [("pictures", lambda: pictures(run))]


def table(run):
    dataset = run.datasets[0]
    rows = []
    for method in methods(run):
        for part in PARTS:
            cell = measure(run, method, part)
            x = round(part * epsilon_of(dataset), 6)
            votes = bare(float(np.mean(cell["samples"])))
            rows += [
                point(panel, method, x, "ε (L∞)", found, y_label)
                for panel, found, y_label in (
                    ("certified robust accuracy", rate(robust(cell)), "rate"),
                    ("samples", votes, "votes an image, mean"),
                )
            ]
    return {
        "kind": "curve",
        "title": "Certified robust accuracy and samples against ε",
        "caption": f"The models of Table 1 on {2 * run.size(dataset).few} test images "
        f"of {dataset}, κ = {run.preset.kappa:g}, α = {run.preset.alpha:g}.",
        "rows": rows,
        "pictures": pictures(run),
    }


def pictures(run):
    """Inputs without a certificate, each with a perturbation that changes the class."""
    dataset, method = run.datasets[0], "variance_minimizing"
    if method not in run.preset.methods:
        return []
    config = table_1.config(run, dataset, method)
    what = {
        **{"measure": "pictures", "model": config, "shown": SHOWN, "part": PARTS[-1]},
        **{"kappa": run.preset.kappa, "alpha": run.preset.alpha},
        "count": run.size(dataset).few,
    }

    def compute():
        cell = measure(run, method, PARTS[-1])
        lost = np.asarray(cell["right"]) & ~np.asarray(cell["certified"])
        x, y = load(dataset, "test")
        model = run.model(config)
        vicinity = vicinity_of("linf", PARTS[-1] * epsilon_of(dataset))
        found = []
        for i in np.flatnonzero(lost):
            if len(found) == SHOWN:
                break
            copies = np.repeat(x[i : i + 1], 2_000, axis=0)
            drawn = np.asarray(vicinity(copies, row_seeds(run.seed, len(copies))))
            labels = model.predict(drawn, batch_size=500, verbose=0).argmax(axis=1)
            others = np.flatnonzero(labels != y[i])
            if len(others):
                file = f"lost_{i}.png"
                _draw(x[i], drawn[others[0]], run.folder / file)
                found.append(
                    {
                        "file": file,
                        "caption": f"Test image {i}, a {y[i]}: of 2,000 perturbations "
                        f"{len(others)} change its class; this one to "
                        f"{labels[others[0]]}.",
                    }
                )
        return found

    return run.cell(what, compute)


def _draw(x, copy, path):
    figure, axes = plt.subplots(1, 3, figsize=(6, 2.2), layout="constrained")
    images = {"input": x, "perturbation": copy - x, "sum": copy}
    for axis, (title, image) in zip(axes, images.items(), strict=True):
        if title == "perturbation":
            image = image / (2 * np.abs(image).max()) + 0.5
        axis.imshow(image.squeeze(), cmap="gray", vmin=0, vmax=1)
        axis.set_title(title)
        axis.axis("off")
    figure.savefig(path, dpi=100)
    plt.close(figure)
