"""Triton's configurations of the models, as its own protobuf messages. Needs tritonclient, hence imported on demand."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2
from tritonclient.utils import np_to_triton_dtype

from engines.bundle import Bundle, GraphEntry
from engines.contracts import TensorSpec
from engines.directions import Direction
from serving import contract

_PB: Any = model_config_pb2
"""Triton's messages, whose classes are made at import: a type checker does not see them."""

VERSION_COUNT = 2
"""A new version and the one before it: `edit_session` calls models of its own version while it is replaced."""


def text(config: Any) -> str:
    """A message as the content of a .pbtxt file."""
    return text_format.MessageToString(config)


def parse(content: str) -> Any:
    """The inverse of `text`; a ParseError for anything but a model configuration."""
    return text_format.Parse(content, _PB.ModelConfig())


def graph_config(bundle: Bundle, name: str) -> Any:
    """The part that both configurations of a graph's model share: tensors, batch, versions.

    Nothing that differs between bundles of one family: Triton loads all versions again when a configuration changes.
    """
    entry = bundle.graph(name)
    config = _PB.ModelConfig(name=name, max_batch_size=contract.MAX_BATCH)
    _add_tensors(config, entry.inputs, entry.outputs)
    config.version_policy.latest.num_versions = VERSION_COUNT
    # No delay: requests that wait anyway form a batch. No queue policy: with one instance it stalls for half a second.
    config.dynamic_batching.SetInParent()
    return config


def onnxruntime_config(bundle: Bundle, name: str, threads: int) -> Any:
    """configs/cpu.pbtxt: ONNX Runtime on the CPU; `threads` for one network, 0 for as many as there are cores."""
    config = graph_config(bundle, name)
    config.backend, config.default_model_filename = "onnxruntime", "model.onnx"
    config.instance_group.add(count=1, kind=_PB.ModelInstanceGroup.KIND_CPU)
    _add_parameters(config, {"intra_op_thread_count": str(threads), "inter_op_thread_count": "1"})
    _add_warm_up(config, bundle.graph(name), 1)
    return config


def tensorrt_config(bundle: Bundle, name: str, engines: Mapping[str, str], busy_wait: bool) -> Any:
    """config.pbtxt: TensorRT on every GPU, with a CUDA graph, warmed up, for every batch size.

    Args:
        engines: file by compute capability, for those that are there; others load model.plan.
        busy_wait: wait for the GPU in a loop, which takes a core per instance and is fastest.
    """
    config = graph_config(bundle, name)
    config.backend, config.default_model_filename = "tensorrt", "model.plan"
    for capability, file in engines.items():
        config.cc_model_filenames[capability] = file
    # The one optimisation profile that engines here have: batches of 1 to the largest.
    config.instance_group.add(count=1, kind=_PB.ModelInstanceGroup.KIND_GPU, profile=["0"])
    optimization = config.optimization
    optimization.cuda.graphs = True
    optimization.cuda.busy_wait_events = busy_wait
    optimization.cuda.output_copy_stream = True
    optimization.input_pinned_memory.enable = True
    optimization.output_pinned_memory.enable = True
    for batch in range(1, contract.MAX_BATCH + 1):
        # One graph per batch size: a larger one in place of a smaller computes on memory that nobody wrote.
        spec = optimization.cuda.graph_spec.add(batch_size=batch)
        for tensor in bundle.graph(name).inputs:
            spec.input[tensor.name].dim.extend(tensor.shape[1:])
        _add_warm_up(config, bundle.graph(name), batch)
    return config


def edit_image_config(bundle: Bundle) -> Any:
    """The ensemble `invert` then `edit`: one call, and the inversion never leaves the server."""
    photo, edit = bundle.graph("invert").inputs[0], bundle.graph("edit")
    deltas = [spec for spec in edit.inputs if spec.name in ("delta_w", "style_delta")]
    config = _PB.ModelConfig(name=contract.EDIT_IMAGE, platform="ensemble", max_batch_size=contract.MAX_BATCH)
    _add_tensors(config, [photo, *deltas], [edit.outputs[0].model_copy(update={"name": contract.EDITED_IMAGE})])
    read = {spec.name for spec in edit.inputs}
    inversion = [spec.name for spec in bundle.graph("invert").outputs if spec.name in read]
    steps = config.ensemble_scheduling.step
    # Tensors of one name are one tensor in all of an ensemble.
    steps.add(
        model_name="invert",
        model_version=-1,
        input_map={photo.name: photo.name},
        output_map={name: f"inversion_{name}" for name in inversion},
    )
    steps.add(
        model_name="edit",
        model_version=-1,
        input_map={name: f"inversion_{name}" for name in inversion} | {d.name: d.name for d in deltas},
        output_map={edit.outputs[0].name: contract.EDITED_IMAGE},
    )
    return config


def edit_session_config(bundle: Bundle, digest: str, directions: Iterable[Direction], cache_bytes: int) -> Any:
    """The model of `serving.models.edit_session`, the same with and without a GPU."""
    photo = bundle.graph("invert").inputs[0]
    config = _PB.ModelConfig(name=contract.EDIT_SESSION, backend="python", max_batch_size=contract.MAX_BATCH)
    kind = _type(photo)
    config.input.add(name=contract.IMAGE, data_type=kind, dims=photo.shape[1:], optional=True)
    for name in (contract.HANDLE, contract.EDITS):
        config.input.add(name=name, data_type="TYPE_STRING", dims=[1], optional=True)
    config.output.add(name=contract.HANDLE, data_type="TYPE_STRING", dims=[1])
    config.output.add(name=contract.IMAGE, data_type=kind, dims=photo.shape[1:])
    # One instance, hence one cache; it computes nothing itself, and tells the GPU's tensors on without looking at them:
    # pictures alone, which are sent anyway, come to the host.
    config.instance_group.add(count=1, kind=_PB.ModelInstanceGroup.KIND_CPU)
    config.dynamic_batching.SetInParent()
    described = {
        d.name: {"min_strength": d.min_strength, "max_strength": d.max_strength, "description": d.description}
        for d in directions
    }
    _add_parameters(
        config,
        {
            contract.BUNDLE_SHA256: digest,
            contract.CACHE_BYTES_PARAMETER: str(cache_bytes),
            contract.DIRECTIONS: json.dumps(described),
        },
    )
    return config


def _type(spec: TensorSpec) -> str:
    return f"TYPE_{np_to_triton_dtype(np.dtype(spec.dtype))}"


def _add_tensors(config: Any, inputs: Iterable[TensorSpec], outputs: Iterable[TensorSpec]) -> None:
    # The batch, which comes first, is not written.
    for specs, field in ((inputs, config.input), (outputs, config.output)):
        for spec in specs:
            field.add(name=spec.name, data_type=_type(spec), dims=spec.shape[1:])


def _add_parameters(config: Any, parameters: Mapping[str, str]) -> None:
    for name, value in parameters.items():
        config.parameters[name].string_value = value


def _add_warm_up(config: Any, entry: GraphEntry, batch: int) -> None:
    warm_up = config.model_warmup.add(name=f"batch_{batch}", batch_size=batch, count=1)
    for spec in entry.inputs:
        given = warm_up.inputs[spec.name]
        given.data_type = getattr(_PB, _type(spec))
        given.dims.extend(spec.shape[1:])
        given.zero_data = True
