"""The folder of results that a run writes: read, and checked.

`run.json` says what ran. Every other JSON file is a table, curves or pictures; their
rows are tidy, one measured value each, and the order in which rows, columns, panels
and series first appear is the order in which they are shown.
"""

import datetime
import json
import math
import pathlib
import re
from dataclasses import dataclass

import numpy as np

KINDS = ("table", "curve", "pictures")
UNITS = ("percent", "seconds", "ratio", "radius")
# What is best in a column whose rows do not say.
BETTER = {"percent": "higher", "radius": "higher", "seconds": "lower", "ratio": "none"}
PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Measurement:
    """One value of a table; `None` is what was not measured or not published.

    `outcomes` says of each of the `count` inputs whether it counts as a success; in
    JSON, eight of them a byte, in hexadecimal.
    """

    row: str
    column: str
    value: float | None
    low: float | None
    high: float | None
    paper: float | None
    unit: str
    count: int | None
    better: str
    outcomes: tuple[bool, ...] | None = None


@dataclass(frozen=True)
class Point:
    """One value of a curve."""

    panel: str
    series: str
    x: float
    x_label: str
    y: float
    y_label: str
    low: float | None
    high: float | None
    paper: float | None
    unit: str


@dataclass(frozen=True)
class Picture:
    """A PNG file and what it shows."""

    path: pathlib.Path
    caption: str
    content: bytes

    @property
    def size(self):
        """Width and height in pixels."""
        return tuple(int.from_bytes(self.content[i : i + 4], "big") for i in (16, 20))


@dataclass(frozen=True)
class Result:
    """What one file holds."""

    name: str
    kind: str
    title: str
    caption: str
    seconds: float | None
    notes: tuple[str, ...]
    settings: dict
    measurements: tuple[Measurement, ...]
    points: tuple[Point, ...]
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class Run:
    """What ran, with which versions, on what."""

    preset: str
    seed: int | None
    started: datetime.datetime
    command: str
    versions: dict
    hardware: dict
    seconds: float | None = None


def read(folder):
    """`(run, results)`: tables first, then curves, then pictures, each by number.

    Args:
        folder: the folder of results.

    Raises:
        ValueError: if there is no such folder, or a file in it does not fit.
    """
    folder = pathlib.Path(folder)
    if not (folder / "run.json").is_file():
        raise ValueError(
            "`folder` must be a folder of results with the file run.json. "
            f"Received: folder={folder}"
        )
    paths = sorted(folder.glob("*.json"))
    results = [_result(path) for path in paths if path.name != "run.json"]
    return _run(folder / "run.json"), sorted(results, key=_place)


def _place(result):
    # table_2 stands before table_10.
    parts = re.split(r"(\d+)", result.name)
    numbers = [int(p) if p.isdigit() else p for p in parts]
    return KINDS.index(result.kind), numbers


class _Fields:
    """A JSON object and where it stands, for errors that name both."""

    def __init__(self, where, mapping):
        if not isinstance(mapping, dict):
            raise ValueError(f"{where}: must be an object. Received: {mapping!r}")
        self.where, self.mapping = where, mapping

    def error(self, key, expected):
        received = self.mapping.get(key, "nothing")
        return ValueError(
            f"{self.where}: `{key}` must be {expected}. Received: {received!r}"
        )

    def text(self, key):
        if not isinstance(self.mapping.get(key), str):
            raise self.error(key, "a string")
        return self.mapping[key]

    def choice(self, key, choices):
        if self.mapping.get(key) not in choices:
            raise self.error(key, f"one of {', '.join(choices)}")
        return self.mapping[key]

    def number(self, key):
        value = self.mapping.get(key)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not math.isfinite(value):
            raise self.error(key, "a finite number")
        return value

    def optional(self, key):
        return None if self.mapping.get(key) is None else self.number(key)

    def nullable(self, key):
        if key not in self.mapping:
            raise self.error(key, "a finite number or null")
        return self.optional(key)

    def object(self, key, required=True):
        value = self.mapping.get(key)
        if value is None and not required:
            return {}
        if not isinstance(value, dict):
            raise self.error(key, "an object")
        return value

    def list(self, key, required=False):
        value = self.mapping.get(key)
        if value is None and not required:
            return []
        if not isinstance(value, list):
            raise self.error(key, "a list")
        return value

    def each(self, key, required=False):
        """The objects of a list."""
        for i, item in enumerate(self.list(key, required)):
            yield _Fields(f"{self.where}: {key}[{i}]", item)


def _file(path):
    try:
        return _Fields(path.name, json.loads(path.read_text(encoding="utf-8")))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path.name}: must be JSON: {error}") from error


