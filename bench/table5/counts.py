"""Parameters and GMACs of every row of Table 5: the paper's, ours under the row's own convention, and complete.

The table's rows do not count the same things. Each is counted here under the convention that comes closest to its
published figures, which is named, and completely: all parameters that are loaded and everything that runs for one
edit of one image. No row is tuned to fit.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from bench.program import table as new_table
from bench.table5.counter import Count, count, count_called_modules
from engines.bundle.provenance import provenance
from engines.family import CARS_512, FACES_1024, FACES_1024_MOBILE, ModelFamily
from training.methods import COMPARED, create
from training.methods.protocol import Method


class Published(NamedTuple):
    """A row as the paper prints it."""

    params_m: float
    """Millions of parameters."""
    gmacs: float
    seconds: float
    """The time for one edited image."""


PAPER: dict[str, Published] = {
    "e4e": Published(268.568, 123.718, 0.036),
    "fs": Published(144.291, 113.165, 0.042),
    "hfgi": Published(303.753, 253.863, 0.075),
    "clcae": Published(398.092, 320.425, 0.059),
    "styleres": Published(388.822, 312.896, 0.058),
    "sdic": Published(321.002, 269.421, 0.113),
    "sfe": Published(424.601, 380.121, 0.078),
    "ours": Published(502.738, 689.103, 0.121),
}
"""Table 5 by method."""

PAPER_DEVICE = "NVIDIA GeForce RTX 3090"
"""The device of all experiments of the paper (its implementation details); of precision and batch size in Table 5 it
says nothing but "a single edited image"."""

_SIZES = (
    "size",
    "visible_rows",
    "style_dim",
    "mapping_layers",
    "channel_base",
    "channel_max",
    "feature_resolution",
    "encoder_size",
)
"""Fields of a family that all its rows share; the others are widths and kinds of networks."""

_CONTAINERS = ("inverter", "editor")
"""Parts that are shown by their own parts."""


@dataclass(frozen=True, kw_only=True)
class Component:
    """A part of a method."""

    name: str
    params_m: float
    gmacs: float
    """GMACs of one edit of one image, all its calls together."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of the table; parameters in millions, MACs in thousands of millions, for one image."""

    method: str
    family: str
    params_m: float
    gmacs: float
    paper_params_m: float | None
    paper_gmacs: float | None
    complete_params_m: float
    complete_gmacs: float
    convention: str
    components: tuple[Component, ...]


def edit_once(model: Method, image: Tensor, delta: Tensor) -> Callable[[], Tensor]:
    """One edit of one image, from the photo on."""
    return lambda: model.edit(model.invert(image), delta)


def _part(model: Method, name: str) -> Any:
    # `Any`: torch types every submodule as Tensor | Module.
    return model.get_submodule(name)


def _generator_pass(model: Method) -> int:
    """MACs of one whole pass."""
    decoder, code = _part(model, "decoder"), torch.empty(1, model.family.w_rows, model.family.style_dim)
    return count(decoder, lambda: decoder.render(code)).macs


def _e4e(model: Method, complete: Count, run: Callable[[], Any]) -> tuple[int, int]:
    cars = create("e4e", dataclasses.replace(CARS_512, encoder_size=FACES_1024.encoder_size))
    counts = count(cars, edit_once(cars, torch.empty(1, 3, *cars.input_size), torch.empty(1, cars.family.style_dim)))
    return counts.params, counts.macs


def _fs(model: Method, complete: Count, run: Callable[[], Any]) -> tuple[int, int]:
    return complete.params, complete.part("encoder") + _generator_pass(model)


def _hfgi(model: Method, complete: Count, run: Callable[[], Any]) -> tuple[int, int]:
    return complete.params, complete.macs - _generator_pass(model)


def _clcae(model: Method, complete: Count, run: Callable[[], Any]) -> tuple[int, int]:
    encoder, image = _part(model, "encoder"), torch.empty(1, 3, *model.family.encoder_size)
    return complete.params, count(encoder, lambda: encoder(image)).macs + 3 * _generator_pass(model)


def _styleres(model: Method, complete: Count, run: Callable[[], Any]) -> tuple[int, int]:
    mapping = sum(parameter.numel() for parameter in _part(model, "decoder.style").parameters())
    return complete.params - mapping, complete.macs


def _thop(model: Method, complete: Count, run: Callable[[], Any]) -> tuple[int, int]:
    counts = count_called_modules(model, run)
    return counts.params, counts.macs


def _as_it_is(model: Method, complete: Count, run: Callable[[], Any]) -> tuple[int, int]:
    return complete.params, complete.macs


_CONVENTIONS: dict[str, Callable[[Method, Count, Callable[[], Any]], tuple[int, int]]] = {
    "e4e": _e4e,
    "fs": _fs,
    "hfgi": _hfgi,
    "clcae": _clcae,
    "styleres": _styleres,
    "sdic": _as_it_is,
    "sfe": _thop,
    "hyperstyle": _as_it_is,
    "ours": _thop,
    "ours-light": _as_it_is,
}


