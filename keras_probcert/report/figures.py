"""Curves with confidence bands, as SVG: inline in a page, or in a file.

A page shows its figures in its own colours, light or dark: drawn in the light ones,
whose places in the SVG are then taken by variables of the page's style sheet.
"""

import io
import math
import re
import xml.etree.ElementTree as ET

from keras_probcert.report import numbers

# At least 3 : 1 against the page, light and dark.
LIGHT = (
    "#0072b2 #c04a00 #00795c #a8408a #7d6400 #5b6570 #8a1c4a #3b3fa0 #00808c #9a3b26"
).split()
DARK = (
    "#56b4e9 #ff8f45 #2fc79a #e79ac8 #e6c84f #aeb8c4 #ff7d9f #a9a4ff #5fdbe6 #f0a58f"
).split()
INK, PAGE, GRID = "#1b1f24", "#ffffff", "#d0d5db"
MARKERS = "o s ^ D v P X < > *".split()
DASHES = ("-", "--", "-.", (0, (1, 1.2)))
# More of them hide their curve.
MOST_MARKERS = 12


def draw(points):
    """The curves of one set of axes.

    Args:
        points: a sequence of `results.Point` of one panel.

    Returns:
        A standalone SVG, a string.

    Raises:
        ImportError: without matplotlib.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("Figures need matplotlib: pip install '.[report]'") from error
    series = by_series(points)
    # Text stays text, names may hold a dollar, and the same curves give the same file.
    style = {
        "svg.fonttype": "none",
        "svg.hashsalt": "keras_probcert",
        "text.parse_math": False,
        "font.family": ["sans-serif"],
        "font.size": 10,
    }
    for name in ("text.color", "axes.labelcolor", "xtick.color", "ytick.color"):
        style[name] = INK
    with matplotlib.rc_context(style):
        columns = 1 if max(map(len, series)) > 24 else 2
        legend = 0.22 * math.ceil(len(series) / columns)
        figure = Figure(figsize=(4.6, 2.9 + legend), layout="constrained")
        figure.set_facecolor(PAGE)
        axes = figure.subplots()
        axes.set_facecolor(PAGE)
        lines = [_line(axes, i, curve) for i, curve in enumerate(series.values())]
        first = points[0]
        sign = {"percent": " (%)", "seconds": " (s)"}.get(first.unit, "")
        axes.set(xlabel=first.x_label, ylabel=first.y_label + sign)
        if _decades([point.x for point in points]):
            axes.set_xscale("log")
            # The default labels are formulas, which only matplotlib can set.
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_formatter("")
        axes.grid(color=GRID, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(GRID)
        axes.tick_params(which="both", color=GRID)
        figure.legend(
            lines,
            list(series),
            loc="outside lower center",
            ncols=columns,
            frameon=False,
            handlelength=3,
        )
        buffer = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", metadata=nothing)
    return buffer.getvalue()


def inline(svg, prefix, alt):
    """An SVG as part of a page: its colours the page's, its ids with a prefix.

    Args:
        svg: what `draw` returns.
        prefix: of all ids, so that they differ from those of other figures.
        alt: what the figure shows, in words.
    """
    root = ET.fromstring(svg)
    svg = ET.Element("svg", viewBox=root.get("viewBox"), role="img")
    svg.set("aria-label", alt)
    svg.extend(root)
    for parent in svg.iter():
        for child in list(parent):
            # Its one rule for all elements is in the page's style sheet.
            if child.tag.endswith(("metadata", "}style")):
                parent.remove(child)
    used = set(re.findall(r"#([\w-]+)", " ".join(_references(svg))))
    for element in svg.iter():
        element.tag = element.tag.rpartition("}")[2]
        attributes = {k.rpartition("}")[2]: v for k, v in element.attrib.items()}
        element.attrib.clear()
        for name, text in attributes.items():
            if name == "id":
                if text in used:
                    element.set(name, f"{prefix}-{text}")
            elif name in ("style", "href", "clip-path"):
                element.set(
                    name, _page_colours(text.replace("#", f"#{prefix}-"), prefix)
                )
            else:
                element.set(name, text)
    return ET.tostring(svg, encoding="unicode", method="html")


def describe(points):
    """What the curves of one set of axes show, in words."""
    first = points[0]
    series = by_series(points)
    unit = numbers.SUFFIX[first.unit]
    xs = [point.x for point in points]
    words = [
        f"Line chart of {first.y_label} against {first.x_label}, "
        f"from {numbers.plain(min(xs))} to {numbers.plain(max(xs))}."
    ]
    for name, curve in series.items():
        ends = [numbers.value(curve[i].y, first.unit) + unit for i in (0, -1)]
        words.append(f"{name}: from {ends[0]} to {ends[1]}.")
    return " ".join(words)


def by_series(points):
    """A dict of the names of series to their points, by x."""
    return {
        name: sorted((p for p in points if p.series == name), key=lambda p: p.x)
        for name in dict.fromkeys(p.series for p in points)
    }


def _line(axes, i, curve):
    colour = LIGHT[i % len(LIGHT)]
    scale = 100 if curve[0].unit == "percent" else 1

    def ys(name):
        values = (getattr(point, name) for point in curve)
        return [math.nan if v is None else scale * v for v in values]

    x = [point.x for point in curve]
    axes.fill_between(x, ys("low"), ys("high"), color=colour, alpha=0.15, linewidth=0)
    (line,) = axes.plot(
        x,
        ys("y"),
        color=colour,
        linestyle=DASHES[i % len(DASHES)],
        linewidth=1.5,
        marker=MARKERS[i % len(MARKERS)],
        markersize=4.5,
        markevery=math.ceil(len(x) / MOST_MARKERS),
    )
    if any(point.paper is not None for point in curve):
        axes.plot(
            x,
            ys("paper"),
            color=colour,
            linestyle="none",
            marker=MARKERS[i % len(MARKERS)],
            markersize=7,
            markerfacecolor="none",
        )
    return line


def _decades(xs):
    """Whether an axis reaches over three powers of ten."""
    return min(xs) > 0 and max(xs) / min(xs) >= 1000


def _references(element):
    for part in element.iter():
        for name, text in part.attrib.items():
            if name.endswith(("href", "clip-path", "style")):
                yield text


def _page_colours(text, prefix):
    variables = {INK: "currentColor", PAGE: "var(--page)", GRID: "var(--line)"}
    variables |= {colour: f"var(--series-{i})" for i, colour in enumerate(LIGHT)}
    for colour, variable in variables.items():
        text = text.replace(colour.replace("#", f"#{prefix}-"), variable)
    return text
