"""From a folder of results to a page and a document."""

import pathlib
import shutil

from keras_probcert.report import content, html, markdown
from keras_probcert.report.results import read


def write_report(folder, html_path=None, markdown_path=None):
    """Writes a folder of results as an HTML page and as Markdown.

    Every measured value stands beside its 95 % confidence interval, the published
    value and the difference; below each table stands whether our order is the
    paper's. What was not measured is shown as such. The page is one file that loads
    nothing; the figures of the Markdown lie beside it, in a folder of its name with
    `_figures` behind it.

    Args:
        folder: the folder: `run.json` (`preset`, `seed`, `started`, `command`,
            `versions`, `hardware`; `seconds`, if results share what took time), and one
            JSON file for each table, curve or set of pictures (`name`, `kind`, `title`,
            `caption`, `rows`, and where wanted `curves`, `pictures`, `notes`,
            `settings`, `seconds`). A row of a table has `row`, `column`, `value`,
            `unit` ("percent", for fractions in [0, 1], "seconds", "ratio" or "radius"),
            and where known `low`, `high`, `paper`, `count`, `better` ("higher", "lower"
            or "none"; by default higher for percent and radius, lower for seconds),
            `outcomes` (of the `count` inputs, the same in all rows, which are
            successes: bits, packed into bytes, in hexadecimal; rows are then compared
            in pairs). A row of a curve has `panel`, `series`, `x`, `x_label`, `y`,
            `y_label`, `unit`, and where known `low`, `high`, `paper`. A `value` of
            `null` is shown as not run.
        html_path: the page to write; by default `report.html` in the folder.
        markdown_path: the document to write; by default `report.md` in the folder.

    Returns:
        A pair of `pathlib.Path`: the page and the document.

    Raises:
        ValueError: if a file of the folder is missing or does not fit; names the
            file and the key.
        ImportError: without jinja2 or, where there are curves, matplotlib.

    Example:

    >>> import json, pathlib, tempfile
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> run = {"preset": "smoke", "seed": 0, "started": "2030-01-01T12:00",
    ...        "command": "none", "versions": {}, "hardware": {}}
    >>> row = {"row": "ours", "column": "accuracy", "value": 0.5, "paper": 0.75,
    ...        "unit": "percent"}
    >>> table = {"name": "table_1", "kind": "table", "title": "Table 1",
    ...          "caption": "An example.", "seconds": 1.0, "rows": [row]}
    >>> for name, result in (("run", run), ("table_1", table)):
    ...     _ = (folder / f"{name}.json").write_text(json.dumps(result))
    >>> page, document = write_report(folder)
    >>> print(document.read_text(encoding="utf-8").split("\\n\\n")[-2])
    |   | accuracy (%) |
    | --- | ---: |
    | ours | 50.0<br>paper 75.0 (−25.0) |
    """
    folder = pathlib.Path(folder)
    run, results = read(folder)
    facts = content.facts(run, results)
    sections = content.sections(results)

    page = pathlib.Path(html_path or folder / "report.html")
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(html.render(facts, sections), encoding="utf-8")

    document = pathlib.Path(markdown_path or folder / "report.md")
    document.parent.mkdir(parents=True, exist_ok=True)
    beside = document.with_name(f"{document.stem}_figures")

    def figure(panel):
        beside.mkdir(exist_ok=True)
        (beside / f"{panel.name}.svg").write_text(panel.svg, encoding="utf-8")
        return f"{beside.name}/{panel.name}.svg"

    def picture(shown):
        if document.parent.resolve() == folder.resolve():
            return shown.path.relative_to(folder).as_posix()
        beside.mkdir(exist_ok=True)
        shutil.copyfile(shown.path, beside / shown.path.name)
        return f"{beside.name}/{shown.path.name}"

    text = markdown.render(facts, sections, figure, picture)
    document.write_text(text, encoding="utf-8")
    return page, document
