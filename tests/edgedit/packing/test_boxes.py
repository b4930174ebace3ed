"""Packs as users make them, of the portrait bundle and wheels from pip's index, and one installed without a network."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import edgedit
from edgedit.packing import verify_pack
from edgedit.packing.platforms import PLATFORMS
from engines import pip
from engines.errors import RuntimeUnavailableError

ROOT = Path(__file__).resolve().parents[3]
HERE = f"linux-{platform.machine()}"
PYTHON = "{}.{}".format(*sys.version_info[:2])
pytestmark = [pytest.mark.slow, pytest.mark.deploy]


def made(name: str, folder: Path) -> Path:
    try:
        return edgedit.pack(platform=name, python=PYTHON, out=folder / "pack", progress=print)
    except RuntimeUnavailableError as error:
        if pip.UNREACHABLE in str(error):
            pytest.skip(str(error))
        raise


@pytest.mark.skipif(sys.platform != "linux" or HERE not in PLATFORMS, reason="there is no pack for this machine")
def test_a_box_without_a_network(tmp_path: Path) -> None:
    pack, target, home = made(HERE, tmp_path), tmp_path / "target", tmp_path / "home"
    home.mkdir()
    assert verify_pack(pack) > 40
    python = Path(sys.executable).resolve()
    alone = {"PATH": os.defpath, "HOME": str(home), "PIP_NO_INDEX": "1", "PYTHON": str(python)}
    cut_off = ["unshare", "--map-root-user", "--net"]
    if shutil.which("unshare") is None or subprocess.run([*cut_off, "true"], capture_output=True).returncode:
        cut_off = []
    command = [*cut_off, str(pack / "install.sh"), str(target)]
    done = subprocess.run(command, env=alone, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "self-test OK: the edited photo is the expected one to the bit" in done.stdout
    # The box lives on without the pack.
    shutil.rmtree(pack)
    again = [*cut_off, str(target / "venv/bin/edgedit"), "pack", "--self-test", str(target)]
    done = subprocess.run(again, env=alone, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.splitlines()[-1].startswith("self-test OK"), done.stderr


@pytest.mark.parametrize("name", [name for name in PLATFORMS if name != HERE])
def test_packs_for_machines_that_are_not_here(tmp_path: Path, name: str) -> None:
    """Resolved, downloaded and whole; docs/platforms.md says what could not be run."""
    pack = made(name, tmp_path)
    wheels = [path.name for path in (pack / "wheels").iterdir()]
    assert verify_pack(pack) > 40
    machine = PLATFORMS[name].tags[0].partition("_2_28")[2] or "win_amd64"
    assert all(wheel.endswith(("-any.whl", f"{machine}.whl")) for wheel in wheels)


@pytest.mark.parametrize(
    ("lock", "python"),
    [
        ("requirements/base.lock", "3.11"),
        ("requirements/base.lock", "3.13"),
        # What the gateway's image installs, and builds with.
        ("serving/deploy/gateway.lock", "3.12"),
        ("serving/deploy/build.lock", "3.12"),
    ],
)
def test_locks_of_a_serving_box_resolve_for_aarch64(tmp_path: Path, lock: str, python: str) -> None:
    command = [
        sys.executable,
        "-P",
        "-m",
        "pip",
        "install",
        "--dry-run",
        "--ignore-installed",
        *pip.PINNED,
        *pip.QUIETLY,
    ]
    command += ["--target", str(tmp_path / "nothing"), "--implementation", "cp", "--python-version", python]
    command += [f"--platform={tag}" for tag in PLATFORMS["linux-aarch64"].tags]
    reason = pip.failure([*command, "--requirement", str(ROOT / lock)])
    if reason is not None and reason.startswith(pip.UNREACHABLE):
        pytest.skip(reason)
    assert reason is None
    assert not (tmp_path / "nothing").exists()
