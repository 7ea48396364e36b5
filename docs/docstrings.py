"""Makes the package's docstrings sections that mkdocstrings knows.

The docstrings are written to be read in the source: an `Example:` is not
indented, `Returns:` is prose, and one line of `Args:` may name several arguments.
This griffe extension rewrites them before they are parsed.
"""

import re

import griffe

HEADER = re.compile(r"^(Args|Returns|Raises|Example|Reference):$")


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
        return "Args:\n" + re.sub(r"(?m)^    (\w+(?:, \w+)+): (.*)$", _each, text)
    if name == "Raises":
        return f"Raises:\n{text}"
    # Prose, which griffe would take for a type and its description.
    text = re.sub(r"(?m)^    ", "", text) if name == "Returns" else text
    return f'<span class="doc-section-title">{name}:</span>\n\n{text}'


def _each(match):
    """`a, b: text` as one line for each of the names."""
    return "\n".join(f"    {name}: {match[2]}" for name in match[1].split(", "))
