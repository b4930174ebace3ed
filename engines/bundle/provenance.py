"""The origin of a figure or a bundle: versions, machine, date. Nothing here names a path, a user or a host."""

from __future__ import annotations

import dataclasses
import datetime
import platform
import shlex
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engines.cpus import usable
from engines.libraries import LIBRARIES

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

TOOLS = (
    "edgedit",
    "numpy",
    "onnx",
    "onnx-ir",
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxscript",
    "safetensors",
    "torch",
    *(name for library in LIBRARIES.values() for name in library.distributions),
)
"""Packages whose versions can change a result."""


def tool_versions() -> dict[str, str]:
    """Versions of Python and of those of `TOOLS` that are installed."""
    versions = {"python": platform.python_version()}
    for tool in TOOLS:
        try:
            versions[tool] = metadata.version(tool)
        except metadata.PackageNotFoundError:
            continue
    return versions


def processor() -> str:
    """The CPU in words, with the cores this process may use."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                name = line.split(":", 1)[1].strip()
                break
    return f"{name}, {usable()} cores"


def peak_bytes() -> int | None:
    """The most memory this process has held; None where the system does not tell."""
    # Not `ru_maxrss` where it can be helped, which Linux hands on from parent to child. psutil 7.2 has neither.
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    try:
        import resource
    except ModuleNotFoundError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def provenance(command: str) -> dict[str, object]:
    """The origin that a committed measurement states.

    Args:
        command: the command line that repeats it, without paths of this machine.
    """
    return {"command": command, "date": now(), "device": processor(), "versions": tool_versions()}


def given(options: DataclassInstance) -> dict[str, Any]:
    """Options of a program that are not at their defaults, and those that have none; where its summary goes (`json`)
    is left out."""
    values = {field.name: (getattr(options, field.name), field.default) for field in dataclasses.fields(options)}
    return {name: value for name, (value, default) in values.items() if name != "json" and value != default}


def option(name: str) -> str:
    """The option of a command line that a field or an argument stands for: `--max-faces` for "max_faces"."""
    return f"--{name.replace('_', '-')}"


def command_line(words: str, options: Mapping[str, Any]) -> str:
    """The command that repeats a run, without paths of this machine: a file is the option's name in capitals.

    Args:
        words: the program, or a verb.
        options: as `given` has them, or others. The values of a tuple stand behind one another, those of a list each
            behind its own option.

    Example:
        >>> command_line("edgedit build", {"faces": Path("photos"), "max_faces": 8})
        'edgedit build --faces FACES --max-faces 8'
    """
    parts = [words]
    for name, value in options.items():
        if isinstance(value, list):
            parts += [f"{option(name)} {shlex.quote(item)}" for item in value]
        elif value is True:
            parts.append(option(name))
        else:
            values = value if isinstance(value, tuple) else (value,)
            shown = (name.upper() if isinstance(one, Path) else str(one) for one in values)
            parts.append(" ".join([option(name), *shown]))
    return " ".join(parts)
