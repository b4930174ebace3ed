"""Engines from plain arguments: `edgedit.build`, `certify`, `refit` and `estimate`, which the verbs call.

They put together what `engines.building` does with what certifies an engine where PyTorch is installed: the networks
themselves (`export`) and the judges of pictures (`training`).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal

from edgedit.editor import PORTRAIT_BUNDLE, open_bundle
from engines.building.build import build as build_graphs
from engines.building.build import graph_names, parse_profile
from engines.building.builder import BuildOptions
from engines.building.certified import (
    CALIBRATION,
    CertificationInputs,
    Faces,
    calibration,
    certification_inputs,
    read_faces,
)
from engines.building.devices import device
from engines.building.estimate import Floor
from engines.building.estimate import estimate as floors
from engines.building.proof import check_targets
from engines.building.refit import refit as refit_engine
from engines.bundle import Bundle
from engines.bundle.engine_manifest import EIGHT_BIT, ON_CPU, EngineManifest, Precision, RuntimeName
from engines.bundle.folders import EngineFolder
from engines.errors import EngineError
from engines.packages import Progress

Hardware = Literal["none", "same-compute-capability", "ampere-plus"]


def build(
    bundle: str | Path,
    *,
    runtime: RuntimeName = "tensorrt-rtx",
    target: str | None = None,
    precision: Precision = "fp16",
    graphs: Collection[str] = ("pipelines",),
    batch_range: str = "1:1:8",
    faces: str | Path | None = None,
    max_faces: int = 64,
    lpips: str | Path | None = None,
    identity: str | Path | None = None,
    workspace: int | None = None,
    memory_budget: int | None = None,
    weight_streaming: bool = False,
    refit: bool = False,
    version_compatible: bool = False,
    hardware: Hardware = "none",
    tf32: bool = False,
    timing_cache: bool = True,
    progress: Progress = lambda line: None,
    command: str = "edgedit.build",
) -> EngineManifest:
    """Builds engines from a bundle's graphs, proves their precision, certifies them on faces, and puts them into the
    bundle.

    Args:
        bundle: its directory; the engines go into its engines/RUNTIME-TARGET-PRECISION/.
        runtime: what will run them. TensorRT-RTX builds without a GPU, TensorRT for the GPU at hand; for ONNX Runtime
            and OpenVINO a typed graph is written.
        target: GPU architectures such as sm86 or sm86,sm89, or current (the default); cpu (the default) or cuda for
            ONNX Runtime, cpu for OpenVINO.
        precision: what at least 98 % of the multiply-accumulates must be in; for int8 and fp8, 90 % of those that have
            such kernels.
        graphs: names of graphs, or of sets of them.
        batch_range: batch sizes as MIN:OPT:MAX, or one for all three.
        faces: folder or tar of aligned faces to certify on, the last by name; int8 and fp8 take their ranges from
            those before them. None: no certificate.
        max_faces: how many to certify on at most.
        lpips, identity: LPIPS weights and a face embedder for the certificate; these two need PyTorch.
        workspace: most scratch memory of one kernel, in bytes.
        memory_budget: device memory for weights and activations together, in bytes: weights beyond it stay on the host
            and stream.
        weight_streaming: let weights stream; the budget is then chosen when the engine is loaded.
        refit: let new weights of the same family be put into the engine; needs a GPU when building.
        version_compatible: let other TensorRT versions load the engine; TensorRT alone.
        hardware: which other GPUs may load the engine; TensorRT alone.
        tf32: let FP32 layers round to TF32.
        timing_cache: keep what was measured of kernels; TensorRT alone.
        progress: called with one line per step.
        command: what the engine's manifest says it was built by, without paths of this machine.

    Raises:
        BundleError: if it is not a bundle, or a file of it is damaged.
        RuntimeUnavailableError: if what builds is not installed here.
        EngineError: if an option, the faces, a graph or its precision will not do, or another build is under way.
        OutputError: if the folder cannot be written.

    Example:
        >>> manifest = edgedit.build(bundle, runtime="onnxruntime", precision="fp32", graphs=["reconstruct"])
        >>> manifest.folder
        'onnxruntime-cpu-fp32'
    """
    options = BuildOptions(
        profile=parse_profile(batch_range),
        workspace=workspace,
        memory_budget=memory_budget,
        weight_streaming=weight_streaming,
        refit=refit,
        version_compatible=version_compatible,
        hardware=hardware,
        tf32=tf32,
        timing_cache=timing_cache,
    )
    # Before any face is read; for the GPU at hand, which is not named here, the build says it.
    check_targets(precision, (target or "").split(","))
    opened = open_bundle(bundle, verify=False, progress=progress)
    known = None
    if faces is not None:
        known = _certification_inputs(opened, precision, faces, max_faces, lpips, identity, progress, runtime in ON_CPU)
    elif precision in EIGHT_BIT:
        raise EngineError(
            f"--precision {precision} takes the ranges of activations from photos: give a folder or tar of aligned "
            "faces with --faces"
        )
    elif lpips is not None or identity is not None:
        raise EngineError("--lpips and --identity judge faces: give --faces too")
    return build_graphs(
        opened.path,
        runtime=runtime,
        target=target,
        precision=precision,
        graphs=graphs,
        options=options,
        fit=known.fit if known else None,
        peaks=known.peaks if known else None,
        progress=progress,
        command=command,
    )


def certify(
    bundle: str | Path,
    faces: str | Path,
    *,
    graphs: Collection[str] = ("pipelines",),
    precision: Precision = "fp16",
    max_faces: int = 64,
    lpips: str | Path | None = None,
    identity: str | Path | None = None,
    progress: Progress = lambda line: None,
) -> dict[str, dict[str, Any]]:
    """The accuracy certificates that engines of a bundle would get, emulated on the CPU; nothing is built.

    With PyTorch installed the reference is the network itself; without it, the bundle's FP32 graphs in ONNX Runtime,
    which the export verified against the network.

    Args:
        bundle: its directory.
        faces, max_faces, lpips, identity, graphs, precision, progress: as of `build`.

    Returns:
        By graph, its certificate: figures of pictures and tensors, the gates, and the nodes that had to be widened.

    Raises:
        BundleError: if it is not a bundle, or a file of it is damaged.
        EngineError: if the faces will not do, or a graph fails its gates even in the wider precision.

    Example:
        >>> certificate = edgedit.certify(bundle, faces, graphs=["reconstruct"])["reconstruct"]
        >>> certificate["passed"], certificate["images"]["psnr"]["worst"] > 45
        (True, True)
    """
    opened = open_bundle(bundle, verify=False, progress=progress)
    names = graph_names(opened, graphs)
    known = _certification_inputs(opened, precision, faces, max_faces, lpips, identity, progress)
    return {name: known.fit(name)[1] or {} for name in names}


def refit(
    engine: str | Path,
    from_bundle: str | Path,
    *,
    faces: str | Path | None = None,
    public_key: str | Path | None = None,
    progress: Progress = lambda line: None,
    command: str = "edgedit.refit",
) -> EngineManifest:
    """Puts the weights of another bundle of the same family into engines that were built with `refit`, on their GPU.

    Args:
        engine: BUNDLE/engines/NAME, in the bundle that it was built from.
        from_bundle: the bundle with the new weights; its engines/NAME is written.
        faces: for int8 and fp8, faces to measure the ranges of activations on, with the new weights; None keeps those
            that the engine was built with.
        public_key: PEM file of the public key that must have signed the engine's bundle.
        progress: called with one line per step.
        command: what the engine's manifest says it was refitted by, without paths of this machine.

    Raises:
        EngineError, BundleError, RuntimeUnavailableError, SignatureError, OutputError: as
            `engines.building.refit.refit`.

    Example:
        >>> edgedit.refit("old/engines/tensorrt-sm86-fp16", "new")
    """
    peaks = None
    if faces is not None:
        precision = EngineFolder.at(engine).manifest.precision
        if precision not in EIGHT_BIT:
            raise EngineError(f"--faces measures ranges for int8 and fp8, and {Path(engine).name} is {precision}")
        new = Bundle.load(from_bundle, verify=False)
        last = _faces(faces, new, CALIBRATION).last
        progress(f"ranges for {precision} from {len(last)} photos")
        peaks = calibration(new, precision, Faces(last=last, others=last[:0])).peaks
    return refit_engine(engine, from_bundle, public_key=public_key, peaks=peaks, progress=progress, command=command)


def estimate(
    bundle: str | Path = PORTRAIT_BUNDLE,
    gpu: str = "rtx3090",
    *,
    graphs: Collection[str] = ("pipelines",),
    precision: Precision = "fp16",
    batch: int = 1,
    progress: Progress = lambda line: None,
) -> list[Floor]:
    """The shortest times that a GPU could take for a bundle's graphs, and which fit, without building anything.

    Args:
        bundle: its directory.
        gpu: the model, a name of `engines.building.devices`.
        graphs: as of `build`.
        precision: what the graphs would be built in; int8 and fp8 as if every product were.
        batch: images at once.
        progress: is told if the bundle is to be completed first.

    Raises:
        BundleError: if it is not a bundle, or a graph is missing or damaged.
        EngineError: for an unknown GPU or graph, a precision that the GPU lacks, or a batch below 1.
        RuntimeUnavailableError: if the packages that read graphs are not installed.

    Example:
        >>> [floor.graph for floor in edgedit.estimate(bundle, "rtx4060")]
        ['invert', 'edit', 'reconstruct']
    """
    model = device(gpu)
    opened = open_bundle(bundle, verify=False, progress=progress)
    return floors(opened, graph_names(opened, graphs), model, precision=precision, batch=batch)


def _certification_inputs(
    bundle: Bundle,
    precision: Precision,
    faces: str | Path,
    max_faces: int,
    lpips: str | Path | None,
    identity: str | Path | None,
    progress: Progress,
    single: bool = False,
) -> CertificationInputs:
    """The certificates and ranges of a bundle's graphs, against PyTorch where it is installed."""
    read = _faces(faces, bundle, max_faces)
    options: dict[str, Any] = {"single": single}
    if importlib.util.find_spec("torch") is not None:
        import torch

        from export.reference import pytorch_reference
        from training.losses.judges import picture_judges

        options |= {"reference": pytorch_reference(bundle), "source": f"PyTorch {torch.__version__}, FP32"}
        options["judges"] = picture_judges(
            None if lpips is None else Path(lpips), None if identity is None else Path(identity)
        )
    elif lpips is not None or identity is not None:
        raise EngineError("--lpips and --identity need torch: pip install 'edgedit[train]'")
    return certification_inputs(bundle, precision, read, progress=progress, **options)


def _faces(source: str | Path, bundle: Bundle, max_faces: int) -> Faces:
    source = Path(source)
    if not source.exists():
        raise EngineError(f"--faces: there is no {source}")
    if max_faces < 1:
        raise EngineError(f"--max-faces must be 1 or more, got {max_faces}")
    if source.is_dir():
        return read_faces(source, bundle, max_faces)
    try:
        from training.data import load_faces
    except ModuleNotFoundError as error:
        raise EngineError(f"faces in a tar need {error.name}; unpack it and give the folder") from error
    others, last = load_faces(source, bundle.family.size, held_out=max_faces, most=max_faces + CALIBRATION)
    return Faces(last=last.images, others=others.images[-CALIBRATION:])
