"""A report as one HTML page that needs nothing else."""

import base64
import itertools

from keras_probcert.report import figures
from keras_probcert.report.content import reading


def render(facts, sections):
    """The page.

    Args:
        facts: pairs of text, what `content.facts` returns.
        sections: what `content.sections` returns.

    Raises:
        ImportError: without jinja2.
    """
    try:
        import jinja2
        from markupsafe import Markup, escape
    except ImportError as error:
        raise ImportError("The page needs jinja2: pip install '.[report]'") from error
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("keras_probcert.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["breakable"] = lambda name: Markup(
        str(escape(name)).replace("_", "_<wbr>").replace("/", "/<wbr>")
    )
    environment.filters["groups"] = _groups
    environment.filters["data"] = _data
    environment.filters["inline"] = lambda panel: Markup(
        figures.inline(panel.svg, panel.name, panel.alt)
    )
    return environment.get_template("report.html").render(
        facts=facts,
        sections=sections,
        reading=reading(sections),
        light=figures.LIGHT,
        dark=figures.DARK,
    )


def _groups(columns):
    """Pairs of a group's name and its columns, neighbours together."""
    return [
        (group, list(members))
        for group, members in itertools.groupby(columns, lambda column: column.group)
    ]


def _data(picture):
    return "data:image/png;base64," + base64.b64encode(picture.content).decode()
