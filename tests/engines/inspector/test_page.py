"""The report for the browser, as text: escaping, sizes, and that it loads nothing."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.bundle.layers import LayerReport
from engines.family import FACES_1024
from engines.inspector import Device, Subject, compare, comparison_page, engine_page
from engines.inspector.page import MAX_PAGE_BYTES
from tests.engines.inspector.samples import big_report, edit_report, engine_report, layer

DEVICE = Device("box", {"float16": 71.0, "float32": 35.6}, 936.0)
HOSTILE = '</script></title></style><img src=x onerror="alert(1)">\'"`&lt;\u202e\x00{{7*7}}'
_VOID = {"meta", "link", "input", "br", "circle", "rect", "line"}


class Page(HTMLParser):
    """Elements of a page; fails on tags that are not closed in order."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self.source = data.decode()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(self.source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] not in (["script"], ["style"]):
            self.text.append(data)

    def all(self, tag: str, **attributes: str) -> list[dict[str, str | None]]:
        return [
            a
            for t, a in self.elements
            if t == tag and all((a.get(k) or "").startswith(v) for k, v in attributes.items())
        ]

    @property
    def words(self) -> str:
        return " ".join(self.text)

    @property
    def columns(self) -> list[str]:
        """The keys of the columns."""
        return [str(head["data-key"]) for head in self.all("th", **{"data-key": ""}) if "data-key" in head]


def subject(report: LayerReport, device: Device | None = DEVICE) -> Subject:
    return Subject(report, graphs=(report.graph,), device=device)


def page(report: LayerReport, device: Device | None = DEVICE, **options: int) -> Page:
    return Page(engine_page(subject(report, device), "made here", **options))


def pair_page(a: LayerReport, b: LayerReport, device: Device | None = DEVICE) -> Page:
    return Page(comparison_page(compare(subject(a, device), subject(b, device)), "made here"))


def test_every_layer_has_a_row_a_cell_and_with_arithmetic_a_point() -> None:
    report = engine_report(FACES_1024)
    found = page(report)
    layers, points = len(report.layers), sum(x.macs > 0 for x in report.layers)
    assert len(found.all("tr", id="l")) == layers
    cells = found.all("a", **{"class": "c "})
    assert [cell["href"] for cell in cells] == [f"#l{i}" for i in range(layers)]
    assert len(found.all("circle", **{"class": "m "})) == points
    # All of the row's cells but its name, with the numbers that it is sorted by.
    numbers, keys = found.all("td"), [key for key in found.columns if key != "name"]
    assert len(numbers) == layers * len(keys)
    macs = numbers[keys.index("macs") :: len(keys)]
    assert [int(cell["data-v"] or 0) for cell in macs] == [x.macs for x in report.layers]
    for words in ("GeForce" if DEVICE.name.startswith("G") else "box", "fused", "Layers in FP32, and why", "made here"):
        assert words in found.words


@pytest.mark.parametrize(
    ("precision", "dtype", "heading"),
    [("int8", "int8", "Layers in FP16 or FP32"), ("fp8", "float8_e4m3fn", "Layers in FP16 or FP32")],
)
def test_eight_bits_have_wider_layers_of_two_kinds(precision: str, dtype: str, heading: str) -> None:
    nodes = [layer("a", "Conv", [[1]], [1], macs=9, precision=dtype)]
    plain = LayerReport(graph="edit", source="graph", precision=precision, layers=nodes)
    assert heading in page(plain).words and "None: every layer computes in" in page(plain).words
    nodes += [layer("b", "Conv", [[1]], [1], macs=1, precision="float16", reason="a vector per image")]
    found = page(plain.model_copy(update={"layers": nodes}))
    assert f"{heading}, and why" in found.words and "1 layer is wider than the" in found.words


def test_points_stand_where_their_figures_say() -> None:
    """Twice the intensity is the same step right everywhere, and what is measured at the floor lies on the roof."""
    nodes = [
        layer(str(i), "Conv", [[1]], [1], macs=10**9).model_copy(update={"activation_bytes": b})
        for i, b in enumerate((10**9, 10**8, 10**7, 10**6))
    ]
    report = LayerReport(graph="edit", source="graph", precision="fp16", layers=nodes)
    circles = page(report).all("circle", **{"class": "m "})[:4]
    xs, ys = ([float((c[k] or "").removesuffix("%")) for c in circles] for k in ("cx", "cy"))
    steps = [b - a for a, b in pairwise(xs)]
    assert steps == pytest.approx([steps[0]] * 3, abs=0.03) and steps[0] > 2
    # Left of the ridge at 71e12 / 936e9 = 76 FLOP per byte they rise, right of it they are level.
    assert ys[0] > ys[1] > ys[2] == ys[3]
    slow = [nodes[3].model_copy(update={"milliseconds": 1.0})]
    assert "est" not in (page(report.model_copy(update={"layers": slow})).all("circle")[0]["class"] or "")


def test_without_a_device_nor_times_there_is_no_plot_but_a_hint() -> None:
    found = page(edit_report(), None)
    assert not found.all("svg") and "add --gpu" in found.words
    assert "macs" in found.columns and not {"floor", "ms"} & set(found.columns)
    timed = page(engine_report(), None)
    assert timed.all("svg") and "No device is named" in timed.words


