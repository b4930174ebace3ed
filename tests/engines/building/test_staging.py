from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from engines.building.staging import LOCK_FILE, Staging, staged
from engines.bundle.engine_manifest import (
    ENGINE_DIGEST_FILE,
    ENGINE_FILE,
    BuiltWith,
    EngineManifest,
    engine_digest_line,
    parse_engine_manifest,
)
from engines.errors import EngineError, OutputError

_ROOT = Path(__file__).resolve().parents[3]
NAME = "tensorrt-rtx-sm86-fp16"

_HOLD = """
import sys, time
from pathlib import Path
from engines.building.staging import staged
with staged(Path(sys.argv[1]), sys.argv[2]) as staging:
    staging.add("edit.engine", b"half of it")
    print("writing", flush=True)
    time.sleep(600)
"""

_FILL = """
import resource, sys
from pathlib import Path
from engines.building.staging import staged
from engines.errors import OutputError
if len(sys.argv) > 2:
    import signal
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))
try:
    with staged(Path(sys.argv[1]), "tensorrt-rtx-sm86-fp16") as staging:
        staging.add("small.engine", bytes(2**19))
        staging.add("edit.engine", bytes(2**23))
except OutputError as error:
    print(error)
print(sorted(p.name for p in Path(sys.argv[1]).iterdir()))
"""


def manifest(staging: Staging, flags: dict | None = None) -> EngineManifest:
    return EngineManifest(
        schema_version=1,
        bundle="b",
        weights_sha256="0" * 64,
        runtime="tensorrt-rtx",
        target="sm86",
        precision="fp16",
        graphs={},
        files=staging.files,
        built=BuiltWith(
            library="l",
            version="1",
            compute_capabilities=["8.6"],
            hardware_compatible=False,
            version_compatible=False,
            driver_floor=None,
            flags=flags or {},
            tools={},
            command="c",
            date="d",
        ),
    )


def publish(bundle: Path, data: bytes) -> None:
    with staged(bundle, NAME) as staging:
        staging.add("edit.engine", data)
        staging.publish(manifest(staging))


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    path = tmp_path / "bundle"
    path.mkdir()
    return path


