"""Verbs on engines before they run: build, plan."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.table import Table

from edgedit.commands.common import BundlePosition, OptionalFile, Reporting, console, elsewhere, opened, say
from edgedit.editor import PORTRAIT_BUNDLE
from engines.bundle.engine_manifest import EIGHT_BIT, Precision
from engines.errors import EngineError

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}


@dataclass(frozen=True, kw_only=True)
class Build(Reporting):
    """Build engines from a bundle's graphs, prove their precision, and put them into the bundle."""

    bundle: tyro.conf.Positional[Path]
    """The bundle; the engines go into its engines/RUNTIME-TARGET-PRECISION/."""
    runtime: Literal["tensorrt", "tensorrt-rtx", "onnxruntime"] = "tensorrt-rtx"
    """What will run them. TensorRT-RTX builds without a GPU, TensorRT for the GPU at hand; for ONNX Runtime a typed
    graph is written."""
    target: Annotated[str | None, tyro.conf.arg(help_behavior_hint="(default: current; cpu for onnxruntime)")] = None
    """GPU architectures such as sm86 or sm86,sm89, or current; cpu or cuda for onnxruntime."""
    precision: Precision = "fp16"
    """What at least 98 % of the multiply-accumulates must be in, with int8 and fp8 at least 90 % of those that have
    8-bit kernels (attention products and depthwise convolutions have none). These two need --photos, and fp8 sm89 or
    newer."""
    pipeline: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """invert, edit, reconstruct, all (these three, the default), split (the five separate graphs) or the name of one;
    may be repeated."""
    batch: str = "1:1:8"
    """Batch sizes as MIN:OPT:MAX."""
    photos: OptionalFile = None
    """Photos to certify the accuracy on: folder or tar of aligned faces, the last by name are used; int8 and fp8 take
    their ranges from those before them. Without it the engines get no certificate."""
    count: int = 64
    """How many of them."""
    lpips: OptionalFile = None
    """LPIPS weights (safetensors), for the certificate; needs the `train` extra."""
    identity: OptionalFile = None
    """Face embedder (ONNX), for the certificate and its gate; needs the `train` extra."""
    workspace: Annotated[str | None, tyro.conf.arg(metavar="SIZE", help_behavior_hint="")] = None
    """Most scratch memory of one kernel, such as 512M."""
    memory_budget: Annotated[str | None, tyro.conf.arg(metavar="SIZE", help_behavior_hint="")] = None
    """Device memory for weights and activations together, such as 2G: weights beyond it stay on the host and stream."""
    weight_streaming: bool = False
    """Let weights stream from the host; the budget is then chosen when the engine is loaded."""
    refit: bool = False
    """Let new weights of the same family be put into the engine; needs a GPU when building."""
    version_compatible: bool = False
    """Let other TensorRT versions load the engine; TensorRT alone."""
    hardware: Literal["none", "same-compute-capability", "ampere-plus"] = "none"
    """Which other GPUs may load the engine; TensorRT alone. For TensorRT-RTX name several targets."""
    tf32: bool = False
    """Let FP32 layers round to TF32."""
    no_timing_cache: bool = False
    """Measure every kernel anew; TensorRT alone."""

    def run(self) -> dict[str, Any]:
        from engines.building.build import build, parse_profile
        from engines.building.builder import BuildOptions
        from engines.building.proof import check_targets

        options = BuildOptions(
            profile=parse_profile(self.batch),
            workspace=parse_size("--workspace", self.workspace),
            memory_budget=parse_size("--memory-budget", self.memory_budget),
            weight_streaming=self.weight_streaming,
            refit=self.refit,
            version_compatible=self.version_compatible,
            hardware=self.hardware,
            tf32=self.tf32,
            timing_cache=not self.no_timing_cache,
        )
        # Before any photo is read; for the GPU at hand, which is not named here, the build says it.
        check_targets(self.precision, (self.target or "").split(","))
        bundle = opened(self.bundle, verify=False)
        fit = peaks = None
        if self.photos is not None:
            from edgedit.commands.certifying import judged

            asked = judged(self)
            fit, peaks = asked.fit, asked.peaks
        elif self.precision in EIGHT_BIT:
            raise EngineError(
                f"--precision {self.precision} takes the ranges of activations from photos: give a folder or tar of "
                "aligned faces with --photos"
            )
        elif self.lpips is not None or self.identity is not None:
            raise EngineError("--lpips and --identity judge photos: give --photos too")
        manifest = build(
            bundle.path,
            runtime=self.runtime,
            target=self.target,
            precision=self.precision,
            pipelines=self.pipeline or ("all",),
            options=options,
            fit=fit,
            peaks=peaks,
            progress=say,
            command=self.command(),
        )
        size = sum(entry.bytes for entry in manifest.files.values())
        say(f"wrote engines/{manifest.folder}: {size / 1e6:.1f} MB{elsewhere(bundle, self.bundle)}")
        return {"bundle": str(self.bundle), "folder": manifest.folder, "manifest": manifest.model_dump(mode="json")}

    def command(self) -> str:
        """The command line that repeats this build, without the place of the bundle."""
        words = ["edgedit build", self.bundle.resolve().name]
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name in ("bundle", "json") or value == field.default:
                continue
            if isinstance(value, Path):
                value = field.name.upper()
            option = f"--{field.name.replace('_', '-')}"
            values = value if isinstance(value, tuple) else (value,)
            words += [option] if value is True else [f"{option} {one}" for one in values]
        return " ".join(words)


