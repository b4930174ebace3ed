"""Networks in NVIDIA's pickles (StyleGAN2-ADA's PyTorch code) as plain tensors, by state-dict name.

Their classes pickle themselves as one call whose argument holds the class's source text and the instance's attributes.
The source is what that call would run; here it is passed over, and only the attributes are read: parameters, buffers
and the modules below. A tensor's storage is embedded as a file of torch's own old format, read with `weights_only`.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from training.importers.errors import CheckpointError
from training.importers.pickled import Call

_PERSISTENT = "torch_utils.persistence._reconstruct_persistent_obj"
_DEPTH = 16
_MODULES = 10_000


def attributes(node: Any, source: str) -> dict[str, Any]:
    """The attributes of a pickled module.

    Raises:
        CheckpointError: if it is not one.
    """
    state = None
    if isinstance(node, Call):
        if node.name == _PERSISTENT and len(node.args) == 1 and isinstance(node.args[0], dict):
            state = node.args[0].get("state")
        elif node.name.startswith("torch.nn.modules."):
            state = node.state
    if not isinstance(state, dict):
        raise CheckpointError(f"{source} holds something that is not a module where a network is expected")
    return state


def network_tensors(node: Any, source: str) -> dict[str, Tensor]:
    """All parameters and buffers of a pickled network, by state-dict name.

    Raises:
        CheckpointError: if it is not a network, or a tensor is damaged.
    """
    collected: dict[str, Tensor] = {}
    visited = 0

    def walk(module: Any, prefix: str, depth: int) -> None:
        nonlocal visited
        visited += 1
        # One module may stand in many places of a pickle, so that a short one may unfold without end.
        if depth > _DEPTH or visited > _MODULES:
            raise CheckpointError(f"{source} nests more modules than a network has")
        state = attributes(module, source)
        for slot in ("_parameters", "_buffers"):
            for name, value in _mapping(state.get(slot, {}), source).items():
                if value is not None:
                    collected[f"{prefix}{name}"] = _tensor(value, f"{source}: {prefix}{name}")
        for name, child in _mapping(state.get("_modules", {}), source).items():
            if child is not None:
                walk(child, f"{prefix}{name}.", depth + 1)

    walk(node, "", 0)
    return collected


def _mapping(value: Any, source: str) -> Mapping[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise CheckpointError(f"{source} holds a module without the slots that modules have")
    return value


def _tensor(node: Any, source: str) -> Tensor:
    if isinstance(node, Call) and node.name == "torch._utils._rebuild_parameter" and node.args:
        node = node.args[0]
    if not isinstance(node, Call) or node.name != "torch._utils._rebuild_tensor_v2" or len(node.args) < 4:
        raise CheckpointError(f"{source} is not a tensor")
    storage, offset, size, stride = node.args[:4]
    numbers = (offset, *size, *stride) if isinstance(size, tuple) and isinstance(stride, tuple) else (None,)
    if not all(isinstance(n, int) and n >= 0 for n in numbers) or len(size) != len(stride) or len(size) > 8:
        raise CheckpointError(f"{source} has an impossible layout")
    data, dtype = _storage(storage, source)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) if math.prod(size) else -1
    # Without this, `set_` would enlarge the storage to fit. A tensor larger than what it repeats is no weight either.
    room = data.nbytes() // dtype.itemsize
    if last >= room or math.prod(size) > room:
        raise CheckpointError(f"{source} reaches beyond its data: truncated or damaged")
    return torch.empty(0, dtype=dtype).set_(data, offset, size, stride)


def _storage(node: Any, source: str) -> tuple[torch.UntypedStorage, torch.dtype]:
    if isinstance(node, Call) and node.name == "torch.storage._load_from_bytes" and len(node.args) == 1:
        try:
            storage = torch.load(io.BytesIO(node.args[0]), map_location="cpu", weights_only=True)
        except Exception as error:
            raise CheckpointError(f"{source} has data that cannot be read as a tensor's: refused") from error
        if isinstance(storage, torch.storage.TypedStorage):
            return storage._untyped_storage, storage.dtype
    raise CheckpointError(f"{source} has no data that can be read as a tensor's")
