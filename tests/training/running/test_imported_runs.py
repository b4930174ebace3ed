"""The paper's recipes at a tiny size, on a generator and backbones imported from files in the official form."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from edgedit.cli import main
from engines.bundle import Bundle
from engines.contracts import style_width
from engines.directions import Direction
from engines.family import EditorArchitecture, ModelFamily
from tests.training.importers import official as o
from training import imported
from training.data import as_photos
from training.importers.checkpoints import import_checkpoint
from training.losses.image import LossFiles
from training.measuring.judges import JudgeFiles
from training.recipes import RECIPES, Recipe, cars_512x384, faces_1024, recipe
from training.running import checkpoint
from training.running.directions import calibrate, fit_directions
from training.running.evaluation import evaluate
from training.running.folder import Run, load_generator, load_system
from training.running.loop import LoopOptions
from training.running.run import train_e4e, train_editor, train_encoder, train_generator
from training.stages.directions import FitOptions

STEPS = LoopOptions(steps=2, log_every=1)
SIZES = o.Sizes(128, style=16, mapping=2, base=512, widest=16, width=4)
EDITOR = EditorArchitecture(window=4, heads=4, ftem_blocks=1, edem_layers=1, edem_mlp_ratio=2, edfm_blocks=1)


def _family(name: str, **sizes) -> ModelFamily:
    return ModelFamily(
        name=name,
        size=SIZES.size,
        style_dim=SIZES.style,
        mapping_layers=SIZES.mapping,
        channel_base=SIZES.base,
        channel_max=SIZES.widest,
        encoder_width=SIZES.width,
        head_width=16,
        editor=EDITOR,
        **sizes,
    )


FACES = _family("tiny-faces", feature_resolution=8, encoder_size=(32, 32))
CARS = _family("tiny-cars", visible_rows=(16, 112), feature_resolution=16, encoder_size=(48, 64))
"""An eighth of 1024 pixels and a quarter of 512, with all else in proportion."""


def _small(recipe: Recipe, family: ModelFamily) -> Recipe:
    """The recipe with losses that start within two steps."""
    return dataclasses.replace(
        recipe,
        family=family,
        photo_size=family.encoder_size[1],
        held_out=3,
        encoder=dataclasses.replace(recipe.encoder, adversarial_from=1),
        editor=dataclasses.replace(recipe.editor, discrepancy_from=1),
        directions=FitOptions(samples=12, batch=4, components=2, probes=3, limit=1.0, identity_floor=-1.1),
    )


def _imported(folder: Path, kind: str, content: dict) -> Path:
    torch.save(content, folder / f"{kind}.pt")
    imported.write(folder / f"{kind}.safetensors", import_checkpoint(kind, [folder / f"{kind}.pt"]).imported)
    return folder / f"{kind}.safetensors"


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    """By kind, what `edgedit import weights` writes; and a VGG variant of LPIPS."""
    folder = tmp_path_factory.mktemp("imported")
    generator = o.fill(o.generator(SIZES))
    for name in generator:
        if "to_rgb" in name and name.endswith("conv.weight"):
            generator[name] /= 16
    mean = torch.zeros(SIZES.style)
    found = {
        "stylegan2": _imported(folder, "stylegan2", {"g_ema": generator, "latent_avg": mean}),
        "ir-se-50": _imported(folder, "ir-se-50", o.fill(o.ir_se_50(SIZES.width))),
        "iresnet-50": _imported(folder, "iresnet-50", o.fill(o.iresnet_50(SIZES.width))),
        "moco-v2": _imported(folder, "moco-v2", {"state_dict": o.fill(o.moco_v2(2, whole=False))}),
    }
    vgg, before = {}, 3
    convolutions = dict(zip((0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28), (4,) * 4 + (8,) * 9, strict=True))
    for index, channels in convolutions.items():
        vgg |= o.fill({f"features.{index}.weight": (channels, before, 3, 3), f"features.{index}.bias": (channels,)})
        before = channels
    for level, channels in enumerate((4, 4, 8, 8, 8)):
        vgg[f"lin{level}.model.1.weight"] = torch.full((1, channels, 1, 1), 0.1)
    save_file(vgg, folder / "vgg.safetensors")
    return found | {"vgg": folder / "vgg.safetensors"}


@pytest.fixture(scope="module")
def faces_run(files, photo_folder, loss_files, judge_files, tmp_path_factory) -> Run:
    return Run(
        recipe=_small(faces_1024(), FACES),
        root=tmp_path_factory.mktemp("faces"),
        data=photo_folder,
        losses=LossFiles(lpips=files["vgg"], identity=loss_files.identity),
        judges=judge_files,
        generator=files["stylegan2"],
    )


@pytest.fixture(scope="module")
def cars_run(files, photo_folder, tmp_path_factory) -> Run:
    return Run(
        recipe=_small(cars_512x384(), CARS),
        root=tmp_path_factory.mktemp("cars"),
        data=photo_folder,
        losses=LossFiles(lpips=files["vgg"], identity=files["moco-v2"]),
        judges=JudgeFiles(),
        generator=files["stylegan2"],
    )


def _write_directions(run: Run) -> None:
    """Random ones under the recipe's names, every third in style space, as `edgedit import direction` would."""
    source, family = np.random.default_rng(0), run.recipe.family
    (run.root / "directions").mkdir(exist_ok=True)
    for index, name in enumerate(run.recipe.edited):
        space = "w" if index % 3 else "s"
        vector = source.normal(0, 0.1, family.style_dim if space == "w" else style_width(family))
        Direction(
            name=name,
            kind="interfacegan" if space == "w" else "stylespace",
            space=space,
            vector=vector.astype(np.float32),
            min_strength=-1.0,
            max_strength=1.0,
            description="",
            source="test",
            licence="Apache-2.0",
        ).save(run.root / "directions" / f"{name}.safetensors")


