"""The official formats: which files each kind is imported from, and which of their tensors go where.

Names of tensors are those of the official files, of which `training.networks` and `training.methods` keep their parts'
names; what is left is to strip and add prefixes. No weights of anybody's are part of this project.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from engines.family import FACES_1024, ModelFamily
from training.imported import GENERATOR
from training.importers import recognise as kinds
from training.importers.ada import MEAN, from_ada
from training.importers.derived import SAMPLES, mean_of_w
from training.importers.errors import CheckpointError
from training.importers.ledger import STATE, TOP, Ledger
from training.importers.recognise import FileKind
from training.methods import METHODS, create
from training.networks.feature_style import FeatureStyleEncoder
from training.networks.ir import IRSE50
from training.networks.resnet import ResNet50
from training.networks.stylegan2 import Generator

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
    kinds: tuple[FileKind, ...]
    words: str
    """The words that ask for it where it is missing."""


@dataclass(frozen=True, kw_only=True)
class Format:
    """The way in which a kind is imported."""

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
        generator, ledger.sections["G_ema"] = from_ada(ledger.sections["G_ema"], str(ledger.path))
        generator = {to + name: tensor for name, tensor in generator.items()}
    else:
        mean = ledger.mean_code()
        section = "g_ema" if "g_ema" in ledger.sections else _state(ledger)
        inside = any(name.startswith("decoder.") for name in ledger.sections.get(section, {}))
        generator = ledger.take(section, "decoder." if inside else "", to)
        ledger.drop("g", ".*", "training copy of the generator")
        ledger.drop(_state(ledger), r"encoder\..*", _SPARE)
    return generator, _mean_of_w(ledger, generator, to) if mean is None else mean


def _mean_of_w(ledger: Ledger, tensors: Mapping[str, Tensor], prefix: str) -> Tensor:
    words = f"latent_avg: the mean of W over {SAMPLES} z from seed 0, by the mapping network of {ledger.path.name}"
    ledger.filled_in.append(words)
    return mean_of_w(tensors, prefix, str(ledger.path))


def _offset_mean(ledger: Ledger, tensors: Mapping[str, Tensor]) -> Tensor:
    """The mean code that the encoder's output is added to: zero where it was trained to give whole codes."""
    mean = ledger.mean_code()
    if ledger.options.get("start_from_latent_avg", True):
        return _mean_of_w(ledger, tensors, "decoder.") if mean is None else mean
    if mean is None:
        ledger.filled_in.append("latent_avg: zeros, since start_from_latent_avg is False")
    return torch.zeros(_width(tensors, "decoder.style.1.weight"))


def _stylegan2(files: Files) -> dict[str, Tensor]:
    tensors, mean = _generator(files[MAIN], "generator.")
    return tensors | {"latent_avg": mean}


def _whole(*parts: str) -> Callable[[Files], dict[str, Tensor]]:
    """All parts in one file, under their own names."""

    def assemble(files: Files) -> dict[str, Tensor]:
        main = files[MAIN]
        tensors: dict[str, Tensor] = {}
        for part in parts:
            tensors |= main.take(_state(main), f"{part}.", f"{part}.")
        return tensors | {"latent_avg": _offset_mean(main, tensors)}

    return assemble


def _fs(files: Files) -> dict[str, Tensor]:
    main = files[MAIN]
    section = next(key for key in ("enc_state_dict", STATE, TOP) if key in main.sections)
    tensors = main.take(section, "", "encoder.")
    generator, mean = _generator(files["generator"], "decoder.")
    return tensors | generator | {"latent_avg": mean}


def _clcae(files: Files) -> dict[str, Tensor]:
    main = files[MAIN]
    tensors = main.take(_state(main), "encoder.", "encoder.") | main.take(_state(main), "decoder.", "decoder.")
    spare, mean = _generator(files["mean code"], "")
    files["mean code"].leave("generator", len(spare), _SPARE)
    main.drop_mean("CLCAE adds that of the StyleGAN2 file")
    return tensors | {"latent_avg": mean}


