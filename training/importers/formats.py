"""The official formats: which files each kind is imported from, and which of their tensors go where.

Names of tensors are those of the official files, of which `training.networks` and `training.peers` keep their parts'
names; what is left is to strip and add prefixes. No weights of anybody's are part of this project.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from engines.family import FACES_1024, ModelFamily
from training.imported import GENERATOR
from training.importers import looks as look
from training.importers.ada import MEAN, from_ada
from training.importers.errors import CheckpointError
from training.importers.ledger import STATE, TOP, Ledger
from training.importers.looks import Look
from training.networks.feature_style import FeatureStyleEncoder
from training.networks.ir import IRSE50
from training.networks.resnet import ResNet50
from training.networks.stylegan2 import Generator
from training.peers import METHODS, create

Files = Mapping[str, Ledger]
"""The files of an import by role; `MAIN` is always there."""
MAIN = "checkpoint"

_SPARE = "not needed here"
_NVIDIA = "weights that stem from NVIDIA's: NVIDIA Source Code License, non-commercial"
_ARCFACE = "not stated in the file: ask its source; weights trained on face data sets are often for research alone"


@dataclass(frozen=True, kw_only=True)
class Source:
    """A file that an import needs."""

    role: str
    looks: tuple[Look, ...]
    words: str
    """What to give where it is missing."""


@dataclass(frozen=True, kw_only=True)
class Format:
    """How a kind is imported."""

    sources: tuple[Source, ...]
    assemble: Callable[[Files], dict[str, Tensor]]
    """Takes tensors out of the files, named as in the network."""
    expected: Callable[[ModelFamily | None, Mapping[str, Tensor]], Mapping[str, Tensor]]
    """The network's state dict on the meta device, for a family (None: a backbone)."""
    stored_as: str
    """The kind that is written."""
    licence: str
    extra_rows: bool = False
    """Style heads beyond the generator's rows may be there and are left out: codes are cut to its rows anyway."""


def _generator(ledger: Ledger, to: str) -> tuple[dict[str, Tensor], Tensor]:
    """A generator's tensors and its mean code, from whichever kind of file holds them."""
    if "G_ema" in ledger.sections:
        mean = ledger.sections["G_ema"].pop(MEAN, None)
        if mean is None:
            raise CheckpointError(f"{ledger.path} has no {MEAN}, the mean code")
        found, ledger.sections["G_ema"] = from_ada(ledger.sections["G_ema"], str(ledger.path))
        return {to + name: tensor for name, tensor in found.items()}, mean
    if "g_ema" in ledger.sections:
        ledger.drop("g", ".*", "training copy of the generator")
        return ledger.take("g_ema", "", to), ledger.mean_code()
    found = ledger.take(STATE, "decoder.", to)
    ledger.drop(STATE, r"encoder\..*", _SPARE)
    return found, ledger.mean_code()


def _offset_mean(ledger: Ledger) -> Tensor:
    """The mean code that the encoder's output is added to: zero where it was trained to give whole codes."""
    mean = ledger.mean_code()
    return mean if ledger.options.get("start_from_latent_avg", True) else torch.zeros_like(mean)


def _stylegan2(files: Files) -> dict[str, Tensor]:
    tensors, mean = _generator(files[MAIN], "generator.")
    return tensors | {"latent_avg": mean}


def _whole(*parts: str) -> Callable[[Files], dict[str, Tensor]]:
    """All parts in one file, under their own names."""

    def assemble(files: Files) -> dict[str, Tensor]:
        main = files[MAIN]
        tensors: dict[str, Tensor] = {}
        for part in parts:
            tensors |= main.take(STATE, f"{part}.", f"{part}.")
        return tensors | {"latent_avg": _offset_mean(main)}

    return assemble


def _fs(files: Files) -> dict[str, Tensor]:
    main = files[MAIN]
    section = next(key for key in ("enc_state_dict", STATE, TOP) if key in main.sections)
    tensors = main.take(section, "", "encoder.")
    generator, mean = _generator(files["generator"], "decoder.")
    return tensors | generator | {"latent_avg": mean}


def _clcae(files: Files) -> dict[str, Tensor]:
    main = files[MAIN]
    tensors = main.take(STATE, "encoder.", "encoder.") | main.take(STATE, "decoder.", "decoder.")
    spare, mean = _generator(files["mean code"], "")
    files["mean code"].leave("generator", len(spare), _SPARE)
    return tensors | {"latent_avg": mean}


