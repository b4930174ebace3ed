"""Multiply-accumulates of an ONNX node."""

from __future__ import annotations

import math
from collections.abc import Mapping

import onnx_ir as ir

from engines.precision.source import Tensor


def macs(node: ir.Node, tensors: Mapping[str, Tensor]) -> int:
    """Multiply-accumulates of one node; 0 for anything but a convolution or a matrix product.

    Args:
        tensors: types and shapes of its inputs and outputs.
    """
    shapes = [tensors[str(value.name)].shape for value in node.inputs if value is not None]
    output = tensors[str(node.outputs[0].name)].shape if str(node.outputs[0].name) in tensors else ()
    if node.op_type == "Conv":
        # Weight O x I/groups x kernel: every output value sums I/groups x kernel products.
        return math.prod(output) * math.prod(shapes[1][1:])
    if node.op_type == "ConvTranspose":
        # Weight I x O/groups x kernel: every input value enters O/groups x kernel products.
        return math.prod(shapes[0]) * math.prod(shapes[1][1:])
    if node.op_type == "MatMul":
        return math.prod(output) * shapes[0][-1]
    if node.op_type == "Gemm":
        return math.prod(output) * shapes[0][0 if node.attributes.get_int("transA", 0) else 1]
    return 0
