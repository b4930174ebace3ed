"""Baselines for the benchmarks: runtimes that need PyTorch, which `engines` knows nothing of.

Importing this package registers them with `engines.runtimes`; it imports no torch itself.
"""

from __future__ import annotations

from engines.runtimes import Runtime, register


def _torch() -> type[Runtime]:
    from bench.runtimes.torch import TorchRuntime

    return TorchRuntime


register("torch", ("torch",), "'edgedit[train]'", _torch)
