"""Certified accuracy against radius: a table, the curve, and the field's log."""

import csv

import numpy as np

from keras_probcert.metrics import (
    abstention_rate,
    average_certified_radius,
    certified_accuracy,
    check_certificates,
    success_rate,
)

_COLUMNS = ("idx", "label", "predict", "radius", "correct", "time")


def certified_accuracy_table(models, radii, level=None):
    """A `rich` table: a model a row, its certified accuracy at each radius.

    Args:
        models: a dict of names to pairs `(results, y)`: what
            `SmoothedClassifier.predict` gives, and the true classes.
        radii: the radii of the columns, at least 0.
        level: the confidence level of Clopper-Pearson intervals beside the rates,
            in (0, 1); `None` (default) for no intervals.

    Returns:
        A `rich.table.Table`, accuracies and abstentions in percent, average
        certified radius over all rows.

    Raises:
        ValueError: if `models` is empty, or as in `certified_accuracy`.
        ImportError: without `rich`.

    Example:

    >>> from rich.console import Console
    >>> results = {"label": np.array([0, 1, -1, 1]),
    ...            "radius": np.array([0.5, 1.5, 0.0, 2.0])}
    >>> table = certified_accuracy_table(
    ...     {"ours": (results, [0, 1, 0, 0])}, [0.0, 0.5, 1.0])
    >>> table.row_count, [column.header for column in table.columns]
    (1, ['model', 'ACR', 'abstained', 'r = 0', 'r = 0.5', 'r = 1'])
    """
    try:
        from rich.table import Table
    except ImportError as error:
        raise ImportError("The table needs rich: pip install rich") from error
    _check(models)
    radii = np.atleast_1d(np.asarray(radii, np.float64))
    table = Table(title="Certified accuracy, percent of the rows")
    table.add_column("model", no_wrap=True)
    for name in ("ACR", "abstained", *(f"r = {radius:g}" for radius in radii)):
        table.add_column(name, justify="right")

    def percent(rate, rows):
        if level is None:
            return f"{100 * rate:.1f}"
        interval = success_rate(np.arange(rows) < round(rate * rows), level)
        return (
            f"{100 * rate:.1f} [{100 * interval.lower:.0f}, {100 * interval.upper:.0f}]"
        )

    for name, (results, y) in models.items():
        rates = (abstention_rate(results), *certified_accuracy(results, y, radii))
        table.add_row(
            name,
            f"{average_certified_radius(results, y):.3f}",
            *(percent(rate, len(y)) for rate in rates),
        )
    return table


def plot_certified_accuracy(models, path=None, ax=None):
    """The curve of certified accuracy against radius, one for each model.

    Exact: a step at the radius of every row that is right.

    Args:
        models: a dict of names to pairs `(results, y)`: what
            `SmoothedClassifier.predict` gives, and the true classes.
        path: where to save the figure, such as `"radii.png"`; `None` (default) for
            nowhere.
        ax: matplotlib axes to draw into; by default those of a new figure.

    Returns:
        The matplotlib figure.

    Raises:
        ValueError: if `models` is empty, or as in `certified_accuracy`.
        ImportError: without matplotlib.

    Example:

    >>> results = {"label": np.array([0, 1, -1, 1]),
    ...            "radius": np.array([0.5, 1.5, 0.0, 2.0])}
    >>> figure = plot_certified_accuracy({"ours": (results, [0, 1, 0, 0])})
    >>> figure.axes[0].get_ylabel()
    'certified accuracy'
    """
    _check(models)
    if ax is None:
        try:
            from matplotlib import figure
        except ImportError as error:
            raise ImportError(
                "Plots need matplotlib: pip install '.[plots]'"
            ) from error
        ax = figure.Figure(figsize=(6, 4), layout="constrained").subplots()
    for name, (results, y) in models.items():
        # The accuracy falls behind a radius, not at it: R >= r.
        radii = np.unique(np.append(0.0, results["radius"]))
        accuracy = certified_accuracy(results, y, radii)
        ax.step(
            np.append(radii, radii[-1]),
            np.append(accuracy, 0.0),
            where="pre",
            label=name,
        )
    ax.set(xlabel="radius", ylabel="certified accuracy", ylim=(0, 1))
    ax.set_xlim(left=0)
    ax.grid(alpha=0.3)
    ax.legend()
    if path is not None:
        ax.figure.savefig(path)
    return ax.figure


