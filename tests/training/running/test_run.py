"""All stages of a run in turn, on a recipe of a few steps."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from engines.directions import Direction
from export.build import export_bundle
from training.data import load_faces
from training.measuring.evaluate import compare_targets
from training.networks.latents import mean_w
from training.networks.stylegan2 import Generator
from training.recipes import Recipe
from training.running import checkpoint
from training.running.directions import calibrate, fit_directions
from training.running.evaluation import evaluate
from training.running.folder import Run, load_run_directions, load_system
from training.running.loop import LoopOptions
from training.running.run import train_e4e, train_editor, train_encoder, train_generator
from training.running.weights import load_bundle
from training.stages.directions import FitOptions
from training.stages.e4e import E4EOptions
from training.stages.editor import EditorOptions
from training.stages.encoder import EncoderOptions
from training.stages.gan import GanOptions
from training.stages.joint import JointOptions

STEPS = LoopOptions(steps=2, log_every=1)


@pytest.fixture(scope="module")
def recipe(family) -> Recipe:
    return Recipe(
        family=family,
        held_out=3,
        generator=GanOptions(batch=4),
        generator_steps=2,
        joint=JointOptions(
            e4e=E4EOptions(batch=3), encoder=EncoderOptions(batch=3, adversarial_from=100), adversarial_every=2
        ),
        e4e=E4EOptions(batch=3),
        e4e_steps=2,
        encoder=EncoderOptions(batch=3, adversarial_from=1),
        encoder_steps=2,
        directions=FitOptions(samples=40, batch=20, components=1, probes=4, limit=1.0, identity_floor=-1.1),
        editor=EditorOptions(batch=4, discrepancy_from=1),
        editor_steps=2,
        edited=("smile", "pc00"),
    )


@pytest.fixture(scope="module")
def run(recipe, photo_folder, loss_files, judge_files, tmp_path_factory) -> Run:
    """A run whose five stages have been trained."""
    run = Run(
        recipe=recipe,
        root=tmp_path_factory.mktemp("run"),
        data=photo_folder,
        losses=loss_files,
        judges=judge_files,
    )
    assert train_generator(run, STEPS) == 2
    assert train_e4e(run, STEPS) == 2
    assert train_encoder(run, STEPS) == 2
    fit_directions(run)
    assert train_editor(run, STEPS) == 2
    return run


def _stored(run: Run, stage: str, prefix: str) -> dict[str, torch.Tensor]:
    return checkpoint.strip(prefix, checkpoint.load(run.root / stage / "checkpoint")[0])


def test_every_stage_has_its_folder(run):
    for stage in ("generator", "e4e", "encoder", "editor"):
        assert checkpoint.load(run.root / stage / "checkpoint")[1]["stage"] == stage
        assert (run.root / stage / "log.csv").is_file()
        assert (run.root / stage / "grids" / "0000002.png").is_file()
    assert sorted(path.suffix for path in (run.root / "cache").iterdir()) == [".json", ".npy"]


def test_no_stage_sees_the_held_out_photos(run, photo_folder, family):
    training, held_out = run.faces()
    expected = load_faces(photo_folder, family.size, held_out=3)
    assert (training.names, held_out.names) == (expected[0].names, expected[1].names)
    assert len(held_out) == 3 and not set(training.names) & set(held_out.names)


def test_system_is_made_of_the_averages(run):
    system = load_system(run)
    assert not system.training and not any(p.requires_grad for p in system.parameters())
    for part, stage, prefix in (
        (system.generator, "generator", "average.module"),
        (system.e4e, "e4e", "average.module"),
        (system.encoder, "encoder", "average.module.encoder"),
        (system.ftem, "encoder", "average.module.ftem"),
        (system.editor, "editor", "average.module"),
    ):
        stored = _stored(run, stage, prefix)
        assert part.state_dict().keys() == stored.keys()
        assert all(torch.equal(tensor, stored[name]) for name, tensor in part.state_dict().items())
    assert torch.equal(system.latent_avg, mean_w(system.generator))


def test_e4e_goes_on_from_the_joint_encoder(run, recipe, tmp_path):
    """A learning rate of zero leaves what the generator's stage had trained."""
    still = dataclasses.replace(recipe, e4e=dataclasses.replace(recipe.e4e, learning_rate=1e-30))
    other = dataclasses.replace(run, recipe=still, root=tmp_path)
    (tmp_path / "generator").symlink_to(run.root / "generator")
    train_e4e(other, LoopOptions(steps=1))
    joint, own = _stored(run, "generator", "e4e_encoder"), _stored(other, "e4e", "encoder")
    assert all(torch.equal(own[n], joint[n]) for n in joint if n.startswith("styles."))
    fresh = dataclasses.replace(other, recipe=dataclasses.replace(still, joint=None), root=tmp_path / "fresh")
    (tmp_path / "fresh").mkdir()
    (tmp_path / "fresh" / "generator").symlink_to(run.root / "generator")
    train_e4e(fresh, LoopOptions(steps=1))
    own = _stored(fresh, "e4e", "encoder")
    assert any(not torch.equal(own[n], joint[n]) for n in joint if n.startswith("styles."))


