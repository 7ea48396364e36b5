"""The report of a folder of random results, against the numbers in it."""

import html.parser
import itertools
import json
import pathlib
import re

import numpy as np
import pytest
from scipy.stats import kendalltau

from keras_probcert.cli import main
from keras_probcert.metrics import success_rate
from keras_probcert.report import figures, write_report
from keras_probcert.report.comparison import compare
from keras_probcert.report.results import Measurement, read
from keras_probcert.report.tables import table

VOID = {"meta", "br", "img", "wbr"}
METHODS = ["erm", "da", "trades", "ours & <b>theirs</b> | _x_ $1"]
RUN = {
    "preset": "smoke",
    "seed": 17,
    "started": "2030-02-03T04:05:06+00:00",
    "command": "reproduce --preset smoke",
    "versions": {"keras": "3.12.34", "numpy": "9.8.7"},
    "hardware": {"processor": "an abacus", "cores": 2},
}


@pytest.fixture
def results(tmp_path):
    """Three files of random rates and a picture, and the folder they are in."""
    rng = np.random.default_rng(0)

    def measured():
        low, value, high, paper = (*np.sort(rng.random(3)), rng.random())
        return {"low": low, "high": high, "paper": round(paper, 4)}, value

    rows, points = [], []
    for column, row in itertools.product(
        ("a · rate", "a · share", "b · rate"), METHODS
    ):
        if (column, row) == ("b · rate", "da"):
            continue
        beside, value = measured()
        rows.append(
            {"row": row, "column": column, "value": value, "unit": "percent"}
            | {"count": 1000, "ignored": {}, **beside}
        )
    for panel, series, x in itertools.product(("up", "down"), METHODS, (0.25, 5, 1)):
        beside, y = measured()
        labels = {"x_label": "λ", "y_label": "rate", "unit": "percent"}
        points.append({"panel": panel, "series": series, "x": x, "y": y} | labels)
        points[-1] |= beside
    common = {"caption": "A <i>caption</i> & more.", "seconds": 12.5}
    table_2 = {"name": "table_2", "kind": "table", "title": "Table 2: <rates>"}
    table_2 |= common | {"rows": rows, "notes": ["1. A *note*"], "curves": points[:12]}
    table_2 |= {"settings": {"kappa": 0.01, "sizes": [1, 2]}}
    table_2 |= {"pictures": [{"file": "lost.png", "caption": "A “7” | a <2>"}]}
    figure = {"name": "figure_2", "kind": "curve", "title": "Figure 2", "rows": points}
    late = {"name": "table_10", "kind": "table", "title": "Table 10", "rows": []}
    write(tmp_path, {"run": RUN, "table_2": table_2})
    write(tmp_path, {"figure_2": figure | common, "table_10": late | common})
    header = (13).to_bytes(4, "big") + b"IHDR" + 28 * b"\0\0\0\1"
    (tmp_path / "lost.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header)
    return tmp_path


def write(folder, files):
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")


def load(folder, name):
    return json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))


