"""Triton backend `onnxruntime` in Python, for servers without NVIDIA's C++ backend of that name.

A model's configuration serves both: <version>/<default_model_filename or model.onnx> is run on the CPU, external data
beside it included, and the parameters `intra_op_thread_count` and `inter_op_thread_count` are honoured. The requests
of one call are run as one batch if their shapes allow it. Needs NumPy 1.26 (Triton's Python stub knows no other) and
ONNX Runtime, and no edgedit.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime as ort
import triton_python_backend_utils as pb


class TritonPythonModel:
    """One model; Triton calls the methods."""

    def initialize(self, args: dict[str, str]) -> None:
        """Loads the graph.

        Raises:
            TritonModelException: if it cannot be loaded or its tensors are not those of the configuration. What ONNX
                Runtime says goes to the log, since it names paths.
        """
        config = json.loads(args["model_config"])
        self._name = config["name"]
        self._batched = config["max_batch_size"] > 0
        options = ort.SessionOptions()
        options.intra_op_num_threads = _threads(config, "intra_op_thread_count")
        options.inter_op_num_threads = _threads(config, "inter_op_thread_count")
        options.log_severity_level = 3
        # Several models share the cores: a thread without work must not hold one.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        file = config.get("default_model_filename") or "model.onnx"
        path = Path(args["model_repository"]) / args["model_version"] / file
        try:
            self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's exceptions have no common base of their own
            pb.Logger.log_error(f"{self._name}: {error!r}")
            raise pb.TritonModelException(f"{self._name}: ONNX Runtime cannot load {file}") from None
        self._inputs = [node.name for node in self._session.get_inputs()]
        self._outputs = [node.name for node in self._session.get_outputs()]
        for key, names in (("input", self._inputs), ("output", self._outputs)):
            if sorted(names) != sorted(tensor["name"] for tensor in config[key]):
                raise pb.TritonModelException(
                    f"{self._name}: {file} has the {key}s {', '.join(names)}, which are not those of the configuration"
                )

    def execute(self, requests: list) -> list:
        """Answers every request; one that fails takes no other with it, except those of its batch."""
        feeds = [{name: _array(request, name) for name in self._inputs} for request in requests]
        groups: dict[object, list[int]] = {}
        for index, feed in enumerate(feeds):
            alike = tuple(array.shape[1:] for array in feed.values()) if self._batched else index
            groups.setdefault(alike, []).append(index)
        responses: list = [None] * len(requests)
        for group in groups.values():
            try:
                outputs = self._run([feeds[index] for index in group])
                answers = [
                    pb.InferenceResponse(
                        [pb.Tensor(name, array) for name, array in zip(self._outputs, arrays, strict=True)]
                    )
                    for arrays in outputs
                ]
            except Exception as error:  # an exception that left `execute` would fail all requests, and name paths
                pb.Logger.log_error(f"{self._name}: {error!r}")
                failure = pb.TritonError(f"{self._name} failed in ONNX Runtime", pb.TritonError.INTERNAL)
                answers = [pb.InferenceResponse(error=failure) for _ in group]
            for index, answer in zip(group, answers, strict=True):
                responses[index] = answer
        return responses

    def _run(self, feeds: list[dict[str, np.ndarray]]) -> list[list[np.ndarray]]:
        """Outputs of each of several feeds of one shape, run as one batch."""
        if len(feeds) == 1:
            return [[np.ascontiguousarray(array) for array in self._session.run(self._outputs, feeds[0])]]
        batch = {name: np.concatenate([feed[name] for feed in feeds]) for name in self._inputs}
        results = [np.asarray(array) for array in self._session.run(self._outputs, batch)]
        ends = np.cumsum([len(feed[self._inputs[0]]) for feed in feeds])[:-1]
        # Views of whole rows are contiguous.
        return [list(rows) for rows in zip(*(np.split(array, ends) for array in results), strict=True)]


def _array(request: object, name: str) -> np.ndarray:
    return pb.get_input_tensor_by_name(request, name).as_numpy()


def _threads(config: dict, parameter: str) -> int:
    """A parameter of the C++ backend; 1 where it is left out, for the cores are shared by many models."""
    return int(config["parameters"].get(parameter, {}).get("string_value", "1"))
