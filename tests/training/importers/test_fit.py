"""Files of another kind or size, incomplete ones, and what is left out of those that fit."""

from __future__ import annotations

import argparse

import numpy as np
import pytest
import torch

from engines.errors import OutputError
from engines.family import CARS_512, FACES_1024
from tests.training.importers import official as o
from tests.training.importers.files import SMALL, message, write
from training.imported import write as write_imported
from training.importers.accounting import account, mean_code
from training.importers.checkpoints import import_checkpoint
from training.importers.errors import CheckpointError

LOOKS = {
    "stylegan2": "a StyleGAN2 generator in rosinality's form",
    "e4e": "an e4e checkpoint",
    "fs": "an FS encoder",
    "hfgi": "an HFGI checkpoint",
    "clcae": "a CLCAE checkpoint",
    "styleres": "a StyleRes checkpoint",
    "sdic": "an SDIC checkpoint",
    "sfe": "an SFE checkpoint with the feature editor",
    "hyperstyle": "a HyperStyle checkpoint",
}


@pytest.mark.parametrize("kind", LOOKS)
def test_a_checkpoint_of_another_method_is_recognised(kind, tmp_path):
    def tiny(shapes):
        return {name: torch.zeros(1) for name in shapes}

    path = write(tmp_path, kind, SMALL, tiny)[0]
    wanted = "hfgi" if kind != "hfgi" else "sdic"
    text = message(wanted, path)
    assert f"looks like {LOOKS[kind]}, not like {LOOKS[wanted]}" in text
    assert f"`edgedit import weights {kind}` reads that" in text


def test_psp_is_not_e4e(tmp_path):
    options = {"encoder_type": "GradualStyleEncoder"}
    (path,) = write(tmp_path, "e4e", opts=options)
    assert "looks like a pSp checkpoint, not like an e4e checkpoint" in message("e4e", path)
    (path,) = write(tmp_path, "e4e", opts=argparse.Namespace(**options))
    assert "looks like a pSp checkpoint" in message("e4e", path)
    # FS comes with one, for its generator.
    encoder = write(tmp_path, "fs")[0]
    result = import_checkpoint("fs", [path, encoder])
    assert [source["format"] for source in result.imported.sources] == ["fs", "psp"]
    assert ("encoder.*", "not needed here") in {(item.name, item.why) for _, item in result.left_out}


def test_missing_files_are_named(tmp_path):
    for kind, expected in {
        "fs": "the generator and its mean code: the pSp file",
        "clcae": "the StyleGAN2 file, of which the mean code latent_avg is taken, and the mean image (PNG)",
        "sfe": "the StyleGAN2 file, with generator and mean code, and the e4e checkpoint",
        "hyperstyle": "the file of its W encoder",
    }.items():
        paths = write(tmp_path, kind)
        assert f"{kind} is missing a file: also name {expected}" in message(kind, paths[0])
        assert "looks like" in message(kind, *paths[1:])
        assert import_checkpoint(kind, paths[::-1]).imported.kind == kind or kind == "fs"
    paths = write(tmp_path, "sfe")
    text = message("sfe", paths[0], paths[1], write(tmp_path, "hfgi")[0])
    assert "the e4e checkpoint" in text and "looks like an HFGI checkpoint" in text
    assert "a StyleGAN2 generator in rosinality's form, which e4e does not need" in message("e4e", paths[2], paths[1])
    assert "needs an e4e checkpoint; name the file" in message("e4e")


def test_the_inverter_alone_is_not_sfe(tmp_path):
    shapes = o.under("encoder.fs_backbone", o.fs(SMALL)) | o.under("encoder.fuser", o.fuser(32))
    torch.save({"state_dict": o.fill(shapes)}, tmp_path / "inverter.pt")
    assert "an SFE checkpoint with the inverter alone" in message("sfe", tmp_path / "inverter.pt")


