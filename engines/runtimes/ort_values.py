"""Tensors in ONNX Runtime's memory, and the binding that a run passes them through."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnxruntime as ort

from engines.contracts import TensorSpec
from engines.runtimes.protocol import Feed

_DTYPES = {"float": "float32", "double": "float64"}


@dataclass(frozen=True, eq=False)
class OrtTensor:
    """A tensor in ONNX Runtime's memory, on the provider's device."""

    value: ort.OrtValue
    dtype: np.dtype
    shape: tuple[int, ...]
    session: ort.InferenceSession
    """The session whose allocator may be the value's."""

    def numpy(self) -> np.ndarray:
        """A copy on the host."""
        return to_host(self.value)


class Values:
    """A binding, and the values that host arrays pass through, for one set of input shapes and one run at a time."""

    def __init__(self, session: ort.InferenceSession, device: str, device_id: int) -> None:
        self.io = session.io_binding()
        self.inputs: dict[str, ort.OrtValue] = {}
        self.outputs: dict[str, ort.OrtValue] = {}
        self._device = device
        self._device_id = device_id

    def bind_input(self, spec: TensorSpec, feed: Feed) -> None:
        """Binds a tensor as it is, or the input's own value after an array was copied into it."""
        if isinstance(feed, OrtTensor):
            self.io.bind_ortvalue_input(spec.name, feed.value)
            return
        if spec.name not in self.inputs:
            self.inputs[spec.name] = self._allocate(feed.shape, spec)
        self.inputs[spec.name].update_inplace(np.ascontiguousarray(feed))
        self.io.bind_ortvalue_input(spec.name, self.inputs[spec.name])

    def bind_output(self, spec: TensorSpec, shape: tuple[int, ...] | None) -> None:
        """Binds the output's own value, or lets ONNX Runtime make a new one if `shape` is None."""
        if shape is None:
            self.io.bind_output(spec.name, self._device, self._device_id)
            return
        if spec.name not in self.outputs:
            self.outputs[spec.name] = self._allocate(shape, spec)
        self.io.bind_ortvalue_output(spec.name, self.outputs[spec.name])

    def release(self) -> None:
        """Unbinds everything, so that no tensor of a caller's is kept alive."""
        self.io.clear_binding_inputs()
        self.io.clear_binding_outputs()

    def _allocate(self, shape: tuple[int, ...], spec: TensorSpec) -> ort.OrtValue:
        return ort.OrtValue.ortvalue_from_shape_and_type(
            list(shape), np.dtype(spec.dtype).type, self._device, self._device_id
        )


def tensor(value: ort.OrtValue, session: ort.InferenceSession) -> OrtTensor:
    """A value of that session's device as a tensor."""
    return OrtTensor(value, np.dtype(dtype_name(value.data_type())), tuple(value.shape()), session)


def to_host(value: ort.OrtValue) -> np.ndarray:
    """A copy of a value on the host."""
    array = value.numpy()
    # On the CPU it is a view of the value, which the next run writes to.
    return array.copy() if value.device_name() == "cpu" else array


def dtype_name(kind: str) -> str:
    """NumPy's name of "tensor(float)"."""
    name = kind.removeprefix("tensor(").removesuffix(")")
    return _DTYPES.get(name, name)