def _styleres(files: Files) -> dict[str, Tensor]:
    main = files[MAIN]
    tensors = main.take("e4e", "", "encoder.")
    for part in ("alignment", "extraction", "gates"):
        tensors |= main.take("generator_smooth", f"synthesis.b64.modify_feature_{part}.", f"modify_feature_{part}.")
    main.drop("generator_smooth", MEAN.replace(".", r"\."), "latent_avg is the one that is added")
    found, main.sections["generator_smooth"] = from_ada(main.sections["generator_smooth"], str(main.path))
    return tensors | {f"decoder.{name}": t for name, t in found.items()} | {"latent_avg": main.mean_code()}


def _sfe(files: Files) -> dict[str, Tensor]:
    main, e4e = files[MAIN], files["e4e"]
    tensors = main.take(STATE, "encoder.", "encoder.")
    for part in ("fs_backbone", "fuser"):
        tensors |= main.take(STATE, f"inverter.{part}.", f"inverter.{part}.")
    main.drop(STATE, r"(inverter\.)?(decoder|e4e_encoder)\..*", "read from its own file")
    main.drop(TOP, "latent_avg", "read from the generator's file")
    tensors |= e4e.take(STATE, "encoder.", "e4e_encoder.")
    tensors["e4e_latent_avg"] = _offset_mean(e4e)
    e4e.drop(STATE, r"decoder\..*", _SPARE)
    generator, mean = _generator(files["generator"], "decoder.")
    return tensors | generator | {"latent_avg": mean}


def _hyperstyle(files: Files) -> dict[str, Tensor]:
    main, first = files[MAIN], files["W encoder"]
    tensors = main.take(STATE, "hypernet.", "hypernet.") | main.take(STATE, "decoder.", "decoder.")
    shared = "hypernet.shared_weight_hypernet."
    # Blocks that use the shared network list its tensors again.
    again = [name for name in tensors if ".refinement_blocks." in name and ".hypernet." in name]
    for name in again:
        other = tensors.get(shared + name.rpartition(".")[2])
        if other is None or not _same(tensors[name], other):
            raise CheckpointError(f"{main.path}: {name} differs from the shared network, whose second name it is")
    for name in again:
        del tensors[name]
    if again:
        main.leave("hypernet.refinement_blocks.*.hypernet", len(again), "second names of the shared network")
    tensors |= first.take(STATE, "encoder.", "w_encoder.")
    first.drop(STATE, r"decoder\..*", _SPARE)
    first.drop(TOP, "latent_avg", "HyperStyle's own file has it")
    return tensors | {"latent_avg": main.mean_code()}


def _same(a: Tensor, b: Tensor) -> bool:
    """Equal; of half a gigabyte that torch saved once, only the address is compared."""
    if a.shape != b.shape:
        return False
    return (a.data_ptr() == b.data_ptr() and a.stride() == b.stride()) or torch.equal(a, b)


def _ir_se_50(files: Files) -> dict[str, Tensor]:
    main = files[MAIN]
    main.drop(_bare(main), r"output_layer\..*", "the head that encoders do without")
    return main.take(_bare(main), "", "")


def _iresnet_50(files: Files) -> dict[str, Tensor]:
    main = files[MAIN]
    section = _bare(main)
    tensors: dict[str, Tensor] = {}
    for name, to in (("conv1", "conv.0"), ("bn1", "conv.1"), ("prelu", "conv.2")):
        tensors |= main.take(section, f"{name}.", f"{to}.")
    for stage in range(1, 5):
        tensors |= main.take(section, f"layer{stage}.", f"block_{stage}.")
    main.drop(section, r"(bn2|fc|features)\..*", "the head that encoders do without")
    return tensors


def _moco_v2(files: Files) -> dict[str, Tensor]:
    main = files[MAIN]
    main.drop(STATE, r"module\.encoder_q\.fc\..*", "the head that features are taken before")
    main.drop(STATE, r"module\.(encoder_k\..*|queue|queue_ptr)", "the slow copy of the network and its queue")
    return main.take(STATE, "module.encoder_q.", "")


def _bare(ledger: Ledger) -> str:
    return STATE if STATE in ledger.sections else TOP


