"""Packs of stub wheels: what is in them, what is refused and how, and what their installer checks. No network."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import edgedit
from edgedit import packing
from edgedit.packing import PackError
from edgedit.packing.manifest import write_sums
from edgedit.packing.platforms import PLATFORMS, platform_named
from edgedit.packing.self_test import EXPECTED_FILE
from edgedit.packing.wheels import locked, write_own_wheel
from engines.bundle import Bundle
from engines.errors import EdgeditError, OutputError, RuntimeUnavailableError
from engines.packages import FACE_DETECTOR, GENERATOR
from tests.edgedit.conftest import Cli
from tests.engines.engine_folders import flip, write_engine
from tests.engines.packaged import write_wheel

ROOT = Path(__file__).resolve().parents[3]
HERE = "linux-x86_64"


def pinned(wheel: Path) -> str:
    name, version = wheel.name.split("-")[:2]
    return f"{name.replace('_', '-')}=={version} --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}"


def write_lock(wheels: Path) -> Path:
    """A lock of two stub wheels, one in place of the detector's, and of what a pack of Linux does without."""
    stubs = [
        write_wheel(wheels, "tiny-tool", "1.0", {"tiny_tool.py": b""}),
        write_wheel(wheels, FACE_DETECTOR.name, "9.0", {"tiny_weights.py": b""}),
    ]
    path = wheels.parent / "some.lock"
    elsewhere = 'tiny-windows==1.0 ; sys_platform == "win32" \\\n    --hash=sha256:' + "0" * 64
    path.write_text(
        "# a lock\n" + "\n    # via pytest\n".join([*map(pinned, stubs), elsewhere, GENERATOR.locked]) + "\n"
    )
    return path


@pytest.fixture
def lock(no_index: Path) -> Path:
    return write_lock(no_index)