def _styleres(files: Files) -> dict[str, Tensor]:
    main = files[MAIN]
    tensors = main.take("e4e", "", "encoder.")
    for part in ("alignment", "extraction", "gates"):
        tensors |= main.take("generator_smooth", f"synthesis.b64.modify_feature_{part}.", f"modify_feature_{part}.")
    mean = main.mean_code()
    if mean is None and (mean := main.sections["generator_smooth"].pop(MEAN, None)) is not None:
        main.filled_in.append(f"latent_avg: the generator's own {MEAN}")
    main.drop("generator_smooth", MEAN.replace(".", r"\."), "latent_avg is the one that is added")
    generator, main.sections["generator_smooth"] = from_ada(main.sections["generator_smooth"], str(main.path))
    if mean is None:
        mean = _mean_of_w(main, generator, "")
    return tensors | {f"decoder.{name}": t for name, t in generator.items()} | {"latent_avg": mean}


def _sfe(files: Files) -> dict[str, Tensor]:
    main, e4e = files[MAIN], files["e4e"]
    tensors = main.take(_state(main), "encoder.", "encoder.")
    for part in ("fs_backbone", "fuser"):
        tensors |= main.take(_state(main), f"inverter.{part}.", f"inverter.{part}.")
    main.drop(_state(main), r"(inverter\.)?(decoder|e4e_encoder)\..*", "read from its own file")
    main.drop_mean("read from the generator's file")
    tensors |= e4e.take(_state(e4e), "encoder.", "e4e_encoder.")
    e4e.drop_mean("SFE adds that of the generator's file to both codes")
    e4e.drop(_state(e4e), r"decoder\..*", _SPARE)
    generator, mean = _generator(files["generator"], "decoder.")
    return tensors | generator | {"latent_avg": mean}


def _hyperstyle(files: Files) -> dict[str, Tensor]:
    main, first = files[MAIN], files["W encoder"]
    tensors = main.take(_state(main), "hypernet.", "hypernet.") | main.take(_state(main), "decoder.", "decoder.")
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
    tensors |= first.take(_state(first), "encoder.", "w_encoder.")
    first.drop(_state(first), r"decoder\..*", _SPARE)
    mean = main.mean_code()
    if mean is not None:
        first.drop_mean("HyperStyle's own file has it")
    elif (mean := first.mean_code()) is not None:
        main.filled_in.append(f"latent_avg: that of {first.path.name}")
    return tensors | {"latent_avg": _mean_of_w(main, tensors, "decoder.") if mean is None else mean}


