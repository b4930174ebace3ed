"""A graph that grows unannounced is an error that says by how much; whatever its speed, nothing fails."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from bench import guard
from engines.bundle import Bundle
from engines.errors import EdgeditError
from tests.bench.latency.conftest import result
from tests.random_bundle import RANDOM_BUNDLE


@pytest.fixture(scope="module")
def sizes() -> dict[str, guard.Size]:
    return guard.sizes(Bundle.load(RANDOM_BUNDLE))


@pytest.fixture(autouse=True)
def counted_once(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    monkeypatch.setattr(guard, "sizes", lambda bundle: request.getfixturevalue("sizes"))


def run(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", ["guard", "--bundle", str(RANDOM_BUNDLE), *map(str, words)])
    guard.main()


def test_sizes_are_those_of_the_graphs(sizes: dict[str, guard.Size]) -> None:
    bundle = Bundle.load(RANDOM_BUNDLE)
    assert sizes.keys() == bundle.manifest.graphs.keys()
    # An edit edits features and renders; the generator renders alone.
    assert sizes["edit"].macs > sizes["editor"].macs + sizes["generator"].macs
    assert sizes["generator"].macs == sizes["reconstruct"].macs > 0
    assert sizes["edit"].parameters > sizes["generator"].parameters > 10_000
    assert all(size.nodes > 10 for size in sizes.values())


@pytest.mark.parametrize("name", ["parameters", "macs", "nodes"])
def test_growth_fails_until_it_is_announced(
    name: str, sizes: dict[str, guard.Size], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "guard.json"
    before = {graph: size.model_dump() for graph, size in sizes.items()}
    before["edit"][name] -= 3
    file.write_text(json.dumps({"graphs": before}))
    words = ("--counts", file, "--no-speed")
    with pytest.raises(SystemExit) as failed:
        run(monkeypatch, *words)
    assert f"edit: {getattr(sizes['edit'], name):,} {name}, 3 more than announced" in str(failed.value)
    assert "--update announces it" in str(failed.value) and "\n" not in str(failed.value)
    run(monkeypatch, "--counts", file, "--update")
    assert {"command", "date", "device", "versions"} <= json.loads(file.read_text()).keys()
    run(monkeypatch, *words)


def test_a_graph_that_shrank_or_went_passes_and_a_new_one_does_not(
    sizes: dict[str, guard.Size], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    larger = {graph: size.model_dump() | {"nodes": size.nodes + 1} for graph, size in sizes.items()}
    file = tmp_path / "guard.json"
    file.write_text(json.dumps({"graphs": larger | {"gone": larger["edit"]}}))
    run(monkeypatch, "--counts", file, "--no-speed")
    assert "smaller than announced, --update says so: e4e," in capsys.readouterr().out
    del larger["edit"]
    file.write_text(json.dumps({"graphs": larger}))
    with pytest.raises(SystemExit, match="edit is new"):
        run(monkeypatch, "--counts", file, "--no-speed")


def test_a_file_of_counts_that_is_missing_or_damaged_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit, match=r"error: cannot read .*: No such file or directory; .*--update writes it"):
        run(monkeypatch, "--counts", tmp_path / "none.json", "--no-speed")
    (tmp_path / "guard.json").write_text('{"graphs": {"edit": {"nodes": "many"}}}')
    with pytest.raises(SystemExit, match=r"holds no counts: graphs\.edit"):
        run(monkeypatch, "--counts", tmp_path / "guard.json", "--no-speed")


def test_speed_is_printed_and_never_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    samples = [1.0, 1.1, 0.9, 1.0, 1.05, 0.95]
    fast: dict[str, list[float]] = {"torch:fp32": samples, "onnxruntime:fp32": [one / 9 for one in samples]}
    slow: dict[str, Any] = result({"torch:fp32": samples, "onnxruntime:fp32": samples})
    monkeypatch.setattr(guard, "measure", lambda *_, **__: slow)
    monkeypatch.setattr(guard, "candidates", lambda bundle: ([], {}))
    committed = tmp_path / "latency.json"
    committed.write_text(json.dumps(result(fast)))
    bundle = Bundle.load(RANDOM_BUNDLE)
    guard.speed(bundle, committed)
    assert "slower" in capsys.readouterr().out
    guard.speed(bundle, tmp_path / "none.json")
    assert "no speeds to compare: cannot read" in capsys.readouterr().out


def test_the_committed_counts_are_those_of_the_portrait_bundle() -> None:
    announced = guard.read_counts(guard.COUNTS)
    assert announced.keys() == set(Bundle.load(guard.PORTRAIT_BUNDLE).manifest.graphs)
    with pytest.raises(EdgeditError):
        guard.read_counts(guard.RESULTS / "none.json")
