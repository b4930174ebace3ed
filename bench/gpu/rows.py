"""The rows of the latency table. A new row, such as another method, is one entry in `ROWS`: a name, a precision and
what gives a function that makes one pass on inputs that lie on the device. FP16 and BF16 run channels-last."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bench.gpu.models import Model
from export.aot import Arithmetic, compiled, opened, precise

Pass = Callable[[], Any]


@dataclass(frozen=True)
class Setup:
    """A graph, its precision and its inputs, on which a row is measured."""

    model: Model
    graph: str
    precision: Arithmetic
    inputs: tuple[Tensor, ...]

    @property
    def on_gpu(self) -> bool:
        return self.model.device != "cpu"

    def passing(self, call: Callable[..., Any]) -> Pass:
        """One pass of a callable on the inputs, without gradients, in the row's arithmetic."""

        def run() -> Any:
            with torch.inference_mode(), precise(self.precision):
                return call(*self.inputs)

        return run


@dataclass(frozen=True)
class Row:
    """One row; `prepare` may take long (compilers) and raises what it cannot do."""

    runtime: str
    precision: Arithmetic
    prepare: Callable[[Setup], Pass]
    first: bool = False
    """True for the rows that the aims are about: they are measured before the others, of all models."""
    takes: float = 0.0
    """Seconds that preparing it takes about: it is not begun with less than that."""

    @property
    def name(self) -> str:
        """The row's name in the form of `bench.latency`'s candidates: "eager:fp16"."""
        return f"{self.runtime}:{self.precision}"

    def lacks(self, device: str) -> str | None:
        """The reason why it cannot be measured there; None if it can."""
        if self.precision == "tf32" and device == "cpu":
            return "TF32 is an arithmetic of NVIDIA GPUs"
        if self.precision == "bf16" and device != "cpu" and not torch.cuda.is_bf16_supported():
            return "this GPU has no BF16"
        return None


def _eager(setup: Setup) -> Pass:
    return setup.passing(setup.model.module(setup.graph, setup.precision))


def _compiled(setup: Setup) -> Pass:
    torch.compiler.reset()
    run = setup.passing(torch.compile(setup.model.module(setup.graph, setup.precision), dynamic=False))
    run()  # compiles
    return run


def _aotinductor(setup: Setup) -> Pass:
    most = max(2, setup.inputs[0].shape[0])
    examples = setup.model.inputs(setup.graph, most)
    module = setup.model.module(setup.graph, setup.precision)
    # The package was made a moment ago in this process: there is nothing to check it against.
    return setup.passing(opened(compiled(module, examples, setup.precision, (1, most)), setup.model.device))


_COMPILING = 45.0

ROWS: tuple[Row, ...] = (
    # Most papers time this one: FP32 with TF32 off.
    Row("eager", "fp32", _eager, first=True),
    Row("eager", "fp16", _eager, first=True),
    Row("torch.compile", "fp16", _compiled, first=True, takes=_COMPILING),
    Row("eager", "tf32", _eager),
    Row("eager", "bf16", _eager),
    Row("torch.compile", "fp32", _compiled, takes=_COMPILING),
    Row("torch.compile", "bf16", _compiled, takes=_COMPILING),
    Row("AOTInductor", "fp16", _aotinductor, takes=_COMPILING),
)
BASE = "eager:fp32"
"""The row that ratios are given to."""
GRAPH = "+graph"
"""The end of a runtime's name where its kernels are captured as a CUDA graph, and launched at once."""


def capture(run: Pass, device: str) -> Pass:
    """A pass as a CUDA graph: what it launches, launched at once.

    Raises:
        RuntimeError: if something in it cannot be captured.
    """
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        for _ in range(3):
            run()
    torch.cuda.current_stream(device).wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = run()

    def replay() -> Any:
        graph.replay()
        return outputs

    return replay
