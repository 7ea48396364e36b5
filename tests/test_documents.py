"""The pages are true: their Python runs, a page in one namespace, and links lead on."""

import html.parser
import os
import pathlib
import re
import subprocess
import sys
import urllib.parse

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def name(page):
    return page.relative_to(ROOT).as_posix()


def with_blocks():
    """The pages that hold Python; all but the first together take minutes."""
    pages = [page for page in PAGES if "```python" in page.read_text()]
    return [
        pytest.param(page, id=name(page), marks=[pytest.mark.slow] * (page != PAGES[0]))
        for page in pages
    ]


@pytest.mark.tensorflow
@pytest.mark.parametrize("page", with_blocks())
def test_code_blocks(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__main__"}
    for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.S):
        exec(compile(block, str(page), "exec"), names)


def test_links_to_files_exist():
    for page in PAGES:
        prose = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", prose):
            assert (page.parent / target).exists(), f"{name(page)}: {target}"


class Page(html.parser.HTMLParser):
    """The anchors of an HTML page, and what it links to."""

    def __init__(self, path):
        super().__init__()
        self.path, self.anchors, self.links = path, {""}, []
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.anchors |= {attributes.get("id"), attributes.get("name")} - {None}
        self.links += [attributes[key] for key in ("href", "src") if key in attributes]


@pytest.mark.tensorflow  # Not a second time on the other backend.
def test_built_site_has_no_broken_internal_links(tmp_path):
    """MkDocs' own warnings fail the build; the HTML that it writes is read again."""
    pytest.importorskip("mkdocs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet"]
    built = subprocess.run(
        [*command, "--site-dir", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr
    # The page of errors has addresses from the root of the site.
    paths = [path for path in tmp_path.rglob("*.html") if path.name != "404.html"]
    pages = {path: Page(path) for path in paths}
    assert len(pages) > 30
    broken = []
    for path, page in pages.items():
        for link in page.links:
            url = urllib.parse.urlsplit(link)
            if url.scheme or url.netloc:
                continue
            file = path
            if url.path:
                file = (path.parent / urllib.parse.unquote(url.path)).resolve()
            if file.is_dir():
                file = file / "index.html"
            anchor = urllib.parse.unquote(url.fragment)
            known = file not in pages or anchor in pages[file].anchors
            if not (file.is_file() and known):
                broken.append(f"{path.relative_to(tmp_path)}: {link}")
    assert not broken
