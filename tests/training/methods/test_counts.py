"""Exact sizes of the official networks, on the meta device."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from engines.family import CARS_512, FACES_1024
from training.methods import METHODS, create

FACES = {
    "e4e": {"": 297_506_764, "encoder": (267_136_704, 621), "decoder": (30_370_060, 171)},
    "fs": {"": 144_290_764, "encoder": (113_920_704, 517)},
    "hfgi": {"": 303_750_909, "encoder": (267_136_704, 621), "residue": (5_647_344, 105), "grid_align": (596_801, 295)},
    "clcae": {"": 342_198_732, "encoder": (311_828_672, 891)},
    "styleres": {
        "modify_feature_alignment": (53_030_912, 50),
        "modify_feature_extraction": (14_421_504, 14),
        "modify_feature_gates": (25_963_019, 29),
    },
    "sdic": {
        "": 321_002_239,
        "DIP": (1_887_357, 389),
        "DIP.feature1": 177_344,
        "DIP.feature_up": 748_448,
        "DIP.hourglass_fusion": 584_450,
        "DIP.hourglass_fusion.CGF_32": 134_544,
        "DIP.hourglass_fusion.CGF_16": 74_080,
        "DIP.hourglass_fusion.CGF_8": 15_760,
        "DIP.rgb1": 9_280,
        "DIP.rgb": 962,
        "SAF": (21_608_118, 79),
        "SAF.aff1d": 15_624,
        "SAF.condition_shift3": 3_438,
        "SAF.semantic": 2_710_656,
    },
    "sfe": {
        "": 459_698_828,
        "inverter": (138_056_384, 609),
        "inverter.fs_backbone": (113_920_704, 517),
        "inverter.fuser": (24_135_680, 92),
        "encoder": (24_135_680, 92),
        "e4e_encoder": (267_136_704, 621),
    },
    # 36 of the official hypernetwork's 429 tensors are second names of the shared network's.
    "hyperstyle": {
        "": 394_247_692,
        "w_encoder": (31_212_736, 387),
        "hypernet": (332_664_896, 429 - 36),
        "hypernet.shared_weight_hypernet": 136_843_776,
        "hypernet.body": 21_275_136,
        "hypernet.refinement_blocks.0": 1_885_696,
        "hypernet.refinement_blocks.14": 70_190_080,
        "hypernet.refinement_blocks.24": 3_475_456,
    },
    "ours": {"": 538_392_236, "ftem": 29_371_392, "editor.edem": 12_640_288, "editor.edfm": 84_953_088},
}
CARS = {
    "e4e": {"": 268_570_279, "encoder": (238_293_696, 593), "decoder": (30_276_583, 153)},
    "clcae": {"encoder": (278_778_048, 835)},
    "sdic": {"DIP": (1_887_357, 389), "SAF.aff1d.sen": 128 * 64 + 64 + 128 + 64 * 16 + 16},
    "hyperstyle": {"": 386_677_991, "hypernet": (325_188_672, 413 - 36)},
}


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("family", "key", "expected"),
    [(family, key, sizes) for family, table in ((FACES_1024, FACES), (CARS_512, CARS)) for key, sizes in table.items()],
    ids=lambda value: value if isinstance(value, str) else getattr(value, "name", ""),
)
def test_sizes(family, key, expected):
    with torch.device("meta"):
        method = create(key, family)
    found = {}
    for name, size in expected.items():
        module = method.get_submodule(name)
        found[name] = (parameters(module), len(module.state_dict())) if isinstance(size, tuple) else parameters(module)
    assert found == expected


@pytest.mark.parametrize(
    ("key", "shapes"),
    [
        (
            "hfgi",
            {
                "residue.conv_layer1.0.weight": (32, 3, 3, 3),
                "residue.conv_layer2.0.shortcut_layer.0.weight": (48, 32, 1, 1),
                "residue.conv_layer3.2.res_layer.4.running_mean": (64,),
                "residue.condition_scale3.0.weight": (512, 64, 3, 3),
                "residue.condition_shift3.2.bias": (512,),
                "grid_align.conv_layer1.2.weight": (16,),
                "grid_align.dconv_layer1.0.res_layer.1.weight": (64, 112, 3, 3),
                "grid_align.dconv_layer3.1.shortcut_layer.1.weight": (3,),
            },
        ),
        (
            "clcae",
            {
                "encoder.styles.0.convs.6.weight": (512, 512, 3, 3),
                "encoder.styles_others.16.convs.10.weight": (512, 512, 3, 3),
                "encoder.styles_others.1.linear.bias": (512,),
                "encoder.cross_attention.17.multihead_attn.in_proj_weight": (1536, 512),
                "encoder.cross_attention.0.multihead_attn.out_proj.bias": (512,),
                "encoder.cross_attention.3.linear1.weight": (1024, 512),
                "encoder.feature_cross_attention.norm1.weight": (512,),
                "encoder.content_layer.convs.2.weight": (512, 512, 3, 3),
            },
        ),
        (
            "styleres",
            {
                "modify_feature_alignment.first_layer.weight": (512, 640, 1, 1),
                "modify_feature_gates.down2.weight": (256, 512, 3, 3),
            },
        ),
        (
            "sdic",
            {
                "DIP.feature1.fe4.conv.weight": (96, 32, 3, 3),
                "DIP.hourglass_fusion.conv1_up.bn.weight": (1,),
                "SAF.aff1d.sen.0.weight": (72, 144, 1),
                "SAF.aff1d.att2.3.weight": (18, 18, 1),
                "SAF.condition_shift3.2.weight": (18, 18, 3, 3),
                "SAF.semantic.2.bn.running_var": (512,),
            },
        ),
        (
            "sfe",
            {
                "inverter.fs_backbone.block_3.0.downsample.0.weight": (256, 128, 1, 1),
                "inverter.fs_backbone.styles.17.weight": (512, 8640),
                "inverter.fuser.conv.weight": (512, 1024, 1, 1),
                "encoder.body.4.body.3.weight": (512,),
            },
        ),
        (
            "hyperstyle",
            {
                "hypernet.shared_weight_hypernet.w1": (512, 4608),
                "hypernet.shared_weight_hypernet.b2": (262144,),
                "hypernet.body.7.downsample.1.running_mean": (256,),
                "hypernet.refinement_blocks.12.convs.8.weight": (512, 128, 3, 3),
                "hypernet.refinement_blocks.12.linear.weight": (512, 512),
                "hypernet.refinement_blocks.17.output.1.weight": (256 * 128, 512, 1, 1),
            },
        ),
    ],
)
def test_names_of_the_official_files(key, shapes):
    with torch.device("meta"):
        state = create(key, FACES_1024).state_dict()
    assert {name: tuple(state[name].shape) for name in shapes} == shapes


def test_hyperstyle_refines_every_convolution_and_no_to_rgb():
    with torch.device("meta"):
        faces, cars = (create("hyperstyle", family).hypernet.refinement_blocks for family in (FACES_1024, CARS_512))
    assert [int(key) for key in faces] == [0, 2, 3, 5, 6, 8, 9, 11, 12, 14, 15, 17, 18, 20, 21, 23, 24]
    assert list(cars) == list(faces)[:15]


@pytest.mark.parametrize("key", [key for key, kind in METHODS.items() if CARS_512.name not in kind.info.families])
def test_methods_without_cars_say_so(key):
    with pytest.raises(ValueError, match="faces-1024, not for cars-512x384"):
        create(key, CARS_512)


def test_an_unknown_method_is_named():
    with pytest.raises(ValueError, match="unknown method 'psp'; there are e4e, fs"):
        create("psp", FACES_1024)
