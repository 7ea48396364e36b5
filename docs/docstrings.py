"""Makes the package's docstrings sections that mkdocstrings knows.

The docstrings are written to be read in the source: an `Example:` is not
indented, `Returns:` is prose, and one text of `Args:` may be for several arguments.
This griffe extension rewrites them before they are parsed.
"""

import re

import griffe

HEADER = re.compile(r"^(Args|Returns|Raises|Example|Reference):$")
# Several arguments before a colon, and the text down to the next argument.
SEVERAL = re.compile(r"(?m)^    (\w+(?:, [\w*]+)+): (.*(?:\n {5,}.*)*)$")


class Docstrings(griffe.Extension):
    """Rewrites every docstring before mkdocstrings parses it."""

    def on_object(self, *, obj, **kwargs):
        if obj.docstring:
            obj.docstring.value = rewrite(obj.docstring.value)


def rewrite(docstring):
    """The docstring with sections as the Google style of griffe has them."""
    sections = [("", [])]
    for line in docstring.splitlines():
        header = HEADER.match(line)
        if header:
            sections.append((header[1], []))
        else:
            sections[-1][1].append(line)
    return "\n\n".join(_section(name, lines) for name, lines in sections)


def _section(name, lines):
    text = "\n".join(lines).strip("\n")
    if name == "":
        return text
    if name == "Example":
        # griffe makes code of prompts in this section alone.
        return "Examples:\n" + re.sub(r"(?m)^(?=.)", "    ", text)
    if name == "Args":
        return "Args:\n" + SEVERAL.sub(_each, text)
    if name == "Raises":
        return f"Raises:\n{text}"
    # Prose, which griffe would take for a type and its description.
    text = re.sub(r"(?m)^    ", "", text) if name == "Returns" else text
    return f'<span class="doc-section-title">{name}:</span>\n\n{text}'


def _each(match):
    """`a, b: text` as one text for each of the names."""
    return "\n".join(f"    {name}: {match[2]}" for name in match[1].split(", "))
