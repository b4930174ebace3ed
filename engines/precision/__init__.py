"""Precision is a property of the graph: a bundle's FP32 graph becomes a strongly typed one, without torch.

    source.py     the graph with its weights, constants folded, shapes at batch 1
    rewrite.py    exact rewritings: batch norm into convolutions, StyleGAN2 weights and styles pre-normalised
    fp32_rules.py which nodes stay in FP32, and why
    quantise.py   which products take 8-bit values, and the QuantizeLinear and DequantizeLinear around them
    calibrate.py  the ranges of their data, measured on photos
    typed.py      casts at the borders, the typed model on disk, and the report of its layers
    emulate.py    FP16 and 8-bit arithmetic on a CPU: rounding and range after every node
    ranges.py     the largest activations, what comes near FP16's limit, and what products could give at worst
    keep_fp32.py  finds the nodes that a failed accuracy gate is due to

TensorRT since 11.0 and TensorRT-RTX take the types of a network from its graph and nowhere else; ONNX Runtime always
did. So the same file says on every runtime what is computed in which type.
"""

from __future__ import annotations

from engines.precision.typed import PRECISIONS, TypedGraph, lower

__all__ = ["PRECISIONS", "TypedGraph", "lower"]