def _same(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are equal; of half a gigabyte that torch saved once, only the address is compared."""
    if a.shape != b.shape:
        return False
    return (a.data_ptr() == b.data_ptr() and a.stride() == b.stride()) or torch.equal(a, b)


def _ir_se_50(files: Files) -> dict[str, Tensor]:
    main = files[MAIN]
    main.drop(_state(main), r"output_layer\..*", "the head that encoders do without")
    return main.take(_state(main), "", "")


def _iresnet_50(files: Files) -> dict[str, Tensor]:
    main = files[MAIN]
    section = _state(main)
    tensors: dict[str, Tensor] = {}
    for name, to in (("conv1", "conv.0"), ("bn1", "conv.1"), ("prelu", "conv.2")):
        tensors |= main.take(section, f"{name}.", f"{to}.")
    for stage in range(1, 5):
        tensors |= main.take(section, f"layer{stage}.", f"block_{stage}.")
    main.drop(section, r"(bn2|fc|features)\..*", "the head that encoders do without")
    return tensors


def _moco_v2(files: Files) -> dict[str, Tensor]:
    main = files[MAIN]
    main.drop(STATE, r"encoder_q\.fc\..*", "the head that features are taken before")
    main.drop(STATE, r"(encoder_k\..*|queue|queue_ptr)", "the slow copy of the network and its queue")
    return main.take(STATE, "encoder_q.", "")


def _state(ledger: Ledger) -> str:
    """The section with the networks: some files hold nothing else, and have it at their top."""
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
    """The width of a backbone, bounded: it comes from the file."""
    return min(max(tensors[stem].shape[0], 1), 512) if stem in tensors and tensors[stem].dim() else 64


_ANY_GENERATOR = (kinds.STYLEGAN2, kinds.STYLEGAN2_ADA, kinds.E4E, kinds.PSP)


def _main(kind: FileKind) -> Source:
    return Source(role=MAIN, kinds=(kind,), words=kind.words)


def _method(
    kind: FileKind, assemble: Callable[[Files], dict[str, Tensor]], *more: Source, rows: bool = False
) -> Format:
    return Format(
        sources=(_main(kind), *more),
        assemble=assemble,
        expected=_of_method(kind.key),
        stored_as=kind.key,
        licence=METHODS[kind.key].info.licence,
        extra_rows=rows,
    )


def _backbone(
    kind: FileKind, assemble: Callable[[Files], dict[str, Tensor]], expected: Callable, licence: str = _ARCFACE
) -> Format:
    return Format(sources=(_main(kind),), assemble=assemble, expected=expected, stored_as=kind.key, licence=licence)


def _stylegan2_format(kind: FileKind, licence: str) -> Format:
    return Format(
        sources=(_main(kind),), assemble=_stylegan2, expected=_of_generator, stored_as=GENERATOR, licence=licence
    )


FORMATS: dict[str, Format] = {
    "stylegan2": _stylegan2_format(kinds.STYLEGAN2, f"MIT (code of the port); for {_NVIDIA}"),
    "stylegan2-ada": _stylegan2_format(kinds.STYLEGAN2_ADA, "NVIDIA Source Code License for ADA: non-commercial"),
    "e4e": _method(kinds.E4E, _whole("encoder", "decoder"), rows=True),
    "fs": _method(
        kinds.FS,
        _fs,
        Source(
            role="generator",
            kinds=_ANY_GENERATOR,
            words="the generator and its mean code: the pSp file that FS comes with, or a StyleGAN2 file",
        ),
    ),
    "hfgi": _method(kinds.HFGI, _whole("encoder", "residue", "grid_align", "decoder"), rows=True),
    "clcae": _method(
        kinds.CLCAE,
        _clcae,
        Source(
            role="mean code",
            kinds=_ANY_GENERATOR,
            words="the StyleGAN2 file, of which the mean code latent_avg is taken",
        ),
        Source(role="mean image", kinds=(kinds.MEAN_IMAGE,), words="the mean image (PNG) that is taken off each photo"),
    ),
    "styleres": _method(kinds.STYLERES, _styleres),
    "sdic": _method(kinds.SDIC, _whole("encoder", "DIP", "SAF", "decoder"), rows=True),
    "sfe": _method(
        kinds.SFE,
        _sfe,
        Source(
            role="generator",
            kinds=(kinds.STYLEGAN2, kinds.STYLEGAN2_ADA),
            words="the StyleGAN2 file, with generator and mean code",
        ),
        Source(role="e4e", kinds=(kinds.E4E,), words="the e4e checkpoint, whose encoder edits start from"),
    ),
    "hyperstyle": _method(
        kinds.HYPERSTYLE,
        _hyperstyle,
        Source(role="W encoder", kinds=(kinds.W_ENCODER,), words="the file of its W encoder"),
    ),
    "ir-se-50": _backbone(kinds.IR_SE_50, _ir_se_50, _of_ir_se_50),
    "iresnet-50": _backbone(kinds.IRESNET_50, _iresnet_50, _of_iresnet_50),
    "moco-v2": _backbone(
        kinds.MOCO_V2, _moco_v2, _of_moco_v2, "CC-BY-NC-4.0 (facebookresearch/moco; trained on ImageNet)"
    ),
}
"""The formats by the names that commands use."""
