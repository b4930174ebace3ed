"""Describes a Python interpreter to the development server, whose models run in an embedded one of its version.

Also a script, so that an interpreter other than this one can be asked: it prints `describe()` as JSON. It imports the
standard library alone.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import sys
import sysconfig


def describe() -> dict[str, str | list[int] | None]:
    """The interpreter that runs this.

    Returns:
        system, machine, glibc ("" where another C library is used), python [major, minor], executable, and libpython:
        the folder of the shared library, "" where the loader finds it by itself, None where there is none.
    """
    library, version = platform.libc_ver()
    return {
        "system": platform.system(),
        "machine": platform.machine(),
        "glibc": version if library == "glibc" else "",
        "python": list(sys.version_info[:2]),
        "executable": os.path.realpath(sys.executable),
        "libpython": _libpython(),
    }


def _libpython() -> str | None:
    name = f"libpython{sys.version_info[0]}.{sys.version_info[1]}.so.1.0"
    libdir = sysconfig.get_config_var("LIBDIR") or ""
    folders = [libdir, os.path.join(libdir, sysconfig.get_config_var("MULTIARCH") or ""), f"{sys.base_prefix}/lib"]
    for folder in folders:
        if folder and os.path.isfile(os.path.join(folder, name)):
            return folder
    try:
        ctypes.CDLL(name)
    except OSError:
        return None
    return ""


if __name__ == "__main__":
    print(json.dumps(describe()))