def test_every_tensor_that_does_not_fit_is_counted(tmp_path):
    (path,) = write(tmp_path, "e4e")
    content = torch.load(path, weights_only=True)
    state = content["state_dict"]
    for name in ("encoder.latlayer1.bias", "decoder.to_rgbs.0.bias", "encoder.styles.3.linear.weight"):
        del state[name]
    del state["encoder.body.0.res_layer.0.weight"]
    state["encoder.body.0.res_layer.4.weight"] = torch.ones(5)
    state["encoder.extra.weight"] = state["encoder.more.weight"] = torch.ones(1)
    torch.save(content, path)
    text = message("e4e", path)
    assert "4 missing tensors" in text and "2 unexpected tensors (encoder.extra.weight, encoder.more.weight)" in text
    assert "1 misshaped tensor (encoder.body.0.res_layer.4.weight: 5, not 4)" in text
    laughs: list = [torch.ones(1)]
    for _ in range(12):
        laughs = [laughs] * 1000
    (path,) = write(tmp_path, "e4e", other={"a": torch.ones(1)}, ema={"b": laughs})
    assert "2 unexpected tensors (other: a, ema)" in message("e4e", path)
    (path,) = write(tmp_path, "e4e")
    content = torch.load(path, weights_only=True)
    content["state_dict"]["encoder.latlayer1.bias"][2] = torch.nan
    content["state_dict"]["encoder.latlayer2.bias"] = torch.ones(32, dtype=torch.int64)
    torch.save(content, path)
    assert "2 tensors (encoder.latlayer1.bias, encoder.latlayer2.bias) without finite numbers" in message("e4e", path)


def test_training_things_are_left_out_by_name(tmp_path):
    more = {
        "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]},
        "discriminator_state_dict": {"mlp.0.weight": torch.ones(1)},
        "global_step": 7,
        "best_val_loss": np.float64(0.25),
        "opts": argparse.Namespace(device="cuda", encoder_type="Encoder4Editing", start_from_latent_avg=True),
    }
    (path,) = write(tmp_path, "sdic", **more)
    content = torch.load(path, weights_only=False)
    content["state_dict"] |= {
        f"{name}.w": torch.ones(1) for name in ("lpips_loss.net.lin0", "id_loss.facenet", "moco_loss")
    }
    torch.save(content, path)
    left = {item.name: (item.tensors, item.why) for _, item in import_checkpoint("sdic", [path]).left_out}
    assert left == {
        "opts": (0, "settings"),
        "global_step": (0, "settings"),
        "best_val_loss": (0, "settings"),
        "optimizer": (1, "optimizer"),
        "discriminator_state_dict": (1, "discriminator"),
        "lpips_loss": (1, "loss network"),
        "id_loss": (1, "loss network"),
        "moco_loss": (1, "loss network"),
    }
    paths = write(tmp_path, "sfe", disc_opt={"a": torch.ones(1)}, encoder_opt={"a": torch.ones(1)})
    content = torch.load(paths[0], weights_only=True)
    content["state_dict"] |= {f"{name}.w": torch.ones(1) for name in ("decoder", "e4e_encoder", "discriminator")}
    torch.save(content, paths[0])
    left = [item.why for name, item in import_checkpoint("sfe", paths).left_out if name == paths[0].name]
    assert sorted(left) == ["discriminator", "optimizer", "optimizer", "read from its own file"]


@pytest.mark.parametrize(("sizes", "asked"), [(o.FACES, CARS_512), (o.CARS, FACES_1024)], ids=["faces", "cars"])
def test_another_resolution(sizes, asked, tmp_path, monkeypatch):
    def zeros(shapes):
        return {name: torch.zeros(()).expand(shape) for name, shape in shapes.items()}

    (path,) = write(tmp_path, "e4e", sizes, zeros)
    assert path.stat().st_size < 2_000_000
    text = message("e4e", path, family=asked)
    assert f"is of another resolution: it renders {sizes.size} pixels, and {asked.name} has {asked.size}" in text


def test_files_of_two_resolutions(tmp_path):
    sizes = o.Sizes(32, style=32, mapping=2, base=1024, widest=32, width=4, head=32, input=128)
    small = write(tmp_path, "stylegan2", sizes)[0]
    paths = write(tmp_path, "fs")
    text = message("fs", paths[0], small)
    assert "is of another resolution: encoder has 10 style heads, and the generator of 32 pixels takes 8" in text
    paths = write(tmp_path, "sfe")
    assert "is of another resolution: 64 pixels, and" in message("sfe", paths[0], small, paths[2])


