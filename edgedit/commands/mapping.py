"""The body of `edgedit directions import mapper`, which needs PyTorch."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from edgedit.commands.common import console
from edgedit.commands.direction_files import SUFFIX
from edgedit.commands.directions import Mapper
from engines.store import write
from training.importers.mapper import AboutMapper, import_mapper, mapper_bytes, rows_of
from training.importers.opening import open_checkpoint
from training.networks.mapper import STRENGTH


def run(verb: Mapper) -> dict[str, Any]:
    """Reads the checkpoint and writes the mapper; the summary."""
    family = verb.model_family
    stem = verb.file.stem
    about = verb.about(stem, stem, None, (0.0, STRENGTH))
    mapper = import_mapper(open_checkpoint(verb.file), family)
    known = AboutMapper(
        **asdict(about), levels=tuple(mapper.levels), style_dim=family.style_dim, units="the mapper's own output"
    )
    if verb.out.suffix.lower() == SUFFIX:
        data = mapper_bytes(mapper, known)
    else:
        from export.mapper import export_mapper

        data = export_mapper(mapper, family)
    write(verb.out, data)
    levels = ", ".join(known.levels)
    console.print(
        f"wrote {verb.out}: latent mapper {known.name}, levels {levels} (rows {rows_of(known.levels, family)}), "
        f"strengths {known.min_strength:g} to {known.max_strength:g}; licence {known.licence}",
        markup=False,
    )
    return {"out": str(verb.out), "family": verb.family, "mapper": asdict(known)}
