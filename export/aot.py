"""A bundle's graphs as AOTInductor packages (`.pt2`): for machines that have PyTorch and that TensorRT does not target.

A package is native code. Beside it lies `<name>.pt2.json` with its digest and what it was made from and for, and
nothing of a package is opened before its digest matches. That finds damage, not malice: like a bundle, a package comes
from someone who is trusted.
"""

from __future__ import annotations

import io
import platform
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from engines.bundle import WEIGHTS_FILE, Bundle
from engines.bundle.engine_manifest import FloatPrecision, OptimizationProfile
from engines.bundle.integrity import read_entry, read_regular, refusing
from engines.bundle.manifest import FileEntry, Strict, first_error
from engines.contracts import Name
from engines.errors import EngineError, first_line
from engines.store import Digest, write
from export.bound import batch_shapes, example_inputs
from export.errors import ExportError
from export.graphs import bundle_graphs, method_graphs
from training.methods.protocol import Method

Arithmetic = Literal[FloatPrecision, "tf32", "bf16"]
"""The arithmetic of PyTorch. TF32 is FP32 with products rounded to 10 bits, on NVIDIA GPUs. FP16 and BF16 are autocast:
norms and sums stay in FP32."""

_AUTOCAST: dict[Arithmetic, torch.dtype] = {"fp16": torch.float16, "bf16": torch.bfloat16}

_MAX_MANIFEST_BYTES = 2**20


class PackageManifest(Strict):
    """The content of `<name>.pt2.json`."""

    schema_version: Literal[1] = 1
    file: FileEntry
    """The package's size and digest."""
    bundle: Name
    weights_sha256: str
    graph: Name
    precision: Arithmetic
    batch: OptimizationProfile
    device: Literal["cpu", "cuda"]
    machine: str
    """Instruction set or compute capability, such as "x86_64 AVX2" or "8.6"."""
    torch: str


def channels_last(module: nn.Module) -> nn.Module:
    """The module itself, with the weights of its 2D convolutions laid out channels-last."""
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.ndim == 4:
            tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)
        elif tensor.ndim == 5 and len(tensor) == 1:  # a modulated convolution: 1 x O x I x k x k
            tensor.data = tensor.data[0].contiguous(memory_format=torch.channels_last)[None]
    return module


