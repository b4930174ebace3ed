from __future__ import annotations

import argparse
import io
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from engines.errors import EdgeditError
from engines.family import FACES_1024
from tests.training.importers.files import STRAY
from training.importers import arrays as module
from training.importers.arrays import read_arrays


class Exploit:
    """What a malicious file asks for: a command of the system."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return os.system, (f"touch {self.marker}",)


def statistics() -> list[list[np.ndarray]]:
    rng = np.random.default_rng(0)
    return [[rng.normal(size=8).astype(np.float32) for _ in range(3)] for _ in range(2)]


def test_official_files_hold_what_is_known_of_them(shared: Path) -> None:
    folder = shared / "directions"
    for name, shape in (("age", (1, 512)), ("smile", (1, 512)), ("pose", (1, 18, 512))):
        vector = read_arrays(folder / f"{name}.pt").value
        assert vector.shape == shape and vector.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(vector, axis=-1), 1, atol=1e-5)
    for name in ("ffhq_pca", "cars_pca"):
        pca = read_arrays(folder / f"{name}.pt").value
        assert {key: array.shape for key, array in pca.items()} == {
            "mean": (1, 512),
            "comp": (80, 1, 512),
            "std": (80,),
        }
        axes = pca["comp"][:, 0]
        np.testing.assert_allclose(axes @ axes.T, np.eye(80), atol=1e-5)
        assert (pca["std"] > 0).all()
    means, deviations = read_arrays(folder / "S_mean_std").value
    widths = tuple(array.size for array in deviations)
    assert widths == FACES_1024.style_channels and sum(widths) == 9088
    assert tuple(array.size for array in means) == widths
    # Read by Python's own unpickler, which is trusted with this one file of ours, it is the same to the bit.
    for ours, theirs in zip((means, deviations), pickle.loads((folder / "S_mean_std").read_bytes()), strict=True):
        assert all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickled_arrays_of_every_layout(tmp_path: Path, protocol: int) -> None:
    held = {
        "a": np.arange(6, dtype=">f4").reshape(2, 3),
        "b": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "c": np.array([True, False]),
        "d": np.array(-3, np.int16),
        "e": [1, 2.5, "text", None, True],
        "f": np.arange(24, dtype=np.int32).reshape(2, 3, 4).transpose(1, 0, 2),
        "g": np.arange(24.0).reshape(4, 6)[:, ::2],
        "h": np.float32(0.1),
    }
    (tmp_path / "x").write_bytes(pickle.dumps(held, protocol))
    found = read_arrays(tmp_path / "x").value
    assert list(found) == list(held) and found["e"] == held["e"]
    for key in "abcdfgh":
        assert np.array_equal(found[key], held[key]) and found[key].shape == held[key].shape
        assert found[key].dtype == held[key].dtype.newbyteorder("=")


@pytest.mark.parametrize("protocol", [0, 1])
def test_pickles_of_python_2_are_named(tmp_path: Path, protocol: int) -> None:
    array = np.arange(3.0)
    for held in (array, [array], (array,), {"a": array}, [0.5, 1.5], (0.5, 1.5), statistics(), [statistics()[0]] * 2):
        (tmp_path / "x").write_bytes(pickle.dumps(held, protocol))
        with pytest.raises(EdgeditError, match=r"is a pickle of protocol 0 or 1, .*save its array with numpy\.save"):
            read_arrays(tmp_path / "x")


@pytest.mark.parametrize("zipped", [True, False])
def test_arrays_that_torch_saved(tmp_path: Path, zipped: bool) -> None:
    array = np.random.default_rng(0).normal(size=(1, 512)).astype(np.float32)
    held = {
        "a": array,
        "b": [np.asfortranarray(array.reshape(2, 256)), torch.ones(2)],
        "c": np.float64(0.1),
        "d": "x",
    }
    torch.save(held, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    found = read_arrays(tmp_path / "x.pt").value
    assert np.array_equal(found["a"], array) and found["a"].dtype == np.float32
    assert np.array_equal(found["b"][0], array.reshape(2, 256)) and found["b"][1].tolist() == [1, 1]
    assert found["c"] == 0.1 and found["d"] == "x"
    torch.save(array, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    assert np.array_equal(read_arrays(tmp_path / "x.pt").value, array)
    torch.save(np.array([{}, None], dtype=object), tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(EdgeditError, match="array that is damaged, or not of numbers"):
        read_arrays(tmp_path / "x.pt")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_containers_of_numpy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, save) -> None:
    held = {"act_comp": np.arange(12.0).reshape(2, 1, 6), "act_stdev": np.ones(2, np.float32)}
    save(tmp_path / "x.npz", **held)
    found = read_arrays(tmp_path / "x.npz").value
    assert found.keys() == held.keys()
    assert all(np.array_equal(found[key], held[key]) and found[key].dtype == held[key].dtype for key in held)
    data = (tmp_path / "x.npz").read_bytes()
    refused = 0
    for at in range(len(data)):
        (tmp_path / "x.npz").write_bytes(data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :])
        # Bytes of no consequence, such as a time, change nothing, and a name its name alone.
        try:
            changed = read_arrays(tmp_path / "x.npz").value.values()
            assert all(any(np.array_equal(array, other) for other in held.values()) for array in changed)
        except EdgeditError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused > len(data) / 2
    save(tmp_path / "x.npz", a=np.array([{}], dtype=object))
    with pytest.raises(EdgeditError, match=r"x\.npz: a is damaged, or holds objects"):
        read_arrays(tmp_path / "x.npz")
    # A thousand times smaller in the file than in memory.
    monkeypatch.setattr(module, "MAX_BYTES", 2**20)
    np.savez_compressed(tmp_path / "x.npz", a=np.zeros(2**18))
    with pytest.raises(EdgeditError, match="unpacks to more than 1 MiB"):
        read_arrays(tmp_path / "x.npz")


@given(shape=st.sampled_from([(512,), (1, 512), (512, 1), (18, 64)]), form=st.sampled_from(["savetxt", "csv", "list"]))
@settings(max_examples=12)
def test_a_text_of_numbers(tmp_path_factory: pytest.TempPathFactory, shape: tuple[int, ...], form: str) -> None:
    array = np.random.default_rng(0).normal(size=shape)
    file = tmp_path_factory.getbasetemp() / "direction.txt"
    if form == "list":
        file.write_text(str(array.tolist()))
    else:
        np.savetxt(file, array, delimiter="," if form == "csv" else " ", header="a comment", encoding="ascii")
    found = read_arrays(file).value
    assert found.shape == (shape if shape == (18, 64) and form != "list" else (array.size,))
    np.testing.assert_allclose(found.reshape(-1), array.reshape(-1), rtol=1e-12)


def test_texts_that_are_not_of_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "x.txt"
    for text, message in (
        ("0.5 " * 200 + "half", "does not hold numbers alone"),
        ("404: Not Found", "is a text, and not one of numbers alone"),
        ("direction = 0.5", "is a text, and not"),
    ):
        file.write_text(text)
        with pytest.raises(EdgeditError, match=message):
            read_arrays(file)
    monkeypatch.setattr(module, "MAX_TEXT", 2**20)
    file.write_text("0.5\n" * 2**19)
    with pytest.raises(EdgeditError, match="text of more than 1 MiB"):
        read_arrays(file)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_an_exploit_is_refused_and_not_run(tmp_path: Path, protocol: int) -> None:
    marker = tmp_path / "ran"
    for held in (Exploit(marker), [statistics(), Exploit(marker)], {"mean": Exploit(marker)}):
        (tmp_path / "S_mean_std").write_bytes(pickle.dumps(held, protocol))
        with pytest.raises(EdgeditError, match=r"asks for .*refused; nothing of it ran"):
            read_arrays(tmp_path / "S_mean_std")
        torch.save(held, tmp_path / "age.pt", pickle_protocol=protocol)
        with pytest.raises(EdgeditError, match=r"refused|damaged"):
            read_arrays(tmp_path / "age.pt")
        torch.save(held, tmp_path / "age.pt", pickle_protocol=protocol, _use_new_zipfile_serialization=False)
        with pytest.raises(EdgeditError, match=r"refused|damaged"):
            read_arrays(tmp_path / "age.pt")
        np.save(tmp_path / "fs3.npy", np.array([held], dtype=object), allow_pickle=True)
        with pytest.raises(EdgeditError, match="holds objects that are not numbers"):
            read_arrays(tmp_path / "fs3.npy")
    assert not marker.exists()
    # The exploit is a real one.
    pickle.loads(pickle.dumps(Exploit(marker)))
    assert marker.exists()


def test_arrays_of_objects_in_a_pickle_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(pickle.dumps([np.array([{}, None], dtype=object)], 3))
    with pytest.raises(EdgeditError, match="array that is damaged, or not of numbers"):
        read_arrays(tmp_path / "x")


@given(cut=st.floats(0, 1), at=st.integers(0, 10_000), mask=st.integers(0, 255))
@settings(max_examples=150)
def test_damaged_pickles_raise_one_line(
    tmp_path_factory: pytest.TempPathFactory, cut: float, at: int, mask: int
) -> None:
    data = bytearray(pickle.dumps(statistics(), 3))
    data = data[: 1 + int(cut * (len(data) - 1))]
    data[at % len(data)] ^= mask
    file = tmp_path_factory.getbasetemp() / "damaged"
    file.write_bytes(data)
    try:
        read_arrays(file)
    except EdgeditError as error:
        assert "\n" not in str(error)


def test_deep_and_shared_lists_end_soon(tmp_path: Path) -> None:
    (tmp_path / "deep").write_bytes(b"\x80\x03" + b"]" * 20_000 + b"a" * 19_999 + b".")
    with pytest.raises(EdgeditError, match=r"nests lists more deeply|more than 10000 items"):
        read_arrays(tmp_path / "deep")
    laughs: list = ["x"]
    for _ in range(40):
        laughs = [laughs, laughs]
    (tmp_path / "laughs").write_bytes(pickle.dumps(laughs, 3))
    with pytest.raises(EdgeditError, match="holds more than 10000 items"):
        read_arrays(tmp_path / "laughs")


def test_torch_files_that_are_not_tensors_alone(tmp_path: Path) -> None:
    file = tmp_path / "x.pt"
    torch.save({"mean": argparse.Namespace()}, file)
    with pytest.raises(EdgeditError, match="holds something other than arrays and numbers"):
        read_arrays(file)
    torch.save(torch.zeros(1).expand(2**28), file)
    with pytest.raises(EdgeditError, match="too large, or not dense"):
        read_arrays(file)
    torch.save(torch.eye(3).to_sparse(), file)
    with pytest.raises(EdgeditError, match="too large, or not dense"):
        read_arrays(file)
    torch.save({"a": torch.ones(2, dtype=torch.bfloat16, requires_grad=True), "b": torch.arange(3)}, file)
    found = read_arrays(file).value
    assert found["a"].dtype == np.float32 and found["b"].tolist() == [0, 1, 2]
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"0" * 10**6)
    with pytest.raises(EdgeditError, match="compressed archive"):
        read_arrays(file)


def test_files_that_are_no_arrays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "x"
    png = io.BytesIO()
    Image.new("RGB", (1, 1)).save(png, "PNG")
    for data, message in (
        (b"\x93NUMPY\x01\x00", "is damaged"),
        (b"PK\x03\x04 cut off", "damaged"),
        (png.getvalue(), "is an image, and arrays come in torch, NumPy, pickle or text files"),
        ((64).to_bytes(8, "little") + b'{"a": 1}', "is a safetensors file, and arrays come in"),
        *STRAY,
    ):
        file.write_bytes(data)
        with pytest.raises(EdgeditError, match=message):
            read_arrays(file)
    with pytest.raises(EdgeditError, match=r"cannot read .*No such file"):
        read_arrays(tmp_path / "missing")
    with pytest.raises(EdgeditError, match="cannot read"):
        read_arrays(tmp_path)
    monkeypatch.setattr(module, "MAX_BYTES", 2**20)
    file.write_bytes(b"\x80" * (2**20 + 1))
    with pytest.raises(EdgeditError, match="is larger than 1 MiB"):
        read_arrays(file)
