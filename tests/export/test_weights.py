from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file
from torch import nn

from export.errors import ExportError
from export.weights import half_weights, rounded, weight_table, write_weights
from tests.export.helpers import random_system


def test_state_is_rounded_to_half_and_integers_stay_out(system):
    half = half_weights(system)
    state = system.state_dict()
    floats = {name for name, tensor in state.items() if tensor.is_floating_point()}
    assert set(half.tensors) == floats
    assert any(name.endswith("num_batches_tracked") for name in set(state) - floats)
    for name, tensor in half.tensors.items():
        assert tensor.dtype == torch.float16
        np.testing.assert_array_equal(tensor.numpy(), state[name].numpy().astype(np.float16))
    assert half.parameters == sum(state[name].numel() for name in floats)
    assert 0 < half.worst <= 2**-11 and not half.coarse


def test_rounded_is_a_copy_in_float32_on_the_half_grid(system):
    before = {name: tensor.clone() for name, tensor in system.state_dict().items()}
    twin = rounded(system)
    assert not twin.training and not any(p.requires_grad for p in twin.parameters())
    for name, tensor in twin.state_dict().items():
        if tensor.is_floating_point():
            assert tensor.dtype == torch.float32
            torch.testing.assert_close(tensor, before[name].half().float(), rtol=0, atol=0)
    for name, tensor in system.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)


@pytest.mark.parametrize("value", [65505.0, -1e6, float("inf"), float("-inf"), float("nan")])
def test_values_beyond_half_precision_name_their_tensor(value):
    layer = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    with torch.no_grad():
        layer[1].weight[0, 1] = value
    for function in (half_weights, rounded):
        with pytest.raises(ExportError, match=r"weight 1\.weight ") as caught:
            function(layer)
        assert "\n" not in str(caught.value)


def test_largest_half_value_is_kept():
    layer = nn.Linear(1, 1)
    with torch.no_grad():
        layer.weight.fill_(65504.0)
    assert half_weights(layer).tensors["weight"].item() == 65504.0


def test_values_below_half_precision_are_reported():
    layer = nn.Linear(4, 4)
    with torch.no_grad():
        layer.weight.fill_(1e-9)
        layer.bias.fill_(3.3e-7)
    coarse = half_weights(layer).coarse
    assert coarse["weight"] == pytest.approx(1.0)
    assert 0.01 < coarse["bias"] < 0.2


def test_table_gives_each_tensors_own_bytes(tmp_path, system):
    half = half_weights(system)
    path = tmp_path / "weights.safetensors"
    table = write_weights(half.tensors, path)
    raw = path.read_bytes()
    loaded = load_file(path)
    assert set(table) == set(loaded) == set(half.tensors)
    for name, entry in table.items():
        assert entry.dtype == "F16" and entry.shape == tuple(half.tensors[name].shape)
        stored = np.frombuffer(raw[entry.offset : entry.offset + entry.length], "<f2").reshape(entry.shape)
        np.testing.assert_array_equal(stored, half.tensors[name].numpy())
    assert max(entry.offset + entry.length for entry in table.values()) == len(raw)
    assert [p.name for p in tmp_path.iterdir()] == ["weights.safetensors"]


def test_the_same_weights_give_the_same_file(tmp_path, family):
    for name in ("a", "b"):
        write_weights(half_weights(random_system(family)).tensors, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def _file(tmp_path, header: bytes, length: int | None = None, body: bytes = b""):
    path = tmp_path / "w.safetensors"
    path.write_bytes((len(header) if length is None else length).to_bytes(8, "little") + header + body)
    return path


@pytest.mark.parametrize(
    "header",
    [
        b"{}x",
        b"[]",
        b'{"a":1}',
        b'{"a":{"dtype":"F16","shape":[1]}}',
        b'{"a":{"dtype":"F16","shape":[1],"data_offsets":[0]}}',
    ],
)
def test_a_header_that_is_none_is_refused(tmp_path, header):
    with pytest.raises(ExportError, match="not a safetensors file"):
        weight_table(_file(tmp_path, header))


@pytest.mark.parametrize("length", [0, 2**40])
def test_a_header_length_outside_the_file_is_refused(tmp_path, length):
    with pytest.raises(ExportError, match="not a safetensors file"):
        weight_table(_file(tmp_path, b"{}", length))


@settings(max_examples=30, deadline=None)
@given(start=st.integers(-9, 9), stop=st.integers(-9, 9))
def test_a_tensor_outside_the_file_is_refused(tmp_path_factory, start, stop):
    header = json.dumps({"a": {"dtype": "F16", "shape": [1], "data_offsets": [start, stop]}}).encode()
    path = _file(tmp_path_factory.mktemp("w"), header, body=bytes(4))
    if 0 <= start <= stop <= 4:
        assert weight_table(path)["a"].length == stop - start
    else:
        with pytest.raises(ExportError, match="tensor a lies outside the file"):
            weight_table(path)