@pytest.fixture(scope="module")
def one_pack(bundle_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Not to be changed."""
    wheels = tmp_path_factory.mktemp("wheels") / "index"
    wheels.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIP_CONFIG_FILE", os.devnull)
        patch.setenv("PIP_NO_INDEX", "1")
        patch.setenv("PIP_FIND_LINKS", str(wheels))
        return edgedit.pack(bundle_path, platform=HERE, out=wheels.parent / "pack", lock=write_lock(wheels))


@pytest.fixture
def made(one_pack: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(one_pack, tmp_path / "pack", symlinks=True))


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if "pack" in path.name)


def test_what_is_in_a_pack(cli: Cli, lock: Path, own_bundle: Path, tmp_path: Path) -> None:
    write_engine(own_bundle)
    name = next((own_bundle / "engines").iterdir()).name
    summary = tmp_path / "summary.json"
    words = ("--platform", HERE, "--lock", lock, "-o", tmp_path / "pack", "--engine", name, "--json", summary)
    done = cli("pack", "-b", own_bundle, *words)
    assert done.status == 0, done.err
    assert "wheel 2 of 2: tiny-tool 1.0\n" in done.out and done.out.endswith(f"wrote {tmp_path / 'pack'}\n")
    pack = tmp_path / "pack"
    wheels = {f"{FACE_DETECTOR.name.replace('-', '_')}-9.0-py3-none-any.whl", "tiny_tool-1.0-py3-none-any.whl"}
    own = f"edgedit-{edgedit.__version__}-py3-none-any.whl"
    # The generator is in the bundle, and what the lock asks for on other systems is not for this one.
    assert {path.name for path in (pack / "wheels").iterdir()} == {*wheels, own}
    requirements = (pack / "requirements.txt").read_text().splitlines()
    assert len(requirements) == 3 and all("--hash=sha256:" in line for line in requirements)
    assert f"edgedit=={edgedit.__version__} " in requirements[-1]
    assert Bundle.load(pack / "bundle").verify() == [] and (pack / "bundle" / "engines" / name).is_dir()
    info = json.loads(summary.read_text())
    assert (info["platform"], info["python"], info["engines"]) == (HERE, "3.11", [name])
    assert info["expected"]["size"] == Image.open(pack / EXPECTED_FILE).width == 64
    checked = subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=pack)
    assert checked.returncode == 0 and cli("pack", "--verify", pack).status == 0


def test_only_the_engines_that_are_named_go_along_and_no_stale_signature(
    lock: Path, own_bundle: Path, tmp_path: Path
) -> None:
    write_engine(own_bundle)
    (own_bundle / "model.sig").write_text("{}")
    said: list[str] = []
    pack = edgedit.pack(own_bundle, platform=HERE, out=tmp_path / "pack", lock=lock, progress=said.append)
    assert not (pack / "bundle/engines").exists() and not (pack / "bundle/model.sig").exists()
    assert any("signature" in line for line in said)


@pytest.mark.parametrize("damage", ["flip", "remove", "add", "link", "sums", "path"])
def test_verification_finds_what_was_changed(cli: Cli, made: Path, damage: str) -> None:
    file = made / "requirements.txt"
    if damage == "flip":
        flip(file)
    elif damage == "remove":
        file.unlink()
    elif damage == "add":
        file = made / "wheels" / "more-1.0-py3-none-any.whl"
        file.write_bytes(b"")
    elif damage == "link":
        file.rename(made.parent / "elsewhere")
        file.symlink_to(made.parent / "elsewhere")
    else:
        line = "nonsense\n" if damage == "sums" else f"{'0' * 64}  ../elsewhere\n"
        (made / "SHA256SUMS").write_text(line)
        file = made / "SHA256SUMS"
    assert file.name in cli("pack", "--verify", made).error


def test_the_self_test(cli: Cli, made: Path) -> None:
    done = cli("pack", "--self-test", made)
    assert done.status == 0 and done.out.splitlines()[-1].startswith("self-test OK: ")
    # Another CPU may round a few pixels the other way.
    record = json.loads((made / "pack.json").read_text())
    wanted = np.asarray(Image.open(made / EXPECTED_FILE)).copy()
    for noise, passed in ((1, True), (40, False)):
        other = np.where(wanted < 128, wanted + noise, wanted - noise).astype(np.uint8)
        other[8:] = wanted[8:] if passed else other[8:]
        Image.fromarray(other).save(made / EXPECTED_FILE)
        record["expected"]["sha256"] = hashlib.sha256(other.tobytes()).hexdigest()
        (made / "pack.json").write_text(json.dumps(record))
        done = cli("pack", "--self-test", made)
        assert done.status == (0 if passed else 1)
        line = done.out.splitlines()[-1] if passed else done.error
        assert line.startswith(f"self-test {'OK' if passed else 'failed'}: ") and "dB" in line
    flip(made / "bundle/graphs/weights.safetensors")
    assert cli("pack", "--self-test", made).status == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"platform": "linux-arm64"}, "unknown platform 'linux-arm64': .*linux-aarch64"),
        ({"python": "3.10"}, "--python must be one of 3.11, 3.12, 3.13, got 3.10"),
        ({"engines": ["nothing"]}, "there is no engine 'nothing'; there are none"),
        ({"lock": "nowhere.lock"}, "nowhere.lock cannot be read"),
    ],
)
def test_what_is_refused(lock: Path, bundle_path: Path, tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(EdgeditError, match=message):
        edgedit.pack(bundle_path, **{"platform": HERE, "out": tmp_path / "pack", "lock": lock} | options)
    assert left(tmp_path) == []


def test_a_folder_that_holds_something_is_left_alone(lock: Path, bundle_path: Path, tmp_path: Path) -> None:
    out = tmp_path / "pack"
    out.mkdir()
    (out / "mine").write_text("")
    with pytest.raises(OutputError, match="not an empty folder"):
        edgedit.pack(bundle_path, platform=HERE, out=out, lock=lock)
    assert [path.name for path in out.iterdir()] == ["mine"]


@pytest.mark.parametrize("case", ["no wheel", "another file", "no hash", "no version", "no requirement"])
def test_wheels_that_cannot_be_had_are_named(
    no_index: Path, lock: Path, bundle_path: Path, tmp_path: Path, case: str
) -> None:
    wheel = no_index / "tiny_tool-1.0-py3-none-any.whl"
    message = "tiny-tool has no version or no hash"
    if case == "no wheel":
        wheel.rename(no_index / "tiny_tool-1.0-cp311-cp311-manylinux_2_28_x86_64.whl")
        message = "there is no wheel of tiny-tool 1.0 for linux-aarch64 and Python 3.11 in pip's package index"
    elif case == "another file":
        write_wheel(no_index, "tiny-tool", "1.0", {"tiny_tool.py": b"1"})
        message = "gives for tiny-tool 1.0 is no file of the lock"
    elif case == "no hash":
        lock.write_text("tiny-tool==1.0\n")
    elif case == "no version":
        lock.write_text(lock.read_text().replace("tiny-tool==", "tiny-tool>="))
    else:
        lock.write_text("-r other.txt\n")
        message = "'-r other.txt' is no requirement"
    with pytest.raises(PackError, match=message):
        edgedit.pack(bundle_path, platform="linux-aarch64", out=tmp_path / "pack", lock=lock)
    assert left(tmp_path) == []


def test_without_a_network_one_line_says_so(
    lock: Path, bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "PIP_NO_INDEX": "0",
        "PIP_FIND_LINKS": "",
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
        "PIP_NO_CACHE_DIR": "1",
        "NO_PROXY": "127.0.0.1",
    }.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(RuntimeUnavailableError, match="package index cannot be reached; check the network"):
        edgedit.pack(bundle_path, platform=HERE, out=tmp_path / "pack", lock=lock)
    assert left(tmp_path) == []


def test_without_pip_one_line_says_so(
    lock: Path, bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    venv.create(tmp_path / "bare", symlinks=True)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bare" / "bin" / "python"))
    with pytest.raises(RuntimeUnavailableError, match="needs pip, which this Python lacks"):
        edgedit.pack(bundle_path, platform=HERE, out=tmp_path / "pack", lock=lock)
    assert left(tmp_path) == []


def test_the_lock_of_the_clone_for_every_platform() -> None:
    for name in PLATFORMS:
        pins = {pin.name: pin for pin in locked(None, platform_named(name), "3.12")}
        assert {"numpy", "onnxruntime", FACE_DETECTOR.name} <= pins.keys() and GENERATOR.name not in pins


def test_edgedits_own_wheel_is_complete_but_for_the_bundle(tmp_path: Path) -> None:
    pin = write_own_wheel(tmp_path)
    (wheel,) = tmp_path.iterdir()
    assert pin.hashes == (hashlib.sha256(wheel.read_bytes()).hexdigest(),)
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        info = f"edgedit-{edgedit.__version__}.dist-info"
        record = archive.read(f"{info}/RECORD").decode().splitlines()
        assert b"edgedit.cli:main" in archive.read(f"{info}/entry_points.txt")
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / "edgedit").rglob("*.py")}
    assert sources <= names and {"edgedit/assets/astronaut.jpg", "edgedit/packing/templates/install.sh"} <= names
    assert {f"{info}/licenses/LICENSE", f"{info}/licenses/NOTICE"} <= names
    assert not [name for name in names if name.startswith(("edgedit/bundles/", "tests/", "bench/results/"))]
    assert {line.split(",")[0] for line in record} == names


def installed(pack: Path, target: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(target.parent), "PYTHON": sys.executable}
    command = [str(pack / "install.sh"), str(target)]
    return subprocess.run(command, capture_output=True, text=True, env=variables | environment)


@pytest.mark.skipif(sys.platform != "linux", reason="the installer is for Linux")
@pytest.mark.parametrize(
    "case", ["damaged", "machine", "python", "target", pytest.param("wheels", marks=pytest.mark.slow)]
)
def test_the_installer_refuses_and_leaves_nothing(made: Path, tmp_path: Path, case: str) -> None:
    target = tmp_path / "target"
    environment = {}
    if case == "damaged":
        flip(made / "requirements.txt")
        message = "the pack is damaged"
    elif case == "machine":
        script = made / "install.sh"
        script.write_text(script.read_text().replace("Linux x86_64", "Linux aarch64").replace(HERE, "linux-aarch64"))
        (made / "SHA256SUMS").unlink()
        write_sums(made)
        message = "this pack is for linux-aarch64, and this machine is Linux"
    elif case == "python":
        environment["PYTHON"] = str(tmp_path / "python3.11")
        message = "install Python 3.11, or name it"
    elif case == "target":
        target.mkdir()
        (target / "mine").write_text("")
        message = "not an empty folder"
    else:
        # Of what edgedit imports only stubs are installed.
        message = "the self-test failed"
    done = installed(made, target, **environment)
    assert done.returncode == 1 and message in done.stderr, done.stderr
    assert (target / "mine").exists() if case == "target" else not target.exists()


def test_the_installer_for_windows_checks_every_digest_first(lock: Path, bundle_path: Path, tmp_path: Path) -> None:
    """It cannot be run here: see docs/platforms.md."""
    lock.write_text(
        "\n".join(line for line in lock.read_text().splitlines() if "windows" not in line and "0" * 64 not in line)
    )
    pack = edgedit.pack(bundle_path, platform="windows-x86_64", out=tmp_path / "pack", lock=lock)
    script = (pack / "install.ps1").read_bytes()
    assert script.count(b"\r\n") == script.count(b"\n") and b"{{" not in script
    assert script.index(b"Get-FileHash") < script.index(b"-m venv") < script.index(b"--self-test")
    assert b"--no-index" in script and b"--require-hashes" in script and packing.verify_pack(pack) > 10
    assert not (pack / "install.sh").exists()
