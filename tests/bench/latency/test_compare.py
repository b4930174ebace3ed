"""What is called slower, faster or the same, and by what."""

from __future__ import annotations

from typing import Any

import pytest

from bench.latency.compare import compare, remarks
from bench.latency.result import Result, parse
from engines.errors import EdgeditError
from tests.bench.latency.conftest import ORT, TORCH, result

STEADY = [100.0, 101.0, 99.0, 100.5, 99.5, 100.2, 99.8, 100.1]


def run(samples: dict[str, list[float]], **more: Any) -> Result:
    return parse(result(samples, **more), "a run")


def times(factor: float) -> list[float]:
    return [factor * sample for sample in STEADY]


def verdicts(found: dict[str, Any]) -> dict[str, str]:
    return {row["name"]: row["verdict"] for row in found["rows"]}


def test_another_machine_is_judged_by_ratios_alone() -> None:
    # Three times as slow as a whole, and the row keeps its ratio.
    a = run({TORCH: STEADY, ORT: times(0.5)})
    b = run({TORCH: times(3), ORT: times(1.5)}, device="a slower machine")
    found = compare(a, b)
    assert verdicts(found) == {TORCH: "another machine", ORT: "same"} and found["slower"] == 0
    assert found["differs"]["device"] == ("a machine", "a slower machine")
    assert "differs: device: a machine in A, a slower machine in B" in remarks(found)


def test_a_ratio_that_falls_beyond_noise_is_slower_and_the_reverse_faster() -> None:
    a, b = run({TORCH: STEADY, ORT: times(0.5)}), run({TORCH: STEADY, ORT: times(0.6)})
    there, back = compare(a, b), compare(b, a)
    assert verdicts(there) == {TORCH: "same", ORT: "slower"} and there["slower"] == 1 and there["faster"] == 0
    assert verdicts(back)[ORT] == "faster" and back["slower"] == 0
    assert there["rows"][1]["change"] == pytest.approx(0.5 / 0.6)


def test_what_noise_covers_is_the_same() -> None:
    noisy = [40.0, 60.0, 45.0, 55.0, 48.0, 52.0, 50.0, 58.0]
    a, b = run({TORCH: STEADY, ORT: noisy}), run({TORCH: STEADY, ORT: [1.05 * one for one in noisy]})
    assert verdicts(compare(a, b))[ORT] == "same"


def test_on_the_same_machine_the_base_is_judged_by_its_time() -> None:
    a, b = run({TORCH: STEADY, ORT: times(0.5)}), run({TORCH: times(2), ORT: times(1)})
    assert verdicts(compare(a, b)) == {TORCH: "slower", ORT: "same"}
    assert verdicts(compare(a, run({TORCH: times(2), ORT: times(1)}, threads=2)))[TORCH] == "another machine"


def test_without_the_base_in_one_of_them_ratios_are_taken_to_what_both_have() -> None:
    openvino = "openvino:fp32"
    a = run({TORCH: STEADY, ORT: times(0.5), openvino: times(0.4)})
    b = run({ORT: times(0.5), openvino: times(0.2)}, device="another")
    found = compare(a, b)
    assert found["base"] == ORT and verdicts(found) == {ORT: "another machine", openvino: "faster"}
    assert found["only_a"] == [["edit", 1, TORCH]] and found["only_b"] == []


def test_few_passes_and_nothing_in_common_are_said() -> None:
    a = run({TORCH: STEADY[:5], ORT: times(0.5)[:5]})
    assert set(verdicts(compare(a, a)).values()) == {"too few passes"}
    with pytest.raises(EdgeditError, match="nothing can be compared"):
        compare(a, run({"openvino:fp32": STEADY}))


def test_rows_of_other_rounds_have_no_ratio() -> None:
    a = run({TORCH: STEADY, ORT: STEADY})
    raw = result({TORCH: STEADY, ORT: STEADY})
    raw["rows"][1]["samples_ms"] = STEADY[:6]
    with pytest.raises(EdgeditError, match="have not the same rounds"):
        compare(a, parse(raw, "b"))
