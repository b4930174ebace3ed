"""Sphinx over the repository: `python -m sphinx -W -c docs . site`. The pages are the Markdown files where they lie."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

project = "edgedit"
author = "The edgedit authors"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "docs/index"
include_patterns = ["*.md", "docs/*.md", "examples/*.md", "serving/deploy/*.md", "edgedit/bundles/portrait/*.md"]
# Folders are named so that Sphinx does not walk them; the data page is a part of the model's card.
exclude_patterns = [".*", "tests", "bench", "engines", "training", "export", "site", "docs/portrait-data.md"]

myst_heading_anchors = 4
suppress_warnings = ["myst.header"]  # the changelog has one level of headings more than once
# Docstrings name code between single backticks, as Markdown does.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "none"
autodoc_preserve_defaults = (
    True  # as the source has them: the portrait bundle by its name, not by a path of this machine
)
python_use_unqualified_type_names = True

html_theme = "furo"
html_title = "edgedit"
html_show_sphinx = False
html_copy_source = False
html_show_sourcelink = False
html_additional_pages = {"index": "redirect.html"}
templates_path = ["templates"]


def add_contents(app: Sphinx, page: str, source: list[str]) -> None:
    """Makes the side bar of the index's own lists of links: one tree of pages per heading."""
    if page != root_doc:
        return
    trees = []
    for section in source[0].split("\n## ")[1:]:
        pages = "\n".join("/" + name for name in _pages(section))
        trees.append(f"```{{toctree}}\n:hidden:\n:caption: {section.splitlines()[0]}\n\n{pages}\n```")
    source[0] += "\n" + "\n\n".join(trees) + "\n"


def _pages(section: str) -> list[str]:
    links = re.findall(r"^- \[.*\]\((\S+)\.md\)$", section, re.MULTILINE)
    return [str((ROOT / "docs" / link).resolve().relative_to(ROOT)) for link in links]


def setup(app: Sphinx) -> None:
    app.connect("source-read", add_contents)
