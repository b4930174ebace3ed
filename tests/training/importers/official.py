"""Names and shapes of the official files, written down layer by layer and apart from the networks that load them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

Shape = tuple[int, ...]
Shapes = dict[str, Shape]

UNITS = (3, 4, 14, 3)


@dataclass(frozen=True)
class Sizes:
    """Of the files of a family."""

    size: int
    style: int = 512
    mapping: int = 8
    base: int = 32768
    widest: int = 512
    width: int = 64
    head: int = 512
    input: int = 256

    @property
    def rows(self) -> int:
        return 2 * (self.size.bit_length() - 1) - 2

    @property
    def resolutions(self) -> list[int]:
        return [8 << i for i in range(self.size.bit_length() - 3)]

    def channels(self, resolution: int) -> int:
        return min(self.widest, self.base // resolution)

    @property
    def feature(self) -> int:
        return self.channels(self.input // 4)


FACES = Sizes(1024)
CARS = Sizes(512)


def under(prefix: str, *parts: Mapping[str, Shape]) -> Shapes:
    return {f"{prefix}.{name}": shape for part in parts for name, shape in part.items()}


def bn(name: str, c: int) -> Shapes:
    return {f"{name}.{k}": (c,) for k in ("weight", "bias", "running_mean", "running_var")} | {
        f"{name}.num_batches_tracked": ()
    }


def conv(name: str, i: int, o: int, *kernel: int, bias: bool = False) -> Shapes:
    return {f"{name}.weight": (o, i, *kernel)} | ({f"{name}.bias": (o,)} if bias else {})


def conv3(name: str, i: int, o: int, *, bias: bool = False) -> Shapes:
    return conv(name, i, o, 3, 3, bias=bias)


def linear(name: str, i: int, o: int) -> Shapes:
    return {f"{name}.weight": (o, i), f"{name}.bias": (o,)}


def modulated(name: str, i: int, o: int, k: int, style: int) -> Shapes:
    return {f"{name}.conv.weight": (1, o, i, k, k)} | linear(f"{name}.conv.modulation", style, i)


def generator(s: Sizes) -> Shapes:
    """rosinality's."""
    found: Shapes = {}
    for i in range(s.mapping):
        found |= linear(f"style.{i + 1}", s.style, s.style)
    found["input.input"] = (1, s.channels(4), 4, 4)
    layers = [("conv1", s.channels(4), s.channels(4), False)]
    rgbs = [("to_rgb1", s.channels(4), False)]
    sides = [4]
    for b, r in enumerate(s.resolutions):
        layers += [
            (f"convs.{2 * b}", s.channels(r // 2), s.channels(r), True),
            (f"convs.{2 * b + 1}", s.channels(r), s.channels(r), False),
        ]
        rgbs.append((f"to_rgbs.{b}", s.channels(r), True))
        sides += [r, r]
    for name, i, o, up in layers:
        found |= modulated(name, i, o, 3, s.style) | {f"{name}.noise.weight": (1,), f"{name}.activate.bias": (o,)}
        if up:
            found[f"{name}.conv.blur.kernel"] = (4, 4)
    for name, i, up in rgbs:
        found |= modulated(name, i, 3, 1, s.style) | {f"{name}.bias": (1, 3, 1, 1)}
        if up:
            found[f"{name}.upsample.kernel"] = (4, 4)
    return found | {f"noises.noise_{i}": (1, 1, side, side) for i, side in enumerate(sides)}


def ada(s: Sizes) -> Shapes:
    """NVIDIA's PyTorch form."""
    found: Shapes = {"mapping.w_avg": (s.style,)}
    for i in range(s.mapping):
        found |= linear(f"mapping.fc{i}", s.style, s.style)
    for r in (4, *s.resolutions):
        block, c = f"synthesis.b{r}", s.channels(r)
        found[f"{block}.resample_filter"] = (4, 4)
        if r == 4:
            found[f"{block}.const"] = (c, 4, 4)
        for layer in ("conv1",) if r == 4 else ("conv0", "conv1"):
            name, i = f"{block}.{layer}", s.channels(r // 2) if layer == "conv0" else c
            found |= conv3(name, i, c) | linear(f"{name}.affine", s.style, i)
            found |= {
                f"{name}.bias": (c,),
                f"{name}.noise_strength": (),
                f"{name}.noise_const": (r, r),
                f"{name}.resample_filter": (4, 4),
            }
        found |= conv(f"{block}.torgb", c, 3, 1, 1, bias=True) | linear(f"{block}.torgb.affine", s.style, c)
    return found


def stem(name: str, w: int, i: int = 3) -> Shapes:
    return conv3(f"{name}.0", i, w) | bn(f"{name}.1", w) | {f"{name}.2.weight": (w,)}


def ir_unit(name: str, i: int, o: int, *, squeeze: bool = False) -> Shapes:
    main = f"{name}.res_layer"
    found = bn(f"{main}.0", i) | conv3(f"{main}.1", i, o) | {f"{main}.2.weight": (o,)} | conv3(f"{main}.3", o, o)
    found |= bn(f"{main}.4", o)
    if squeeze:
        found |= conv(f"{main}.5.fc1", o, max(1, o // 16), 1, 1) | conv(f"{main}.5.fc2", max(1, o // 16), o, 1, 1)
    if i != o:
        found |= conv(f"{name}.shortcut_layer.0", i, o, 1, 1) | bn(f"{name}.shortcut_layer.1", o)
    return found


def ir_units(name: str, *shapes: tuple[int, int]) -> Shapes:
    return {k: v for n, (i, o) in enumerate(shapes) for k, v in ir_unit(f"{name}.{n}", i, o).items()}


def ir_se_50(w: int) -> Shapes:
    """The trunk: 24 units."""
    found = stem("input_layer", w)
    index, before = 0, w
    for count, factor in zip(UNITS, (1, 2, 4, 8), strict=True):
        for _ in range(count):
            found |= ir_unit(f"body.{index}", before, factor * w, squeeze=True)
            index, before = index + 1, factor * w
    return found


def style_head(name: str, halvings: int, i: int, style: int) -> Shapes:
    found: Shapes = {}
    for n in range(halvings):
        found |= conv3(f"{name}.convs.{2 * n}", i, i, bias=True)
    return found | linear(f"{name}.linear", i, style)


def halvings(s: Sizes, row: int) -> int:
    return (s.input // 16).bit_length() - 1 + (0 if row < 3 else 1 if row < 7 else 2)


def pyramid(s: Sizes) -> Shapes:
    laterals = conv("latlayer1", 4 * s.width, s.head, 1, 1, bias=True)
    return ir_se_50(s.width) | laterals | conv("latlayer2", 2 * s.width, s.head, 1, 1, bias=True)


def e4e(s: Sizes) -> Shapes:
    found = pyramid(s)
    for row in range(s.rows):
        found |= style_head(f"styles.{row}", halvings(s, row), s.head, s.style)
    return found


def w_encoder(s: Sizes) -> Shapes:
    return ir_se_50(s.width) | linear("linear", 8 * s.width, s.style)


def arcface_unit(name: str, i: int, o: int, *, first: bool) -> Shapes:
    found = bn(f"{name}.bn1", i) | conv3(f"{name}.conv1", i, o) | bn(f"{name}.bn2", o) | {f"{name}.prelu.weight": (o,)}
    found |= conv3(f"{name}.conv2", o, o) | bn(f"{name}.bn3", o)
    return found | (conv(f"{name}.downsample.0", i, o, 1, 1) | bn(f"{name}.downsample.1", o) if first else {})


def _arcface_stages(w: int, name: str) -> Shapes:
    found: Shapes = {}
    before = w
    for stage, (count, factor) in enumerate(zip(UNITS, (1, 2, 4, 8), strict=True), 1):
        for n in range(count):
            found |= arcface_unit(f"{name}{stage}.{n}", before, factor * w, first=n == 0)
            before = factor * w
    return found


def fs(s: Sizes) -> Shapes:
    w, c = s.width, s.feature
    found = stem("conv", w) | _arcface_stages(w, "block_")
    found |= bn("content_layer.0", 4 * w) | conv3("content_layer.1", 4 * w, c) | bn("content_layer.2", c)
    found |= {"content_layer.3.weight": (c,)} | conv3("content_layer.4", c, c) | bn("content_layer.5", c)
    for row in range(s.rows):
        found |= linear(f"styles.{row}", 15 * w * 9, s.style)
    return found


def iresnet_50(w: int) -> Shapes:
    """With the head that follows the trunk."""
    found = conv3("conv1", 3, w) | bn("bn1", w) | {"prelu.weight": (w,)} | _arcface_stages(w, "layer")
    return found | bn("bn2", 8 * w) | linear("fc", 8 * w * 49, 512) | bn("features", 512)


def resnet_50(w: int) -> Shapes:
    """torchvision's, without its last layer."""
    found = conv("conv1", 3, w, 7, 7) | bn("bn1", w)
    before = w
    for stage, count in enumerate((3, 4, 6, 3), 1):
        inner = w << (stage - 1)
        for n in range(count):
            name = f"layer{stage}.{n}"
            for index, (i, c, k) in enumerate(((before, inner, 1), (inner, inner, 3), (inner, 4 * inner, 1)), 1):
                found |= conv(f"{name}.conv{index}", i, c, k, k) | bn(f"{name}.bn{index}", c)
            if n == 0:
                found |= conv(f"{name}.downsample.0", before, 4 * inner, 1, 1)
                found |= bn(f"{name}.downsample.1", 4 * inner)
            before = 4 * inner
    return found


def moco_v2(w: int, *, whole: bool) -> Shapes:
    """MoCo v2's, with its head of two layers; `whole` as training saves it, with the slow network and the queue."""
    network = resnet_50(w) | linear("fc.0", 32 * w, 32 * w) | linear("fc.2", 32 * w, 128)
    found = under("module.encoder_q", network)
    if whole:
        found |= under("module.encoder_k", network) | {"module.queue": (128, 16), "module.queue_ptr": (1,)}
    return found


def fuser(c: int) -> Shapes:
    found = conv("conv", 2 * c, c, 1, 1, bias=True)
    for i in range(5):
        name = f"body.{i}.body"
        found |= bn(f"{name}.0", c) | conv3(f"{name}.1", c, c) | bn(f"{name}.2", c) | {f"{name}.3.weight": (c,)}
        found |= conv3(f"{name}.4", c, c) | bn(f"{name}.5", c)
    return found


def fill(shapes: Mapping[str, Shape], seed: int = 0) -> dict[str, Tensor]:
    """Random values: convolutions and linears scaled to their inputs, variances positive, FIR kernels as they are."""
    source = torch.Generator().manual_seed(seed)
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
    kernel = torch.outer(taps, taps) / 64
    found: dict[str, Tensor] = {}
    for name, shape in shapes.items():
        if name.endswith("num_batches_tracked"):
            found[name] = torch.tensor(7)
        elif name.endswith("resample_filter"):
            found[name] = kernel.clone()
        elif name.endswith("kernel"):
            found[name] = kernel * 4
        elif name.endswith("running_var"):
            found[name] = torch.rand(shape, generator=source) + 0.5
        elif name.endswith(("modulation.bias", "affine.bias")) or (len(shape) == 1 and name.endswith(".weight")):
            found[name] = 1 + 0.2 * torch.randn(shape, generator=source)
        elif len(shape) > 1 and not equalised(name, shape):
            fan = torch.Size(shape[1:]).numel()
            found[name] = torch.randn(shape, generator=source) / fan**0.5
        else:
            # The mapping network's, which learns a hundred times slower, are stored a hundred times larger.
            mapping = ".style." in f".{name}" or name.startswith("mapping.fc")
            scale = (100.0 if mapping else 1.0) if len(shape) > 1 else 0.2
            found[name] = torch.randn(shape, generator=source) * scale
    return found


def equalised(name: str, shape: Shape) -> bool:
    """Weights that networks scale at run time are stored near N(0, 1)."""
    if name.startswith(("synthesis.", "mapping.")):
        return "modify_feature" not in name
    marks = ("style.", "modulation", "input.input", "noise", "condition_", "linear.")
    return (len(shape) == 5 and shape[0] == 1) or any(mark in name for mark in marks)


def meta(shapes: Mapping[str, Shape]) -> dict[str, Tensor]:
    """Without values, but for FIR kernels, which importers look at."""
    filters = fill({name: shape for name, shape in shapes.items() if name.endswith("resample_filter")})
    others: Iterable[str] = (name for name in shapes if name not in filters)
    return {name: torch.empty(shapes[name], device="meta") for name in others} | filters
