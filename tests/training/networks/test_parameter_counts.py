"""Exact sizes of the full-scale networks, built on the meta device: no memory, no arithmetic."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from engines.family import CARS_512, DEMO_64, FACES_1024, EditorArchitecture
from training.methods.paper import EditingSystem
from training.networks.discriminator import Discriminator
from training.networks.e4e import E4EEncoder
from training.networks.edem import EditDiscrepancyExtraction
from training.networks.edfm import EditDiscrepancyFusion
from training.networks.feature_style import FeatureStyleEncoder
from training.networks.ftem import FeatureTensorEnhancement
from training.networks.stylegan2 import Generator

FS_16 = dataclasses.replace(FACES_1024, name="fs-16", feature_resolution=16)


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("network", "family", "count", "tensors"),
    [
        (Generator, FACES_1024, 30_370_060, 171),
        (Generator, CARS_512, 30_276_583, 153),
        (Discriminator, FACES_1024, 29_012_513, 64),
        (Discriminator, CARS_512, 28_982_849, 57),
        (E4EEncoder, FACES_1024, 267_136_704, 621),
        (E4EEncoder, CARS_512, 238_293_696, 593),
        (FeatureStyleEncoder, FACES_1024, 113_920_704, 517),
        (FeatureStyleEncoder, FS_16, 113_920_704, 517),
        # Two of the 18 style heads fall away, each 8640 x 512 weights and 512 biases.
        (FeatureStyleEncoder, CARS_512, 113_920_704 - 2 * (8640 * 512 + 512), 513),
        (FeatureTensorEnhancement, FACES_1024, 29_371_392, 38),
        (EditDiscrepancyExtraction, FACES_1024, 12_640_288, 68),
        (EditDiscrepancyFusion, FACES_1024, 84_953_088, 72),
    ],
)
def test_counts(network, family, count, tensors):
    with torch.device("meta"):
        module = network(family)
    assert parameters(module) == count
    assert len(module.state_dict()) == tensors


def test_out_projections_account_for_the_difference_between_the_two_ranked_designs():
    options = EditorArchitecture(ftem_out_projection=False, edem_out_projection=False)
    with torch.device("meta"):
        family = dataclasses.replace(FACES_1024, editor=options)
        assert parameters(FeatureTensorEnhancement(family)) == 29_108_736
        assert parameters(EditDiscrepancyExtraction(family)) == 11_589_664


def test_relative_position_tables_are_per_block_and_per_head():
    with torch.device("meta"):
        tables = [p for n, p in EditDiscrepancyExtraction(FACES_1024).named_parameters() if "relative" in n]
    assert [tuple(t.shape) for t in tables] == [(961, 8)] * 4


def test_separate_first_convolutions_add_two_per_block():
    with torch.device("meta"):
        family = dataclasses.replace(FACES_1024, editor=EditorArchitecture(edfm_shared_first=False))
        assert parameters(EditDiscrepancyFusion(family)) == 84_953_088 + 6 * 2 * (512 * 512 * 9 + 512)


def test_whole_system_has_the_sum_of_its_parts():
    with torch.device("meta"):
        system = EditingSystem(FACES_1024)
    assert parameters(system) == 30_370_060 + 267_136_704 + 113_920_704 + 29_371_392 + 12_640_288 + 84_953_088
    # The mean latent code is the one tensor of the system's own.
    assert len(system.state_dict()) == 171 + 621 + 517 + 38 + 68 + 72 + 1


@pytest.mark.parametrize("family", [FACES_1024, CARS_512, DEMO_64], ids=lambda f: f.name)
def test_output_shapes(family):
    batch, n, d = 2, family.w_rows, family.style_dim
    with torch.device("meta"):
        system = EditingSystem(family).eval()
        image = torch.empty(batch, 3, *family.encoder_size)
        inversion = system.invert(image)
        edited = system.edit(inversion, torch.empty(batch, n, d), torch.empty(batch, sum(family.style_channels)))
        logit = Discriminator(family)(edited)
    assert inversion.w.shape == inversion.w_e.shape == (batch, n, d)
    assert inversion.feature.shape == inversion.generator_feature.shape == (batch, *family.feature_shape)
    assert edited.shape == (batch, 3, family.size, family.size)
    assert logit.shape == (batch, 1)
