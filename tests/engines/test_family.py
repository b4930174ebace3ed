from __future__ import annotations

import dataclasses
import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.family import (
    CARS_512,
    DEMO_64,
    DEMO_128,
    FACES_1024,
    FACES_1024_MOBILE,
    FAMILIES,
    EditorArchitecture,
    ModelFamily,
    family,
)


@pytest.mark.parametrize(
    ("model", "rows", "feature", "conv", "k", "image"),
    [
        (FACES_1024, 18, (512, 64, 64), 9, 10, (1024, 1024)),
        (CARS_512, 16, (512, 64, 64), 9, 10, (384, 512)),
        (FACES_1024_MOBILE, 18, (512, 64, 64), 9, 9, (1024, 1024)),
        (DEMO_64, 10, (96, 16, 16), 5, 6, (64, 64)),
        (DEMO_128, 12, (96, 32, 32), 7, 8, (128, 128)),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_derived_sizes(model, rows, feature, conv, k, image):
    assert model.w_rows == rows
    assert model.feature_shape == feature
    assert model.feature_conv == conv
    assert model.feature_rows == k
    assert model.image_shape == image


def test_faces_channels_and_styles_are_the_published_ones():
    widths = [FACES_1024.channels(r) for r in FACES_1024.resolutions]
    assert widths == [512, 512, 512, 512, 512, 256, 128, 64, 32]
    assert len(FACES_1024.style_channels) == 26
    assert sum(FACES_1024.style_channels) == 9088
    assert FACES_1024.style_channels[-3:] == (64, 32, 32)


def test_cars_and_demo_style_layers():
    assert len(CARS_512.style_channels) == 23
    assert sum(CARS_512.style_channels) == 9088 - 64 - 32 - 32
    assert DEMO_64.style_channels == (96, 96, 96, 96, 96, 96, 96, 96, 96, 64, 64, 64, 32, 32)


def test_mobile_style_layers_and_their_rows():
    """An up, two convolutions per resolution; rows are counted by resolution, as StyleGAN2's are."""
    widths = [FACES_1024_MOBILE.channels(r) for r in FACES_1024_MOBILE.synthesis_resolutions]
    assert widths == [512, 512, 512, 512, 512, 256, 128, 64]
    expected, rows = [512], [0]
    for block, (below, here) in enumerate(pairwise(widths)):
        expected += [below, below // 4, here]
        rows += [2 * block + 1, 2 * block + 1, 2 * block + 2]
    assert FACES_1024_MOBILE.style_channels == (*expected, 64) and len(expected) == 22
    assert FACES_1024_MOBILE.style_rows == (*rows, 15)
    assert FACES_1024_MOBILE.rgb_layers == (22,)
    # The rows of each resolution's convolutions are those that StyleGAN2's have.
    convs = [row for layer, row in enumerate(FACES_1024.style_rows) if layer not in FACES_1024.rgb_layers]
    ours = [row for layer, row in enumerate(FACES_1024_MOBILE.style_rows[:-1]) if layer % 3 != 1]
    assert ours == convs[: len(ours)]


def test_stylegan2_layers_take_the_rows_of_the_published_code():
    assert FACES_1024.style_rows[:8] == (0, 1, 1, 2, 3, 3, 4, 5) and FACES_1024.style_rows[-1] == 17
    assert FACES_1024.rgb_layers == (1, 4, 7, 10, 13, 16, 19, 22, 25)


def test_window_never_exceeds_the_feature():
    assert FACES_1024.window == 16
    assert DEMO_64.window == 8
    small = dataclasses.replace(DEMO_64, editor=EditorArchitecture(window=64))
    assert small.window == 16


def test_families_are_found_by_name():
    assert set(FAMILIES) == {"faces-1024", "cars-512x384", "faces-1024-mobile", "demo-64", "demo-128"}
    for name, model in FAMILIES.items():
        assert family(name) is model
    with pytest.raises(ValueError, match=r"unknown model family 'faces'; there are faces-1024, "):
        family("faces")


@pytest.mark.parametrize("model", FAMILIES.values(), ids=FAMILIES)
def test_survives_json(model):
    assert ModelFamily.from_dict(json.loads(json.dumps(model.to_dict()))) == model


@given(
    log_size=st.integers(5, 10),
    below=st.integers(1, 4),
    heads=st.sampled_from([1, 2, 4]),
    window=st.sampled_from([4, 8, 16]),
    skip=st.booleans(),
)
def test_any_valid_family_is_consistent(log_size, below, heads, window, skip):
    resolution = max(8, 2 ** (log_size - below))
    model = ModelFamily(
        name="any",
        size=2**log_size,
        channel_base=2048,
        channel_max=64,
        feature_resolution=resolution,
        rgb_skip=skip,
        editor=EditorArchitecture(heads=heads, window=window),
    )
    assert model.w_rows == 2 * len(model.resolutions)
    assert len(model.style_channels) == 3 * len(model.resolutions) - 1
    assert model.feature_rows < model.w_rows
    assert model.feature_resolution % model.window == 0
    assert ModelFamily.from_dict(json.loads(json.dumps(model.to_dict()))) == model


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": 100}, "size must be a power of two of at least 16, got 100"),
        ({"size": 8}, "size must be a power of two of at least 16, got 8"),
        ({"size": 0}, "size must be a power of two"),
        ({"feature_resolution": 64}, r"feature_resolution must be a power of two in \[8, size\), got 64"),
        ({"feature_resolution": 4}, "feature_resolution must be"),
        ({"feature_resolution": 24}, "feature_resolution must be"),
        ({"visible_rows": (10, 10)}, r"visible_rows \(10, 10\) outside 0..64"),
        ({"visible_rows": (0, 65)}, "visible_rows"),
        ({"encoder_size": (64, 60)}, r"encoder_size must be multiples of 16, got \(64, 60\)"),
        ({"encoder_size": (0, 64)}, "encoder_size"),
        ({"channel_max": 90}, "90 feature channels do not divide into 8 heads"),
        ({"editor": EditorArchitecture(window=6)}, "a 16-pixel feature does not divide into windows of 6"),
        ({"generator": "stylegan3"}, "generator must be one of stylegan2, mobilestylegan, got 'stylegan3'"),
        ({"encoder": "heavy"}, "encoder must be one of iresnet50, light, got 'heavy'"),
        ({"generator": "mobilestylegan", "rgb_skip": True}, "MobileStyleGAN has no RGB skip"),
        ({"generator": "mobilestylegan", "feature_resolution": 32}, "feature_resolution to less than half the size"),
        ({"generator": "mobilestylegan", "channel_max": 90}, "channels are four sub-bands each; .* 2048 and 90"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ValueError, match=f"family demo-64: .*{message}"):
        dataclasses.replace(DEMO_64, **changes)


@pytest.mark.parametrize("name", ["ftem_blocks", "edem_layers", "edem_mlp_ratio", "window", "heads", "edfm_blocks"])
def test_options_below_one_are_refused(name):
    with pytest.raises(ValueError, match=f"editor option {name} must be at least 1, got 0"):
        EditorArchitecture(**{name: 0})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inner_width": -8}, "inner_width must not be negative, got -8"),
        ({"inner_width": 20}, "inner_width 20 does not divide into 8 heads"),
        ({"linear_start": True}, "linear_start needs an inner_width, edem and spade"),
        ({"linear_start": True, "inner_width": 16, "edem": False}, "linear_start needs"),
    ],
)
def test_inner_widths_that_cannot_be(options, message):
    with pytest.raises(ValueError, match=f"editor option {message}"):
        EditorArchitecture(**options)


def test_unknown_norm_is_refused():
    with pytest.raises(ValueError, match="edfm_norm must be"):
        EditorArchitecture(edfm_norm="batch")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"name": "x", "size": 64, "depth": 3, "beta": 1}, "unknown family fields: beta, depth"),
        ({"name": "x"}, "not a model family"),
        ({"name": "x", "size": "big"}, "not a model family"),
        ({"name": "x", "size": 64, "editor": {"colour": 1}}, "not a model family"),
    ],
)
def test_from_dict_refuses_what_is_no_family(data, message):
    with pytest.raises(ValueError, match=message):
        ModelFamily.from_dict(data)
