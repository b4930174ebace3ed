"""The subject of an inspection: a graph of an engine folder, a graph of a bundle, or a layer report on its own."""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from engines.bundle import Bundle
from engines.bundle.engine_manifest import ENGINE_FILE, ENGINES_FOLDER, EngineManifest, WideLayer, wider
from engines.bundle.folders import EngineFolder
from engines.bundle.layers import Layer, LayerReport
from engines.bundle.manifest import MANIFEST_FILE
from engines.errors import EngineError
from engines.inspector.devices import Device
from engines.inspector.figures import Figures, clean, ms, percent, precision_label, si

MAX_REPORT_BYTES = 64 * 2**20
MAX_LAYERS = 50_000
MAX_COUNT = 2**62
PREFERRED = "edit"
"""The graph that is shown if none is named: the one that runs for every edit."""

UNKNOWN_REASON = "no reason is given"
_CERTIFIED = 60
"""Figures of a certificate that are shown."""
_SOURCES = {"network": "the builder's network", "inspector": "the engine inspector", "graph": "an ONNX graph"}


@dataclass(frozen=True)
class Subject:
    """One graph with all that is known of it."""

    report: LayerReport
    bundle: str | None = None
    engine: EngineManifest | None = None
    graphs: tuple[str, ...] = ()
    """All graphs of the folder or bundle."""
    device: Device | None = None
    """The device that its layers are held against."""

    @property
    def graph(self) -> str:
        return self.report.graph

    @property
    def title(self) -> str:
        """ "demo / tensorrt-rtx-sm86-fp16", or what there is of it."""
        if self.engine is not None:
            return f"{self.bundle} / {self.engine.folder}"
        if self.bundle is not None:
            return f"{self.bundle} / ONNX graph"
        return f"layer report ({self.report.source})"

    @property
    def requested(self) -> str:
        """The label of the precision that was asked for."""
        return precision_label(self.engine.precision if self.engine is not None else self.report.precision)

    @property
    def wider(self) -> str:
        """The types that are wider than that, in words."""
        return wider(self.requested.lower())

    @cached_property
    def figures(self) -> Figures:
        """The sums of all layers."""
        return Figures(self.report.layers, self.device)

    @property
    def facts(self) -> dict[str, str]:
        """The facts of a header, by name."""
        facts = {"bundle": self.bundle or "not named in a layer report", "graph": self.graph}
        if self.engine is None:
            facts["precision asked"] = self.requested
        else:
            entry, built = self.engine.graphs[self.graph], self.engine.built
            profile, memory = entry.profile, entry.device_memory
            facts |= {
                "runtime": self.engine.runtime,
                "target": self.engine.target,
                "precision asked": self.requested,
                "built with": f"{built.library} {built.version}",
                "compute capability": ", ".join(built.compute_capabilities) or "not bound to a GPU",
                "compatibility": _compatibility(built.hardware_compatible, built.version_compatible),
                "driver": f"{built.driver_floor} or newer" if built.driver_floor else "not stated",
                "batch": f"{profile.min} to {profile.max}, tuned for {profile.opt}",
                "device memory": "not stated" if memory is None else f"{si(memory, 'B')} besides weights",
                "engine file": si(self.engine.files[entry.file].bytes, "B"),
                "built": f"{built.date}, in {entry.seconds:,.1f} s",
                "tools": ", ".join(f"{name} {version}" for name, version in sorted(built.tools.items())[:12]),
                "weights": f"SHA-256 {self.engine.weights_sha256[:12]}…",
                "source graph": f"SHA-256 {entry.source_sha256[:12]}…",
                "inputs": _specs(entry.inputs),
                "outputs": _specs(entry.outputs),
            }
        facts["layers read from"] = _SOURCES[self.report.source]
        return {name: clean(value, 400) for name, value in facts.items() if value}

    @property
    def certificate(self) -> dict[str, str] | None:
        """Figures of the accuracy certificate by name; None if it was not measured or there is no engine."""
        if self.engine is None or (figures := self.engine.graphs[self.graph].certificate) is None:
            return None
        flat = dict(_flat(figures))
        more = {"": f"and {len(flat) - _CERTIFIED} more"} if len(flat) > _CERTIFIED else {}
        return dict(list(flat.items())[:_CERTIFIED]) | more

    def totals(self, labels: Iterable[str]) -> dict[str, tuple[float | None, str]]:
        """The figures that sum it up: by name a number, None for a share, and how it is written.

        Args:
            labels: precisions whose share of the MACs is given.
        """
        figures, timed = self.figures, self.figures.timed
        rows: dict[str, tuple[float | None, str]] = {"MACs at batch 1": (figures.macs, si(figures.macs))}
        rows |= {f"{label} share of MACs": (None, percent(figures.share(label))) for label in labels}
        for name, size in (("weights", figures.weight_bytes), ("activations moved", figures.activation_bytes)):
            rows[name] = size, f"{size / 1e6:,.1f} MB"
        for name, count in (("layers", len(figures.layers)), ("measured layers", len(timed.layers))):
            if count:
                rows[name] = count, f"{count:,}"
        floor = f"sum of layer floors, {self.device.name if self.device is not None else ''}"
        for name, time in (("measured", timed.milliseconds), (floor, figures.floor)):
            if time is not None:
                rows[name] = time, f"{ms(time)} ms"
        return rows

    @property
    def summary(self) -> dict[str, str]:
        """The same in words, with the shares of FP16 and of the precision that was asked for."""
        labels = ["FP16"] if self.requested in ("FP16", "FP32") else ["FP16", self.requested]
        return {name: words for name, (_, words) in self.totals(labels).items()}

    @cached_property
    def wide(self) -> dict[str, Sequence[Layer | WideLayer]]:
        """Layers by reason: those with one for their precision, and FP32 arithmetic where less was asked for.

        If the report names none, they are those of the engine's proof.
        """
        groups: dict[str, list[Layer | WideLayer]] = defaultdict(list)
        less = precision_label(self.report.precision) != "FP32"
        for layer in self.report.layers:
            silent = less and layer.macs and precision_label(layer.precision) == "FP32"
            if layer.reason is not None or silent:
                groups[clean(layer.reason or UNKNOWN_REASON, 300)].append(layer)
        if not groups and self.engine is not None:
            for named in self.engine.graphs[self.graph].proof.wide:
                groups[clean(named.reason, 300)].append(named)
        return dict(sorted(groups.items(), key=lambda item: (item[0] != UNKNOWN_REASON, -sum(x.macs for x in item[1]))))

    def wide_label(self, layers: Iterable[Layer | WideLayer]) -> str:
        """The precisions of layers of `wide`; a proof gives but the asked one's wider types."""
        labels = [precision_label(x.precision) if isinstance(x, Layer) else self.wider for x in layers]
        return " + ".join(dict.fromkeys(labels))

    def cost(self, layer: Layer) -> float:
        """The figure that layers are ranked by: measured time, else floor, else MACs."""
        if self.figures.timed.layers:
            return layer.milliseconds or 0.0
        return float(layer.macs) if self.device is None else self.device.floor(layer)

    def costliest(self, count: int) -> list[int]:
        """The indices of so many of the costliest layers, the costliest first."""
        layers = self.report.layers
        return sorted(range(len(layers)), key=lambda i: -self.cost(layers[i]))[:count]


