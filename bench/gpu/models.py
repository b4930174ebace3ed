"""The models that are measured: the networks of a bundle, or of a family with random weights."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from bench.program import named
from engines.building.estimate import Work, work
from engines.bundle import Bundle
from engines.contracts import graph_contract
from engines.errors import EdgeditError
from engines.family import ModelFamily, family
from export.aot import Arithmetic, network
from export.bound import example_inputs
from export.random_weights import random_weights
from training.methods.paper import EditingSystem
from training.running.weights import load_bundle


@dataclass
class Model:
    """One editing system on a device."""

    name: str
    family: ModelFamily
    device: str
    bundle: Bundle | None = None
    """The model's bundle; None for random weights."""
    _systems: dict[bool, EditingSystem] = field(default_factory=dict)
    _work: dict[str, Work] = field(default_factory=dict)

    def module(self, graph: str, precision: Arithmetic) -> nn.Module:
        """A graph's module; those of FP16 and BF16 share a system of their own, whose weights are channels-last."""
        half = precision in ("fp16", "bf16")
        if not self._systems:
            if self.bundle is None:
                system = random_weights(lambda: EditingSystem(self.family))
            else:
                system = load_bundle(self.bundle.path, self.family)
            self._systems[False] = system.to(self.device)
        if half not in self._systems:
            self._systems[half] = copy.deepcopy(self._systems[False])
        return network(self._systems[half], graph, precision).to(self.device)

    def inputs(self, graph: str, batch: int) -> tuple[Tensor, ...]:
        """Random inputs on the device."""
        inputs = graph_contract(self.family, graph)[0]
        return tuple(tensor.to(self.device) for tensor in example_inputs(inputs, batch))

    def work(self, graph: str) -> Work:
        """The work of a graph: by `estimate` from a bundle's ONNX; of random weights, which have none, as PyTorch
        counts the products (those of a convolution by one, whatever it skips), without what is alive at once."""
        if graph not in self._work:
            self._work[graph] = work(self.bundle, graph) if self.bundle is not None else self._counted(graph)
        return self._work[graph]

    def _counted(self, graph: str) -> Work:
        module, inputs = self.module(graph, "fp32"), self.inputs(graph, 1)
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            given = module(*inputs)
        outputs = (given,) if isinstance(given, Tensor) else tuple(given)
        return Work(
            graph=graph,
            macs=counter.get_total_flops() // 2,
            weights=sum(parameter.numel() for parameter in module.parameters()),
            interface_bytes=sum(tensor.numel() * tensor.element_size() for tensor in (*inputs, *outputs)),
            peak=0,
        )

    def about(self) -> dict[str, Any]:
        """The model's fields of a result's row."""
        weights = "random" if self.bundle is None else "the bundle's"
        return {"model": self.name, "family": self.family.name, "size": self.family.size, "weights": weights}


def load_models(bundles: tuple[str, ...], families: tuple[str, ...], device: str) -> list[Model]:
    """Models of NAME=DIRECTORY bundles and of families by name.

    Raises:
        EdgeditError: for a malformed item, something that is not a bundle, or an unknown family.
    """
    models = []
    for name, path in named("--bundle", bundles):
        bundle = Bundle.load(path)
        models.append(Model(name, bundle.family, device, bundle))
    try:
        return models + [Model(name, family(name), device) for name in families]
    except (KeyError, ValueError) as error:
        raise EdgeditError(f"--random: {error}") from None
