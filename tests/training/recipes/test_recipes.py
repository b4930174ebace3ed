from __future__ import annotations

import pytest

from engines.directions.recipes import CHANNELS, COMPONENTS
from engines.family import FAMILIES
from training.recipes import RECIPES, cars_512x384, faces_1024, recipe

DEMOS = ("demo-64", "demo-128")
PAPER = ("faces-1024", "cars-512x384")


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_recipes_fit_their_family(name):
    chosen = recipe(name)
    assert chosen.family.name == name and FAMILIES[name] == chosen.family
    # Photos have all that the encoders are shown.
    assert chosen.photo_shape == chosen.family.encoder_size
    assert chosen.held_out == 500
    assert min(chosen.e4e_steps, chosen.encoder_steps, chosen.editor_steps) > 0
    assert (chosen.generator is None) == (chosen.generator_steps == 0)


@pytest.mark.parametrize("name", [*DEMOS, *PAPER])
def test_losses_start_at_the_papers_share_of_the_run(name):
    chosen = recipe(name)
    assert chosen.encoder.adversarial_from / chosen.encoder_steps == pytest.approx(45 / 120, abs=1e-3)
    assert chosen.editor.discrepancy_from / chosen.editor_steps == pytest.approx(20 / 45, abs=1e-3)


@pytest.mark.parametrize("name", DEMOS)
def test_weights_are_the_papers_but_for_identity(name):
    chosen = recipe(name)
    for image, identity in ((chosen.e4e.image, 0.1), (chosen.encoder.image, 1.0), (chosen.editor.image, 0.3)):
        assert (image.l2, image.lpips, image.identity) == (1.0, 0.8, identity)
    assert (chosen.encoder.adversarial, chosen.encoder.feature, chosen.editor.discrepancy) == (0.01, 0.01, 0.6)


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_settings(name):
    """Section 4.1, number by number."""
    chosen = recipe(name)
    for options in (chosen.encoder, chosen.editor):
        assert (options.batch, options.learning_rate) == (4, 1e-4)
        assert (options.image.l2, options.image.lpips, options.image.identity) == (1.0, 0.8, 0.1)
        assert not options.image.l2_root and options.image.face == 0.0
    assert (chosen.encoder.adversarial, chosen.encoder.feature, chosen.editor.discrepancy) == (0.01, 0.01, 0.6)
    assert (chosen.encoder_steps, chosen.encoder.adversarial_from) == (120_000, 45_000)
    assert (chosen.editor_steps, chosen.editor.discrepancy_from) == (45_000, 20_000)
    assert chosen.encoder.upper_rate == 0.0 and chosen.editor.photo_share == 0.0
    assert (chosen.decay, chosen.warm_up, chosen.lpips) == (0.0, 0, "vgg16")
    assert chosen.generator is None and chosen.joint is None


def test_the_papers_directions():
    assert len(faces_1024().edited) == 12 and {"pose", "purple_hair", "blond_hair"} < set(faces_1024().edited)
    cars = cars_512x384()
    assert set(cars.edited) == {"grass", "color", "cube", "trees", "headlights"}
    # Under the names that `edgedit import direction` gives them.
    assert {"grass", "color", "cube"} < set(COMPONENTS[cars.family.name])
    assert {"trees", "headlights"} < set(CHANNELS[cars.family.name])
    assert {"gender", "blond_hair"} < set(CHANNELS[FAMILIES["faces-1024"].name])
    assert (cars.photo_shape, cars.faces, cars.e4e.image.identity) == ((192, 256), False, 0.5)


def test_the_light_recipe_is_of_a_light_family():
    chosen = recipe("faces-1024-mobile")
    assert chosen.family.generator == "mobilestylegan" and chosen.family.encoder == "light"
    assert chosen.pairs > 0 and chosen.warm_up > 0
    assert chosen.encoder.window < chosen.family.feature_resolution > chosen.editor.window


def test_unknown_recipe():
    with pytest.raises(ValueError, match="unknown recipe 'faces'; there are demo-64, demo-128"):
        recipe("faces")
