"""The account of one checkpoint: every tensor in it is taken, or left out for a reason that is said."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from training.importers.errors import CheckpointError
from training.importers.opening import Checkpoint

TOP = ""
"""The section of tensors that stand in the file's top dictionary itself."""
STATE = "state_dict"

_EXTRAS = (
    (re.compile(r"(^|_)(opt|optim|optimizer|scheduler|scaler)s?(_|$)"), "optimizer"),
    (re.compile(r"(^|_)(d|disc|discriminator)(_|$)"), "discriminator"),
    (re.compile(r"(^|_)(loss|losses|lpips|arcface|facenet|moco|vgg|parsing|id)(_|$)"), "loss network"),
)


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """Something in a checkpoint that was recognised and is not part of the network."""

    name: str
    tensors: int
    why: str

    def __str__(self) -> str:
        return f"{self.name} ({self.why}{f', {self.tensors} tensors' if self.tensors else ''})"


class Ledger:
    """What a checkpoint holds and has not been accounted for yet.

    `sections` are its dictionaries of tensors by name, `TOP` for those at the top; `options` the training options.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self.path = checkpoint.path
        self.sections: dict[str, dict[str, Tensor]] = {}
        self.options: Mapping[str, Any] = {}
        self.left_out: list[LeftOut] = []
        self._nested: dict[str, int] = {}
        for key, value in (checkpoint.content or {}).items():
            if isinstance(value, argparse.Namespace):
                value = vars(value)
            if isinstance(value, Tensor):
                self.sections.setdefault(TOP, {})[key] = value
            elif isinstance(value, Mapping) and value and all(isinstance(item, Tensor) for item in value.values()):
                self.sections[key] = {str(name): tensor for name, tensor in value.items()}
            elif key in ("opts", "settings") and isinstance(value, Mapping):
                self.options = value
                self.leave(key, 0, "settings")
            else:
                self._nested[key] = _count(value)

    def take(self, section: str, prefix: str, to: str) -> dict[str, Tensor]:
        """All tensors of a section whose names begin with `prefix`, which `to` replaces.

        Raises:
            CheckpointError: if there are none.
        """
        tensors = self.sections.get(section, {})
        names = [name for name in tensors if name.startswith(prefix)]
        if not names:
            what = f"{prefix}*" if prefix else "tensors"
            raise CheckpointError(f"{self.path} has no {what}{f' in its {section}' if section else ''}")
        return {to + name.removeprefix(prefix): tensors.pop(name) for name in names}

    def drop(self, section: str, pattern: str, why: str) -> None:
        """Leaves out the tensors of a section whose whole names match."""
        tensors = self.sections.get(section, {})
        names = [name for name in tensors if re.fullmatch(pattern, name)]
        for name in names:
            del tensors[name]
        if names:
            first = names[0].split(".")[0]
            self.leave(f"{first}.*" if len(names) > 1 else names[0], len(names), why)

    def mean_code(self) -> Tensor:
        """The mean of W that stands beside the state dict, in whatever shape.

        Raises:
            CheckpointError: if there is none.
        """
        try:
            return self.sections.get(TOP, {}).pop("latent_avg")
        except KeyError:
            raise CheckpointError(f"{self.path} has no latent_avg, the mean code that encoders start from") from None

    def close(self) -> None:
        """Leaves out what is known not to belong to a network.

        Raises:
            CheckpointError: if tensors remain that are neither part of the network nor known.
        """
        unknown: list[str] = []
        for section, tensors in self.sections.items():
            if tensors and section != TOP and (why := _extra(section)):
                self.leave(section, len(tensors), why)
                continue
            groups: dict[str, int] = {}
            for name in tensors:
                if _extra(first := name.split(".")[0]):
                    groups[first] = groups.get(first, 0) + 1
                else:
                    unknown.append(name if section in (TOP, STATE) else f"{section}: {name}")
            for first, count in groups.items():
                self.leave(first, count, _extra(first) or "")
        for key, count in self._nested.items():
            why = _extra(key) if count else "settings"
            if why:
                self.leave(key, count, why)
            else:
                unknown.append(key)
        if unknown:
            raise CheckpointError(f"{self.path} has {listed(unknown, 'unexpected tensor')}")

    def leave(self, name: str, tensors: int, why: str) -> None:
        """Notes something that is left out."""
        self.left_out.append(LeftOut(name=name, tensors=tensors, why=why))


def listed(names: list[str], noun: str) -> str:
    """ "2 unexpected tensors (a, b)", with three names at most."""
    shown = ", ".join(name[:80] for name in names[:3]) + (", ..." if len(names) > 3 else "")
    return f"{len(names)} {noun}{'s' if len(names) > 1 else ''} ({shown})"


def _extra(name: str) -> str | None:
    return next((why for pattern, why in _EXTRAS if pattern.search(name)), None)


def _count(value: Any) -> int:
    """Tensors in nested containers; one that stands in several places counts once, so that none takes forever."""
    tensors, seen, waiting = 0, set(), [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, Tensor):
            tensors += 1
        elif isinstance(item, Mapping | list | tuple) and id(item) not in seen:
            seen.add(id(item))
            waiting += item.values() if isinstance(item, Mapping) else item
    return tensors