@pytest.fixture
def holder(bundle: Path) -> Iterator[subprocess.Popen]:
    """Another process that is in the midst of a build."""
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(bundle), NAME],
        env={**os.environ, "PYTHONPATH": str(_ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "writing\n"
    yield process
    process.kill()
    process.wait()


def names(bundle: Path) -> list[str]:
    return sorted(path.name for path in (bundle / "engines").iterdir())


def test_a_folder_is_published_whole(bundle: Path) -> None:
    data = bytes(range(256)) * 40_000
    with staged(bundle, NAME) as staging:
        staging.add("edit.engine", memoryview(data))
        (staging.work / "edit.onnx").write_bytes(b"scrap")
        (staging.work / "edit.weights").write_bytes(b"weights")
        staging.adopt(staging.work / "edit.weights")
        assert not (bundle / "engines" / NAME).exists()
        staging.publish(manifest(staging))
    folder = bundle / "engines" / NAME
    assert names(bundle) == [NAME]
    assert sorted(p.name for p in folder.iterdir()) == ["edit.engine", "edit.weights", ENGINE_FILE, ENGINE_DIGEST_FILE]
    raw = (folder / ENGINE_FILE).read_bytes()
    assert (folder / ENGINE_DIGEST_FILE).read_bytes() == engine_digest_line(raw)
    for name, entry in parse_engine_manifest(raw, NAME).files.items():
        content = (folder / name).read_bytes()
        assert (entry.bytes, entry.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert (folder / "edit.engine").read_bytes() == data


def test_what_was_not_published_leaves_nothing(bundle: Path) -> None:
    with pytest.raises(RuntimeError, match="stop"), staged(bundle, NAME) as staging:
        staging.add("edit.engine", b"x")
        raise RuntimeError("stop")
    assert list(bundle.iterdir()) == []


@pytest.mark.parametrize("fault", ["manifest", "rename"])
def test_a_failed_build_keeps_the_old_engine(bundle: Path, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    publish(bundle, b"old")
    rename = Path.rename

    def refuse(path: Path, target: Path) -> Path:
        if fault == "rename" and path.name.startswith(f".{NAME}") and path.suffix != ".old":
            raise OSError(5, "Input/output error")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuse)
    flags = {"x": float("nan")} if fault == "manifest" else {}
    with pytest.raises((OutputError, ValueError)), staged(bundle, NAME) as staging:
        staging.add("edit.engine", b"new")
        staging.publish(manifest(staging, flags))
    assert names(bundle) == [NAME]
    assert (bundle / "engines" / NAME / "edit.engine").read_bytes() == b"old"


def test_two_builds_at_once(bundle: Path, holder: subprocess.Popen) -> None:
    with pytest.raises(EngineError, match=rf"another build \(process {holder.pid}\) is writing engines into bundle"):
        publish(bundle, b"mine")
    # The other one's work is untouched.
    assert [n for n in names(bundle) if n.startswith(f".{NAME}")] and LOCK_FILE in names(bundle)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_killed_build_is_swept_by_the_next(bundle: Path, holder: subprocess.Popen) -> None:
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert len(names(bundle)) == 2 and all(name.startswith(".") for name in names(bundle))
    publish(bundle, b"mine")
    assert names(bundle) == [NAME]


def test_an_engine_that_had_stepped_aside_comes_back(bundle: Path) -> None:
    """A build killed between its two renames."""
    publish(bundle, b"old")
    engines = bundle / "engines"
    (engines / NAME).rename(engines / f".{NAME}.0123abcd.old")
    (engines / f".{NAME}.0123abcd").mkdir()
    with staged(bundle, "onnxruntime-cpu-fp16"):
        pass
    assert names(bundle) == [NAME]
    assert (engines / NAME / "edit.engine").read_bytes() == b"old"


def test_an_old_engine_that_was_replaced_does_not_come_back(bundle: Path) -> None:
    """A build killed after its two renames."""
    publish(bundle, b"new")
    shutil.copytree(bundle / "engines" / NAME, bundle / "engines" / f".{NAME}.0123abcd.old")
    with staged(bundle, "onnxruntime-cpu-fp16"):
        pass
    assert names(bundle) == [NAME]


def test_engines_that_is_no_folder_of_the_bundle(bundle: Path, tmp_path: Path) -> None:
    (bundle / "engines").write_text("a file")
    with pytest.raises(EngineError, match="engines is not a directory of the bundle"):
        publish(bundle, b"x")
    (bundle / "engines").unlink()
    (tmp_path / "elsewhere").mkdir()
    (bundle / "engines").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(EngineError, match="engines is not a directory of the bundle"):
        publish(bundle, b"x")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_bundle_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=f"cannot write engines/{NAME} of missing: No such file or directory"):
        publish(tmp_path / "missing", b"x")


@pytest.mark.skipif(sys.platform == "win32", reason="there is no limit on the size of files")
def test_a_write_that_fails_halfway(bundle: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _FILL, str(bundle), "limit"],
        env={**os.environ, "PYTHONPATH": str(_ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines() == [f"cannot write engines/{NAME} of bundle: File too large", "[]"], done.stderr


@pytest.mark.skipif(shutil.which("unshare") is None, reason="unshare is not installed")
def test_no_space_left(bundle: Path) -> None:
    mount = 'mount -t tmpfs -o size=2m tmpfs "$1" && echo mounted && shift && exec "$@"'
    words = [sys.executable, "-c", _FILL, str(bundle)]
    done = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", mount, "sh", str(bundle), *words],
        env={**os.environ, "PYTHONPATH": str(_ROOT)},
        capture_output=True,
        text=True,
    )
    if not done.stdout.startswith("mounted"):
        pytest.skip("a small file system cannot be mounted here")
    assert done.stdout.splitlines()[1:] == [f"cannot write engines/{NAME} of bundle: No space left on device", "[]"]
