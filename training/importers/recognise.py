"""The kind of a checkpoint, recognised by the names of its tensors."""

from __future__ import annotations

from dataclasses import dataclass

from training.importers.ledger import STATE, TOP, Ledger


@dataclass(frozen=True)
class FileKind:
    """A kind of file."""

    key: str
    words: str
    """The kind's name in messages, with an article."""


STYLEGAN2 = FileKind("stylegan2", "a StyleGAN2 generator in rosinality's form")
STYLEGAN2_ADA = FileKind("stylegan2-ada", "a StyleGAN2-ADA pickle")
E4E = FileKind("e4e", "an e4e checkpoint")
PSP = FileKind("psp", "a pSp checkpoint")
FS = FileKind("fs", "an FS encoder")
HFGI = FileKind("hfgi", "an HFGI checkpoint")
CLCAE = FileKind("clcae", "a CLCAE checkpoint")
STYLERES = FileKind("styleres", "a StyleRes checkpoint")
SDIC = FileKind("sdic", "an SDIC checkpoint")
SFE = FileKind("sfe", "an SFE checkpoint with the feature editor")
SFE_INVERTER = FileKind("sfe-inverter", "an SFE checkpoint with the inverter alone")
HYPERSTYLE = FileKind("hyperstyle", "a HyperStyle checkpoint")
W_ENCODER = FileKind("w-encoder", "HyperStyle's W encoder")
IR_SE_50 = FileKind("ir-se-50", "an ArcFace IR-SE-50")
IRESNET_50 = FileKind("iresnet-50", "an ArcFace IResNet-50")
MOCO_V2 = FileKind("moco-v2", "a MoCo v2 ResNet-50")
MEAN_IMAGE = FileKind("mean-image", "an image")
_STYLEGAN3 = FileKind("stylegan3", "a StyleGAN3 pickle")
_UNKNOWN = FileKind("unknown", "nothing that is known here")

# Prefixes of tensor names that a kind has, the first kind that fits first.
_SIGNS = (
    (HYPERSTYLE, ("hypernet.",)),
    (SDIC, ("DIP.", "SAF.")),
    (HFGI, ("residue.", "grid_align.")),
    (CLCAE, ("encoder.cross_attention.",)),
    (SFE, ("inverter.fs_backbone.",)),
    (SFE_INVERTER, ("encoder.fs_backbone.",)),
    (E4E, ("encoder.styles.", "encoder.latlayer1.")),
    (W_ENCODER, ("encoder.input_layer.", "encoder.linear.")),
    (FS, ("content_layer.", "block_1.")),
    (IR_SE_50, ("input_layer.", "body.")),
    (IRESNET_50, ("layer1.", "prelu.")),
    (MOCO_V2, ("encoder_q.",)),
    (STYLEGAN2, ("to_rgb1.", "convs.")),
)


def recognise(ledger: Ledger) -> FileKind:
    """The kind of a file; `unknown` if no kind fits."""
    if ledger.checkpoint.content is None:
        return MEAN_IMAGE
    sections = ledger.sections
    if "G_ema" in sections:
        names = sections["G_ema"]
        return STYLEGAN2_ADA if any(name.startswith("synthesis.b4.") for name in names) else _STYLEGAN3
    if "g_ema" in sections:
        return STYLEGAN2
    if "e4e" in sections and "generator_smooth" in sections:
        return STYLERES
    names = next((sections[key] for key in (STATE, "enc_state_dict", TOP) if key in sections), {})
    for kind, prefixes in _SIGNS:
        if all(any(name.startswith(prefix) for name in names) for prefix in prefixes):
            # Both have the same tensors, of which they make different codes.
            encoder = ledger.options.get("encoder_type", "Encoder4Editing")
            return PSP if kind is E4E and encoder != "Encoder4Editing" else kind
    return _UNKNOWN