def _of_method(key: str) -> Callable[[ModelFamily | None, Mapping[str, Tensor]], Mapping[str, Tensor]]:
    def expected(family: ModelFamily | None, _: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        assert family is not None
        with torch.device("meta"):
            return create(key, family).state_dict()

    return expected


def _of_generator(family: ModelFamily | None, _: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    assert family is not None
    with torch.device("meta"):
        state = Generator(family).state_dict(prefix="generator.")
        return {**state, "latent_avg": torch.empty(family.style_dim)}


def _of_ir_se_50(_: ModelFamily | None, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    with torch.device("meta"):
        return IRSE50(_width(tensors, "input_layer.0.weight")).state_dict()


def _of_iresnet_50(_: ModelFamily | None, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    width = _width(tensors, "conv.0.weight")
    scaled = ModelFamily.from_dict(FACES_1024.to_dict() | {"encoder_width": width})
    with torch.device("meta"):
        state = FeatureStyleEncoder(scaled).state_dict()
    return {name: tensor for name, tensor in state.items() if name.startswith(("conv.", "block_"))}


def _of_moco_v2(_: ModelFamily | None, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    with torch.device("meta"):
        return ResNet50(_width(tensors, "conv1.weight")).state_dict()


def _width(tensors: Mapping[str, Tensor], stem: str) -> int:
    """Of a backbone, bounded: it comes from the file."""
    return min(max(tensors[stem].shape[0], 1), 512) if stem in tensors and tensors[stem].dim() else 64


_ANY_GENERATOR = (look.STYLEGAN2, look.STYLEGAN2_ADA, look.E4E, look.PSP)


def _main(kind: Look) -> Source:
    return Source(role=MAIN, looks=(kind,), words=kind.words)


def _method(kind: Look, assemble: Callable[[Files], dict[str, Tensor]], *more: Source, rows: bool = False) -> Format:
    return Format(
        sources=(_main(kind), *more),
        assemble=assemble,
        expected=_of_method(kind.key),
        stored_as=kind.key,
        licence=METHODS[kind.key].info.licence,
        extra_rows=rows,
    )


def _backbone(
    kind: Look, assemble: Callable[[Files], dict[str, Tensor]], expected: Callable, licence: str = _ARCFACE
) -> Format:
    return Format(sources=(_main(kind),), assemble=assemble, expected=expected, stored_as=kind.key, licence=licence)


def _stylegan2_format(kind: Look, licence: str) -> Format:
    return Format(
        sources=(_main(kind),), assemble=_stylegan2, expected=_of_generator, stored_as=GENERATOR, licence=licence
    )


FORMATS: dict[str, Format] = {
    "stylegan2": _stylegan2_format(look.STYLEGAN2, f"MIT (code of the port); for {_NVIDIA}"),
    "stylegan2-ada": _stylegan2_format(look.STYLEGAN2_ADA, "NVIDIA Source Code License for ADA: non-commercial"),
    "e4e": _method(look.E4E, _whole("encoder", "decoder"), rows=True),
    "fs": _method(
        look.FS,
        _fs,
        Source(
            role="generator",
            looks=_ANY_GENERATOR,
            words="the generator and its mean code: the pSp file that FS comes with, or a StyleGAN2 file",
        ),
    ),
    "hfgi": _method(look.HFGI, _whole("encoder", "residue", "grid_align", "decoder"), rows=True),
    "clcae": _method(
        look.CLCAE,
        _clcae,
        Source(
            role="mean code",
            looks=_ANY_GENERATOR,
            words="the StyleGAN2 file, of which the mean code latent_avg is taken",
        ),
        Source(role="mean image", looks=(look.MEAN_IMAGE,), words="the mean image (PNG) that is taken off each photo"),
    ),
    "styleres": _method(look.STYLERES, _styleres),
    "sdic": _method(look.SDIC, _whole("encoder", "DIP", "SAF", "decoder"), rows=True),
    "sfe": _method(
        look.SFE,
        _sfe,
        Source(
            role="generator",
            looks=(look.STYLEGAN2, look.STYLEGAN2_ADA),
            words="the StyleGAN2 file, with generator and mean code",
        ),
        Source(role="e4e", looks=(look.E4E,), words="the e4e checkpoint, whose encoder edits start from"),
    ),
    "hyperstyle": _method(
        look.HYPERSTYLE,
        _hyperstyle,
        Source(role="W encoder", looks=(look.W_ENCODER,), words="the file of its W encoder"),
    ),
    "ir-se-50": _backbone(look.IR_SE_50, _ir_se_50, _of_ir_se_50),
    "iresnet-50": _backbone(look.IRESNET_50, _iresnet_50, _of_iresnet_50),
    "moco-v2": _backbone(
        look.MOCO_V2, _moco_v2, _of_moco_v2, "CC-BY-NC-4.0 (facebookresearch/moco; trained on ImageNet)"
    ),
}
"""By the name that commands use."""
