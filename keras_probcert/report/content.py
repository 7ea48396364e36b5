"""What a report says, before it becomes HTML or Markdown."""

from dataclasses import dataclass

from keras_probcert.report import figures, numbers
from keras_probcert.report.comparison import TOLD_APART, compare
from keras_probcert.report.results import Result
from keras_probcert.report.tables import Table, curve_table, table


@dataclass(frozen=True)
class Panel:
    """One set of axes."""

    name: str
    title: str
    svg: str
    alt: str
    table: Table
    legend: str


@dataclass(frozen=True)
class Section:
    """One result: its tables, what they amount to, its figures."""

    result: Result
    table: Table | None
    comparisons: tuple[tuple[str, list[str]], ...]
    panels: tuple[Panel, ...]
    settings: tuple[tuple[str, str], ...]
    seconds: str | None


def sections(results):
    """A `Section` for each `Result`."""
    return [_section(result) for result in results]


def reading(sections):
    """How to read the tables that are there, in sentences; "" without tables."""
    tables = [s.table for s in sections if s.table]
    tables += [panel.table for s in sections for panel in s.panels]
    cells = [cell for table in tables for _, row in table.rows for cell in row]
    there = [cell for cell in cells if cell]
    sentences = []
    if any(cell.interval for cell in there):
        sentences.append("In brackets the 95 % confidence interval.")
    if any(cell.paper for cell in there):
        sentences.append(
            "After “paper” the published value and, in parentheses, ours minus the "
            "paper's."
        )
    if any(cell.best for cell in there):
        sentences.append("A star marks the best of a column.")
    if any(cell is None or cell.value is None for cell in cells):
        sentences.append("“Not run” stands where nothing was measured.")
    compared = [text for s in sections for _, said in s.comparisons for text in said]
    if any("told apart" in text for text in compared):
        sentences.append(TOLD_APART)
    return " ".join(sentences)


def facts(run, results):
    """Pairs of what is known of a run, as text."""
    return [
        ("Preset", run.preset),
        ("Seed", "none" if run.seed is None else str(run.seed)),
        ("Started", run.started.strftime("%Y-%m-%d %H:%M %Z").strip()),
        ("Time", _time(run, results)),
        ("Command", run.command),
        ("Hardware", _pairs(run.hardware, ": ").replace("memory_gib", "memory in GiB")),
        ("Versions", _pairs(run.versions, " ")),
    ]


def _time(run, results):
    what = "of training and measuring"
    if run.seconds is not None:
        return f"{numbers.duration(run.seconds)} {what}"
    times = [result.seconds for result in results if result.seconds is not None]
    without = len(results) - len(times)
    time = f"{numbers.duration(sum(times))} {what}" if times else "not recorded"
    if times and without:
        time += f" ({without} of {len(results)} parts not recorded)"
    return time


def _section(result):
    shown = table(result.measurements) if result.measurements else None
    comparisons = [(c.name, compare(c)) for c in (shown.columns if shown else ())]
    panels = {}
    for point in result.points:
        panels.setdefault(point.panel, []).append(point)
    return Section(
        result=result,
        table=shown,
        comparisons=tuple((name, said) for name, said in comparisons if said),
        panels=tuple(
            Panel(
                name=f"{result.name}-{i}",
                title=title,
                svg=figures.draw(points),
                alt=figures.describe(points),
                table=curve_table(points),
                legend=_legend(points),
            )
            for i, (title, points) in enumerate(panels.items(), 1)
        ),
        settings=tuple((name, _text(v)) for name, v in result.settings.items()),
        seconds=None if result.seconds is None else numbers.duration(result.seconds),
    )


def _legend(points):
    """What the marks of a figure are, beside the lines that its own legend names."""
    sentences = []
    if any(point.low is not None and point.high is not None for point in points):
        sentences.append("Bands: 95 % confidence intervals.")
    if any(point.paper is not None for point in points):
        sentences.append("Hollow marks: the paper's values.")
    return " ".join(sentences)


def _pairs(mapping, between):
    if not mapping:
        return "not recorded"
    return ", ".join(f"{name}{between}{_text(v)}" for name, v in mapping.items())


def _text(value):
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, int | float):
        return numbers.plain(value)
    if isinstance(value, dict):
        return _pairs(value, ": ")
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    return str(value)
