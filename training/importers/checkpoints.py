"""Official checkpoints to imported weights (`training.imported`), without running any code that is in them.

file -> `opening` (what torch or `pickled` read as data) -> `ledger` (every tensor accounted for)
     -> `recognise` (what it looks like) -> `formats` (which tensor goes where)
     -> `sizes` (the family) -> `accounting` (against the network)
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from engines.family import ModelFamily
from engines.photo.images import open_image
from training.imported import GENERATOR, Imported
from training.importers.accounting import account, mean_code
from training.importers.derived import fill_in
from training.importers.errors import CheckpointError
from training.importers.formats import FORMATS, MAIN, Files, Format
from training.importers.ledger import Ledger, LeftOut
from training.importers.opening import open_checkpoint
from training.importers.recognise import FileKind, recognise
from training.importers.sizes import check_resolution, derive, generator_size

_HEAD = re.compile(r"(?:encoder|e4e_encoder|inverter\.fs_backbone)\.styles(_others)?\.(\d{1,3})\..*")


@dataclass(frozen=True, kw_only=True)
class Result:
    """The outcome of an import."""

    imported: Imported
    left_out: list[tuple[str, LeftOut]]
    """Parts that were recognised and are not of the network, each with the name of its file."""
    filled_in: list[str]
    """Lines on the tensors that the files lack and that were made."""


def import_checkpoint(kind: str, paths: Sequence[Path], family: ModelFamily | None = None) -> Result:
    """Reads the official files of a kind, in any order: what each is shows in its tensors.

    Args:
        kind: a key of `FORMATS`.
        paths: all files that the kind needs.
        family: the one expected; if left out, the one that the tensors show.

    Raises:
        CheckpointError: if a file cannot be read, is of another kind or resolution, is missing, or has tensors that the
            network does not have or lacks some that it has.
        ValueError: if the kind does not exist for the family.
    """
    if kind not in FORMATS:
        raise CheckpointError(f"unknown kind {kind!r}; there are {', '.join(FORMATS)}")
    form = FORMATS[kind]
    files, kinds = _assigned(kind, form, [Ledger(open_checkpoint(Path(path))) for path in paths])
    source = " with ".join(str(ledger.path) for ledger in files.values())
    _same_size(files)
    means, tensors = {}, {}
    for name, tensor in form.assemble(files).items():
        (means if name.endswith("latent_avg") else tensors)[name] = tensor
    if means:
        cars = _cars(files, default=form.stored_as != GENERATOR)
        shown = derive(tensors, str(files[MAIN].path), cars=cars)
        if family is not None:
            check_resolution(shown, family, str(files[MAIN].path))
        family = family or shown
        _check_heads(tensors, family, form, files[MAIN])
    else:
        family = None
    expected = form.expected(family, tensors)
    for name, value in means.items():
        tensors[name] = mean_code(value, expected[name].shape, source)
    if "mean image" in files:
        tensors["mean_image"] = _mean_image(files["mean image"].path, expected["mean_image"].shape)
    for ledger in files.values():
        ledger.close()
    what = f"{kind} of {family.name}" if family else kind
    filled_in = [note for ledger in files.values() for note in ledger.filled_in] + fill_in(tensors, expected)
    imported = Imported(
        kind=form.stored_as,
        family=family,
        licence=_licence(form, kinds),
        sources=[
            {
                "role": role,
                "file": ledger.path.name,
                "format": kinds[role].key,
                "bytes": ledger.checkpoint.size,
                "sha256": ledger.checkpoint.digest,
            }
            for role, ledger in files.items()
        ],
        tensors=account(tensors, expected, what, source),
    )
    if filled_in:
        imported.sources[0]["filled_in"] = filled_in
    left_out = [(ledger.path.name, item) for ledger in files.values() for item in ledger.left_out]
    return Result(imported=imported, left_out=left_out, filled_in=filled_in)


def _assigned(kind: str, form: Format, ledgers: list[Ledger]) -> tuple[Files, dict[str, FileKind]]:
    """Files and their kinds by role.

    Raises:
        CheckpointError: if a file is of another kind, or missing.
    """
    spare = [(ledger, recognise(ledger)) for ledger in ledgers]
    files: dict[str, Ledger] = {}
    kinds: dict[str, FileKind] = {}
    missing: list[str] = []
    for wanted in form.sources:
        index = next((i for i, (_, file_kind) in enumerate(spare) if file_kind in wanted.kinds), None)
        if index is not None:
            files[wanted.role], kinds[wanted.role] = spare.pop(index)
        else:
            missing.append(wanted.words)
    main = form.sources[0].words
    if MAIN not in files:
        others = spare or [(files[role], kinds[role]) for role in files]
        if not others:
            raise CheckpointError(f"{kind} needs {main}; name the file")
        ledger, file_kind = others[0]
        hint = f"; `edgedit import weights {file_kind.key}` reads that" if file_kind.key in FORMATS else ""
        raise CheckpointError(f"{ledger.path} looks like {file_kind.words}, not like {main}{hint}")
    stray = f"{spare[0][0].path} looks like {spare[0][1].words}" if spare else ""
    if missing:
        raise CheckpointError(
            f"{kind} is missing a file{f' ({stray})' if stray else ''}: also name {', and '.join(missing)}"
        )
    if stray:
        raise CheckpointError(f"{stray}, which {kind} does not need; leave it out")
    return files, kinds


def _same_size(files: Files) -> None:
    """
    Raises:
        CheckpointError: if the files hold generators of different sizes.
    """
    sizes = {}
    for ledger in files.values():
        if size := generator_size(name for section in ledger.sections.values() for name in section):
            sizes.setdefault(size, ledger.path)
    if len(sizes) > 1:
        (first, path), (second, other) = list(sizes.items())[:2]
        raise CheckpointError(f"{other} is of another resolution: {second} pixels, and {path} has {first}")


def _cars(files: Files, *, default: bool) -> bool:
    """True if 512 pixels show cars: as the training options say, else the default."""
    named = files[MAIN].options.get("dataset_type")
    return "car" in named if isinstance(named, str) else default


def _check_heads(tensors: dict[str, Tensor], family: ModelFamily, form: Format, main: Ledger) -> None:
    """Compares style heads with the generator's rows; heads that no row needs are left out where that is harmless.

    Raises:
        CheckpointError: if the encoder is for another generator.
    """
    spare: set[str] = set()
    heads: dict[str, set[tuple[str, str]]] = {}
    for name in tensors:
        if match := _HEAD.fullmatch(name):
            encoder = name.split(".styles")[0]
            heads.setdefault(encoder, set()).add((match[1] or "", match[2]))
            if not match[1] and int(match[2]) >= family.w_rows:
                spare.add(name)
    for encoder, own in heads.items():
        too_many = len(own) > family.w_rows
        if len(own) < family.w_rows or (too_many and not (form.extra_rows and encoder == "encoder")):
            raise CheckpointError(
                f"{main.path} is of another resolution: {encoder} has {len(own)} style heads, "
                f"and the generator of {family.size} pixels takes {family.w_rows}"
            )
    for name in spare:
        del tensors[name]
    if spare:
        main.leave("encoder.styles", len(spare), f"heads beyond the generator's {family.w_rows} rows")


def _mean_image(path: Path, shape: torch.Size) -> Tensor:
    """The mean photo in [-1, 1], 3 x h x w, resized as photos are."""
    height, width = shape[1:]
    pixels = open_image(path).pixels
    if pixels.shape[:2] != (height, width):
        pixels = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))
    return torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1) / 127.5 - 1.0


def _licence(form: Format, kinds: dict[str, FileKind]) -> str:
    parts = [form.licence]
    for role, file_kind in kinds.items():
        if role != MAIN and file_kind.key in FORMATS:
            parts.append(f"{role}: {FORMATS[file_kind.key].licence}")
        elif file_kind.key == "psp":
            parts.append(f"{role}: the terms of the pSp file")
    return "; ".join(parts)