def _compatibility(hardware: bool, version: bool) -> str:
    kinds = [name for name, is_so in (("newer GPUs", hardware), ("other library versions", version)) if is_so]
    return f"also {' and '.join(kinds)}" if kinds else "this GPU and library version only"


def _specs(specs: Iterable[Any]) -> str:
    return ", ".join(f"{s.name} {s.dtype} {'×'.join(map(str, s.shape))}" for s in specs)


def _flat(values: Mapping[str, Any], prefix: str = "", depth: int = 0) -> Iterable[tuple[str, str]]:
    """Nested figures as names of several words with short values."""
    for key, value in values.items():
        name = clean(f"{prefix}{key.replace('_', ' ')}", 100)
        if isinstance(value, Mapping) and depth < 4:
            yield from _flat(value, f"{name} ", depth + 1)
        elif isinstance(value, bool) or value is None:
            yield name, {True: "yes", False: "no", None: "not measured"}[value]
        elif isinstance(value, float):
            yield name, f"{value:.6g}"
        elif isinstance(value, list):
            shown = ", ".join(f"{v:.6g}" if isinstance(v, float) else str(v) for v in value[:8])
            yield name, clean(shown + (f", and {len(value) - 8} more" if len(value) > 8 else "") or "none")
        else:
            yield name, clean(str(value))


