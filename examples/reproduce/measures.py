"""What is measured of a trained model, each a cell of the run."""

import time

import numpy as np
from datasets import load
from settings import epsilon_of
from training import vicinity_of

from keras_probcert import CertifiedPredictor
from keras_probcert.attacks import AutoAttack, evaluate_attack
from keras_probcert.metrics import success_rate


def certify(run, config, vicinity, kappa=None, alpha=None, count=None, split="test"):
    """Labels and certificates of the first images.

    Args:
        run: the `Run`.
        config: of the training.
        vicinity: what `vicinity_of` takes.
        kappa, alpha: by default the preset's.
        count: of images, by default the size's `test`.
        split: "test" or "validation".

    Returns:
        A dict: per image "standard" (whether the plain prediction is right), "right"
        (the vote), "certified", "samples"; and "seconds" and "plain_seconds" (for all).
    """
    kappa, alpha = kappa or run.preset.kappa, alpha or run.preset.alpha
    count = count or run.size(config["dataset"]).test
    what = {
        "measure": "certify",
        "model": config,
        "vicinity": vicinity,
        "kappa": kappa,
        "alpha": alpha,
        "count": count,
        "split": split,
    }

    def compute():
        model = run.model(config)
        x, y = (rows[:count] for rows in load(config["dataset"], split))
        certified = CertifiedPredictor(model, vicinity_of(*vicinity), kappa, alpha)
        # The first call of each compiles, for this number of rows. Rows that are
        # refused take no votes.
        model.predict(x, batch_size=500, verbose=0)
        refused = np.full_like(x[:500], np.nan)
        certified.predict_on_batch(
            {"inputs": refused, "seed": np.zeros((len(refused), 2), "int32")}
        )
        start = time.perf_counter()
        outputs = model.predict(x, batch_size=500, verbose=0)
        middle = time.perf_counter()
        found = certified.predict(x, batch_size=500, seed=run.seed, verbose=0)
        return {
            "standard": (outputs.argmax(axis=1) == y).tolist(),
            "right": (found["label"] == y).tolist(),
            "certified": found["certified"].tolist(),
            "samples": found["num_samples"].tolist(),
            "seconds": time.perf_counter() - middle,
            "plain_seconds": middle - start,
        }

    return run.cell(what, compute)


def attack(run, config, name, make, takes_vote, count):
    """Defence success of the plain model and of the vote, in the L∞ vicinity.

    Args:
        run: the `Run`.
        config: of the training.
        name: of the attack, with its settings: what the cell is known by.
        make: a function that makes it.
        takes_vote: whether it attacks the vote; else its adversarial examples for the
            plain model are shown to the vote.
        count: of images.

    Returns:
        A dict from "plain" (unless `takes_vote`) and "vote" to `to_dict` of an
        `AttackEvaluation`.
    """
    dataset = config["dataset"]
    epsilon = epsilon_of(dataset)
    what = {
        "measure": "attack",
        "model": config,
        "attack": name,
        "epsilon": epsilon,
        "kappa": run.preset.kappa,
        "alpha": run.preset.alpha,
        "count": count,
    }

    def compute():
        model = run.model(config)
        x, y = (rows[:count] for rows in load(dataset, "test"))
        vote = CertifiedPredictor(
            model, vicinity_of("linf", epsilon), run.preset.kappa, run.preset.alpha
        )
        settings = {"seed": run.seed, "batch_size": 250, "verbose": 0}
        if takes_vote:
            voted = evaluate_attack(vote, make(), x, y, **settings)
            return {"vote": voted.to_dict()}
        plain = evaluate_attack(model, make(), x, y, **settings)
        transfer = iter(np.split(plain.x_adv, range(250, len(x), 250)))
        voted = evaluate_attack(
            vote, lambda model, x, y: next(transfer), x, y, **settings
        )
        return {"plain": plain.to_dict(), "vote": voted.to_dict()}

    return run.cell(what, compute)


def autoattack(run, config, count):
    """Defence success against the preset's AutoAttack."""
    version, epsilon = run.preset.autoattack, epsilon_of(config["dataset"])

    def make():
        if version == "standard":
            return AutoAttack("linf", epsilon)
        return AutoAttack("linf", epsilon, version="custom", attacks=[version])

    return attack(run, config, f"AutoAttack, {version}", make, False, count)


def rate(successes):
    """Value and 95 % interval of a row of a table."""
    found = success_rate(successes)
    return {
        "outcomes": np.packbits(np.asarray(successes, bool)).tobytes().hex(),
        "value": found.rate,
        "low": found.lower,
        "high": found.upper,
        "unit": "percent",
        "count": found.trials,
    }


def robust(cell):
    """Which images are right and certified."""
    return np.asarray(cell["right"]) & np.asarray(cell["certified"])


def defence(evaluation):
    """Value and interval of a defence success rate of `to_dict`."""
    name = "defence_success_rate"
    return {
        "value": evaluation[name],
        "low": evaluation[f"{name}_lower"],
        "high": evaluation[f"{name}_upper"],
        "unit": "percent",
        "count": evaluation["rows"],
    }


def point(panel, series, x, x_label, found, y_label="rate"):
    """A row of a curve; `found` is what `rate` and `defence` return."""
    return {
        "panel": panel,
        "series": series,
        "x": x,
        "x_label": x_label,
        "y": found["value"],
        "low": found["low"],
        "high": found["high"],
        "y_label": y_label,
        "unit": found["unit"],
        "paper": None,
    }


def bare(value, unit="ratio"):
    """A value of a row without an interval."""
    return {"value": value, "low": None, "high": None, "unit": unit, "count": None}


def beside(run):
    """What columns begin with where the paper's are of CIFAR-10 and ours are not."""
    return "" if run.one == "cifar10" else f"{run.one}, paper: cifar10 · "


def share(percent):
    """The paper's percent as a fraction."""
    return None if percent is None else round(percent / 100, 6)