def _run(path):
    fields = _file(path)
    try:
        started = datetime.datetime.fromisoformat(fields.text("started"))
    except ValueError as error:
        raise fields.error("started", "a time in ISO format") from error
    return Run(
        preset=fields.text("preset"),
        seed=fields.nullable("seed"),
        started=started,
        command=fields.text("command"),
        versions=fields.object("versions"),
        hardware=fields.object("hardware"),
        seconds=fields.optional("seconds"),
    )


def _result(path):
    fields = _file(path)
    kind = fields.choice("kind", KINDS)
    # The name becomes an anchor and the name of files.
    if fields.text("name") != path.stem or not re.fullmatch(r"[\w.-]+", path.stem):
        raise fields.error(
            "name", f"that of its file, of letters, digits, . _ -: {path.stem}"
        )
    notes = fields.list("notes")
    if not all(isinstance(note, str) for note in notes):
        raise fields.error("notes", "a list of strings")
    rows = list(fields.each("rows", required=kind != "pictures"))
    points = [*(rows if kind == "curve" else []), *fields.each("curves")]
    return Result(
        name=path.stem,
        kind=kind,
        title=fields.text("title"),
        caption=fields.text("caption"),
        seconds=fields.optional("seconds"),
        notes=tuple(notes),
        settings=fields.object("settings", required=False),
        measurements=_all_different(
            ((row, _measurement(row)) for row in rows if kind != "curve"),
            lambda m: (m.row, m.column),
        ),
        points=_all_different(
            ((row, _point(row)) for row in points), lambda p: (p.panel, p.series, p.x)
        ),
        pictures=tuple(_picture(p, path.parent) for p in fields.each("pictures")),
    )


def _all_different(items, key):
    seen = {}
    for fields, item in items:
        if key(item) in seen:
            raise ValueError(f"{fields.where}: repeats {key(item)}")
        seen[key(item)] = item
    return tuple(seen.values())


def _measurement(fields):
    unit = fields.choice("unit", UNITS)
    if fields.mapping.get("better") is None:
        better = BETTER[unit]
    else:
        better = fields.choice("better", ("higher", "lower", "none"))
    return Measurement(
        row=fields.text("row"),
        column=fields.text("column"),
        unit=unit,
        count=fields.optional("count"),
        better=better,
        value=fields.nullable("value"),
        outcomes=_outcomes(fields),
        **_beside(fields, "value"),
    )


def _outcomes(fields):
    packed, count = fields.mapping.get("outcomes"), fields.optional("count")
    if packed is None:
        return None
    try:
        bits = np.unpackbits(np.frombuffer(bytes.fromhex(packed), np.uint8))
    except (ValueError, TypeError):
        bits = ()
    if count is None or len(bits) - 8 >= count or len(bits) < count:
        raise fields.error("outcomes", f"{count} bits in hexadecimal, padded to bytes")
    found = bits[:count].astype(bool)
    if abs(found.mean() - fields.number("value")) > 1e-6:
        raise fields.error(
            "outcomes", f"such that `value` is their mean {found.mean()}"
        )
    return tuple(found.tolist())


def _point(fields):
    return Point(
        panel=fields.text("panel"),
        series=fields.text("series"),
        x=fields.number("x"),
        x_label=fields.text("x_label"),
        y=fields.number("y"),
        y_label=fields.text("y_label"),
        unit=fields.choice("unit", UNITS),
        **_beside(fields, "y"),
    )


def _beside(fields, key):
    """The interval and the paper's value beside the value under `key`."""
    value, low, high, paper = (
        fields.optional(name) for name in (key, "low", "high", "paper")
    )
    if fields.mapping["unit"] == "percent":
        for name, rate in ((key, value), ("paper", paper)):
            if rate is not None and not -1e-6 <= rate <= 1 + 1e-6:
                raise fields.error(name, "a fraction in [0, 1], as `unit` is percent")
    ends = [v for v in (low, value, high) if v is not None]
    if any(
        after < before - 1e-6 for before, after in zip(ends, ends[1:], strict=False)
    ):
        raise fields.error(key, f"inside its interval, {low} to {high}")
    if value is None and (low is not None or high is not None):
        raise fields.error(key, "a number where there is an interval")
    return {"low": low, "high": high, "paper": paper}


def _picture(fields, folder):
    name = fields.text("file")
    path = folder / name
    inside = path.resolve().is_relative_to(folder.resolve())
    content = path.read_bytes() if inside and path.is_file() else b""
    if not content.startswith(PNG):
        raise fields.error("file", "a PNG file inside the folder of results")
    return Picture(path=path, caption=fields.text("caption"), content=content)