def write_log(path, results, y, seconds, indices=None):
    """Writes results as the tab-separated log that the field's scripts read.

    One line a row: `idx`, `label` (the true class), `predict` (−1 where abstained),
    `radius`, `correct` (0 or 1) and `time` (`h:mm:ss.micro`).

    Args:
        path: the file to write.
        results: what `SmoothedClassifier.predict` gives.
        y: int `(rows,)`, the true classes.
        seconds: how long each row took, `(rows,)`, or all of them together, shared
            out evenly.
        indices: int `(rows,)`, the rows' places in the test set; by default
            0, 1, ….

    Raises:
        ValueError: if the arguments differ in their number of rows, or the radii are
            "heuristic".

    Example:

    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp(), "log.tsv")
    >>> results = {"label": np.array([1, -1]), "radius": np.array([0.5, 0.0])}
    >>> write_log(path, results, [1, 0], seconds=3.0)
    >>> print(path.read_text().expandtabs(9))
    idx      label    predict  radius   correct  time
    0        1        1        0.5      1        0:00:01.500000
    1        0        -1       0.0      0        0:00:01.500000
    <BLANKLINE>

    Reference:

    - The logs of Cohen, Rosenfeld and Kolter (ICML 2019),
      github.com/locuslab/smoothing.
    """
    _check_results(results)
    check_certificates(results)
    label, radius, y = (np.asarray(a) for a in (results["label"], results["radius"], y))
    # The log knows no other way to say so.
    certified = np.asarray(results.get("certified", True), bool)
    label, radius = np.where(certified, label, -1), np.where(certified, radius, 0.0)
    rows = len(label)
    seconds = np.asarray(seconds, np.float64)
    if not seconds.shape:
        seconds = np.full(rows, seconds / rows)
    indices = np.arange(rows) if indices is None else np.asarray(indices)
    for name, column in (("y", y), ("seconds", seconds), ("indices", indices)):
        if column.shape != (rows,):
            raise ValueError(
                f"`{name}` must hold one number for each of the {rows} rows. "
                f"Received: shape {column.shape}"
            )
    with open(path, "w", newline="", encoding="utf-8") as file:
        log = csv.writer(file, delimiter="\t", lineterminator="\n")
        log.writerow(_COLUMNS)
        for i in range(rows):
            log.writerow(
                (
                    int(indices[i]),
                    int(y[i]),
                    int(label[i]),
                    repr(float(radius[i])),
                    int(label[i] == y[i]),
                    _clock(seconds[i]),
                )
            )


def read_log(path):
    """Reads a log of `write_log`, or one that the field has published.

    Args:
        path: the file to read.

    Returns:
        A pair `(results, y)`, as `certified_accuracy_table` takes it: a dict of
        `label`, `radius` (float64), `certified`, `index` and `seconds`, and the true
        classes.

    Raises:
        ValueError: if the file lacks one of the columns.

    Example:

    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp(), "log.tsv")
    >>> results = {"label": np.array([1, -1]), "radius": np.array([0.5, 0.0])}
    >>> write_log(path, results, [1, 0], seconds=[1.5, 0.25])
    >>> results, y = read_log(path)
    >>> results["label"], results["seconds"], y
    (array([ 1, -1]), array([1.5 , 0.25]), array([1, 0]))
    """
    with open(path, newline="", encoding="utf-8") as file:
        log = csv.DictReader(file, delimiter="\t")
        if not set(_COLUMNS) <= set(log.fieldnames or ()):
            raise ValueError(
                f"`path` must be a tab-separated log with the columns {_COLUMNS}. "
                f"Received: columns {log.fieldnames}"
            )
        lines = list(log)

    def column(name, kind):
        return np.array([kind(line[name]) for line in lines])

    label = column("predict", int)
    results = {
        "label": label,
        "radius": column("radius", float),
        "certified": label >= 0,
        "index": column("idx", int),
        "seconds": column("time", _seconds),
    }
    return results, column("label", int)


def _clock(seconds):
    """`h:mm:ss.micro` of a number of seconds."""
    whole, micro = divmod(round(seconds * 1_000_000), 1_000_000)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}.{micro:06}"


def _seconds(clock):
    """Seconds of `h:mm:ss`, with or without a fraction, or `n days, h:mm:ss`."""
    days, _, clock = clock.rpartition(",")
    hours, minutes, seconds = clock.split(":")
    days = int(days.split()[0]) if days else 0
    return ((days * 24 + int(hours)) * 60 + int(minutes)) * 60 + float(seconds)


def _check(models):
    if not isinstance(models, dict) or not models:
        raise ValueError(
            "`models` must be a dict of names to at least one pair (results, y). "
            f"Received: models={models!r}"
        )
    for name, pair in models.items():
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise ValueError(
                "`models` must hold pairs (results, y). "
                f"Received: {type(pair).__name__} for {name!r}"
            )
        _check_results(pair[0])


def _check_results(results):
    if not isinstance(results, dict) or not {"label", "radius"} <= set(results):
        raise ValueError(
            "`results` must be a dict with 'label' and 'radius', as "
            "`SmoothedClassifier.predict` gives it. "
            f"Received: {list(results) if isinstance(results, dict) else results!r}"
        )
