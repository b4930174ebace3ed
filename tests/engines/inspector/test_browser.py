"""The report in a real browser: headless Chromium runs its script, and what it made of the page is read back."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from engines.bundle.layers import LayerReport
from engines.inspector import Device, Subject, compare, comparison_page, engine_page
from tests.engines.inspector.samples import big_report, edit_report, engine_report
from tests.engines.inspector.test_page import HOSTILE, hostile_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH (Debian: apt-get install chromium)"),
]

DEVICE = Device("box", {"float16": 71.0, "float32": 35.6}, 936.0)


@dataclass(frozen=True)
class Seen:
    """A page after its script ran."""

    dom: str
    console: list[str]

    @property
    def rows(self) -> list[tuple[str, str]]:
        """Identifier and text of the visible rows, from the top."""
        body = self.dom.partition('id="layers"')[2].partition("<tbody>")[2].partition("</tbody>")[0]
        rows = re.findall(r'<tr id="(l\d+)"([^>]*)>(.*?)</tr>', body, re.DOTALL)
        return [
            (name, re.sub(r"<[^>]*>", " ", cells)) for name, attributes, cells in rows if "hidden" not in attributes
        ]

    @property
    def ids(self) -> list[str]:
        return [name for name, _ in self.rows]


Open = Callable[..., Seen]


@pytest.fixture
def browse(tmp_path: Path) -> Open:
    """Opens a page with a URL fragment."""

    def run(page: bytes, fragment: str = "", width: int = 1400) -> Seen:
        file = tmp_path / "report.html"
        file.write_bytes(page)
        command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]
        command += [f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},1200", "--dump-dom"]
        done = subprocess.run([*command, f"{file.as_uri()}{fragment}"], capture_output=True, timeout=240)
        errors = done.stderr.decode(errors="replace").splitlines()
        assert done.returncode == 0, errors[-5:]
        return Seen(done.stdout.decode(), [line for line in errors if "CONSOLE" in line])

    return run


def page(report: LayerReport) -> bytes:
    return engine_page(Subject(report, device=DEVICE))


def test_the_console_is_heard(browse: Open) -> None:
    """What the other tests find empty is not empty because nobody listens."""
    broken = page(edit_report()).replace(b"</body>", b'<script src="data:,1"></script></body>')
    assert any("Content Security Policy" in line for line in browse(broken).console)


def test_a_fragment_sorts_filters_and_sets_the_map(browse: Open) -> None:
    report = engine_report()
    seen = browse(page(report), "#sort=macs&filter=/conv&map=equal")
    assert seen.console == [] and 'data-ready="yes"' in seen.dom
    fitting = [i for i, x in enumerate(report.layers) if any("/conv" in n.lower() for n in (x.name, *x.fused))]
    assert 0 < len(fitting) < len(report.layers)
    assert seen.ids == [f"l{i}" for i in sorted(fitting, key=lambda i: (-report.layers[i].macs, i))]
    assert re.search(rf'id="count">{len(fitting)} of {len(report.layers)} rows', seen.dom)
    assert 'data-key="macs"' in re.findall(r'<th [^>]*aria-sort="descending"[^>]*>', seen.dom)[0]
    assert 'class="map equal"' in seen.dom
    dimmed = len(re.findall(r'<a class="c [^"]*\bdim\b', seen.dom))
    assert dimmed == len(report.layers) - len(fitting)


def test_choices_orders_and_words_combine(browse: Open) -> None:
    report = engine_report()
    names = [x.name for x in report.layers]
    seen = browse(page(report), "#sort=name&dir=desc&precision=FP32&filter=generator+demod/")
    expected = [n for n in names if "demod" in n]
    assert len(seen.rows) == len(expected) > 1
    shown = [int(name[1:]) for name in seen.ids]
    assert [names[i] for i in shown] == sorted((names[i] for i in shown), reverse=True)
    # Nonsense in a fragment is as good as nothing.
    assert browse(page(report), "#sort=nope&precision=%00&operator=x").ids == [f"l{i}" for i in range(len(names))]


def test_the_map_opens_by_macs_with_letters_where_they_fit(browse: Open) -> None:
    report = engine_report()
    seen = browse(page(report))
    assert seen.console == [] and seen.ids == [f"l{i}" for i in range(len(report.layers))]
    cells = re.findall(r'<a class="c (\w+)( t)?" href="#l(\d+)" tabindex="(-?\d)"[^>]*>(.*?)</a>', seen.dom)
    assert len(cells) == len(report.layers)
    # One stop of the Tab key for the whole map.
    assert [cell[3] for cell in cells].count("0") == 1
    wide = {int(cell[2]) for cell in cells if cell[1]}
    heaviest = max(range(len(report.layers)), key=lambda i: report.layers[i].macs)
    assert heaviest in wide and not any(report.layers[i].macs == 0 for i in wide)


def test_two_reports_in_the_browser(browse: Open) -> None:
    a, b = edit_report(precision="fp32"), engine_report()
    found = compare(Subject(a, device=DEVICE), Subject(b, device=DEVICE))
    seen = browse(comparison_page(found), "#match=precision+differs&sort=ratio")
    assert seen.console == [] and len(seen.rows) == found.counts["precision"]
    ratios = [float(text.split()[-1]) for _, text in seen.rows]
    assert ratios == sorted(ratios, reverse=True) and ratios[0] > ratios[-1]


def test_hostile_names_do_nothing(browse: Open) -> None:
    seen = browse(page(hostile_report(HOSTILE)), "#sort=name")
    assert seen.console == [] and "<img" not in seen.dom and len(seen.rows) == 3


@pytest.mark.parametrize("width", [375, 1400])
def test_nothing_sticks_out(browse: Open, width: int) -> None:
    """The page itself never scrolls sideways, whatever is in it."""
    measure = "document.title = document.documentElement.scrollWidth + ' of ' + innerWidth"
    probe = f"<script>addEventListener('load', () => {{ {measure} }})</script>".encode()
    for made in (page(engine_report()), page(hostile_report("x" * 300))):
        # The probe runs without the policy, which would refuse it.
        opened = re.sub(rb'<meta http-equiv="Content-Security-Policy"[^>]*>', b"", made).replace(
            b"</body>", probe + b"</body>"
        )
        # A window of Chromium's is no narrower than 500: the page is put into a frame of the width.
        frame = b'<iframe id="f" style="border:0;width:%dpx;height:900px" srcdoc="%s"></iframe>' % (
            width,
            opened.replace(b"&", b"&amp;").replace(b'"', b"&quot;"),
        )
        outer = (
            b"<!doctype html><body>" + frame + b"<script>onload=()=>{document.title=f.contentDocument.title}</script>"
        )
        title = re.search(r"<title>(\d+) of (\d+)", browse(outer).dom)
        assert title and int(title[1]) <= int(title[2]) == width


@pytest.mark.slow
def test_five_thousand_layers_are_usable(browse: Open) -> None:
    seen = browse(page(big_report(5000)), "#sort=ms&filter=torgb")
    assert seen.console == [] and 0 < len(seen.rows) < 5000
    assert 'data-ready="yes"' in seen.dom