def test_generator_alone(run, recipe, tmp_path):
    alone = dataclasses.replace(run, recipe=dataclasses.replace(recipe, joint=None), root=tmp_path)
    train_generator(alone, LoopOptions(steps=1))
    tensors, _ = checkpoint.load(tmp_path / "generator" / "checkpoint")
    assert {name.split(".")[0] for name in tensors} == {"generator", "discriminator", "average", "optimizer"}


def test_directions_are_written_with_their_effects(run, judges):
    directions = load_run_directions(run)
    assert [d.name for d in directions] == sorted([*judges.names, "pc00"])
    effects = json.loads((run.root / "directions" / "effects.json").read_text())
    assert set(effects) == {d.name for d in directions}
    assert set(effects["age"]) == set(judges.names) > {"age", "female", "smile", "yaw"}


def test_editor_is_trained_on_the_named_directions(run):
    meta = checkpoint.load(run.root / "editor" / "checkpoint")[1]
    assert meta["config"]["directions"] == ["pc00", "smile"]


def test_calibrate_sets_every_range(run, tmp_path):
    copy = dataclasses.replace(run, root=tmp_path)
    for stage in ("generator", "e4e", "encoder", "editor"):
        (tmp_path / stage).symlink_to(run.root / stage)
    (tmp_path / "directions").mkdir()
    before = {}
    for direction in load_run_directions(run):
        direction.save(tmp_path / "directions" / f"{direction.name}.safetensors")
        before[direction.name] = direction
    ranges = calibrate(copy, photos=4)
    assert set(ranges) == set(before)
    for direction in load_run_directions(copy):
        old, written = before[direction.name], ranges[direction.name]
        assert {"min_strength": direction.min_strength, "max_strength": direction.max_strength} == written
        limit = run.recipe.directions.limit
        assert -limit <= direction.min_strength < 0 < direction.max_strength <= limit
        assert (direction.vector == old.vector).all() and direction.source == old.source


def test_evaluate(run, judges):
    result = evaluate(run)
    assert (result["photos"], result["first"], result["last"]) == (3, "012.jpg", "014.jpg")
    assert result["size"] == 32
    assert set(result["reconstruction"]) == {"ours", "e4e_w_plus"}
    assert [(e["direction"], e["strength"] > 0) for e in result["edits"]] == [
        (name, up) for name in judges.names for up in (True, False)
    ]
    assert set(result["targets"]) == {
        "psnr",
        "lpips",
        "identity",
        *(f"{name} {end}" for name in ("smile", "age", "yaw") for end in ("+1", "-1")),
    }
    json.dumps(result)


def test_directions_that_are_not_there(run, recipe):
    more = dataclasses.replace(run, recipe=dataclasses.replace(recipe, edited=("smile", "afro", "mohawk")))
    with pytest.raises(ValueError, match=r"directions lacks afro, mohawk, which .*edgedit import direction.*--edited"):
        train_editor(more, STEPS)


def test_no_directions(run, tmp_path):
    with pytest.raises(FileNotFoundError, match="run `edgedit directions fit` first"):
        load_run_directions(dataclasses.replace(run, root=tmp_path))


def test_stages_need_those_before_them(run, tmp_path):
    empty = dataclasses.replace(run, root=tmp_path)
    for stage in (train_e4e, train_encoder):
        with pytest.raises(FileNotFoundError, match="no checkpoint at"):
            stage(empty, STEPS)


def test_directions_survive_the_file(run, tmp_path):
    direction = load_run_directions(run)[0]
    direction.save(tmp_path / "d.safetensors")
    assert (Direction.load(tmp_path / "d.safetensors").vector == direction.vector).all()


def _edit(direction: str, strength: float, change: float, identity: float, **others: float) -> dict:
    ours = {"change": change, "identity": identity, "outside": 1.0, "chroma": 1.0} | others
    return {"direction": direction, "strength": strength, "attribute": direction, "ours": ours}


