from __future__ import annotations

import pytest

from engines.family import FAMILIES
from training.recipes import RECIPES, recipe

DEMO = ("demo-128", "demo-64")


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_recipes_fit_their_family(name):
    chosen = recipe(name)
    assert chosen.family.name == name and FAMILIES[name] == chosen.family
    # The stages feed photos to the encoders, averaged down where they are larger.
    size = chosen.photo_size or chosen.family.size
    assert all(size % side == 0 for side in chosen.family.encoder_size)
    assert chosen.held_out == 500
    assert min(chosen.generator_steps, chosen.e4e_steps, chosen.encoder_steps, chosen.editor_steps) > 0


@pytest.mark.parametrize("name", DEMO)
def test_losses_start_at_the_papers_share_of_the_run(name):
    chosen = recipe(name)
    assert chosen.encoder.adversarial_from / chosen.encoder_steps == pytest.approx(45 / 120, abs=1e-3)
    assert chosen.editor.discrepancy_from / chosen.editor_steps == pytest.approx(20 / 45, abs=1e-3)


@pytest.mark.parametrize("name", DEMO)
def test_weights_are_the_papers_but_for_identity(name):
    chosen = recipe(name)
    for image, identity in ((chosen.e4e.image, 0.1), (chosen.encoder.image, 1.0), (chosen.editor.image, 0.3)):
        assert (image.l2, image.lpips, image.identity) == (1.0, 0.8, identity)
    assert (chosen.encoder.adversarial, chosen.encoder.feature, chosen.editor.discrepancy) == (0.01, 0.01, 0.6)


def test_the_light_recipe_is_of_a_light_family():
    chosen = recipe("faces-1024-mobile")
    assert chosen.family.generator == "mobilestylegan" and chosen.family.encoder == "light"
    assert chosen.photo_size == chosen.family.encoder_size[0] and chosen.pairs > 0
    assert chosen.encoder.window < chosen.family.feature_resolution > chosen.editor.window


def test_unknown_recipe():
    with pytest.raises(ValueError, match="unknown recipe 'faces'; there are demo-64, demo-128"):
        recipe("faces")