def parse_size(option: str, text: str | None) -> int | None:
    """Bytes of "512M", "2G" or "1000000".

    Raises:
        EngineError: if it is not a size.
    """
    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,12}(?:\.\d{1,3})?)([KMG]?)B?", text.strip().upper())
    if found is None or not float(found[1]):
        raise EngineError(f"{option} {text} is not a size; write it as 512M or 2G")
    return int(float(found[1]) * _UNITS[found[2]])


@dataclass(frozen=True, kw_only=True)
class Plan(Reporting):
    """Say how fast a device could be at best with a bundle's pipelines, and which fit, without building anything."""

    bundle: BundlePosition = PORTRAIT_BUNDLE
    """The bundle to plan for."""
    device: str = "rtx3090"
    """The device, such as rtx3090, rtx4060, orin-nano or agx-orin; a wrong name lists them."""
    precision: Precision = "fp16"
    """What the pipelines would be built in; int8 and fp8 as if every product were."""
    pipeline: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """As of `edgedit build`."""
    batch: int = 1
    """Images at once."""

    def run(self) -> dict[str, Any]:
        from engines.building.build import graph_names
        from engines.building.devices import device
        from engines.building.plan import plan

        gpu = device(self.device)
        bundle = opened(self.bundle, verify=False)
        floors = plan(
            bundle, graph_names(bundle, self.pipeline or ("all",)), gpu, precision=self.precision, batch=self.batch
        )
        rate = gpu.tflops(self.precision)
        console.print(
            f"{bundle.name} on {gpu.title} ({gpu.architecture}, {self.precision} {rate:g} "
            f"{'TOP' if self.precision == 'int8' else 'TFLOP'}/s, "
            f"{gpu.bandwidth_gbs:g} GB/s, {gpu.memory_gb:g} GB), batch {self.batch}; "
            f"edgedit build --runtime {gpu.runtime} builds for it",
            markup=False,
        )
        table = Table("pipeline", "GMACs", "weights MB", "in+out MB", "floor ms", "bound by", "needs MB", "fits")
        rows = {}
        for f in floors:
            fits = f.fits(gpu)
            table.add_row(
                f.graph,
                f"{f.macs / 1e9:.2f}",
                f"{f.weight_bytes / 1e6:.2f}",
                f"{f.interface_bytes / 1e6:.2f}",
                f"{f.milliseconds:.4f}",
                f.bound,
                f"{f.needed_bytes / 1e6:.1f}",
                "yes" if fits else "no",
            )
            rows[f.graph] = {
                **dataclasses.asdict(f),
                "floor_ms": f.milliseconds,
                "bound": f.bound,
                "needed_bytes": f.needed_bytes,
                "fits": fits,
            }
        console.print(table)
        console.print(
            "Floors are what the datasheet's figures allow, and nothing that was measured; memory is what it takes at "
            "least, and a build says what an engine takes."
        )
        unchecked = "" if gpu.checked else "; they were not compared with it, check them before relying on them"
        console.print(f"The device's figures: {gpu.source}{unchecked}.", markup=False)
        return {
            "bundle": str(self.bundle),
            "device": self.device,
            "figures": dataclasses.asdict(gpu),
            "precision": self.precision,
            "batch": self.batch,
            "pipelines": rows,
        }
