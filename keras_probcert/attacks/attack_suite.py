"""Many attacks on several models, side by side."""

import dataclasses
import pathlib

import numpy as np

from keras_probcert.attacks.certificate_attack import CertificateAttack
from keras_probcert.attacks.evaluate import batches, evaluate_attack
from keras_probcert.attacks.evaluation import AttackEvaluation
from keras_probcert.certifiers import CertifiedPredictor
from keras_probcert.metrics import success_rate

NO_ATTACK, WORST_CASE = "No Attack", "Worst Case"

# As people read the rates' names.
_TITLES = {
    "defence_success_rate": "defence success",
    "denied_rate": "denied",
    "forged_rate": "forged",
}


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class AttackSuite:
    """The results of `attack_suite`.

    Args:
        evaluations: a dict of model names to dicts of attack names to
            `AttackEvaluation`s of the same rows.

    Example:

    >>> import numpy as np
    >>> y = np.array([0, 1, 1, 0])
    >>> attacked = {
    ...     name: AttackEvaluation(np.zeros((4, 2)), y, y, label=np.array(label))
    ...     for name, label in (("A", [0, 1, 1, 1]), ("B", [1, 1, 1, 0]))}
    >>> AttackSuite({"model": attacked}).rates("model")["Worst Case"]
    {'defence_success_rate': 0.5 [0.06759, 0.9324] (2 of 4)}
    """

    evaluations: dict[str, dict[str, AttackEvaluation]]

    def rates(self, model):
        """Rates by attack, and those of the worst of them for each row.

        In the worst case a row is defended if it is defended against every attack,
        denied or forged if it is by one.

        Args:
            model: its name.

        Returns:
            A dict of attack names, then `"Worst Case"`, to dicts of rates by name.
        """
        evaluations = self.evaluations[model]
        rows = {
            name: {
                key: rate
                for key, rate in evaluation.rates.items()
                if key != "standard_accuracy"
            }
            for name, evaluation in evaluations.items()
        }
        each = list(evaluations.values())
        level = each[0].level
        worst = {
            "defence_success_rate": np.all([e.defended for e in each], axis=0),
        }
        if each[0].certified is not None:
            denied = np.any([e.denied for e in each], axis=0)
            worst["denied_rate"] = denied[each[0].deniable]
            worst["forged_rate"] = np.any([e.forged for e in each], axis=0)
        rows[WORST_CASE] = {k: success_rate(v, level) for k, v in worst.items()}
        return rows

    def table(self):
        """A `rich` table: an attack a row, rates in percent with their intervals."""
        table = _rich_table()(title="Rates in percent, with intervals")
        for name in ("model", "attack"):
            table.add_column(name, no_wrap=True)
        for name in (*_TITLES.values(), "seconds"):
            table.add_column(name, justify="right")
        for model, evaluations in self.evaluations.items():
            for name, rates in self.rates(model).items():
                cells = [_percent(rates.get(key)) for key in _TITLES]
                seconds = (
                    f"{evaluations[name].seconds:.1f}" if name in evaluations else ""
                )
                table.add_row(model, name, *cells, seconds)
            table.add_section()
        return table

    def plot(self):
        """The rates of every attack with their intervals.

        Returns:
            A matplotlib figure with one axes for each model.
        """
        figure = _matplotlib_figure()
        count = len(self.evaluations)
        attacks = len(next(iter(self.evaluations.values()))) + 1
        fig = figure.Figure(
            figsize=(1 + 5 * count, 1.5 + 0.35 * attacks), layout="constrained"
        )
        every_axes = fig.subplots(1, count, sharey=True, squeeze=False)[0]
        for axes, model in zip(every_axes, self.evaluations, strict=True):
            rates = self.rates(model)
            keys = list(rates[WORST_CASE])
            for i, key in enumerate(keys):
                rate, lower, upper = np.transpose(
                    [100 * np.array(row[key][:3]) for row in rates.values()]
                )
                axes.errorbar(
                    rate,
                    np.arange(len(rates)) + 0.2 * (i - (len(keys) - 1) / 2),
                    # Of no trials the rate is NaN, and nothing is drawn.
                    xerr=np.nan_to_num([rate - lower, upper - rate]).clip(0),
                    fmt="o",
                    capsize=3,
                    label=_TITLES[key],
                )
            axes.set(title=model, xlabel="percent", xlim=(-2, 102))
            axes.set_yticks(range(len(rates)), rates)
            axes.legend()
        every_axes[0].invert_yaxis()
        return fig

    def __repr__(self):
        lines = [
            f"{model}, {name}: {rates}"
            for model in self.evaluations
            for name, rates in self.rates(model).items()
        ]
        return "AttackSuite(\n  " + "\n  ".join(lines) + "\n)"


