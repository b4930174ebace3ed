"""Totals, floors and how figures are written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.bundle.layers import LayerReport
from engines.errors import EngineError
from engines.inspector.devices import Device, assume_device, find_device
from engines.inspector.figures import Figures, clean, ms, percent, precision_label, shape, si
from engines.inspector.subject import UNKNOWN_REASON, Subject
from tests.engines.inspector.samples import edit_report, engine_report, layer

DEVICE = Device("box", {"float16": 100.0, "float32": 10.0}, 500.0)


def report(*layers, precision: str = "fp16") -> LayerReport:
    return LayerReport(graph="edit", source="graph", precision=precision, layers=list(layers))


def test_a_floor_is_the_longer_of_arithmetic_and_memory() -> None:
    heavy = layer("a", "Conv", [[1, 8]], [1, 8], macs=10**9)
    assert Figures([heavy], DEVICE).floor == pytest.approx(2e9 / 100e12 * 1e3)
    wide = heavy.model_copy(update={"precision": "float32"})
    assert Figures([wide], DEVICE).floor == pytest.approx(2e9 / 10e12 * 1e3)
    moving = layer("b", "Add", [[1, 10**6]], [1, 10**6])
    assert Figures([moving], DEVICE).floor == pytest.approx(4e6 / 500e9 * 1e3)
    # No figure for INT8: a bound by memory alone is still a bound.
    eight = heavy.model_copy(update={"precision": "int8"})
    assert Figures([eight], DEVICE).floor == pytest.approx(32 / 500e9 * 1e3)
    assert Figures([heavy, wide], DEVICE).floor == pytest.approx(2e9 / 100e12 * 1e3 + 2e9 / 10e12 * 1e3)
    assert Figures([heavy]).floor is None


def test_intensity_counts_two_operations_per_mac_over_all_bytes() -> None:
    node = layer("a", "MatMul", [[10, 10]], [10, 10], macs=1000, weights=100)
    assert Figures([node]).intensity == pytest.approx(2000 / (100 * 2 + 200 * 2))
    still = layer("a", "Shape", [], [], precision="int64").model_copy(update={"activation_bytes": 0})
    assert Figures([still]).intensity == 0


def test_attained_is_measured_where_it_was_measured_and_the_floor_elsewhere() -> None:
    node = layer("a", "Conv", [[1, 8]], [1, 8], macs=10**9)
    assert Figures([node], DEVICE).attained == pytest.approx(100e12)
    assert Figures([node.model_copy(update={"milliseconds": 1.0})], DEVICE).attained == pytest.approx(2e12)
    assert Figures([node]).attained is None
    assert Figures([node.model_copy(update={"macs": 0})], DEVICE).attained is None


def test_totals_by_precision_add_up() -> None:
    subject = edit_report()
    figures = Figures(subject.layers, DEVICE)
    parts = figures.by_precision
    assert sum(part.macs for part in parts.values()) == subject.macs == figures.macs
    assert sum(len(part.layers) for part in parts.values()) == len(subject.layers)
    assert sum(figures.share(label) for label in parts) == pytest.approx(1)
    assert figures.share("FP16") == pytest.approx(subject.share("float16"))
    assert next(iter(parts)) == "FP16"
    assert figures.timed.milliseconds is None and figures.timed.layers == []
    timed = Figures(engine_report().layers)
    assert timed.timed.milliseconds == pytest.approx(sum(x.milliseconds or 0 for x in timed.layers))
    assert timed.floor is None


def test_silent_fp32_arithmetic_is_named_even_without_a_reason_and_comes_first() -> None:
    silent = layer("silent", "Conv", [[1]], [1], macs=5, precision="float32")
    reasoned = layer("norm", "Norm", [[1]], [1], precision="float32", reason="a norm")
    plain = layer("copy", "Reshape", [[1]], [1], precision="float32")
    assert list(Subject(report(reasoned, silent, plain)).wide.items()) == [
        (UNKNOWN_REASON, [silent]),
        ("a norm", [reasoned]),
    ]
    assert Subject(report(silent, precision="fp32")).wide == {}


def test_the_costliest_layers_come_first() -> None:
    layers = [layer(str(i), "Conv", [[1]], [1], macs=macs) for i, macs in enumerate([5, 1, 9, 2, 7])]
    assert Subject(report(*layers)).costliest(3) == [2, 4, 0]
    assert Subject(report(*layers)).costliest(9) == [2, 4, 0, 3, 1]


@pytest.mark.parametrize(
    ("share", "words"),
    [
        (0, "0 %"),
        (1, "100 %"),
        (0.5, "50.0 %"),
        (0.991, "99.1 %"),
        (0.9996, "99.96 %"),
        (0.0001, "<0.1 %"),
        (1e-12, "<0.1 %"),
    ],
)
def test_percent(share: float, words: str) -> None:
    assert percent(share) == words


@given(st.floats(0, 1))
def test_percent_says_all_or_nothing_only_where_it_is(share: float) -> None:
    assert (percent(share) == "0 %") == (share == 0)
    if share < 1 - 1e-9:
        assert percent(share) != "100 %" and not percent(share).startswith("100")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0, "0"),
        (7, "7"),
        (999, "999"),
        (1000, "1 k"),
        (1234567, "1.23 M"),
        (999_600, "1.00 M"),
        (440e9, "440 G"),
        (71e12, "71 T"),
    ],
)
def test_decimal_prefixes(value: float, words: str) -> None:
    assert si(value) == words


def test_short_texts() -> None:
    assert si(1500, "B") == "1.50 kB" and si(5, "B") == "5 B"
    assert [ms(v) for v in (None, 0, 1e-5, 0.0123, 5.678, 1234.5)] == ["", "0", "<0.001", "0.0123", "5.68", "1234"]
    assert [shape(s) for s in ([], [1, 512, 4, 4], [2] * 9)] == ["scalar", "1×512×4×4", "×".join("2" * 8) + "×…"]
    assert [precision_label(d) for d in ("float16", "float8e4m3fn", "int64")] == ["FP16", "FP8", "int64"]


@given(st.text(), st.integers(8, 60))
def test_cleaned_text_is_printable_and_bounded(text: str, limit: int) -> None:
    short = clean(text, limit)
    assert short.isprintable() and len(short) <= limit
    if text.isprintable() and len(text) <= limit:
        assert short == text


def test_cleaning_takes_the_teeth_out_of_terminal_codes_and_direction_marks() -> None:
    assert clean("a\x1b[31m\u202eb\n") == "a\ufffd[31m\ufffdb\ufffd"
    assert clean("x" * 50 + "end", 20).endswith("xxxend")


def test_devices() -> None:
    found = find_device("rtx3090")
    assert found is not None and found.name == "GeForce RTX 3090"
    assert (found.tflops("float32") or 0) < (found.tflops("float16") or 0) and found.tflops("int8") == 284
    assert found.tflops("float8_e4m3fn") is None
    newer = find_device("rtx4090")
    assert newer is not None and newer.tflops("float8_e4m3fn") == 330.3
    own = find_device(None, 12.5, 300)
    assert own is not None and own.tflops("int8") == 12.5 and own.bandwidth == 300
    assert find_device(None) is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("gtx1",), "unknown GPU 'gtx1'; there are "),
        (("rtx3090", 1.0, 2.0), "exclude each other"),
        ((None, 1.0), "go together"),
        ((None, -1.0, 2.0), "--peak-tflops must be a positive number, got -1"),
        ((None, 1.0, float("inf")), "--bandwidth-gbs must be a positive number"),
    ],
)
def test_wrong_devices(words: tuple, message: str) -> None:
    with pytest.raises(EngineError, match=message):
        find_device(*words)


@pytest.mark.parametrize(
    ("target", "measured", "name"),
    [
        ("sm86", False, "GeForce RTX 3090, assumed"),
        ("sm86+sm120", True, "GeForce RTX 3090, assumed"),
        ("sm120", True, "GeForce RTX 5090, assumed"),
        (None, False, "GeForce RTX 3090, assumed"),
        (None, True, None),
        ("current", True, None),
        ("sm50", False, None),
    ],
)
def test_an_assumed_device_fits_the_target(target: str | None, measured: bool, name: str | None) -> None:
    found = assume_device(target, measured)
    assert (found.name if found else None) == name