class Page(html.parser.HTMLParser):
    """Text, attributes and cells of a page whose tags must close in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.text, self.tables = [], [], "", []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" in self.open:
            return
        self.text += data
        if "td" in self.open or "th" in self.open:
            self.tables[-1][-1][-1] += data


def expected(row, key):
    """What a cell must say, calculated from its row."""
    value, low, high = (100 * row[name] for name in (key, "low", "high"))
    paper = round(100 * row["paper"], 2)
    paper = f"{paper:.1f}" if round(paper, 1) == paper else f"{paper:.2f}"
    change = f"{value - 100 * row['paper']:+.{len(paper.split('.')[1])}f}"
    change = change.replace("-", "−")
    return f"{value:.1f} [{low:.1f}, {high:.1f}] paper {paper} ({change})"


def one_line(text):
    text = re.sub(r"<br>|\*\*", " ", text).replace("★", " ")
    return " ".join(re.sub(r"\\(.)", r"\1", text).split())


def test_every_value_stands_in_both(results):
    page, document = write_report(results)
    assert (page, document) == (results / "report.html", results / "report.md")
    shown = Page(page.read_text(encoding="utf-8"))
    source = document.read_text(encoding="utf-8")
    lines = [
        [one_line(c) for c in re.split(r"(?<!\\)\|", s)] for s in source.split("\n")
    ]
    rows = load(results, "table_2")["rows"]
    columns = list(dict.fromkeys(row["column"] for row in rows))
    cells = {line[0]: [one_line(c) for c in line[1:]] for line in shown.tables[0][2:]}
    marked = {line[1]: line[2:] for line in lines if len(line) == 6}
    assert list(cells) == METHODS
    for row in rows:
        j = columns.index(row["column"])
        assert cells[row["row"]][j] == expected(row, "value")
        name = one_line(row["row"].replace("&", "&amp;"))
        assert marked[name][j] == expected(row, "value")
    assert cells["da"][2] == marked["da"][2] == "not run"
    # Curves: both panels of the figure, behind the two of the table.
    points = load(results, "figure_2")["rows"]
    for panel, drawn in zip(("up", "down"), shown.tables[-2:], strict=True):
        assert [line[0] for line in drawn] == ["λ", "0.25", "1", "5"]
        for point in (p for p in points if p["panel"] == panel):
            line = next(line for line in drawn if line[0] == f"{point['x']:g}")
            text = one_line(line[1 + METHODS.index(point["series"])])
            assert text == expected(point, "y")
            assert text in one_line(source)
    # The best of each column, once.
    stars = [tag for tag, attributes in shown.tags if attributes.get("class") == "best"]
    assert len(stars) == len(columns) == source.count("★")
    for column in columns:
        first = max(
            (r for r in rows if r["column"] == column), key=lambda r: r["value"]
        )
        assert f"**{100 * first['value']:.1f}** ★" in source
    for text in ("an abacus", "3.12.34", "17", "2030-02-03 04:05 UTC", "37.5 s"):
        assert text in shown.text and text in source
    for text in ("kappa", "Took 12.5 s.", "Not run.", "reproduce --preset smoke"):
        assert text in shown.text and text in source


def test_the_page_loads_nothing_and_escapes_everything(results):
    page, document = write_report(results)
    text = page.read_text(encoding="utf-8")
    shown = Page(text)
    assert not re.search(r"https?:|@import|<script", text)
    ids = [attributes["id"] for _, attributes in shown.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in shown.tags:
        for name in ("src", "href", "xlink:href"):
            link = attributes.get(name, "#table_2")
            assert link.startswith("data:image/png;base64,") or link[1:] in ids
        for link in re.findall(
            r"url\((.*?)\)", " ".join(map(str, attributes.values()))
        ):
            assert link.removeprefix("#") in ids
    tags = [tag for tag, _ in shown.tags]
    assert tags.count("i") == tags.count("rates") == 0
    assert "A <i>caption</i> & more." in shown.text
    assert "ours & <b>theirs</b> | _x_ $1" in shown.text
    assert ("html", {"lang": "en"}) in shown.tags
    levels = [int(tag[1]) for tag in tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(b <= a + 1 for a, b in itertools.pairwise(levels))
    for tag, attributes in shown.tags:
        assert tag != "th" or attributes["scope"] in ("row", "col", "colgroup")
        assert tag != "img" or attributes["alt"] == "A “7” | a <2>"
        assert (
            tag != "svg" or "Line chart of rate against λ" in attributes["aria-label"]
        )
    # Of the figures, nothing keeps a colour of the light page.
    drawn = "".join(re.findall("<svg.*?</svg>", text, re.S))
    assert "var(--series-3)" in drawn and not re.search("#[0-9a-f]{6}", drawn)
    source = document.read_text(encoding="utf-8")
    assert "<i>" not in source and r"\<i>" not in source.replace(r"\<i\>", "")
    assert r"1\. A \*note\*" in source


def test_files_beside_the_markdown(results, tmp_path):
    folder = tmp_path / "elsewhere"
    page, document = write_report(results, folder / "a.html", folder / "b.md")
    source = document.read_text(encoding="utf-8")
    links = re.findall(r"!\[.*\]\((.*?)\)|<img src=\"(.*?)\"", source)
    links = [a or b for a, b in links]
    assert len(links) == 4 and "b_figures/lost.png" in links
    for link in links:
        assert (folder / link).is_file()
    assert not (results / "report.html").exists()
    svg = (folder / "b_figures" / "figure_2-1.svg").read_bytes()
    write_report(results, folder / "a.html", folder / "b.md")
    assert (folder / "b_figures" / "figure_2-1.svg").read_bytes() == svg
    assert re.search(r"!\[.*?\]\(report_figures/", source) is None
    write_report(results)
    assert '<img src="lost.png"' in (results / "report.md").read_text(encoding="utf-8")


def test_a_run_that_has_just_begun(tmp_path):
    write(tmp_path, {"run": RUN | {"seed": None, "versions": {}}})
    page, document = write_report(tmp_path)
    for path in (page, document):
        text = path.read_text(encoding="utf-8")
        assert "Nothing was run yet." in text and "not recorded" in text


def change(name, *keys, to):
    """An edit of a file of the folder: the value under the keys, or its removal."""

    def edit(folder):
        content = load(folder, name)
        inner = content
        for key in keys[:-1]:
            inner = inner[key]
        if to is None:
            del inner[keys[-1]]
        else:
            inner[keys[-1]] = to
        write(folder, {name: content})

    return edit


@pytest.mark.parametrize(
    ("edit", "file", "key"),
    [
        (lambda folder: (folder / "run.json").unlink(), "run.json", "`folder`"),
        (change("run", "preset", to=None), "run.json", "`preset`"),
        (change("run", "started", to="yesterday"), "run.json", "`started`"),
        (change("run", "versions", to=[]), "run.json", "`versions`"),
        (change("table_2", "rows", to=None), "table_2.json", "`rows`"),
        (change("table_2", "title", to=3), "table_2.json", "`title`"),
        (change("table_2", "kind", to="tables"), "table_2.json", "`kind`"),
        (change("table_2", "name", to="table_3"), "table_2.json", "`name`"),
        (change("table_2", "seconds", to="1"), "table_2.json", "`seconds`"),
        (change("table_2", "notes", to=[1]), "table_2.json", "`notes`"),
        (change("table_2", "rows", 3, to=[]), "rows[3]", "object"),
        (change("table_2", "rows", 3, "value", to=None), "rows[3]", "`value`"),
        (change("table_2", "rows", 3, "value", to=np.nan), "rows[3]", "`value`"),
        (change("table_2", "rows", 3, "value", to=True), "rows[3]", "`value`"),
        (change("table_2", "rows", 3, "value", to=99.0), "rows[3]", "`value`"),
        (change("table_2", "rows", 3, "paper", to=96.8), "rows[3]", "`paper`"),
        (change("table_2", "rows", 3, "high", to=-1), "rows[3]", "`value`"),
        (change("table_2", "rows", 3, "unit", to="%"), "rows[3]", "`unit`"),
        (change("table_2", "rows", 3, "better", to="up"), "rows[3]", "`better`"),
        (change("table_2", "rows", 1, "row", to="erm"), "rows[1]", "repeats"),
        (change("table_2", "curves", 2, "y", to=None), "curves[2]", "`y`"),
        (change("figure_2", "rows", 2, "panel", to=None), "rows[2]", "`panel`"),
        (change("figure_2", "rows", 2, "x", to=0.25), "rows[2]", "repeats"),
        (lambda folder: (folder / "lost.png").unlink(), "pictures[0]", "`file`"),
        (change("table_2", "pictures", 0, "file", to="../a"), "pictures[0]", "`file`"),
        (change("table_2", "pictures", 0, "file", to="run.json"), "2.json", "`file`"),
        (lambda f: (f / "table_10.json").write_text("{"), "table_10.json", "JSON"),
    ],
)
def test_files_that_do_not_fit_are_named(results, edit, file, key):
    edit(results)
    with pytest.raises(ValueError) as error:
        read(results)
    assert file in str(error.value) and key in str(error.value)


def column(*rows, better="higher"):
    """A column of rows (name, value, low, high, paper)."""
    return table(
        [
            Measurement(name, "c", value, low, high, paper, "percent", None, better)
            for name, value, low, high, paper in rows
        ]
    ).columns[0]


def test_the_order_is_compared_with_the_papers():
    a, b = ("a", 0.9, 0.88, 0.92, 0.95), ("b", 0.8, 0.78, 0.89, 0.85)
    c, d = ("c", 0.7, 0.69, 0.71, 0.6), ("d", 0.5, 0.4, 0.6, 0.65)
    said = " ".join(compare(column(a, b, c)))
    assert "Our order of the 3 rows is the paper's (Kendall's τ = 1.00)." in said
    assert "First in both: a." in said and "overlap with our first's: b." in said
    assert "inside our interval in 1 of 3 rows" in said
    said = " ".join(compare(column(a, b, c, d)))
    assert "differs from the paper's: 5 of 6 pairs" in said
    assert "1 the other way round (Kendall's τ = 0.67)" in said
    assert "intervals apart: c above d." in said
    said = " ".join(compare(column(a, c, d, better="lower")))
    assert "First here: d; first in the paper: c." in said
    said = " ".join(compare(column(a, c)))
    assert "No other interval overlaps with our first's." in said
    said = " ".join(compare(column(a, ("e", 0.9, None, None, 0.9), c, better="none")))
    assert "never contradicts" in said and "1 tied" in said and "First" not in said
    said = " ".join(compare(column(a, ("e", 0.2, None, None, 0.1))))
    assert "Without an interval to compare: e." in said
    same = ("e", 0.9, 0.8, 1.0, 0.1)
    said = compare(column(a, same))
    assert said[0] == "No order to compare: our 2 values are equal." and len(said) == 2
    assert compare(column(a)) == []
    assert compare(column(a, ("e", None, None, None, 0.1))) == []


def test_rows_are_told_apart_by_their_outcomes():
    rng = np.random.default_rng(0)
    first = rng.random(1000) < 0.97
    near, far = first.copy(), first.copy()
    near[rng.permutation(1000)[:4]] ^= True
    # 22 inputs are lost and none is won: intervals overlap, the pairs are clear.
    far[np.flatnonzero(first)[:22]] = False
    rows = [("near", near, 0.9), ("first", first, 0.8), ("far", far, 0.85)]

    def named(length=1000):
        return table(
            [
                Measurement(
                    *(name, "c", o.mean(), *success_rate(o)[1:3], paper, "percent"),
                    *(1000, "higher", tuple(o[:length].tolist()) if length else None),
                )
                for name, o, paper in rows
            ]
        ).columns[0]

    said = " ".join(compare(named()))
    assert "First here: first" in said and "told apart from our first: near." in said
    assert "and told apart: first above far." in said
    said = " ".join(compare(named(0)))
    assert "overlap with our first's: near, far." in said and "told apart" not in said


def test_outcomes_are_read(results):
    content = load(results, "table_2")
    row = content["rows"][3]
    outcomes = np.arange(11) % 3 == 0
    row |= {"value": outcomes.mean(), "low": 0.0, "high": 1.0, "count": 11}
    row["outcomes"] = np.packbits(outcomes).tobytes().hex()
    write(results, {"table_2": content})
    (found,) = [r for r in read(results)[1] if r.name == "table_2"]
    assert found.measurements[3].outcomes == tuple(outcomes.tolist())
    for wrong in ("ff", "00" * 2, "00" * 3, "xy" * 2, 5):
        row["outcomes"] = wrong
        write(results, {"table_2": content})
        with pytest.raises(ValueError, match="`outcomes`"):
            read(results)


def test_the_time_of_a_run_counts_what_results_share_once(results):
    assert "Time: 1 h" not in page(results)
    content = load(results, "run")
    write(results, {"run": {**content, "seconds": 3660}})
    assert "Time: 1 h 1 min of training" in page(results)


def page(folder):
    return write_report(folder)[1].read_text(encoding="utf-8")


def test_kendalls_tau_is_scipys():
    rng = np.random.default_rng(1)
    ours, papers = rng.random(9), rng.random(9)
    rows = [(str(i), ours[i], 0.0, 1.0, papers[i]) for i in range(9)]
    tau = f"τ = {kendalltau(ours, papers).statistic:.2f}".replace("-", "−")
    assert tau in compare(column(*rows))[0]


@pytest.mark.parametrize(("colours", "page"), [("LIGHT", "ffffff"), ("DARK", "15181c")])
def test_curves_stand_out_from_their_page(colours, page):
    """Contrast of at least 3 : 1, as WCAG 2.2 demands of graphics (1.4.11)."""

    def luminance(colour):
        channels = np.array([int(colour[i : i + 2], 16) for i in (0, 2, 4)]) / 255
        linear = np.where(
            channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4
        )
        return linear @ [0.2126, 0.7152, 0.0722]

    for colour in getattr(figures, colours):
        lower, higher = sorted((luminance(colour[1:]), luminance(page)))
        assert (higher + 0.05) / (lower + 0.05) >= 3
    assert len(set(getattr(figures, colours))) == len(figures.MARKERS)


def test_units_other_than_percent(tmp_path):
    def rows(unit, values, **kwargs):
        return [
            {"row": str(i), "column": unit, "value": v, "unit": unit, "paper": p}
            | kwargs
            for i, (v, p) in enumerate(values)
        ]

    measured = rows(
        "seconds", [(12.345, 12.0), (0.001234, 0.5), (54321, None), (999.7, 270000)]
    )
    measured += rows("radius", [(0.51234, 0.5), (None, 0.125)])
    measured += rows("ratio", [(2, 2), (3, 900 / 7)])
    measured += rows("percent", [(0.25, None), (0.5, None)], better="lower")
    result = {
        "name": "t",
        "kind": "table",
        "title": "T",
        "caption": "C.",
        "seconds": 3725,
    }
    write(tmp_path, {"run": RUN, "t": result | {"rows": measured}})
    _, document = write_report(tmp_path)
    source = document.read_text(encoding="utf-8")
    assert [
        line
        for line in source.split("\n")
        if line.startswith(("| 0", "| 1", "| 2", "| 3"))
    ] == [
        "| 0 | 12.3<br>paper 12 (+0.345) | 0.512<br>paper 0.500 (+0.012) "
        "| 2<br>paper 2 (±0) | **25.0** ★ |",
        "| 1 | **0.00123** ★<br>paper 0.5 (−0.499) | not run<br>paper 0.125 "
        "| 3<br>paper 128.57 (−126) | 50.0 |",
        "| 2 | 54321 | not run | not run | not run |",
        "| 3 | 1000<br>paper 270000 (−269000) | not run | not run | not run |",
    ]
    assert "Took 1 h 2 min." in source


def test_command(results, capsys):
    page = results / "out" / "index.html"
    assert main(["report", str(results), "--html", str(page)]) == 0
    assert str(page) in capsys.readouterr().err
    assert page.is_file() and (results / "report.md").is_file()
    change("table_2", "rows", 0, "unit", to=None)(results)
    assert main(["report", str(results)]) == 2
    assert "table_2.json: rows[0]: `unit`" in capsys.readouterr().err


def test_the_report_itself_needs_no_tensorflow():
    """No module of it imports it, or another part of the package."""
    folder = pathlib.Path(figures.__file__).parent
    source = "\n".join(path.read_text() for path in folder.glob("*.py"))
    names = set(re.findall(r"(?m)^ *(?:from|import) ([\w.]+)", source))
    assert not {name for name in names if name.split(".")[0] in ("keras", "tensorflow")}
    ours = {name for name in names if name.startswith("keras_probcert")}
    assert all(name.startswith("keras_probcert.report") for name in ours)