@pytest.fixture(scope="module", params=["faces", "cars"])
def trained(request, files) -> Run:
    """A run of a recipe whose stages have been stepped twice each."""
    run: Run = request.getfixturevalue(f"{request.param}_run")
    assert train_e4e(dataclasses.replace(run, backbone=files["ir-se-50"]), STEPS) == 2
    assert train_encoder(dataclasses.replace(run, backbone=files["iresnet-50"]), STEPS) == 2
    _write_directions(run)
    assert train_editor(run, STEPS) == 2
    return run


def test_every_part_is_there(trained):
    """And the generator is the imported one, to the bit."""
    family = trained.recipe.family
    system = load_system(trained)
    source = imported.read(trained.generator).tensors
    assert all(torch.equal(t, source[f"generator.{name}"]) for name, t in system.generator.state_dict().items())
    assert system.generator.family == family
    for stage in ("e4e", "encoder", "editor"):
        tensors, meta = checkpoint.load(trained.root / stage / "checkpoint")
        assert meta["stage"] == stage and not any(name.startswith("generator.") for name in tensors)
    assert checkpoint.load(trained.root / "editor" / "checkpoint")[1]["config"]["directions"] == sorted(
        trained.recipe.edited
    )
    assert not (trained.root / "generator").exists()


def test_photos_and_discriminator_have_the_recipes_size(trained):
    height, width = trained.recipe.photo_shape
    training, held_out = trained.faces()
    assert (training.size, len(held_out)) == (trained.recipe.family.encoder_size, 3) == ((height, width), 3)
    tensors, _ = checkpoint.load(trained.root / "encoder" / "checkpoint")
    widths = {n: t.shape for n, t in tensors.items() if n.startswith("discriminator.convs")}
    blocks = {int(name.split(".")[2]) for name in widths}
    assert len(blocks) == int(np.log2(width)) - 1


def test_both_losses_were_reached(trained, rows):
    assert "d_loss" in rows(trained.root / "encoder")[1]
    assert float(rows(trained.root / "editor")[1]["discrepancy"]) >= 0


def test_calibrate_and_evaluate(trained):
    ranges = calibrate(trained, photos=3)
    assert set(ranges) == set(trained.recipe.edited)
    assert all(-1 <= low < 0 < high <= 1 for low, high in (r.values() for r in ranges.values()))
    result = evaluate(trained)
    assert result["photos"] == 3
    assert np.isfinite([*result["reconstruction"]["ours"].values()]).all()
    # A judge knows two of the paper's directions by name; cars have none.
    judged = {"smile", "age"} if trained.recipe.faces else set()
    assert {edit["direction"] for edit in result["edits"]} == judged


