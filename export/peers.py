"""The graphs of the methods of Table 5: `invert`, `edit` and `reconstruct` of each, uint8 at the door as ours.

    invert       image uint8 B x h x w x 3 -> the method's inversion, float32
    edit         what it reads of the inversion, delta_w B x N x D -> image uint8 B x h x w x 3
    reconstruct  what it reads of the inversion -> image

h x w is the family's `image_shape`. The inversion's tensors are the fields of the method's NamedTuple, in its order; a
field that is a tuple of tensors gives `<field>_0`, `<field>_1` and so on. Shapes follow from the method and its family.

An edit is always given for every row of the code. CLCAE edits in W by moving its base code: its graph takes an edit
that is the same in every row for one in W, per image, as its own scripts tell the two apart by the shape.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from engines.bundle import EXTERNAL_LOCATION
from engines.contracts import BATCH, PIPELINES, TensorSpec
from export.graphs import BoundGraph, ImageIn, ImageOut
from export.onnx_graph import export_graph
from export.per_image import PerImageGenerator
from export.verify import EDIT_STRENGTH
from export.weights import half_weights, rounded, write_weights
from training.peers.clcae import CLCAE, CLCAEInversion, Evidence
from training.peers.hyperstyle import HyperStyle
from training.peers.protocol import Peer
from training.peers.sdic import SDIC

_READS: dict[type[Peer], dict[str, tuple[str, ...]]] = {
    CLCAE: {
        "edit": ("generator_feature", "base", "values", "fine"),
        "reconstruct": ("w", "feature", "generator_feature"),
    },
    SDIC: {"reconstruct": ("w", "feature")},
}
"""Fields of the inversion that an operation reads, where that is not all of them."""


class _Graph(nn.Module):
    def __init__(self, peer: Peer) -> None:
        super().__init__()
        self.system = peer


class Invert(_Graph):
    """uint8 image -> the inversion's tensors, one after the other."""

    def __init__(self, peer: Peer) -> None:
        super().__init__(peer)
        self.image_in = ImageIn(peer.family.image_shape, peer.input_size, peer.resize)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return _flat(self.system.invert(self.image_in(image)))


class _Rendered(_Graph):
    """Puts the tensors that are read back into the method's NamedTuple; the others are None."""

    def __init__(self, peer: Peer, layout: Layout, reads: Sequence[str]) -> None:
        super().__init__(peer)
        self.layout, self.reads = layout, tuple(reads)
        self.image_out = ImageOut(peer.family)

    def inversion(self, tensors: Sequence[Tensor]) -> Any:
        return self.layout.build(dict(zip(self.reads, tensors, strict=True)))


class Edit(_Rendered):
    """Inversion, delta_w -> uint8 image."""

    def forward(self, *tensors: Tensor) -> Tensor:
        inversion, delta_w = self.inversion(tensors[:-1]), tensors[-1]
        if isinstance(self.system, CLCAE):
            inversion, delta_w = _in_w(self.system, inversion, delta_w)
        return self.image_out(self.system.edit(inversion, delta_w))


class Reconstruct(_Rendered):
    """Inversion -> uint8 image."""

    def forward(self, *tensors: Tensor) -> Tensor:
        inversion = self.inversion(tensors)
        if isinstance(self.system, CLCAE):
            # The code as it is: the edit by nothing in W would compute it again.
            return self.image_out(self.system.edit(inversion, torch.zeros_like(inversion.w)))
        return self.image_out(self.system.reconstruct(inversion))


def _in_w(peer: CLCAE, inversion: CLCAEInversion, delta_w: Tensor) -> tuple[CLCAEInversion, Tensor]:
    """The inversion of a base code moved by those edits that are in W, and the edits that are left."""
    same = (delta_w - delta_w[:, :1]).abs().amax(dim=(1, 2)) == 0
    moved = torch.where(same[:, None], delta_w[:, 0], 0.0)
    evidence = Evidence(inversion.base + moved, inversion.values, inversion.fine)
    offsets, feature = peer.encoder.attend(evidence)
    left = torch.where(same[:, None, None], 0.0, delta_w)
    return inversion._replace(w=peer.code(offsets, evidence.base), feature=feature), left


class Layout(NamedTuple):
    """How a method's inversion is made of named tensors."""

    kind: type
    fields: dict[str, tuple[str, ...] | None]
    """By field, the names of its tensors, or None where the field is a tensor itself."""
    specs: list[TensorSpec]

    def build(self, tensors: Mapping[str, Tensor]) -> Any:
        """The NamedTuple; fields whose tensors are not given are None."""
        values = {
            field: tensors.get(field) if names is None else tuple(tensors[name] for name in names)
            for field, names in self.fields.items()
        }
        return self.kind(**values)


def _flat(inversion: Any) -> tuple[Tensor, ...]:
    return tuple(t for value in inversion for t in ((value,) if isinstance(value, Tensor) else value))


