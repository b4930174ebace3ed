"""pip, run as a program: what it installs or downloads is pinned by hashes, and its failures are one line."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence

PINNED = ("--no-deps", "--require-hashes", "--only-binary", ":all:", "--no-input", "--disable-pip-version-check")
QUIETLY = ("--progress-bar", "off", "--quiet")
UNREACHABLE = "pip's package index cannot be reached"
"""The beginning of a failure's reason if there is no network, or no index."""


def failure(command: Sequence[str]) -> str | None:
    """Runs a command that asks nothing and shows nothing.

    Returns:
        None if it succeeds, else the reason it gives: one line, of pip's errors the last.
    """
    environment = os.environ | {"PIP_REQUIRE_VIRTUALENV": "0"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, env=environment)
    except OSError as error:
        return f"{command[0]}: {error.strerror}"
    if not done.returncode:
        return None
    lines = [line.strip() for line in (done.stderr + done.stdout).splitlines() if line.strip()]
    # Where no index answers, pip warns of each try, and ends with the words for a package that does not exist.
    if any("Retrying (" in line for line in lines) and "No matching distribution" in lines[-1]:
        return f"{UNREACHABLE}; check the network and pip's settings"
    said = [line for line in lines if line.startswith("ERROR:")] or lines or [f"exit status {done.returncode}"]
    return said[-1].removeprefix("ERROR: ")