@pytest.mark.parametrize(
    ("reached", "met"),
    [
        ({"psnr": 31.0, "lpips": 0.02, "identity": 0.96}, (True, True, True)),
        ({"psnr": 30.9, "lpips": 0.01, "identity": 0.95}, (False, True, False)),
        ({"psnr": 34.0, "lpips": 0.03, "identity": 0.97}, (True, False, True)),
    ],
)
def test_targets_of_reconstruction(reached, met):
    result = compare_targets(reached, [])
    assert tuple(result[name]["met"] for name in ("psnr", "lpips", "identity")) == met
    assert {name: entry["reached"] for name, entry in result.items()} == reached


@pytest.mark.parametrize(
    ("edit", "met"),
    [
        (_edit("smile", 2.0, 0.4, 0.60), True),
        (_edit("smile", 2.0, 0.39, 0.9), False),
        (_edit("smile", 2.0, 0.1, 0.9, change_with_room=0.5), True),
        (_edit("smile", 2.0, 0.5, 0.59), False),
        (_edit("smile", -2.0, -0.4, 0.6), True),
        (_edit("smile", -2.0, 0.4, 0.6), False),
        (_edit("smile", 2.0, 0.5, 0.7, outside=4.1), False),
        (_edit("smile", 2.0, 0.5, 0.7, chroma=3.1), False),
        (_edit("age", 1.5, 10.0, 0.50, outside=7.9, chroma=9.0), True),
        (_edit("age", -1.5, -9.9, 0.8), False),
        (_edit("age", -1.5, -12.0, 0.8), True),
        (_edit("yaw", 1.5, 9.0, 0.8), False),
        (_edit("male", -3.0, -0.5, 0.6), True),
    ],
)
def test_targets_of_edits(edit, met):
    result = compare_targets({"psnr": 0.0, "lpips": 1.0, "identity": 0.0}, [edit])
    entry, ours = result[f"{edit['direction']} {edit['strength']:+g}"], edit["ours"]
    assert entry["met"] is met
    assert (entry["change"], entry["identity"]) == (ours.get("change_with_room", ours["change"]), ours["identity"])


def test_glasses_which_nothing_judges_have_a_target_of_what_stays():
    edit = _edit("glasses", 3.0, 0.0, 0.7)
    del edit["ours"]["change"]
    result = compare_targets({"psnr": 0.0, "lpips": 1.0, "identity": 0.0}, [edit | {"attribute": None}])
    assert result["glasses +3"]["met"]


def test_directions_without_a_target_are_left_out():
    result = compare_targets({"psnr": 0.0, "lpips": 1.0, "identity": 0.0}, [_edit("pitch", 1.0, 50.0, 1.0)])
    assert set(result) == {"psnr", "lpips", "identity"}


def _with_upper(options: EncoderOptions) -> EncoderOptions:
    return dataclasses.replace(options, learning_rate=1e-4, upper_rate=1e-3)


def test_a_bundle_is_a_start_for_training(run, recipe, tmp_path_factory):
    root = tmp_path_factory.mktemp("started")
    bundle = root / "bundle"
    trained = load_system(run)
    photos = run.faces()[1].images[:3]
    export_bundle(trained, [], photos, bundle, name="start", card="# start", licence="MIT", graphs=["reconstruct"])
    fresh = dataclasses.replace(run, root=root / "run", from_bundle=bundle)
    train_generator(fresh, dataclasses.replace(STEPS, steps=1))
    tensors, _ = checkpoint.load(fresh.root / "generator" / "checkpoint")
    name = "to_rgb1.conv.weight"
    begun, random = trained.generator.state_dict()[name], Generator(recipe.family).state_dict()[name]
    gap = (tensors[f"average.module.{name}"] - begun).abs().max()
    assert gap < 0.05 < (random - begun).abs().max()

    # A run folder that holds nothing but an encoder trained on from the bundle is a whole system.
    tuned = dataclasses.replace(
        run,
        root=root / "tuned",
        from_bundle=bundle,
        recipe=dataclasses.replace(recipe, encoder=_with_upper(recipe.encoder)),
    )
    train_encoder(tuned, STEPS)
    stored = _stored(tuned, "encoder", "generator_average.module")
    system, shipped = load_system(tuned), load_bundle(bundle, recipe.family)
    assert all(torch.equal(t, stored[n]) for n, t in system.generator.state_dict().items())
    last = f"to_rgbs.{len(shipped.generator.to_rgbs) - 1}.conv.weight"
    assert not torch.equal(stored[last], shipped.generator.state_dict()[last])
    for part in ("e4e", "editor"):
        own, kept = getattr(system, part).state_dict(), getattr(shipped, part).state_dict()
        assert all(torch.equal(own[n], kept[n]) for n in kept)

    with pytest.raises(ValueError, match="which is not"):
        load_bundle(bundle, dataclasses.replace(recipe.family, name="another"))
