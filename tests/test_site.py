"""The documentation as pages: built without a warning, with what docstrings say, and asking nothing of other hosts."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import edgedit

pytest.importorskip("sphinx", reason="pages need the tools of requirements/docs.lock")
ROOT = Path(__file__).resolve().parents[1]
LOADED = re.compile(
    r"""<(?:script|img|iframe|source|link(?! rel="(?:canonical|search|index|next|prev)"))\b[^>]*
    \b(?:src|href)=["'](?:https?:)?//|@import\b|url\(\s*["']?(?:https?:)?//""",
    re.VERBOSE,
)
"""What makes a browser ask another host."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-c", "docs", ".", str(folder)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return folder


def test_every_page_and_root_file_is_there(site: Path) -> None:
    pages = {page.relative_to(ROOT).with_suffix(".html") for page in (ROOT / "docs").glob("*.md")}
    pages -= {Path("docs/portrait-data.html")}  # a part of the model's card
    pages |= {Path(name) for name in ("README.html", "CONTRIBUTING.html", "SECURITY.html", "CHANGELOG.html")}
    pages |= {Path(name) for name in ("edgedit/bundles/portrait/card.html", "serving/deploy/README.html")}
    assert [str(page) for page in sorted(pages) if not (site / page).is_file()] == []
    assert "docs/index.html" in (site / "index.html").read_text()


def test_the_api_page_has_every_name_with_its_docstring(site: Path) -> None:
    api = (site / "docs/api.html").read_text()
    assert [name for name in edgedit.__all__ if f'id="edgedit.{name}"' not in api] == []
    assert "Inverts photos, edits them along named directions" in api
    assert "PORTRAIT_BUNDLE" in api and str(ROOT) not in api, "a path of this machine"


def test_pages_ask_nothing_of_other_hosts(site: Path) -> None:
    files = [file for kind in ("*.html", "*.css") for file in site.rglob(kind)]
    assert len(files) > 20
    assert [str(file.relative_to(site)) for file in files if LOADED.search(file.read_text())] == []
    assert LOADED.search('<script src="https://example.org/a.js">') and LOADED.search("url(//example.org/a.woff)")
