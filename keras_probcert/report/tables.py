"""Tidy rows as tables: what stands in each cell, and which is the best."""

from dataclasses import dataclass

from keras_probcert.report import numbers
from keras_probcert.report.results import Measurement

SEPARATOR = " · "


@dataclass(frozen=True)
class Cell:
    """What a cell shows, as text; `None` where there is nothing to show."""

    value: str | None
    interval: str | None
    paper: str | None
    difference: str | None
    best: bool


@dataclass(frozen=True)
class Column:
    """A column; `group` is what stands before the separator in its name."""

    name: str
    group: str
    label: str
    detail: str
    measurements: dict  # of row names to `Measurement`


@dataclass(frozen=True)
class Table:
    """Cells by row and column; a cell is `None` where nothing was measured."""

    corner: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, tuple[Cell | None, ...]], ...]


def table(measurements, corner=""):
    """The table of tidy measurements.

    Args:
        measurements: a sequence of `Measurement`.
        corner: what the names of the rows are.
    """
    columns = tuple(
        _column(name, [m for m in measurements if m.column == name])
        for name in dict.fromkeys(m.column for m in measurements)
    )
    bests = [best(column) for column in columns]
    rows = tuple(
        (
            row,
            tuple(
                _cell(column.measurements.get(row), row in firsts)
                for column, firsts in zip(columns, bests, strict=True)
            ),
        )
        for row in dict.fromkeys(m.row for m in measurements)
    )
    return Table(corner, columns, rows)


def curve_table(points):
    """The points of one set of axes as a table: an x a row, a series a column."""
    return table(
        [
            Measurement(
                row=numbers.plain(point.x),
                column=point.series,
                value=point.y,
                low=point.low,
                high=point.high,
                paper=point.paper,
                unit=point.unit,
                count=None,
                better="none",
            )
            for point in sorted(points, key=lambda point: point.x)
        ],
        corner=points[0].x_label,
    )


def best(column, value=lambda measurement: measurement.value):
    """The names of the rows with the best value; none where all are equal."""
    values = {
        row: value(m) for row, m in column.measurements.items() if value(m) is not None
    }
    better = {m.better for m in column.measurements.values()}
    if len(set(values.values())) < 2 or better not in ({"higher"}, {"lower"}):
        return []
    first = (max if better == {"higher"} else min)(values.values())
    return [row for row in values if values[row] == first]


def _column(name, measurements):
    group, _, label = name.rpartition(SEPARATOR)
    suffix = numbers.SUFFIX[measurements[0].unit]
    detail = [suffix] if suffix else []
    counts = sorted({m.count for m in measurements if m.count is not None})
    if counts:
        span = f"{counts[0]:,}" + (f"–{counts[-1]:,}" if len(counts) > 1 else "")
        detail.append(f"n = {span}")
    return Column(
        name, group, label, ", ".join(detail), {m.row: m for m in measurements}
    )


def _cell(m, is_best):
    if m is None:
        return None
    value = interval = paper = difference = None
    if m.value is not None:
        value = numbers.value(m.value, m.unit)
    if m.low is not None and m.high is not None:
        interval = numbers.interval(m.low, m.high, m.unit)
    if m.paper is not None:
        paper = numbers.published(m.paper, m.unit)
        if m.value is not None:
            difference = numbers.difference(m.value, m.paper, m.unit)
    return Cell(value, interval, paper, difference, is_best)
