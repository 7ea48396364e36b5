"""A report as Markdown, with tables as GitHub shows them."""

import html
import re
import urllib.parse

from keras_probcert.report.content import reading

_SPECIAL = re.compile(r"[\\`*\[\]<>|$~]|(?<![^\W_])_|_(?![^\W_])")
# In pixels: of all the pictures in a row, and of one at least.
_WIDTH, _LEAST = 720, 140
_BLOCK_START = re.compile(r"^(#+|[-+]|\d+[.)])(?= |$)")


def render(facts, sections, figure, picture):
    """The document.

    Args:
        facts: pairs of text, what `content.facts` returns.
        sections: what `content.sections` returns.
        figure: from a `Panel` to the path of its file, from the document.
        picture: from a `Picture` to the path of its file, from the document.
    """
    blocks = ["# Results", _list(f"{name}: {escape(text)}" for name, text in facts)]
    if sections:
        blocks += ["## Contents"]
        blocks += [_list(_link(s.result.title, f"#{s.result.name}") for s in sections)]
        blocks += filter(None, [escape(reading(sections))])
    else:
        blocks += ["Nothing was run yet."]
    for section in sections:
        blocks += _section(section, figure, picture)
    return "\n\n".join(blocks) + "\n"


def escape(text):
    """Text that Markdown shows as it is."""
    text = " ".join(str(text).split()).replace("&", "&amp;")
    text = _SPECIAL.sub(lambda match: "\\" + match[0], text)
    return _BLOCK_START.sub(lambda m: m[1][:-1] + "\\" + m[1][-1], text)


def _section(section, figure, picture):
    result = section.result
    anchor = f'<a id="{result.name}"></a>'
    yield f"{anchor}\n\n## {escape(result.title)}"
    yield escape(result.caption)
    if section.table:
        yield _table(section.table)
    elif not section.panels and not result.pictures:
        yield "Not run."
    if section.comparisons:
        yield "### Beside the paper"
        yield _list(
            f"**{escape(name)}.** {escape(' '.join(sentences))}"
            for name, sentences in section.comparisons
        )
    for panel in section.panels:
        yield f"### {escape(panel.title)}"
        yield _image(panel.alt, figure(panel))
        if panel.legend:
            yield panel.legend
        yield _details("Values", _table(panel.table))
    if result.pictures:
        yield _grid([(shown, picture(shown)) for shown in result.pictures])
    if result.notes:
        yield _list(escape(note) for note in result.notes)
    if section.settings:
        settings = _list(f"{escape(k)}: {escape(v)}" for k, v in section.settings)
        yield _details("Settings", settings)
    if section.seconds:
        yield f"Took {section.seconds}."


def _table(table):
    head = [escape(table.corner) or " "]
    for column in table.columns:
        detail = f" ({column.detail})" if column.detail else ""
        head.append(escape(column.name + detail))
    lines = [head, ["---", *("---:" for _ in table.columns)]]
    for row, cells in table.rows:
        lines.append([escape(row), *map(_cell, cells)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(cell):
    if cell is None:
        return "not run"
    text = cell.value or "not run"
    text = f"**{text}** ★" if cell.best else text
    if cell.interval:
        text += f" {escape(cell.interval)}"
    if cell.paper:
        text += f"<br>paper {cell.paper}"
    if cell.difference:
        text += f" ({cell.difference})"
    return text


def _grid(pictures):
    """Pictures with their captions, some to a row."""
    across = max(1, _WIDTH // max(_LEAST, *(shown.size[0] for shown, _ in pictures)))
    rows = [pictures[i : i + across] for i in range(0, len(pictures), across)]
    width = len(rows[0])
    lines = [[" "] * width, ["---"] * width]
    for row in rows:
        lines.append([_sized(shown, path) for shown, path in row])
        lines.append([escape(shown.caption) for shown, _ in row])
    return "\n".join(
        f"| {' | '.join(line + [''] * (width - len(line)))} |" for line in lines
    )


def _sized(shown, path):
    # GitHub shows a picture of few pixels as small as it is, unless told.
    width = max(_LEAST, shown.size[0])
    alt = html.escape(shown.caption).replace("|", "&#124;")
    return f'<img src="{urllib.parse.quote(path)}" alt="{alt}" width="{width}">'


def _list(items):
    return "\n".join(f"- {item}" for item in items)


def _link(text, target):
    return f"[{escape(text)}]({target})"


def _image(text, path):
    return "!" + _link(text, urllib.parse.quote(path))


def _details(summary, content):
    return f"<details><summary>{summary}</summary>\n\n{content}\n\n</details>"
