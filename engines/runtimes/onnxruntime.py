"""ONNX Runtime: CPU, CUDA, TensorRT and NvTensorRTRTX execution providers, with IO binding.

Inputs and outputs lie in values of their own, made once per shape and reused. Tensors that stay on the device are
bound as they are: neither copied nor allocated again.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np
import onnxruntime as ort

from engines.bundle import Bundle
from engines.bundle.preflight import HostInfo
from engines.contracts import TensorSpec
from engines.cpus import threads as allowed
from engines.errors import EngineError, RuntimeUnavailableError, first_line
from engines.runtimes.ort import session as new_session
from engines.runtimes.ort_values import OrtTensor, Values, dtype_name, tensor, to_host
from engines.runtimes.protocol import Feed, check_run, extents, known_options, refuse_unknown, zeros
from engines.runtimes.source import open_source

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "nvtensorrtrtx": "NvTensorRTRTXExecutionProvider",
}

_COMPUTE = ("Conv", "MatMul", "Gemm", "Attention", "Softmax", "Normalization", "Resize")
"""Parts of the names of operators that must not land on the CPU when another provider was asked for. Shape arithmetic
may: ONNX Runtime keeps it on the host on purpose."""

_SHAPES = 8
"""The number of sets of input shapes that keep their values; of more, those that were not used for longest go."""


class OnnxRuntime:
    """One graph in an ONNX Runtime session. `run` may be called from several threads at once."""

    def __init__(
        self,
        session: ort.InferenceSession,
        graph: str,
        inputs: Iterable[TensorSpec],
        outputs: Iterable[TensorSpec],
        provider: str,
        device_id: int,
        assignment: dict[str, Counter[str]],
    ) -> None:
        self.graph = graph
        self.provider = provider
        self.device = "cpu" if provider == "cpu" else "cuda"
        """The device that tensors lie on."""
        self.assignment = assignment
        """The number of operators of each type that each execution provider took."""
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)
        self.device_id = device_id
        self._session = session
        self._lock = threading.Lock()
        self._idle: OrderedDict[tuple[tuple[int, ...], ...], list[Values]] = OrderedDict()

    @classmethod
    def load(
        cls,
        bundle: Bundle,
        graph: str,
        *,
        provider: str = "cpu",
        threads: int = 0,
        precision: str | None = None,
        target: str | None = None,
        public_key: str | Path | None = None,
        **provider_options: Any,
    ) -> Self:
        """Loads a graph; graph and weights are handed over from memory, from the very bytes that were hashed.

        Args:
            provider: a key of `PROVIDERS`.
            threads: intra-operator threads, see `engines.cpus.threads`: never more than this process may use; 0 is
                one per core.
            precision: of a typed graph in the bundle's `engines/`, such as "fp16"; None runs the bundle's own graph.
            target: of that typed graph, "cpu" or "cuda"; None takes either.
            public_key: PEM file of the public key that must have signed the bundle.
            provider_options: passed on to the execution provider, such as `device_id=1`.

        Raises:
            BundleError: if the graph is not in the bundle, cannot be loaded or is not what the manifest says.
            EngineError: likewise of a typed graph, or if there is none, or it was made from other weights.
            RuntimeUnavailableError: if the provider is not in this ONNX Runtime, cannot start, or would leave
                compute operators to the CPU.
            SignatureError: if a signature is required and does not hold.
            EdgeditError: for an option that is none of these, on the CPU, whose provider has none.
            ValueError: if `threads` is negative.
        """
        if provider == "cpu":
            refuse_unknown("onnxruntime", provider_options, known_options(cls.load))
        if not hasattr(ort.InferenceSession, "get_provider_graph_assignment_info"):
            raise RuntimeUnavailableError(
                f"ONNX Runtime {ort.__version__} is too old; install 1.24.1 or later (onnxruntime>=1.24.1)"
            )
        count = allowed(threads)
        requested = _provider(provider)
        host = HostInfo("ONNX Runtime", ort.__version__)
        source = open_source(
            bundle, graph, "onnxruntime", host, precision=precision, target=target, public_key=public_key
        )
        model = source.read(source.file)
        options = ort.SessionOptions()
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        # ONNX Runtime copies what it needs while the session is made. Once a table is given it opens no file of its
        # own, so an empty one goes along with a graph that has no external data.
        weights = source.weights(model) or {"-": b""}
        options.add_external_initializers_from_files_in_memory(
            list(weights), list(weights.values()), [len(data) for data in weights.values()]
        )
        try:
            session = new_session(model, threads=count, options=options, providers=[(requested, provider_options)])
        except Exception as error:  # ONNX Runtime's exceptions have no common base of their own
            reason = first_line(error)
            if provider != "cpu":
                raise RuntimeUnavailableError(f"provider {provider} cannot run graph {graph}: {reason}") from error
            raise source.error(f"{source.name} cannot be loaded by ONNX Runtime {ort.__version__}: {reason}") from error
        assignment = _assignment(session)
        _check_provider(session, provider, requested, assignment, graph)
        source.check([*map(_spec, session.get_inputs())], [*map(_spec, session.get_outputs())])
        device_id = int(provider_options.get("device_id", 0))
        return cls(session, graph, source.inputs, source.outputs, provider, device_id, assignment)

    def run(self, feeds: Mapping[str, Feed], keep: Collection[str] = ()) -> dict[str, Any]:
        """Runs the graph; see `Runtime.run`."""
        dynamic = check_run(self.graph, self.inputs, self.outputs, feeds, keep, OrtTensor)
        with self._borrow(tuple(feeds[spec.name].shape for spec in self.inputs)) as values:
            try:
                for spec in self.inputs:
                    values.bind_input(spec, feeds[spec.name])
                for spec in self.outputs:
                    values.bind_output(spec, None if spec.name in keep else extents(spec, dynamic))
                values.io.synchronize_inputs()
                self._session.run_with_iobinding(values.io)
                values.io.synchronize_outputs()
                given = zip(self.outputs, values.io.get_outputs(), strict=True)
                return {
                    s.name: tensor(value, self._session) if s.name in keep else to_host(value) for s, value in given
                }
            except Exception as error:  # as in `load`
                raise EngineError(
                    f"graph {self.graph} failed in ONNX Runtime ({PROVIDERS[self.provider]}): {first_line(error)}"
                ) from error
            finally:
                values.release()

    def put(self, array: np.ndarray) -> OrtTensor:
        """A copy of an array on the provider's device; see `Runtime.put`."""
        # On the CPU a value is made around the array it is given.
        copy = np.array(array, order="C")
        return tensor(ort.OrtValue.ortvalue_from_numpy(copy, self.device, self.device_id), self._session)

    def warm_up(self, batch: int = 1) -> None:
        """Runs once on zeros, so that the first real call pays for no allocation or kernel choice."""
        self.run(zeros(self.inputs, batch))

    @contextmanager
    def _borrow(self, shapes: tuple[tuple[int, ...], ...]) -> Iterator[Values]:
        with self._lock:
            idle = self._idle.setdefault(shapes, [])
            self._idle.move_to_end(shapes)
            if len(self._idle) > _SHAPES:
                self._idle.popitem(last=False)
            values = idle.pop() if idle else None
        if values is None:
            values = Values(self._session, self.device, self.device_id)
        yield values
        with self._lock:
            idle.append(values)


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


def _assignment(session: ort.InferenceSession) -> dict[str, Counter[str]]:
    counts: dict[str, Counter[str]] = {}
    for part in session.get_provider_graph_assignment_info():
        counts.setdefault(part.ep_name, Counter()).update(node.op_type for node in part.get_nodes())
    return counts


def _check_provider(
    session: ort.InferenceSession, provider: str, requested: str, assignment: dict[str, Counter[str]], graph: str
) -> None:
    if requested not in session.get_providers():
        raise RuntimeUnavailableError(
            f"provider {provider} is in this ONNX Runtime but does not start (driver or CUDA libraries missing?)"
        )
    strays = {
        operator
        for name, operators in assignment.items()
        if name != requested
        for operator in operators
        if any(part in operator for part in _COMPUTE)
    }
    if strays:
        raise RuntimeUnavailableError(
            f"provider {provider} does not take {', '.join(sorted(strays))} of graph {graph}; use another provider"
        )


def _spec(node: Any) -> TensorSpec:
    shape = [d if isinstance(d, int) else "dynamic" for d in node.shape]
    return TensorSpec(name=node.name, dtype=dtype_name(str(node.type)), shape=shape)