def layout(peer: Peer) -> Layout:
    """The tensors of a method's inversion, found by a run without data."""
    with torch.device("meta"), torch.no_grad():
        twin = type(peer)(peer.family).eval()
        if isinstance(twin, HyperStyle):
            twin = _batched(twin)
        inversion = twin.invert(torch.empty(2, 3, *peer.input_size))
    fields: dict[str, tuple[str, ...] | None] = {}
    specs: list[TensorSpec] = []
    for field, value in inversion._asdict().items():
        alone = isinstance(value, Tensor)
        tensors = (value,) if alone else value
        names = (field,) if alone else tuple(f"{field}_{i}" for i in range(len(tensors)))
        fields[field] = None if alone else names
        specs += [_spec(name, *tensor.shape[1:]) for name, tensor in zip(names, tensors, strict=True)]
    return Layout(type(inversion), fields, specs)


def _spec(name: str, *shape: int, dtype: str = "float32") -> TensorSpec:
    return TensorSpec(name=name, dtype=dtype, shape=[BATCH, *shape])


def peer_graphs(peer: Peer) -> dict[str, BoundGraph]:
    """A method's graphs by name, around its own tensors, none of which is copied.

    Args:
        peer: any method but ours, whose graphs are those of `export.graphs`; in evaluation mode.
    """
    made, family = layout(peer), peer.family
    if isinstance(peer, HyperStyle):
        peer = _batched(peer)
    names = tuple(spec.name for spec in made.specs)
    reads = {name: _READS.get(type(peer), {}).get(name, names) for name in ("edit", "reconstruct")}
    photo = _spec("image", *family.image_shape, 3, dtype="uint8")
    delta_w = _spec("delta_w", family.w_rows, family.style_dim)
    modules = {
        "invert": (Invert(peer), [photo], made.specs),
        "edit": (Edit(peer, made, reads["edit"]), [*_named(made.specs, reads["edit"]), delta_w], [photo]),
        "reconstruct": (
            Reconstruct(peer, made, reads["reconstruct"]),
            _named(made.specs, reads["reconstruct"]),
            [photo],
        ),
    }
    return {name: BoundGraph(name, modules[name][0].eval(), *modules[name][1:]) for name in PIPELINES}


def peer_feeds(graphs: Mapping[str, BoundGraph], photo: Tensor) -> dict[str, Tensor]:
    """Every graph's inputs by name, from the networks themselves; "photo" is the uint8 image.

    Edits are random, of `EDIT_STRENGTH`: the first photo's the same in every row of the code, the others' not.
    """
    invert = graphs["invert"]
    feeds = {"photo": photo} | dict(zip((spec.name for spec in invert.outputs), invert.module(photo), strict=True))
    (shape,) = (spec.shape[1:] for spec in graphs["edit"].inputs if spec.name == "delta_w")
    source = torch.Generator().manual_seed(0)
    code = next(iter(feeds[spec.name] for spec in invert.outputs))
    delta_w = EDIT_STRENGTH * code.std() * torch.randn(len(photo), *map(int, shape), generator=source)
    delta_w[0] = delta_w[0, :1]
    return feeds | {"delta_w": delta_w}


def _named(specs: Sequence[TensorSpec], names: Sequence[str]) -> list[TensorSpec]:
    return [spec for spec in specs if spec.name in names]


def _batched(peer: HyperStyle) -> HyperStyle:
    """The same tensors in a HyperStyle whose generator takes a batch at once."""
    with torch.device("meta"):
        twin = HyperStyle(peer.family, iterations=peer.iterations)
        twin.decoder = PerImageGenerator(peer.family)
    twin.load_state_dict(peer.state_dict(), assign=True)
    return twin.eval().requires_grad_(False)


def export_peer(peer: Peer, folder: Path) -> dict[str, Path]:
    """Writes a method's graphs, `<graph>.onnx`, and the weights file that they share beside them.

    Images are uint8 NHWC on both sides; weights are stored in FP16, activations and arithmetic are FP32, the batch is
    dynamic (see the module for every tensor). Nothing is verified here: see `export.build.export_peer_bundle`.

    Args:
        peer: any method but ours; it is not changed.
        folder: made if it is not there.

    Returns:
        Graph name (`invert`, `edit`, `reconstruct`) to file, which `onnxruntime.InferenceSession` opens as it is.

    Raises:
        ExportError: if a weight does not fit FP16, or a graph does not meet its contract.
    """
    folder.mkdir(parents=True, exist_ok=True)
    table = write_weights(half_weights(peer).tensors, folder / EXTERNAL_LOCATION)
    files: dict[str, Path] = {}
    for name, graph in peer_graphs(rounded(peer)).items():
        files[name] = folder / f"{name}.onnx"
        files[name].write_bytes(export_graph(graph, table).data)
    return files
