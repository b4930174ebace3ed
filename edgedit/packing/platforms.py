"""The machines that packs are for: their wheels' tags, what markers say there, and their installers."""

from __future__ import annotations

from dataclasses import dataclass

from edgedit.packing.manifest import PackError
from engines.errors import suggestion

PYTHONS = ("3.11", "3.12", "3.13")
"""Versions of CPython that a pack can be for."""


@dataclass(frozen=True)
class Platform:
    """One kind of machine."""

    name: str
    tags: tuple[str, ...]
    """Platform tags of the wheels that run there."""
    markers: dict[str, str]
    """The values that the environment markers of a lock are held against, Python's version left out."""
    installers: tuple[str, ...]
    """Names of the installer's files; the first is what a user runs."""

    def environment(self, python: str) -> dict[str, str]:
        """All markers of this platform under a version of CPython."""
        return self.markers | {
            "implementation_name": "cpython",
            "implementation_version": f"{python}.0",
            "platform_python_implementation": "CPython",
            "python_full_version": f"{python}.0",
            "python_version": python,
            "platform_release": "",
            "platform_version": "",
        }


def _linux(machine: str) -> Platform:
    # glibc 2.28 and older: that of RHEL 8, Debian 10 and JetPack 5, and of all that came after them.
    tags = tuple(f"manylinux_2_{minor}_{machine}" for minor in range(28, 4, -1))
    return Platform(
        f"linux-{machine}",
        (*tags, *(f"{alias}_{machine}" for alias in ("manylinux2014", "manylinux2010", "manylinux1"))),
        {"os_name": "posix", "sys_platform": "linux", "platform_system": "Linux", "platform_machine": machine},
        ("install.sh",),
    )


PLATFORMS = {
    platform.name: platform
    for platform in (
        _linux("x86_64"),
        _linux("aarch64"),
        Platform(
            "windows-x86_64",
            ("win_amd64",),
            {"os_name": "nt", "sys_platform": "win32", "platform_system": "Windows", "platform_machine": "AMD64"},
            ("install.cmd", "install.ps1"),
        ),
    )
}


def platform_named(name: str) -> Platform:
    """A platform by its name.

    Raises:
        PackError: for an unknown one; the message lists those there are.
    """
    if name not in PLATFORMS:
        raise PackError(f"unknown platform {name!r}: {suggestion(name, PLATFORMS)}there are {', '.join(PLATFORMS)}")
    return PLATFORMS[name]
