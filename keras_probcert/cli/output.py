"""Results on standard output: a table for people, JSON or CSV for machines."""

import argparse
import csv
import json
import math
import sys


def add_arguments(parser):
    formats = parser.add_mutually_exclusive_group()
    formats.add_argument("--json", action="store_true", help="JSON on standard output")
    formats.add_argument("--csv", action="store_true", help="CSV on standard output")


def add_demand(parser, what):
    parser.add_argument(
        "--at-least",
        type=_fraction,
        default=0.0,
        metavar="RATE",
        help=f"in [0, 1]: exit with 1 if {what} is smaller",
    )


def _fraction(text):
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must be in [0, 1]. Received: {text}")
    return value


def show(args, rows, title, most=None, settings=None):
    """Prints a list of dicts with the same keys.

    Args:
        args: what `add_arguments` parsed.
        rows: the dicts.
        title: of the table.
        most: the most rows of a table.
        settings: a dict of how the rows were measured, which machines get with each.
    """
    if args.json or args.csv:
        rows = [{**row, **(settings or {})} for row in rows]
    if args.json:
        # JSON has no NaN, which a rate of nothing is.
        rows = [
            {name: None if value != value else value for name, value in row.items()}
            for row in rows
        ]
        json.dump(rows, sys.stdout, indent=1, allow_nan=False)
        print()
    elif args.csv:
        writer = csv.DictWriter(sys.stdout, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    else:
        from rich.console import Console
        from rich.table import Table

        table = Table(title=title)
        for name in rows[0]:
            table.add_column(name.replace("_", " "), overflow="fold")
        for row in rows[:most]:
            table.add_row(*(_text(value) for value in row.values()))
        Console().print(table)
        if most is not None and len(rows) > most:
            print(f"… and {len(rows) - most} more; --json or --csv has all")


def _text(value):
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def columns(results, y=None):
    """Results of `predict` as a list of dicts, a row each."""
    from keras_probcert import Decision

    names = "label", "certified", "num_samples", "lower_bound", "upper_bound", "p_value"
    rows = []
    for i in range(len(results["label"])):
        row = {"row": i, **({} if y is None else {"y": int(y[i])})}
        for name in names:
            row[name] = results[name][i].item()
        row["decision"] = Decision(int(results["decision"][i])).name.lower()
        rows.append(row)
    return rows


def settings_of(certified):
    """What a certificate of `certified` means, as columns."""
    return {
        "perturbation": repr(certified.perturbation),
        "kappa": certified.kappa,
        "alpha": certified.alpha,
        "max_samples": certified.max_samples,
    }
