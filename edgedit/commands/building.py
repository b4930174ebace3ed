"""Verbs on engines before they run: build, estimate."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import tyro
from rich.table import Table

from edgedit.commands.common import (
    BundleOption,
    Graphs,
    OptionalFile,
    OwnBundle,
    Reporting,
    console,
    elsewhere,
    opened,
    parse_size,
    say,
)
from edgedit.editor import PORTRAIT_BUNDLE
from engines.bundle.engine_manifest import Precision, RuntimeName
from engines.bundle.provenance import command_line, given

OptionalSize = Annotated[str | None, tyro.conf.arg(metavar="SIZE", help_behavior_hint="")]


@dataclass(frozen=True, kw_only=True)
class Build(Reporting):
    """Build engines from a bundle's graphs, prove their precision, and put them into the bundle."""

    bundle: OwnBundle
    """The bundle; the engines go into its engines/RUNTIME-TARGET-PRECISION/."""
    runtime: RuntimeName = "tensorrt-rtx"
    """The runtime of the engines. TensorRT-RTX builds without a GPU, TensorRT for the GPU at hand; for ONNX Runtime and
    OpenVINO a typed graph is written."""
    target: Annotated[str | None, tyro.conf.arg(help_behavior_hint="(default: current, or cpu)")] = None
    """GPU architectures such as sm86 or sm86,sm89, or current; cpu or cuda for onnxruntime, cpu for openvino."""
    precision: Precision = "fp16"
    """The precision of at least 98 % of the multiply-accumulates; with int8 and fp8, of at least 90 % of those that
    have 8-bit kernels (attention products and depthwise convolutions have none). These two need --faces, and fp8 sm89
    or newer."""
    graph: Graphs = ("pipelines",)
    """invert, edit, reconstruct, pipelines (these three), split (the five separate graphs), all (both) or the name of
    one."""
    batch_range: str = "1:1:8"
    """Batch sizes as MIN:OPT:MAX."""
    faces: OptionalFile = None
    """Photos to certify the accuracy on: folder or tar of aligned faces, the last by name are used; int8 and fp8 take
    their ranges from those before them. Without it the engines get no certificate."""
    max_faces: int = 64
    """The number of photos at most."""
    lpips: OptionalFile = None
    """LPIPS weights (safetensors), for the certificate; needs the `train` extra."""
    identity: OptionalFile = None
    """Face embedder (ONNX), for the certificate and its gate; needs the `train` extra."""
    workspace: OptionalSize = None
    """Most scratch memory of one kernel, such as 512M."""
    memory_budget: OptionalSize = None
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
        from edgedit.building import build

        manifest = build(
            self.bundle,
            runtime=self.runtime,
            target=self.target,
            precision=self.precision,
            graphs=self.graph,
            batch_range=self.batch_range,
            faces=self.faces,
            max_faces=self.max_faces,
            lpips=self.lpips,
            identity=self.identity,
            workspace=parse_size("--workspace", self.workspace),
            memory_budget=parse_size("--memory-budget", self.memory_budget),
            weight_streaming=self.weight_streaming,
            refit=self.refit,
            version_compatible=self.version_compatible,
            hardware=self.hardware,
            tf32=self.tf32,
            timing_cache=not self.no_timing_cache,
            progress=say,
            command=self.command(),
        )
        size = sum(entry.bytes for entry in manifest.files.values())
        place = elsewhere(opened(self.bundle, verify=False), self.bundle)
        say(f"wrote engines/{manifest.folder}: {size / 1e6:.1f} MB{place}")
        return {"bundle": str(self.bundle), "folder": manifest.folder, "manifest": manifest.model_dump(mode="json")}

    def command(self) -> str:
        """The command line that repeats this build, without the place of the bundle."""
        return command_line("edgedit build", given(self) | {"bundle": self.bundle.resolve().name})


@dataclass(frozen=True, kw_only=True)
class Estimate(Reporting):
    """Say how fast a GPU could be at best with a bundle's graphs, and which fit, without building anything."""

    bundle: BundleOption = PORTRAIT_BUNDLE
    """The bundle to estimate for."""
    gpu: str = "rtx3090"
    """The GPU's model, such as rtx3090, rtx4060, orin-nano or agx-orin; a wrong name lists them."""
    precision: Precision = "fp16"
    """The precision that the graphs would be built in; int8 and fp8 as if every product were."""
    graph: Graphs = ("pipelines",)
    """The graphs, as of `edgedit build`."""
    batch: int = 1
    """Images at once."""

    def run(self) -> dict[str, Any]:
        from edgedit.building import estimate
        from engines.building.devices import device

        gpu = device(self.gpu)
        floors = estimate(
            self.bundle, self.gpu, graphs=self.graph, precision=self.precision, batch=self.batch, progress=say
        )
        rate = gpu.tflops(self.precision)
        say(
            f"{opened(self.bundle, verify=False).name} on {gpu.title} ({gpu.architecture}, {self.precision} {rate:g} "
            f"{'TOP' if self.precision == 'int8' else 'TFLOP'}/s, "
            f"{gpu.bandwidth_gbs:g} GB/s, {gpu.memory_gb:g} GB), batch {self.batch}; "
            f"edgedit build --runtime {gpu.runtime} builds for it"
        )
        table = Table("graph", "GMACs", "weights MB", "in+out MB", "floor ms", "bound by", "needs MB", "fits")
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
        say(f"The GPU's figures: {gpu.source}{unchecked}.")
        return {
            "bundle": str(self.bundle),
            "gpu": self.gpu,
            "figures": dataclasses.asdict(gpu),
            "precision": self.precision,
            "batch": self.batch,
            "graphs": rows,
        }