def test_directions_of_an_imported_generator(trained, tmp_path):
    """Principal components for both; only faces are scored."""
    run = dataclasses.replace(trained, root=tmp_path)
    (tmp_path / "e4e").symlink_to(trained.root / "e4e")
    names = {d.name for d in fit_directions(run)}
    scored = {"age", "female", "smile", "yaw"}
    assert {"pc00", "pc01"} <= names
    assert scored <= names if trained.recipe.faces else names == {"pc00", "pc01"}


@pytest.mark.parametrize(
    ("stage", "kind", "module", "name"),
    [
        (train_e4e, "ir-se-50", "encoder", "body.5.res_layer.1.weight"),
        (train_encoder, "iresnet-50", "encoder.encoder", "block_3.2.conv1.weight"),
    ],
)
def test_encoders_start_from_their_backbone(faces_run, files, tmp_path, stage, kind, module, name):
    """The averaged copy as well; a learning rate of next to nothing leaves it there."""
    chosen = faces_run.recipe
    still = dataclasses.replace(
        chosen,
        e4e=dataclasses.replace(chosen.e4e, learning_rate=1e-30),
        encoder=dataclasses.replace(chosen.encoder, learning_rate=1e-30),
    )
    for backbone in (None, files[kind]):
        run = dataclasses.replace(faces_run, recipe=still, backbone=backbone, root=tmp_path / str(backbone is None))
        stage(run, LoopOptions(steps=1))
        tensors, meta = checkpoint.load(run.root / stage.__name__.removeprefix("train_") / "checkpoint")
        wanted = imported.read(files[kind]).tensors[name]
        average = module.replace("encoder", "average.module", 1)
        assert meta["step"] == 1
        for prefix in (module, average):
            assert torch.equal(tensors[f"{prefix}.{name}"], wanted) == (backbone is not None)


@pytest.mark.parametrize(
    ("stage", "kind", "message"),
    [
        (train_e4e, "iresnet-50", "the backbone iresnet-50 in .* is not this encoder's"),
        (train_encoder, "ir-se-50", "the backbone ir-se-50 in .* is not this encoder's"),
        (train_e4e, "stylegan2", "holds stylegan2, not a backbone"),
        (train_encoder, "vgg", "does not hold imported weights; make them with `edgedit import weights`"),
    ],
)
def test_backbones_that_do_not_serve(faces_run, files, tmp_path, stage, kind, message):
    run = dataclasses.replace(faces_run, backbone=files[kind], root=tmp_path)
    with pytest.raises(ValueError, match=message):
        stage(run, STEPS)


def test_light_encoders_and_bundles_take_no_backbone(faces_run, files, tmp_path):
    light = dataclasses.replace(faces_run, recipe=recipe("faces-1024-mobile"), backbone=files["ir-se-50"])
    with pytest.raises(ValueError, match="faces-1024-mobile are light ones, which start from no ArcFace backbone"):
        train_e4e(light, STEPS)
    both = dataclasses.replace(faces_run, backbone=files["ir-se-50"], from_bundle=tmp_path)
    with pytest.raises(ValueError, match="--from-bundle and --backbone both say what the encoder starts from"):
        train_encoder(both, STEPS)


def test_generators_that_do_not_serve(faces_run, files, tmp_path):
    def refused(message: str, **changes) -> None:
        with pytest.raises(ValueError, match=message) as caught:
            load_generator(dataclasses.replace(faces_run, **changes))
        assert "\n" not in str(caught.value)

    refused("holds ir-se-50, not a generator; import one of stylegan2, mobilestylegan", generator=files["ir-se-50"])
    refused("does not hold imported weights", generator=files["vgg"])
    e4e = imported.Imported(
        kind="e4e", family=FACES, licence="MIT", sources=[], tensors={"latent_avg": torch.zeros(16, 16)}
    )
    imported.write(tmp_path / "e4e.safetensors", e4e)
    refused("holds e4e, not a generator", generator=tmp_path / "e4e.safetensors")
    other = dataclasses.replace(FACES, name="other", size=64, channel_base=256)
    message = r"holds a stylegan2 generator of 128 pixels \(square-128\), .* family other \(stylegan2, 64 pixels\)"
    refused(message, recipe=dataclasses.replace(faces_run.recipe, family=other))
    mobile = recipe("faces-1024-mobile")
    refused(r"not that of the family faces-1024-mobile \(mobilestylegan, 1024 pixels\)", recipe=mobile)
    refused("the recipe for tiny-faces trains no generator: import one .* with --generator", generator=None)


