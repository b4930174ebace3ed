"""Reading the package random-face: as installed, as its folder and as its wheel, and refusing what is not it."""

from __future__ import annotations

import hashlib
import re
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engines.bundle import mobilestylegan
from engines.bundle.mobilestylegan import read
from engines.errors import RuntimeUnavailableError
from engines.packages import GENERATOR, PackageError


@pytest.fixture(scope="module")
def installed() -> Path:
    if (found := GENERATOR.installed()) is None:
        pytest.skip(f"{GENERATOR} is not installed")
    return found


@pytest.fixture
def folder(installed: Path, tmp_path: Path) -> Path:
    """A copy of the package's data, without its code."""
    (tmp_path / GENERATOR.module / "data").mkdir(parents=True)
    for name in GENERATOR.members:
        shutil.copyfile(installed / name, tmp_path / GENERATOR.module / name)
    return tmp_path


def test_all_of_the_generator_is_there(installed: Path) -> None:
    tensors = read()
    assert all(array.dtype == np.float32 for array in tensors.values())
    # Noise images are stored with their strength, two for each resolution from 8 to 512 and one for 4.
    sides = [a.shape[-1] for name, a in tensors.items() if name.endswith(".noise")]
    assert sides == [4, *(side for i in range(3, 10) for side in (2**i, 2**i))]
    counts = [sum(a.size for name, a in tensors.items() if name.startswith("style.") == mapping) for mapping in (1, 0)]
    assert counts[0] == 8 * (512 * 512 + 512)
    noise = sum(side * side for side in sides)
    assert counts[1] - noise == 7_306_380
    assert tensors["conv1.weight"].shape == (512, 512, 3, 3) and tensors["to_image.weight"].shape == (12, 64, 1, 1)


def test_folder_and_wheel_hold_the_same(folder: Path, tmp_path: Path) -> None:
    wheel = tmp_path / "random_face-2021.7.21.1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name in GENERATOR.members:
            archive.write(folder / GENERATOR.module / name, f"{GENERATOR.module}/{name}")
    expected = read(folder)
    for path in (folder / GENERATOR.module, wheel):
        found = read(path)
        assert list(found) == list(expected)
        assert all(np.array_equal(found[name], array) for name, array in expected.items())


def test_the_absent_package_is_named_with_the_command(no_index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    absent = replace(GENERATOR, module="a_package_that_nobody_has")
    monkeypatch.setattr(mobilestylegan, "GENERATOR", absent)
    with pytest.raises(RuntimeUnavailableError) as caught:
        read()
    assert GENERATOR.install in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", GENERATOR.members)
def test_a_flipped_byte_is_refused(folder: Path, name: str) -> None:
    file = folder / GENERATOR.module / name
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(
        PackageError,
        match=rf"{re.escape(file.name)} in .* is not that of random-face 2021\.7\.21\.1: another version or",
    ):
        read(folder)


def test_what_is_no_package(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match="does not exist; name the wheel of random-face"):
        read(tmp_path / "absent.whl")
    with pytest.raises(PackageError, match=r"holds no MappingNetwork\.xml of random-face"):
        read(tmp_path)
    text = tmp_path / "text.whl"
    text.write_bytes(b"PK no archive")
    with pytest.raises(PackageError, match=r"holds no MappingNetwork\.xml"):
        read(text)
    with zipfile.ZipFile(tmp_path / "empty.whl", "w"):
        pass
    with pytest.raises(PackageError, match=r"holds no MappingNetwork\.xml"):
        read(tmp_path / "empty.whl")


def test_constants_that_nothing_accounts_for(installed: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the digests: a slope of 0.3 where the definition says 0.2 is found in the graph itself."""
    member = "data/MappingNetwork.bin"
    file = folder / GENERATOR.module / member
    data = file.read_bytes()
    slope = np.float32(0.2).tobytes()
    assert slope in data
    file.write_bytes(data.replace(slope, np.float32(0.3).tobytes()))
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    changed = replace(GENERATOR, members={**GENERATOR.members, member: digest})
    monkeypatch.setattr(mobilestylegan, "GENERATOR", changed)
    with pytest.raises(PackageError, match="is a constant that MobileStyleGAN's definition does not account for"):
        read(folder)