def test_nothing_is_loaded_and_only_our_own_script_may_run() -> None:
    for found in (page(engine_report()), pair_page(engine_report(), edit_report())):
        assert not re.search(r"https?://|//[a-z]+\.|@import|url\(", found.source)
        for tag, attributes in found.elements:
            assert "src" not in attributes and not [name for name in attributes if name.startswith("on")]
            target = attributes.get("href")
            assert target is None or target.startswith("#") or target == "data:,", tag
        policy = found.all("meta", **{"http-equiv": "Content-Security-Policy"})[0]["content"] or ""
        assert policy.startswith("default-src 'none';")
        script = found.source.rpartition("<script>")[2].partition("</script>")[0]
        assert base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() in policy


def hostile_report(text: str, layers: int = 3) -> LayerReport:
    base = edit_report().layers
    changed = []
    for index in range(layers):
        node = base[index % len(base)]
        tensors = [t.model_copy(update={"name": text, "dtype": text}) for t in node.inputs] * 9
        update = {
            "name": text,
            "operator": text,
            "reason": text,
            "fused": [text] * 20,
            "inputs": tensors,
            "precision": text,
        }
        changed.append(node.model_copy(update=update | {"macs": 7}))
    return LayerReport(graph="edit", source="graph", precision=text, layers=changed)


def check_harmless(found: Page, plain: Page) -> None:
    """The same tags as a page of the same form with harmless names, and no text that ends a script."""
    kinds = {tag for tag, _ in found.elements}
    assert kinds <= {tag for tag, _ in plain.elements} | {"i", "b"}
    assert found.source.count("</script>") == plain.source.count("</script>") == 1
    assert "img" not in kinds and "\u202e" not in found.source and "\x00" not in found.source


@pytest.mark.parametrize(
    "text", [HOSTILE, "]]><!--", "</table><script>alert(1)</script>", '" onmouseover="alert(1)', "\u2028\udc80"]
)
def test_hostile_names_are_text(text: str) -> None:
    report = hostile_report(text)
    plain = hostile_report("plain")
    check_harmless(page(report), page(plain))
    check_harmless(pair_page(report, report), pair_page(plain, plain))
    if text == HOSTILE:
        assert '<img src=x onerror="alert(1)">' in page(report).words


@settings(max_examples=30, deadline=None)
@given(st.text(max_size=40))
def test_any_name_is_text(text: str) -> None:
    check_harmless(page(hostile_report(text, 1)), page(hostile_report("plain", 1)))


def rows(made: bytes) -> int:
    """Rows of a page, without parsing all of it."""
    return made.count(b'<tr id="l')


@pytest.mark.slow
def test_five_thousand_layers_fit() -> None:
    report = big_report(5000)
    made = engine_page(subject(report))
    assert len(made) < MAX_PAGE_BYTES == 8_000_000 and rows(made) == 5000
    both = comparison_page(compare(subject(report), subject(report)))
    assert len(both) < MAX_PAGE_BYTES and rows(both) == 5000


@pytest.mark.slow
def test_the_longest_names_fit_too() -> None:
    report = hostile_report('"' * 600, 5000)
    made = engine_page(subject(report))
    assert len(made) < MAX_PAGE_BYTES and rows(made) > 1000
    # Nor do the lists of layers by reason take the room of all rows.
    named = [x.model_copy(update={"reason": f"{i % 50} {x.reason}"}) for i, x in enumerate(report.layers * 2)]
    made = engine_page(subject(report.model_copy(update={"layers": named})))
    assert len(made) < MAX_PAGE_BYTES and rows(made) > 1000
    # No two layers match, so that there are twice as many rows to choose from.
    layers = [x.model_copy(update={"name": f"{i}", "fused": []}) for i, x in enumerate(report.layers)]
    other = report.model_copy(update={"layers": layers})
    both = comparison_page(compare(subject(report), subject(other)))
    assert len(both) < MAX_PAGE_BYTES and rows(both) > 1000


def test_what_is_left_out_is_said_and_still_counted() -> None:
    report = edit_report()
    found = page(report, rows=10)
    assert len(found.all("tr", id="l")) == len(found.all("a", **{"class": "c "})) == 10
    assert f"{len(report.layers) - 10} cheaper layers are left out here" in found.words
    assert page(report).words.count("cheaper") == 0


def test_two_reports_side_by_side() -> None:
    graph, engine = edit_report(precision="fp32"), engine_report()
    found = pair_page(graph, engine)
    comparison = compare(subject(graph), subject(engine))
    assert len(found.all("tr", id="l")) == len(comparison.pairs)
    assert len(found.all("a", **{"class": "c "})) == len(graph.layers) + len(engine.layers)
    targets = {row["id"] for row in found.all("tr", id="l")}
    assert {(cell["href"] or "")[1:] for cell in found.all("a", **{"class": "c "})} == targets
    assert found.all("rect", **{"class": "m "}) and found.all("circle", **{"class": "m "})
    differing = found.source.count('<span class="s">precision differs</span>')
    assert differing == comparison.counts["precision"] > 0
    assert {option["value"] for option in found.all("option", value="precision differs")} == {"precision differs"}
    # Only one of them is measured: floors are compared with floors.
    assert "A floor ms" in found.words and "A ms" not in found.words
    assert "A ms" in pair_page(engine, engine).words
    assert {"msA", "ratio"} <= set(found.columns)
    assert not {"msA", "msB", "ratio"} & set(pair_page(graph, engine, None).columns)