def test_heads_that_no_row_needs_are_left_out(tmp_path):
    (path,) = write(tmp_path, "e4e")
    content = torch.load(path, weights_only=True)
    more = {f"encoder.styles.{row}.{name}" for row in (10, 11) for name in o.style_head("", 5, 1, 1)}
    assert len(more) == 2 * 12
    content["state_dict"] |= {name.replace("..", "."): torch.ones(1) for name in more}
    content["latent_avg"] = torch.randn(12, 32)
    torch.save(content, path)
    result = import_checkpoint("e4e", [path])
    assert ("encoder.styles", 24) in {(item.name, item.tensors) for _, item in result.left_out}
    assert torch.equal(result.imported.tensors["latent_avg"], content["latent_avg"][:10])


def test_what_the_options_say_of_the_mean_and_of_cars(tmp_path):
    (path,) = write(tmp_path, "e4e", opts={"start_from_latent_avg": False})
    assert not import_checkpoint("e4e", [path]).imported.tensors["latent_avg"].any()

    def zeros(shapes):
        return {name: torch.zeros(()).expand(shape) for name, shape in shapes.items()}

    names = {}
    for data in ("cars_encode", "church_encode", None):
        (path,) = write(tmp_path, "e4e", o.CARS, zeros, opts={"dataset_type": data})
        with pytest.MonkeyPatch.context() as patch:
            # Its 268 million zeros would be written out for nothing.
            patch.setattr("training.importers.checkpoints.account", lambda *_: {})
            family = import_checkpoint("e4e", [path]).imported.family
        names[data] = (family.name, family.visible_rows)
    cars = ("cars-512x384", (64, 448))
    assert names == {"cars_encode": cars, "church_encode": ("square-512", None), None: cars}


def test_second_names_of_the_shared_network_must_agree(tmp_path):
    paths = write(tmp_path, "hyperstyle")
    result = import_checkpoint("hyperstyle", paths)
    assert ("hypernet.refinement_blocks.*.hypernet", "second names of the shared network") in {
        (item.name, item.why) for _, item in result.left_out
    }
    content = torch.load(paths[0], weights_only=True)
    name = "hypernet.refinement_blocks.2.hypernet.w1"
    content["state_dict"][name] = content["state_dict"][name] + 1
    torch.save(content, paths[0])
    assert f"{name} differs" in message("hyperstyle", *paths)


@pytest.mark.parametrize("shape", [(4,), (1, 4), (6, 4), (7, 4), (1, 6, 4)])
def test_shapes_of_mean_codes(shape):
    value = torch.randn(4).expand(shape)
    for wanted in ((4,), (1, 4), (6, 4)):
        found = mean_code(value, torch.Size(wanted), "here")
        assert found.shape == wanted and torch.equal(found.reshape(-1, 4)[-1], value.reshape(-1, 4)[0])


def test_mean_codes_that_do_not_fit():
    rows = torch.randn(7, 4)
    assert torch.equal(mean_code(rows, torch.Size((6, 4)), "here"), rows[:6])
    for value, wanted, expected in (
        (rows, (1, 4), "7 rows that differ; .* a single one"),
        (rows[:3], (6, 4), "3 rows, and the generator takes 6"),
        (torch.ones(5), (6, 4), "shape 5; it must be 4 wide"),
        (torch.ones(2, 6, 4), (6, 4), "shape 2x6x4"),
    ):
        with pytest.raises(CheckpointError, match=expected):
            mean_code(value, torch.Size(wanted), "here")


def test_half_precision_becomes_single():
    found = account({"a": torch.ones(2, dtype=torch.float16)}, {"a": torch.empty(2)}, "x", "here")
    assert found["a"].dtype == torch.float32


def test_nothing_is_left_half_written(tmp_path, monkeypatch):
    imported = import_checkpoint("stylegan2", write(tmp_path, "stylegan2")).imported
    out = tmp_path / "w.safetensors"
    out.write_bytes(b"before")

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("training.imported.save_file", full)
    with pytest.raises(OutputError, match=r"cannot write .*No space left"):
        write_imported(out, imported)
    assert out.read_bytes() == b"before" and not list(tmp_path.glob(".w.*"))