def test_the_generator_is_not_trained(faces_run):
    for run in (faces_run, dataclasses.replace(faces_run, generator=None)):
        with pytest.raises(ValueError, match="is imported, not trained; go on with the next stage"):
            train_generator(run, STEPS)


def test_losses_that_do_not_serve(faces_run, cars_run, loss_files, files):
    alex = dataclasses.replace(faces_run, losses=loss_files)
    with pytest.raises(ValueError, match=r"holds the alexnet variant, .* tiny-faces compares with vgg16"):
        train_e4e(alex, STEPS)
    faces = dataclasses.replace(cars_run, losses=faces_run.losses)
    with pytest.raises(
        ValueError, match=r"is a face embedder; tiny-cars is not of faces .* `edgedit import weights moco-v2`"
    ):
        train_encoder(faces, STEPS)
    scenes = dataclasses.replace(faces_run, losses=cars_run.losses)
    with pytest.raises(ValueError, match="holds a ResNet-50; tiny-faces is of faces and needs a face embedder"):
        train_e4e(scenes, STEPS)


def test_the_imported_generator_draws_what_the_stages_compare(cars_run):
    """Of 128 rows the middle 96, averaged to 48."""
    generator = load_generator(cars_run)
    with torch.no_grad():
        picture = generator(torch.randn(1, CARS.w_rows, CARS.style_dim))
    seen = as_photos(picture, CARS, cars_run.recipe.photo_shape)
    torch.testing.assert_close(seen[0, :, 3, 5], picture[0, :, 22:24, 10:12].mean(dim=(1, 2)))


def test_command_line(cars_run, files, tmp_path, monkeypatch, capsys):
    """Cars by the options alone; then what stages say of options that they cannot use."""
    monkeypatch.setitem(RECIPES, "tiny", lambda: cars_run.recipe)
    common = ["--recipe", "tiny", "--faces", str(cars_run.data), "--run", str(tmp_path)]
    common += ["--generator", str(files["stylegan2"]), "--identity", str(files["moco-v2"]), "--threads", "1"]
    losses = ["--lpips", str(files["vgg"]), "--steps", "1"]
    assert main(["train", "e4e", *common, *losses, "--backbone", str(files["ir-se-50"])]) == 0
    assert main(["train", "encoder", *common, *losses, "--backbone", str(files["iresnet-50"])]) == 0
    _write_directions(dataclasses.replace(cars_run, root=tmp_path))
    assert main(["train", "editor", *common, *losses, "--edited", "grass", "trees"]) == 0
    meta = checkpoint.load(tmp_path / "editor" / "checkpoint")[1]
    assert (meta["step"], meta["config"]["directions"]) == (1, ["grass", "trees"])
    assert main(["directions", "calibrate", *common]) == 0

    def says(*words: str) -> str:
        capsys.readouterr()
        assert main(["train", *words]) == 1
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        return error

    text = says("editor", *common, *losses, "--edited", "grass", "wings")
    assert "lacks wings, which the editor is to be trained on" in text
    text = says("editor", *common, *losses, "--backbone", str(files["ir-se-50"]))
    assert "stage editor starts from no --backbone; e4e and encoder do" in text
    assert "--backbone: there is no missing" in says("e4e", *common, *losses, "--backbone", "missing")
    assert "is imported, not trained" in says("generator", *common, "--steps", "1")
    assert "this recipe uses no synthetic pairs" in says("pairs", *common, "--steps", "1")


@pytest.mark.slow
def test_a_run_on_an_imported_generator_is_exported(trained, tmp_path, monkeypatch):
    """And verified; its photos are smaller than the bundle's images."""
    monkeypatch.setitem(RECIPES, "tiny", lambda: trained.recipe)
    words = ["export", "--run", str(trained.root), "--recipe", "tiny", "--faces", str(trained.data)]
    words += ["--graph", "pipelines", "--max-faces", "2", "--out", str(tmp_path / "bundle")]
    assert main(words) == 1
    assert main([*words, "--generator", str(trained.generator)]) == 0
    assert Bundle.load(tmp_path / "bundle").family == trained.recipe.family
