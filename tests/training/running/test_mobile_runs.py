"""The light recipe at a tiny size, on an imported MobileStyleGAN: every stage in turn."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from engines.directions import Direction, resolve
from training import imported
from training.networks.mobilestylegan import MobileGenerator
from training.recipes import faces_1024_mobile
from training.running.directions import calibrate, fit_directions
from training.running.evaluation import evaluate
from training.running.folder import Run, load_generator, load_run_directions, load_system
from training.running.loop import LoopOptions
from training.running.run import render_pairs, train_e4e, train_editor, train_encoder, train_generator
from training.stages.directions import FitOptions
from training.stages.light_editor import LightEditorOptions
from training.stages.light_encoder import LightEncoderOptions

STEPS = LoopOptions(steps=2, log_every=1)


@pytest.fixture(scope="module")
def generator(mobile, tmp_path_factory) -> Path:
    """As `edgedit import weights mobilestylegan` writes it."""
    torch.manual_seed(0)
    tensors = {f"generator.{name}": tensor for name, tensor in MobileGenerator(mobile).state_dict().items()}
    path = tmp_path_factory.mktemp("mobile") / "generator.safetensors"
    tensors |= {"latent_avg": torch.zeros(mobile.style_dim)}
    imported.write(
        path, imported.Imported(kind=imported.MOBILE, family=mobile, licence="MIT", sources=[], tensors=tensors)
    )
    return path


@pytest.fixture(scope="module")
def run(mobile, generator, photo_folder, loss_files, judge_files, tmp_path_factory) -> Run:
    recipe = dataclasses.replace(
        faces_1024_mobile(),
        family=mobile,
        photo_size=mobile.encoder_size[0],
        held_out=3,
        pairs=1,
        encoder=LightEncoderOptions(batch=2, window=14),
        editor=LightEditorOptions(window=14, fitted=32),
        warm_up=0,
        measured=(("smile", 0.5), ("smile", -0.5)),
        directions=FitOptions(samples=12, batch=4, components=1, probes=3, limit=1.0, identity_floor=-1.1),
    )
    run = Run(
        recipe=recipe,
        root=tmp_path_factory.mktemp("run"),
        data=photo_folder,
        losses=loss_files,
        judges=judge_files,
        generator=generator,
    )
    render_pairs(run)
    return run


def test_every_stage_runs_on_the_imported_generator(run, generator):
    for stage in (train_e4e, train_encoder):
        assert stage(run, STEPS) == 2
    assert {"smile", "age"} <= {d.name for d in fit_directions(run)}
    assert train_editor(run, STEPS) == 2
    assert set(calibrate(run, photos=2)) == {d.name for d in load_run_directions(run)}
    above = run.recipe.family.feature_conv
    for file in (run.root / "directions").glob("*.safetensors"):
        direction = Direction.load(file)
        edit = resolve({direction.name: direction}, {direction.name: direction.max_strength}, run.recipe.family)
        assert edit.delta_w[:above].any() and not edit.delta_w[above:].any()
    assert evaluate(run)["photos"] == 3
    source = imported.read(generator).tensors
    state = load_system(run).generator.state_dict()
    assert all(torch.equal(tensor, source[f"generator.{name}"]) for name, tensor in state.items())


def test_edits_are_measured_along_directions_that_are_there(run):
    asked = dataclasses.replace(run, recipe=dataclasses.replace(run.recipe, measured=(("mohawk", 1.0),)))
    with pytest.raises(ValueError, match=r"measures edits along mohawk, which .* lacks"):
        evaluate(asked)


def test_figures_are_kept_and_measured_anew_for_other_networks(run):
    first = evaluate(run)
    kept = sorted((run.root / "evaluate").glob("*.json"))
    edits = [f"smile{strength} {way}" for strength in ("+0.5", "-0.5") for way in ("linear", "ours")]
    assert [path.stem for path in kept] == ["reconstruction", *edits]
    path = kept[0]
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"value": {"ours": dict.fromkeys(content["value"]["ours"], 99.0)}}))
    assert evaluate(run)["reconstruction"]["ours"]["psnr"] == 99.0
    path.write_text(json.dumps(content | {"of": "other networks"}))
    assert evaluate(run) == first


def test_another_editor_is_measured_beside_the_same_linear_editing(run):
    first = evaluate(run)
    ours, linear = (run.root / "evaluate" / f"smile+0.5 {way}.json" for way in ("ours", "linear"))
    ours.write_text(json.dumps(json.loads(ours.read_text()) | {"of": "another editor"}))
    linear.write_text(json.dumps(json.loads(linear.read_text()) | {"value": {"identity": 99.0}}))
    edit = evaluate(run)["edits"][0]
    assert edit["ours"] == first["edits"][0]["ours"] and edit["linear"] == {"identity": 99.0}
    linear.unlink()
    assert evaluate(run) == first


def test_what_is_refused(run):
    with pytest.raises(ValueError, match="is imported, not trained"):
        train_generator(run, STEPS)
    with pytest.raises(
        ValueError, match=r"import one \(`edgedit import weights mobilestylegan`\) and name .* --generator"
    ):
        load_generator(dataclasses.replace(run, generator=None))
