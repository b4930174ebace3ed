"""Files that are wrong, damaged or hostile: one line each, and nothing in them runs."""

from __future__ import annotations

import builtins
import io
import os
import pickle
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.family import FACES_1024
from engines.first_bytes import LENGTH
from tests.training.importers import official as o
from tests.training.importers.files import SMALL, STRAY, contents, message, nvidia_modules, persistent, write_ada
from training.importers import opening
from training.importers.checkpoints import import_checkpoint
from training.importers.errors import CheckpointError
from training.importers.mapper import import_mapper
from training.importers.opening import WORDS, form_of, open_checkpoint
from training.importers.pickled import read_pickle


class Runs:
    """Runs a shell command when it is unpickled, unless the reader refuses."""

    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


@pytest.fixture
def exploits(tmp_path):
    """Objects that would create a file, and that file."""
    mark = tmp_path / "ran"
    code = f"open({str(mark)!r}, 'w').close()"
    return mark, {
        "os.system": Runs(os.system, f"touch {mark}"),
        "builtins.eval": Runs(eval, code),
        "builtins.exec": Runs(exec, code),
        "builtins.getattr": Runs(getattr, Runs(builtins.__import__, "os"), "system"),
        "nested": [{"a": (Runs(os.system, f"touch {mark}"),)}],
    }


@pytest.mark.parametrize("name", ["os.system", "builtins.eval", "builtins.exec", "builtins.getattr", "nested"])
def test_exploits_run_for_pickle_and_not_here(name, exploits, tmp_path):
    mark, objects = exploits
    payload = objects[name]
    # The exploit is real: Python's own reader runs it.
    with open(os.devnull, "w"):
        pickle.loads(pickle.dumps(payload))
    assert mark.exists() or name == "builtins.getattr"
    mark.unlink(missing_ok=True)
    files = {}
    for protocol in (2, 3, 4):
        files[f"bare-{protocol}.pkl"] = pickle.dumps(payload, protocol=protocol)
        files[f"ada-{protocol}.pkl"] = pickle.dumps({"G_ema": payload}, protocol=protocol)
    for zipped in (True, False):
        stream = io.BytesIO()
        torch.save({"state_dict": {"encoder.a": payload}}, stream, _use_new_zipfile_serialization=zipped)
        files[f"torch-{zipped}.pt"] = stream.getvalue()
    for file, data in files.items():
        (tmp_path / file).write_bytes(data)
        for kind in ("e4e", "stylegan2-ada"):
            text = message(kind, tmp_path / file)
            assert "refused" in text, text
    assert not mark.exists()


def test_exploits_deep_inside_nvidias_pickles(exploits, tmp_path):
    mark, objects = exploits
    stream = io.BytesIO()
    torch.save({"a": objects["os.system"]}, stream, _use_new_zipfile_serialization=False)
    with nvidia_modules():
        for attribute in (objects["os.system"], Runs(torch.storage._load_from_bytes, stream.getvalue())):
            module = persistent(o.fill(o.ada(SMALL)), c_dim=0)
            if attribute is objects["os.system"]:
                module.extra = attribute
            else:
                module._buffers["extra"] = Runs(torch._utils._rebuild_tensor_v2, attribute, 0, (1,), (1,), False, {})
            (tmp_path / "network.pkl").write_bytes(pickle.dumps({"G_ema": module}))
            assert "refused" in message("stylegan2-ada", tmp_path / "network.pkl")
    assert not mark.exists()


def test_instructions_are_not_obeyed_either(tmp_path):
    """Calls of what a call returned, state for a function, old instructions that make objects, persistent ids."""
    name = b"ctorch._utils\n_rebuild_parameter\n"
    programs = {
        "calls something": b"\x80\x02" + name + b")R)R.",
        "OBJ": b"\x80\x02(" + name + b"o.",
        "INST": b"\x80\x02(i" + name[1:] + b".",
        "BINPERSID": b"\x80\x02K\x01Q.",
        "EXT1": b"\x80\x02\x82\x01.",
        "damaged": b"\x80\x02" + name + b"}b.",
        "NEWOBJ_EX": b"\x80\x04" + name + b")}\x92.",
        "bytes8": b"\x80\x04\x8e" + (2**40).to_bytes(8, "little") + b"abc",
        "os.system": b"\x80\x02cos\nsystem\n.",
        "posix.system": b"\x80\x04\x8c\x05posix\x8c\x06system\x93.",
        "builtins.eval": b"\x80\x02c__builtin__\neval\n.",
    }
    for expected, program in programs.items():
        with pytest.raises(CheckpointError, match=expected):
            read_pickle(io.BytesIO(program), "here")


