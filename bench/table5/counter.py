"""Multiply-accumulate operations and parameters of a network's run, by two rules. Both work on the meta device.

`count` is complete: every convolution and matrix product, whichever way it is called. `count_called_modules` follows
the counter `thop`, whose default output one row of the paper's Table 5 reproduces to the last digit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from training.networks.feature_style import GridPool
from training.networks.ir import SqueezeExcitation
from training.networks.stylegan2 import ModulatedConv2d

_CONVOLUTION = torch.ops.aten.convolution
_PRODUCTS = (torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.bmm, torch.ops.aten.baddbmm)


@dataclass(frozen=True)
class Count:
    """MACs of one run, and parameters."""

    params: int
    macs: int
    by_module: dict[str, int] = field(default_factory=dict)
    """MACs by the name of the module that ran the operation; sums to `macs`."""

    def part(self, name: str) -> int:
        """MACs of a module and everything in it."""
        return sum(macs for module, macs in self.by_module.items() if (module + ".").startswith(name + "."))


class _Macs(TorchDispatchMode):
    """Adds up convolutions and products under the name on top of `stack`.

    Two rules keep the figures those of the usual forms of the networks. A FIR filter counts for each pixel that it
    puts out, zero insertion included, although it may run as one transposed convolution here. The sums of squares that
    demodulate are elementwise there, and pooling is no product, so neither counts, although both are products here.
    """

    def __init__(self, stack: list[tuple[str, nn.Module]]) -> None:
        super().__init__()
        self.stack = stack
        self.macs: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[override]
        if (shaped := _shaped(func, args)) is not None:
            return shaped
        out = func(*args, **(kwargs or {}))
        packet = func.overloadpacket
        name, module = self.stack[-1]
        if packet in _PRODUCTS and isinstance(module, ModulatedConv2d | GridPool):
            return out
        if packet is _CONVOLUTION and args[8] == args[0].shape[1] > 1 and args[1].shape[1] == 1:
            self.macs[name] += out.numel() * args[1][0].numel()
        elif packet is _CONVOLUTION or packet in _PRODUCTS:
            self.macs[name] += flop_registry[packet](*args, **(kwargs or {}), out_val=out) // 2
        return out


def _shaped(func: Any, args: tuple[Any, ...]) -> Any:
    """The output of an elementwise operation or a batch norm on the meta device, None for any other: the shape
    alone is wanted, and torch's own way to it, in Python, takes most of the time of a count."""
    tensors = [value for value in args if isinstance(value, Tensor)]
    if not tensors or not all(tensor.is_meta for tensor in tensors):
        return None
    if func is torch.ops.aten.native_batch_norm.default:
        statistics = args[0].new_empty(0)
        return args[0].new_empty(args[0].shape), statistics, statistics
    if torch.Tag.pointwise not in func.tags:
        return None
    if func._schema.is_mutable:
        return args[0]
    shape = torch.broadcast_shapes(*(tensor.shape for tensor in tensors))
    return next((tensor for tensor in tensors if tensor.is_floating_point()), tensors[0]).new_empty(shape)


def count(model: nn.Module, run: Callable[[], Any]) -> Count:
    """All convolutions and matrix products of `run`, which calls `model` or its parts, and all parameters of `model`.

    Norms, activations, resizing and sums do not count.
    """
    stack: list[tuple[str, nn.Module]] = [("", model)]
    handles = []
    for name, module in model.named_modules():
        handles.append(module.register_forward_pre_hook(lambda m, _, name=name: stack.append((name, m))))
        handles.append(module.register_forward_hook(lambda *_: stack.pop() and None))
    counter = _Macs(stack)
    try:
        with torch.no_grad(), counter:
            run()
    finally:
        for handle in handles:
            handle.remove()
    params = sum(parameter.numel() for parameter in model.parameters())
    return Count(params, counter.macs.total(), dict(counter.macs))


def _convolution(module: nn.Module, x: Tensor, y: Tensor) -> float:
    # The output's size for transposed convolutions too, which over-counts those that stride.
    return y.numel() * module.in_channels // module.groups * module.weight[0, 0].numel()  # type: ignore[operator]


def _norm(module: nn.Module, x: Tensor, y: Tensor) -> float:
    affine = getattr(module, "affine", False) or getattr(module, "elementwise_affine", False)
    return x.numel() * (4 if affine else 2)


def _mean(module: nn.Module, x: Tensor, y: Tensor) -> float:
    # One addition for each input pixel of a mean, and one division.
    sides = [float(a) / b for a, b in zip(x.shape[2:], y.shape[2:], strict=True)]
    return int((torch.tensor(sides, dtype=torch.float64, device="cpu").prod().item() + 1) * y.numel())


def _channel_means(module: nn.Module, x: Tensor, y: Tensor) -> float:
    # The published block has a pooling module where ours has an operator.
    return x.numel() + x.shape[0] * x.shape[1]


def _softmax(module: nn.Module, x: Tensor, y: Tensor) -> float:
    width = x.shape[-1]
    return x.numel() // width * (3 * width - 1)


_RULES: dict[type[nn.Module], Callable[[Any, Tensor, Tensor], float]] = {
    **dict.fromkeys((nn.Conv1d, nn.Conv2d, nn.Conv3d), _convolution),
    **dict.fromkeys((nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d), _convolution),
    **dict.fromkeys((nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.LayerNorm), _norm),
    **dict.fromkeys((nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d), _norm),
    nn.AdaptiveAvgPool2d: _mean,
    GridPool: _mean,
    SqueezeExcitation: _channel_means,
    nn.Linear: lambda module, x, y: module.in_features * y.numel(),
    nn.PReLU: lambda module, x, y: x.numel(),
    nn.Softmax: _softmax,
}


def count_called_modules(model: nn.Module, run: Callable[[], Any]) -> Count:
    """The figures of `thop` (0.1.1): MACs and parameters of the layers it knows, if they are called as modules.

    Functional calls, matrix products and bare tensors are left out in both columns: all of StyleGAN2 and every layer
    with equalised learning rate. Norms with affine parameters have four operations an element, PReLU one, pooling and
    softmax theirs.
    """
    macs: Counter[str] = Counter()
    used: dict[str, int] = {}
    handles = []

    def record(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(module: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> None:
            macs[name] += int(_RULES[type(module)](module, args[0], out))
            if not isinstance(module, SqueezeExcitation):
                used[name] = sum(parameter.numel() for parameter in module.parameters())

        return hook

    for name, module in model.named_modules():
        if type(module) in _RULES:
            handles.append(module.register_forward_hook(record(name)))
    try:
        with torch.no_grad():
            run()
    finally:
        for handle in handles:
            handle.remove()
    return Count(sum(used.values()), macs.total(), dict(macs))