def _components(model: nn.Module, complete: Count) -> tuple[Component, ...]:
    parts: dict[str, nn.Module] = {}
    for name, child in model.named_children():
        inner = {f"{name}.{key}": part for key, part in child.named_children()} if name in _CONTAINERS else {}
        parts |= inner or {name: child}
    return tuple(
        Component(
            name=name,
            params_m=sum(parameter.numel() for parameter in part.parameters()) / 1e6,
            gmacs=complete.part(name) / 1e9,
        )
        for name, part in parts.items()
    )


def row_family(key: str, family: ModelFamily) -> ModelFamily:
    """The family that a method's row stands for.

    The paper does not say whether its generator keeps the RGB skip below the feature. The row "Ours" keeps it, as FS
    and SFE do. The light row has the family's sizes and the light networks: faces-1024-mobile for faces-1024.
    """
    if key == "ours-light":
        sizes = {name: getattr(family, name) for name in _SIZES}
        editor = dataclasses.replace(FACES_1024_MOBILE.editor, window=family.editor.window, heads=family.editor.heads)
        return dataclasses.replace(FACES_1024_MOBILE, name=f"{family.name}-mobile", editor=editor, **sizes)
    return dataclasses.replace(family, rgb_skip=True) if key == "ours" else family


@functools.cache
def _on_meta(key: str, family: ModelFamily) -> tuple[Method, Callable[[], Tensor]]:
    """A method that allocates and computes nothing, and one edit of one image with it: a direction in W."""
    with torch.device("meta"):
        model = create(key, family)
        return model, edit_once(model, torch.empty(1, 3, *model.input_size), torch.empty(1, family.style_dim))


@functools.cache
def complete(key: str, family: ModelFamily) -> Count:
    """All parameters that are loaded, and everything that runs for one edit of one image.

    Raises:
        ValueError: if there is no such method, or it does not exist for the family.
    """
    with torch.device("meta"):
        return count(*_on_meta(key, family))


@functools.cache
def count_row(key: str, family: ModelFamily = FACES_1024, *, title: str | None = None) -> Row:
    """One row, on the meta device. Edits are directions in W."""
    whole = complete(key, family)
    with torch.device("meta"):
        model, run = _on_meta(key, family)
        params, macs = _CONVENTIONS[key](model, whole, run)
    paper = PAPER.get(key)
    return Row(
        method=title or model.info.title,
        family=family.name,
        params_m=params / 1e6,
        gmacs=macs / 1e9,
        paper_params_m=paper.params_m if paper else None,
        paper_gmacs=paper.gmacs if paper else None,
        complete_params_m=whole.params / 1e6,
        complete_gmacs=whole.macs / 1e9,
        convention=model.info.convention,
        components=_components(model, whole),
    )


def count_rows() -> list[Row]:
    """All rows in the table's order, at 1024 x 1024, the light system's behind them; the last is the paper's formula,
    without the RGB skip: the feature alone goes up."""
    rows = [count_row(key, row_family(key, FACES_1024)) for key in COMPARED]
    return [*rows, count_row("ours", title="Ours, no RGB skip")]


def _figures(paper: float | None, value: float, complete: float) -> tuple[str, str, str]:
    """The paper's figure, ours with the difference to that in %, and the complete one."""
    if paper is None:
        return "-", f"{value:.3f}", f"{complete:.3f}"
    return f"{paper:.3f}", f"{value:.3f} {100 * (value / paper - 1):+.1f}", f"{complete:.3f}"


def table(rows: list[Row]) -> Table:
    """The rows for a terminal of 80 columns or more."""
    units = ("M", "GMACs")
    figures = [one for unit in units for one in (f"paper\n{unit}", f"as the row\n{unit}, diff %", f"complete\n{unit}")]
    result = new_table(("Method",), figures, "One edit of one image")
    for row in rows:
        params = _figures(row.paper_params_m, row.params_m, row.complete_params_m)
        result.add_row(row.method, *params, *_figures(row.paper_gmacs, row.gmacs, row.complete_gmacs))
    return result


def component_table(rows: list[Row]) -> Table:
    """Every row's parts for a terminal."""
    result = new_table(("Method", "Part"), ("Parameters M", "GMACs per edit"), "Parts")
    for row in rows:
        for i, part in enumerate(row.components):
            last = i == len(row.components) - 1
            result.add_row(
                "" if i else row.method, part.name, f"{part.params_m:.3f}", f"{part.gmacs:.3f}", end_section=last
            )
    return result


def report(rows: list[Row], console: Console, *, components: bool = False) -> None:
    """Prints the table and what each row counts, and the rows' parts if asked for."""
    console.print(table(rows))
    console.print("What each row of the paper counts, as far as its figures show:")
    for row in rows:
        console.print(f"  {row.method}: {row.convention}")
    if components:
        console.print(component_table(rows))


def summary(rows: list[Row]) -> dict[str, Any]:
    """The rows as objects, with where they come from."""
    rows_as_objects = [dataclasses.asdict(row) for row in rows]
    return provenance("edgedit bench count --json FILE") | {"rows": rows_as_objects}