@given(data=st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_data_or_refused(data):
    try:
        read_pickle(io.BytesIO(b"\x80\x04" + data), "here")
    except CheckpointError as error:
        assert str(error).startswith("here ")


@given(cut=st.floats(0.01, 0.999))
@settings(max_examples=25, deadline=None)
def test_cut_pickles(tmp_path_factory, cut):
    folder = tmp_path_factory.getbasetemp() / "cut"
    folder.mkdir(exist_ok=True)
    whole = folder / "whole.pkl"
    if not whole.exists():
        write_ada(whole, o.fill(o.ada(SMALL)))
    data = whole.read_bytes()
    (folder / "cut.pkl").write_bytes(data[: max(2, int(cut * len(data)))])
    with pytest.raises(CheckpointError, match="truncated or damaged"):
        import_checkpoint("stylegan2-ada", [folder / "cut.pkl"])


@pytest.mark.parametrize("zipped", [True, False])
def test_truncated_torch_files(zipped, tmp_path):
    content = contents("e4e", SMALL, o.fill)["checkpoint"]
    torch.save(content, tmp_path / "e4e.pt", _use_new_zipfile_serialization=zipped)
    assert import_checkpoint("e4e", [tmp_path / "e4e.pt"]).imported.kind == "e4e"
    data = (tmp_path / "e4e.pt").read_bytes()
    for share in (0.2, 0.9, 0.999):
        (tmp_path / "cut.pt").write_bytes(data[: int(share * len(data))])
        assert "truncated or damaged" in message("e4e", tmp_path / "cut.pt")


@given(
    sign=st.sampled_from([b"", b"PK\x03\x04", b"\x80\x04", b"\x93NUMPY", b"(lp0\n", b"<", b"[0."]),
    rest=st.binary(max_size=600),
)
@settings(max_examples=200, deadline=None)
def test_any_first_bytes_are_a_form_or_a_remedy(tmp_path_factory, sign, rest):
    path = tmp_path_factory.getbasetemp() / "any.pt"
    path.write_bytes(sign + rest)
    try:
        assert form_of(path, (sign + rest)[:LENGTH], len(sign + rest)) in WORDS
    except CheckpointError as error:
        assert str(error).startswith(f"{path} ") and "\n" not in str(error)


def test_what_is_no_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "x.pt"
    for data, expected in (
        ((64).to_bytes(8, "little") + b'{"a": 1}', "safetensors file already"),
        (b"\x93NUMPY\x01\x00", "is a NumPy array, and weights are torch files or pickles"),
        (b"0.5 0.25\n", "is a text of numbers, and weights are"),
        (pickle.dumps({"a": 1}, protocol=0), "is a pickle of protocol 0 or 1"),
        *STRAY,
    ):
        path.write_bytes(data)
        assert re.search(expected, message("e4e", path))
        with pytest.raises(CheckpointError, match=expected):
            import_mapper(open_checkpoint(path), FACES_1024)
    assert "cannot be read: No such file" in message("e4e", tmp_path / "none.pt")
    assert "is not a file" in message("e4e", tmp_path)
    torch.save([torch.ones(1)], path)
    assert "no dictionary of tensors" in message("e4e", path)
    torch.save({"a": torch.ones(1)}, path)
    assert "looks like nothing that is known here" in message("e4e", path)
    monkeypatch.setattr(opening, "LIMIT", 100)
    assert "checkpoints up to 100 are read" in message("e4e", path)


def test_other_pickles_are_named(tmp_path):
    path = tmp_path / "x.pkl"
    path.write_bytes(b"\x80\x02cdnnlib.tflib.network\nNetwork\n)R.")
    assert "TensorFlow" in message("stylegan2-ada", path)
    path.write_bytes(pickle.dumps({"a": 1}))
    assert "no G_ema" in message("stylegan2-ada", path)
    write_ada(path, {"synthesis.L0_36_1024.weight": torch.ones(2), "synthesis.input.weight": torch.ones(2)})
    assert "looks like a StyleGAN3 pickle, not like a StyleGAN2-ADA pickle" in message("stylegan2-ada", path)