def attack_suite(
    models, attacks, x, y=None, seed=None, verbose="auto", figure=None, **kwargs
):
    """Evaluates many attacks on one or several models, and prints one table.

    Args:
        models: a Keras classifier or a `CertifiedPredictor`, or a dict of names to
            them.
        attacks: a dict of names to attacks, callables as in `evaluate_attack`.
            `"No Attack"`, for the standard accuracy, is put before them.
        x, y: the labelled inputs, as in `evaluate_attack`.
        seed: `None` (default) for fresh noise, or an int that makes the run
            repeatable: every attack is handed the same seeds.
        verbose: "auto", 1 or 2 for progress bars and the table; 0 for neither.
        figure: where to save the plot, such as `"attacks.png"`; `None` (default)
            for nowhere.
        **kwargs: what else `evaluate_attack` takes, such as `batch_size`.

    Returns:
        An `AttackSuite`, with `rates`, `table` and `plot`.

    Raises:
        ValueError: if `models` or `attacks` is empty, an attack has the name of a
            row of the table, or as in `evaluate_attack`.
        ImportError: without `rich` for the table, or matplotlib for the plot.

    Example:

    >>> import keras, numpy as np
    >>> from keras_probcert.attacks import FGSM, PGD
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> x, y = np.random.rand(20, 4).astype("float32"), np.arange(20) % 3
    >>> suite = attack_suite(
    ...     model, {"FGSM": FGSM(0.1), "PGD": PGD(0.1)}, x, y, seed=0, verbose=0)
    >>> list(suite.rates("model"))
    ['No Attack', 'FGSM', 'PGD', 'Worst Case']
    """
    models = models if isinstance(models, dict) else {"model": models}
    if not models:
        raise ValueError("`models` must hold at least one model. Received: models={}")
    if not isinstance(attacks, dict) or not attacks:
        raise ValueError(
            "`attacks` must be a dict of names to at least one attack. "
            f"Received: attacks={attacks!r}"
        )
    for name in (NO_ATTACK, WORST_CASE):
        if name in attacks:
            raise ValueError(f"`attacks` must not have the name {name!r}")
    # What is missing shows before the attacks have run, not after.
    if verbose:
        _rich_table()
    if figure is not None:
        _matplotlib_figure()
        if not pathlib.Path(figure).parent.is_dir():
            raise ValueError(
                f"`figure` must lie in a folder that exists. Received: figure={figure}"
            )
    for name, attack in attacks.items():
        for model_name, model in models.items():
            certifies = isinstance(model, CertifiedPredictor)
            if isinstance(attack, CertificateAttack) and not certifies:
                raise ValueError(
                    f"`models` must be CertifiedPredictors for the attack {name!r}. "
                    f"Received: {model_name!r}, a {type(model).__name__}"
                )
    if y is None:
        # Every attack is to see the same rows, and a generator gives them once.
        pairs = list(batches(x, y, 250))
        x, y = (np.concatenate([pair[i] for pair in pairs]) for i in (0, 1))
    if seed is None:
        seed = np.random.SeedSequence().entropy
    evaluations = {}
    for model_name, model in models.items():
        clean = None
        evaluations[model_name] = {}
        for name, attack in {NO_ATTACK: _no_attack, **attacks}.items():
            if verbose:
                print(f"{model_name}, {name}")
            clean = evaluations[model_name][name] = evaluate_attack(
                model, attack, x, y, seed, verbose=verbose, clean=clean, **kwargs
            )
    suite = AttackSuite(evaluations)
    if verbose:
        from rich.console import Console

        Console().print(suite.table())
    if figure is not None:
        suite.plot().savefig(figure)
    return suite


def _no_attack(model, x, y, seed=None):
    return x


def _percent(rate):
    if rate is None or rate.trials == 0:
        return ""
    return f"{100 * rate.rate:.1f} [{100 * rate.lower:.0f}, {100 * rate.upper:.0f}]"


def _rich_table():
    try:
        from rich.table import Table
    except ImportError as error:
        raise ImportError("The table needs rich: pip install rich") from error
    return Table


def _matplotlib_figure():
    try:
        from matplotlib import figure
    except ImportError as error:
        raise ImportError("Plots need matplotlib: pip install '.[plots]'") from error
    return figure
