"""ONNX Runtime: CPU, CUDA, TensorRT and NvTensorRTRTX execution providers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any, Self

import numpy as np
import onnxruntime as ort

from engines.bundle import Bundle
from engines.contracts import TensorSpec, check_feeds, mismatch
from engines.errors import BundleError, RuntimeUnavailableError

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "nvtensorrtrtx": "NvTensorRTRTXExecutionProvider",
}

_DTYPES = {"float": "float32", "double": "float64"}

_COMPUTE = ("Conv", "MatMul", "Gemm", "Attention", "Softmax", "Normalization", "Resize")
"""Parts of the names of operators that must not land on the CPU when another provider was asked for. Shape arithmetic
may: ONNX Runtime keeps it on the host on purpose."""


class OnnxRuntime:
    """One graph in an ONNX Runtime session. `run` may be called from several threads at once."""

    def __init__(
        self,
        session: ort.InferenceSession,
        bundle: Bundle,
        graph: str,
        provider: str,
        assignment: dict[str, Counter[str]],
    ) -> None:
        entry = bundle.graph(graph)
        self.graph = graph
        self.provider = provider
        self.assignment = assignment
        """How many operators of each type each execution provider took."""
        self.inputs = tuple(entry.inputs)
        self.outputs = tuple(entry.outputs)
        self._session = session
        self._names = [spec.name for spec in self.outputs]

    @classmethod
    def load(
        cls, bundle: Bundle, graph: str, *, provider: str = "cpu", threads: int = 0, **provider_options: Any
    ) -> Self:
        """Loads a graph; graph and weights are handed over from memory, from the very bytes that were hashed.

        Args:
            bundle: where the graph is.
            graph: its name.
            provider: a key of `PROVIDERS`.
            threads: intra-operator threads; 0 leaves it to ONNX Runtime (one per core).
            provider_options: passed on to the execution provider, such as `device_id=1`.

        Raises:
            BundleError: if the graph is not in the bundle, cannot be loaded or is not what the manifest says.
            RuntimeUnavailableError: if the provider is not in this ONNX Runtime, cannot start, or would leave
                compute operators to the CPU.
            ValueError: if `threads` is negative.
        """
        if threads < 0:
            raise ValueError(f"threads must be 0 or more, got {threads}")
        if not hasattr(ort.InferenceSession, "get_provider_graph_assignment_info"):
            raise RuntimeUnavailableError(
                f"ONNX Runtime {ort.__version__} is too old; install 1.24.1 or later (onnxruntime>=1.24.1)"
            )
        asked = _provider(provider)
        entry = bundle.graph(graph)
        model = bundle.read(entry.file)
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        # ONNX Runtime copies what it needs while the session is made. Once a table is given it opens no file of its
        # own, so an empty one goes along with a graph that has no external data.
        weights = _external_files(bundle, entry.file, model) or {"-": b""}
        options.add_external_initializers_from_files_in_memory(
            list(weights), list(weights.values()), [len(data) for data in weights.values()]
        )
        try:
            session = ort.InferenceSession(model, options, providers=[(asked, provider_options)], enable_fallback=0)
        except Exception as error:  # ONNX Runtime's exceptions have no common base of their own
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            if provider != "cpu":
                raise RuntimeUnavailableError(f"provider {provider} cannot run graph {graph}: {reason}") from error
            raise BundleError(
                f"{bundle.name}: {entry.file} cannot be loaded by ONNX Runtime {ort.__version__}: {reason}"
            ) from error
        assignment = _assignment(session)
        _check_provider(session, provider, asked, assignment, graph)
        for what, listed, actual in (
            ("input", entry.inputs, session.get_inputs()),
            ("output", entry.outputs, session.get_outputs()),
        ):
            if fault := mismatch(listed, [_spec(node) for node in actual]):
                raise BundleError(f"{bundle.name}: {entry.file} is not what the manifest says: {what} {fault}")
        return cls(session, bundle, graph, provider, assignment)

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Runs the graph; see `Runtime.run`."""
        check_feeds(self.graph, self.inputs, feeds)
        values = self._session.run(self._names, {name: np.ascontiguousarray(array) for name, array in feeds.items()})
        return {name: np.asarray(value) for name, value in zip(self._names, values, strict=True)}

    def warm_up(self, batch: int = 1) -> None:
        """Runs once on zeros, so that the first real call pays for no allocation or kernel choice."""
        self.run(
            {
                spec.name: np.zeros([batch if isinstance(d, str) else d for d in spec.shape], spec.dtype)
                for spec in self.inputs
            }
        )


def _provider(name: str) -> str:
    if name not in PROVIDERS:
        raise RuntimeUnavailableError(f"unknown provider {name!r}; there are {', '.join(PROVIDERS)}")
    installed = ort.get_available_providers()
    if PROVIDERS[name] not in installed:
        raise RuntimeUnavailableError(
            f"provider {name} needs {PROVIDERS[name]}, and onnxruntime.get_available_providers() here gives "
            f"{', '.join(installed)}; install an ONNX Runtime package that has it"
        )
    return PROVIDERS[name]


def _external_files(bundle: Bundle, file: str, model: bytes) -> dict[str, bytes]:
    """Files beside a graph that it names. A name is stored in it as plain text, so no parser is needed to find it."""
    folder = PurePosixPath(file).parent
    found = {}
    for listed in bundle.manifest.files:
        path = PurePosixPath(listed)
        if path.parent == folder and path.suffix == ".safetensors" and path.name.encode() in model:
            found[path.name] = bundle.read(listed)
    return found


def _assignment(session: ort.InferenceSession) -> dict[str, Counter[str]]:
    found: dict[str, Counter[str]] = {}
    for part in session.get_provider_graph_assignment_info():
        found.setdefault(part.ep_name, Counter()).update(node.op_type for node in part.get_nodes())
    return found


def _check_provider(
    session: ort.InferenceSession, provider: str, asked: str, assignment: dict[str, Counter[str]], graph: str
) -> None:
    if asked not in session.get_providers():
        raise RuntimeUnavailableError(
            f"provider {provider} is in this ONNX Runtime but does not start (driver or CUDA libraries missing?)"
        )
    strays = {
        operator
        for name, operators in assignment.items()
        if name != asked
        for operator in operators
        if any(part in operator for part in _COMPUTE)
    }
    if strays:
        raise RuntimeUnavailableError(
            f"provider {provider} does not take {', '.join(sorted(strays))} of graph {graph}; use another provider"
        )


def _spec(node: Any) -> TensorSpec:
    dtype = str(node.type).removeprefix("tensor(").removesuffix(")")
    shape = [d if isinstance(d, int) else "dynamic" for d in node.shape]
    return TensorSpec(name=node.name, dtype=_DTYPES.get(dtype, dtype), shape=shape)