class _Half(nn.Module):
    """A graph under autocast, its weights channels-last; floating outputs are FP32 again, as the contract says."""

    def __init__(self, module: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.module = channels_last(module)
        self.dtype = dtype

    def forward(self, *inputs: Tensor) -> Any:
        with torch.autocast(inputs[0].device.type, self.dtype):
            given = self.module(*inputs)
        if isinstance(given, Tensor):
            return _widened(given)
        return tuple(_widened(value) for value in given)


def _widened(value: Tensor) -> Tensor:
    return value.float() if value.is_floating_point() else value


def graph_module(bundle: Bundle, graph: str, precision: Arithmetic = "fp32") -> nn.Module:
    """A graph's module with the bundle's weights, frozen, on the CPU.

    Raises:
        BundleError: if the bundle is damaged.
        ValueError: if its weights do not fit its family.
    """
    return _in_precision(bundle_graphs(bundle)[graph].module, precision)


def network(method: Method, graph: str, precision: Arithmetic = "fp32") -> nn.Module:
    """A graph's module around a method, which is frozen."""
    return _in_precision(method_graphs(method.eval().requires_grad_(False))[graph].module, precision)


def _in_precision(module: nn.Module, precision: Arithmetic) -> nn.Module:
    dtype = _AUTOCAST.get(precision)
    return module if dtype is None else _Half(module, dtype)


@contextmanager
def precise(precision: Arithmetic) -> Iterator[None]:
    """FP32 products on NVIDIA GPUs as they are, or rounded to TF32; a switch of the whole process."""
    # The older switches: torch.export reads them, and refuses to once a newer one was set.
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    try:
        matmul.allow_tf32 = cudnn.allow_tf32 = precision == "tf32"
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


def write_package(
    bundle: Bundle,
    graph: str,
    path: str | Path,
    *,
    precision: Arithmetic = "fp32",
    device: str = "cpu",
    batch: tuple[int, int] = (1, 8),
) -> PackageManifest:
    """Compiles a graph for this machine. Needs a C++ compiler, and for a GPU the CUDA toolkit.

    Args:
        bundle: where the weights are.
        graph: a graph of the bundle.
        path: the package, ending in `.pt2`; `<path>.json` is written beside it.
        precision: of the arithmetic.
        device: "cpu" or "cuda".
        batch: smallest and largest batch it takes; more than one size.

    Raises:
        BundleError: if the bundle is damaged.
        ExportError: if it cannot be compiled here.
        OutputError: if it cannot be written.
        ValueError: for a path or a batch that will not do, or weights that do not fit the family.
    """
    path = Path(path)
    least, most = batch
    if path.suffix != ".pt2":
        raise ValueError(f"an AOTInductor package must end in .pt2, got {path}")
    if not 1 <= least < most:
        raise ValueError(f"batch must be two sizes in rising order, at least 1, got {least} and {most}")
    inputs = tuple(tensor.to(device) for tensor in example_inputs(bundle.graph(graph).inputs, batch=most))
    try:
        data = compiled(graph_module(bundle, graph, precision).to(device), inputs, precision, batch)
    except ExportError as error:
        raise ExportError(f"graph {graph}: {error}") from error.__cause__
    manifest = PackageManifest(
        file=FileEntry.of(Digest.of(data)),
        bundle=bundle.name,
        weights_sha256=bundle.manifest.files[WEIGHTS_FILE].sha256,
        graph=graph,
        precision=precision,
        batch=OptimizationProfile(min=least, opt=least, max=most),
        device="cuda" if device.startswith("cuda") else "cpu",
        machine=machine(device),
        torch=torch.__version__,
    )
    write(path, data)
    write(_manifest_path(path), (manifest.model_dump_json(indent=1) + "\n").encode())
    return manifest


def compiled(module: nn.Module, inputs: tuple[Tensor, ...], precision: Arithmetic, batch: tuple[int, int]) -> bytes:
    """A package of a graph's module, for the device of its example inputs and batches between two sizes.

    Raises:
        ExportError: if it cannot be compiled here.
    """
    dimension = torch.export.Dim("batch", min=batch[0], max=batch[1])
    shapes = batch_shapes(module, len(inputs), dimension)
    with tempfile.TemporaryDirectory(prefix="edgedit-aot-") as folder, torch.no_grad(), precise(precision):
        made = Path(folder) / "graph.pt2"
        try:
            exported = torch.export.export(module, inputs, dynamic_shapes=shapes)
            torch._inductor.aoti_compile_and_package(exported, package_path=str(made))
        except Exception as error:  # the compilers' errors have no common base
            raise ExportError(f"it could not be compiled by AOTInductor: {first_line(error)}") from error
        return made.read_bytes()


def opened(data: bytes, device: str) -> Callable[..., Any]:
    """The callable in a package's bytes, which hold native code, so that they must be trusted."""
    kind, _, number = device.partition(":")
    index = int(number or 0) if kind == "cuda" else -1
    return torch._inductor.aoti_load_package(io.BytesIO(data), device_index=index)  # type: ignore[arg-type]


def load_package(
    path: str | Path, bundle: Bundle, graph: str, precision: Arithmetic, device: str = "cpu"
) -> Callable[..., Any]:
    """The graph in a package, from bytes whose digest was checked; takes and gives tensors of that device.

    Raises:
        EngineError: if it is missing or damaged, or was made from another bundle or graph, for another machine or
            precision, or by another PyTorch.
    """
    path = Path(path)
    again = "write the package again"
    try:
        with refusing(str(path.parent), EngineError):
            raw = read_regular(path.parent, _manifest_path(path).name, _MAX_MANIFEST_BYTES, again)
            manifest = PackageManifest.model_validate_json(raw)
            data = read_entry(path.parent, path.name, manifest.file, again)
    except ValidationError as error:
        raise EngineError(f"{_manifest_path(path)} is not valid: {first_error(error)}; {again}") from None
    weights = bundle.manifest.files[WEIGHTS_FILE].sha256
    for what, built, current in (
        ("graph", manifest.graph, graph),
        ("precision", manifest.precision, precision),
        ("weights", manifest.weights_sha256, weights),
        ("device", manifest.device, device.partition(":")[0]),
        ("PyTorch", manifest.torch, str(torch.__version__)),
        ("machine", manifest.machine, machine(device)),
    ):
        if built != current:
            raise EngineError(f"{path.name} was built for {what} {built}, found {current}: {again}")
    model = opened(data, device)

    def call(*inputs: Tensor) -> Any:
        size = inputs[0].shape[0]
        if not manifest.batch.min <= size <= manifest.batch.max:
            raise ValueError(f"graph {graph}: batch {size} outside {manifest.batch.min}..{manifest.batch.max}")
        return model(*inputs)

    return call


def machine(device: str) -> str:
    """The machine that native code is bound to: "x86_64 AVX2", or a GPU's compute capability such as "8.6"."""
    if device.startswith("cuda"):
        return ".".join(map(str, torch.cuda.get_device_capability(device)))
    return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"


def _manifest_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")
