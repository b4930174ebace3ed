"""The account of one checkpoint: every tensor in it is taken, or left out for a reason that is said."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from training.importers.errors import CheckpointError
from training.importers.opening import Checkpoint
from training.importers.pickled import Call, numpy_array

T = TypeVar("T")

TOP = ""
"""The section of tensors that stand in the file's top dictionary itself."""
STATE = "state_dict"

_MEAN = re.compile(r"(?:.*\.)?latent_avg")
_AVERAGED = "params_ema"
"""The name that BasicSR's trainers give the averaged network, beside `params`."""
_WRAPPERS = frozenset(["module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"])
"""Parts that DataParallel, torch.compile and others like them put into names, in front or inside."""

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
    """The content of a checkpoint that has not been accounted for yet.

    `sections` are its dictionaries of tensors by name, `TOP` for those at the top; `options` the training options.
    `filled_in` says what it lacked and was made.

    Raises:
        CheckpointError: at construction, if a tensor is there twice, or the mean code is not one.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self.path = checkpoint.path
        self.sections: dict[str, dict[str, Tensor]] = {}
        self.options: Mapping[str, Any] = {}
        self.left_out: list[LeftOut] = []
        self.filled_in: list[str] = []
        self._nested: dict[str, int] = {}
        for key, value in unwrapped(checkpoint.content or {}, self.path).items():
            if isinstance(value, argparse.Namespace):
                value = vars(value)
            if key == "latent_avg" and isinstance(value, Call):
                value = torch.from_numpy(numpy_array(value, self.path))
            if isinstance(value, Mapping):
                # A mean code that was not there may be saved as None, here or at the top.
                value = {name: item for name, item in value.items() if name != "latent_avg" or item is not None}
            if isinstance(value, Tensor):
                self.sections.setdefault(TOP, {})[key] = value
            elif isinstance(value, Mapping) and value and all(isinstance(item, Tensor) for item in value.values()):
                self.sections[key] = unwrapped(value, self.path)
            elif key in ("opts", "settings") and isinstance(value, Mapping):
                self.options = value
                self.leave(key, 0, "settings")
            elif key == "latent_avg" and value is not None:
                raise CheckpointError(f"{self.path}: latent_avg is a {type(value).__name__}, not a tensor")
            elif key != "latent_avg":
                self._nested[key] = _count(value)
        if _AVERAGED in self.sections and STATE not in self.sections:
            self.sections[STATE] = self.sections.pop(_AVERAGED)
            self.drop("params", ".*", "training copy of the network")
        self._mean = self._take_mean()

    def _take_mean(self) -> Tensor | None:
        means: list[Tensor] = []
        # As official code does, one at the file's top is taken before a buffer.
        for section in sorted(self.sections, key=lambda section: section != TOP):
            tensors = self.sections[section]
            means += [tensors.pop(name) for name in sorted(filter(_MEAN.fullmatch, tensors), key=len)]
        if len(means) > 1:
            self.leave("latent_avg", len(means) - 1, "its copies in other places")
        return means[0] if means else None

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
            name = section if pattern == ".*" else f"{first}.*" if len(names) > 1 else names[0]
            self.leave(name, len(names), why)

    def mean_code(self) -> Tensor | None:
        """The mean of W that stands beside the network or is one of its buffers, in whatever shape; None if none is."""
        mean, self._mean = self._mean, None
        return mean

    def drop_mean(self, why: str) -> None:
        """Leaves out the mean code, if there is one."""
        if self.mean_code() is not None:
            self.leave("latent_avg", 1, why)

    def close(self) -> None:
        """Leaves out what is known not to belong to a network.

        Raises:
            CheckpointError: if tensors remain that are neither part of the network nor known.
        """
        unknown: list[str] = [] if self._mean is None else ["latent_avg"]
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


def unwrapped(content: Mapping[str, T], source: Path) -> dict[str, T]:
    """The content under names without the parts that wrappers of modules put in: "module.", "_orig_mod.".

    Raises:
        CheckpointError: if two names become one.
    """
    renamed: dict[str, T] = {}
    for name, value in content.items():
        plain = ".".join(part for part in str(name).split(".") if part not in _WRAPPERS) or str(name)
        if plain in renamed:
            raise CheckpointError(f"{source} holds {plain[:80]} twice, once with a prefix such as module.")
        renamed[plain] = value
    return renamed


def listed(names: list[str], noun: str) -> str:
    """ "2 unexpected tensors (a, b)", with three names at most."""
    shown = ", ".join(name[:80] for name in names[:3]) + (", ..." if len(names) > 3 else "")
    return f"{len(names)} {noun}{'s' if len(names) > 1 else ''} ({shown})"


def _extra(name: str) -> str | None:
    return next((why for pattern, why in _EXTRAS if pattern.search(name)), None)


def _count(value: Any) -> int:
    """Tensors in nested containers; one that stands in several places counts once, so that none takes forever."""
    tensors, counted, waiting = 0, set(), [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, Tensor):
            tensors += 1
        elif isinstance(item, Mapping | list | tuple) and id(item) not in counted:
            counted.add(id(item))
            waiting += item.values() if isinstance(item, Mapping) else item
    return tensors