def load(path: Path, graph: str | None = None) -> Subject:
    """Reads what there is to inspect; nothing is parsed before its digest matches, except a bare layer report.

    Args:
        path: an engine folder, a bundle, or the JSON file of a layer report.
        graph: which graph of a folder or bundle; None takes `edit`, or else the first.

    Raises:
        EdgeditError: if it is none of these, is damaged, has no such graph, or was built without a layer report.
    """
    if path.is_file():
        subject = _load_file(path, graph)
    elif not path.is_dir():
        raise EngineError(f"there is no {path}: give an engine folder, a bundle, or a layer report (JSON)")
    elif os.path.lexists(path / ENGINE_FILE):
        subject = _load_engine(path, graph)
    elif os.path.lexists(path / MANIFEST_FILE):
        bundle = Bundle.load(path, verify=False)
        names, name = _choose(graph, bundle.manifest.graphs, bundle.name)
        subject = Subject(graph_report(bundle, name), bundle.name, None, names)
    else:
        raise EngineError(
            f"{path} is neither an engine folder nor a bundle: it has neither {ENGINE_FILE} nor {MANIFEST_FILE}; "
            f"engines lie in BUNDLE/{ENGINES_FOLDER}/<runtime>-<target>-<precision>"
        )
    _check(subject, path)
    return subject


def _load_file(path: Path, graph: str | None) -> Subject:
    if path.name == ENGINE_FILE:
        raise EngineError(f"{path} is an engine's manifest: give the folder that it lies in")
    if path.suffix.lower() != ".json":
        raise EngineError(f"{path} is not a layer report: give a JSON file, an engine folder or a bundle")
    size = path.stat().st_size
    if size > MAX_REPORT_BYTES:
        raise EngineError(f"{path} has {size} bytes, a layer report at most {MAX_REPORT_BYTES}: it is not one")
    report = LayerReport.parse(path.read_bytes(), str(path))
    if graph not in (None, report.graph):
        raise EngineError(f"{path} is a report of graph {report.graph}, not {clean(str(graph))}: leave --graph out")
    return Subject(report, graphs=(report.graph,))


def _choose(graph: str | None, there: Iterable[str], where: str) -> tuple[tuple[str, ...], str]:
    """All names, sorted, and the one that was chosen or is preferred."""
    names = tuple(sorted(there))
    if graph is None and names:
        graph = PREFERRED if PREFERRED in names else names[0]
    if graph not in names:
        raise EngineError(f"{where} has no graph {clean(str(graph))!r}; it has {', '.join(names) or 'none'}")
    return names, str(graph)


def _load_engine(path: Path, graph: str | None) -> Subject:
    # Not resolved: EngineFolder refuses what lies behind a link.
    absolute = Path(os.path.abspath(path))
    root = absolute.parent.parent
    if absolute.parent.name != ENGINES_FOLDER or not os.path.lexists(root / MANIFEST_FILE):
        raise EngineError(f"{path} is outside a bundle: give the engine folder where it was built, in BUNDLE/engines/")
    bundle = Bundle.load(root, verify=False)
    folder = EngineFolder.load(bundle, absolute.name)
    manifest = folder.manifest
    names, name = _choose(graph, manifest.graphs, folder.name)
    file = manifest.graphs[name].layers
    if file is None:
        problem = f"graph {name} was built without a layer report"
    elif manifest.files[file].bytes > MAX_REPORT_BYTES:
        problem = f"{file} is larger than a layer report can be"
    else:
        report = LayerReport.parse(folder.read(file), f"{folder.name}/{file}")
        if report.graph == name:
            return Subject(report, bundle.name, manifest, names)
        problem = f"{file} is of graph {report.graph}, not {name}"
    raise EngineError(f"{folder.name}: {problem}; build the engine again")


def graph_report(bundle: Bundle, graph: str) -> LayerReport:
    """The layers of a bundle's own graph.

    Raises:
        EngineError: if what reads ONNX graphs is not installed.
    """
    try:
        from engines.precision.typed import report
    except ImportError as error:
        needed = error.name or "the precision pass"
        raise EngineError(f"inspecting an ONNX graph needs {needed}: pip install 'edgedit[export]'") from error
    return report(bundle, graph)


def _check(subject: Subject, path: Path) -> None:
    """Refuses a report whose figures cannot be worked with."""
    layers = subject.report.layers
    if not layers:
        raise EngineError(f"{path}: the report of graph {subject.graph} has no layers; build the engine again")
    if len(layers) > MAX_LAYERS:
        raise EngineError(f"{path}: {len(layers)} layers are more than the {MAX_LAYERS} that can be shown")
    for index, layer in enumerate(layers):
        counts = max(layer.macs, layer.weight_bytes, layer.activation_bytes)
        if counts > MAX_COUNT or not math.isfinite(layer.milliseconds or 0.0):
            raise EngineError(f"{path}: layer {index} ({clean(layer.name, 60)}) has figures that no network has")
