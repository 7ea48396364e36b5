"""Results on standard output: a table for people, JSON or CSV for machines."""

import csv
import json
import sys


def add_arguments(parser):
    formats = parser.add_mutually_exclusive_group()
    formats.add_argument("--json", action="store_true", help="JSON on standard output")
    formats.add_argument("--csv", action="store_true", help="CSV on standard output")


def add_demand(parser, what):
    parser.add_argument(
        "--at-least",
        type=float,
        default=0.0,
        metavar="RATE",
        help=f"exit with 1 if {what} is smaller",
    )


def show(args, rows, title, most=None):
    """Prints a list of dicts with the same keys.

    Args:
        args: what `add_arguments` parsed.
        rows: the dicts.
        title: of the table.
        most: the most rows of a table.
    """
    if args.json:
        json.dump(rows, sys.stdout, indent=1)
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
            table.add_column(name.replace("_", " "))
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
