"""Every official file in its full size on the meta device, and in a small size with values, through to a method."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch

from engines.family import CARS_512, FACES_1024, ModelFamily
from tests.training.importers import official as o
from tests.training.importers import official_methods as m
from tests.training.importers.files import KINDS, SMALL, contents, write
from training.imported import load_backbone, load_generator, read
from training.imported import write as write_imported
from training.importers.checkpoints import import_checkpoint
from training.importers.formats import FORMATS
from training.importers.ledger import Ledger
from training.importers.opening import Checkpoint
from training.importers.sizes import derive
from training.methods import METHODS, create, load
from training.methods.protocol import shrink
from training.networks.e4e import E4EEncoder
from training.networks.feature_style import FeatureStyleEncoder

TENSORS = {
    "G": 171,
    "G512": 153,
    "ada": 182,
    "e4e": 621,
    "e4e512": 593,
    "fs": 517,
    "w": 387,
    "fuser": 92,
    "residue": 105,
}
TENSORS |= {"align": 295, "clcae": 891, "clcae512": 835, "modules": 93, "hypernet": 429, "hypernet512": 413}
TENSORS |= {"dip": 389, "saf": 79}


def test_counts_of_the_written_down_names():
    faces, cars = o.FACES, o.CARS
    found = {"G": o.generator(faces), "G512": o.generator(cars), "ada": o.ada(faces), "e4e": o.e4e(faces)}
    found |= {"e4e512": o.e4e(cars), "fs": o.fs(faces), "w": o.w_encoder(faces), "fuser": o.fuser(512)}
    found |= {"residue": m.residue(faces), "align": m.grid_align(), "clcae": m.clcae(faces), "clcae512": m.clcae(cars)}
    found |= {"modules": m.styleres_modules(faces), "hypernet": m.hypernet(faces), "hypernet512": m.hypernet(cars)}
    found |= {"dip": m.dip(), "saf": m.saf(faces)}
    assert {name: len(shapes) for name, shapes in found.items()} == TENSORS
    # The whole generator of StyleRes.
    assert TENSORS["ada"] + TENSORS["modules"] == 275


@pytest.mark.parametrize(
    ("kind", "sizes", "family"),
    [(kind, o.FACES, FACES_1024) for kind in (*KINDS, "stylegan2")]
    + [(kind, o.CARS, CARS_512) for kind in ("e4e", "clcae", "sdic", "hyperstyle")],
    ids=lambda value: value if isinstance(value, str) else getattr(value, "name", ""),
)
def test_every_official_tensor_has_its_place(kind, sizes, family, tmp_path):
    form = FORMATS[kind]
    files = {
        role: Ledger(Checkpoint(path=tmp_path / role, digest="", size=0, content=content))
        for role, content in contents(kind, sizes, o.meta).items()
    }
    found = form.assemble(files)
    for ledger in files.values():
        ledger.close()
    tensors = {name: tensor for name, tensor in found.items() if not name.endswith("latent_avg")}
    assert derive(tensors, kind, cars=True) == family
    expected = {
        name: tensor.shape
        for name, tensor in form.expected(family, found).items()
        if not name.endswith(("latent_avg", "mean_image"))
    }
    assert {name: tensor.shape for name, tensor in tensors.items()} == expected


@pytest.fixture(scope="session")
def imported(tmp_path_factory):
    """The file written from the small official files of each kind."""
    made: dict[str, Path] = {}

    def make(kind: str) -> Path:
        if kind not in made:
            folder = tmp_path_factory.mktemp(kind)
            made[kind] = folder / "weights.safetensors"
            # The tensors of FS do not show how large its input is.
            family = FAMILY if kind == "fs" else None
            write_imported(made[kind], import_checkpoint(kind, write(folder, kind), family).imported)
        return made[kind]

    return make


FAMILY = ModelFamily(
    name="square-64",
    size=64,
    style_dim=32,
    mapping_layers=2,
    channel_base=1024,
    channel_max=32,
    feature_resolution=32,
    encoder_size=(128, 128),
    encoder_width=4,
    head_width=32,
)
"""Of `SMALL`."""

PLACES = {
    "e4e": {"encoder.": ("checkpoint", "encoder."), "decoder.": ("checkpoint", "decoder.")},
    "fs": {"encoder.": ("checkpoint", ""), "decoder.": ("generator", "g_ema")},
    "hfgi": {p: ("checkpoint", p) for p in ("encoder.", "residue.", "grid_align.", "decoder.")},
    "clcae": {p: ("checkpoint", p) for p in ("encoder.", "decoder.")},
    "sdic": {p: ("checkpoint", p) for p in ("encoder.", "DIP.", "SAF.", "decoder.")},
    "sfe": {
        "encoder.": ("checkpoint", "encoder."),
        "inverter.": ("checkpoint", "inverter."),
        "e4e_encoder.": ("e4e", "encoder."),
        "decoder.": ("generator", "g_ema"),
    },
    "hyperstyle": {
        "hypernet.": ("checkpoint", "hypernet."),
        "decoder.": ("checkpoint", "decoder."),
        "w_encoder.": ("W encoder", "encoder."),
    },
}
"""Where tensors of a method come from: role, and prefix in its state dict."""


@functools.cache
def official_contents(kind: str) -> dict[str, dict[str, Any]]:
    return contents(kind, SMALL, o.fill)


@pytest.mark.parametrize("kind", PLACES)
def test_values_arrive_where_they_belong(kind, imported):
    official = official_contents(kind)
    state = load(imported(kind)).state_dict()
    checked = 0
    for to, (role, prefix) in PLACES[kind].items():
        content = official[role]
        source = content.get("g_ema") if prefix == "g_ema" else content.get("state_dict", content)
        prefix = "" if prefix == "g_ema" else prefix
        for name, tensor in state.items():
            if name.startswith(to):
                assert torch.equal(tensor, source[prefix + name.removeprefix(to)]), name
                checked += 1
    assert checked == len([name for name in state if not name.endswith(("latent_avg", "mean_image"))])


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_a_loaded_method_edits(kind, imported):
    method = load(imported(kind))
    assert type(method) is METHODS[kind] and not method.training
    family = method.family
    assert family == FAMILY
    mean = official_contents(kind)
    first = mean["checkpoint"].get("latent_avg", next(iter(mean.values())).get("latent_avg"))
    if first is not None:
        assert torch.equal(method.latent_avg[0], first.reshape(-1, SMALL.style)[0])
    assert method.latent_avg.abs().sum() > 0
    image = torch.rand(1, 3, *family.encoder_size) * 2 - 1
    edited = method.edit(method.invert(image), torch.randn(1, family.style_dim) * 0.1)
    assert edited.shape == (1, 3, 64, 64) and bool(torch.isfinite(edited).all())


def test_sfe_adds_the_mean_code_of_the_generators_file_to_both_codes(imported):
    """Its e4e file holds another, as files that do not belong together do."""
    method = load(imported("sfe"))
    official = official_contents("sfe")
    assert torch.equal(method.latent_avg, official["generator"]["latent_avg"].expand(SMALL.rows, -1))
    assert torch.equal(official["e4e"]["latent_avg"], method.latent_avg + 1)
    image = torch.rand(1, 3, *method.input_size) * 2 - 1
    with torch.no_grad():
        seen = shrink(image, method.family.encoder_size)
        torch.testing.assert_close(method.invert(image).w_e, method.e4e_encoder(seen) + method.latent_avg)


def test_the_mean_image_of_clcae(imported, tmp_path):
    method = load(imported("clcae"))
    assert method.mean_image.shape == (3, 128, 128)
    assert method.mean_image.min() >= -1 and method.mean_image.max() <= 1 and method.mean_image.std() > 0.5
    assert method.latent_avg.shape == (1, SMALL.style)


def test_a_generator_by_itself(imported):
    kind = "stylegan2"
    generator, mean = load_generator(imported(kind))
    official = official_contents(kind)["checkpoint"]
    assert {name: tensor for name, tensor in generator.state_dict().items()}.keys() == official["g_ema"].keys()
    assert all(torch.equal(tensor, official["g_ema"][name]) for name, tensor in generator.state_dict().items())
    assert torch.equal(mean, official["latent_avg"])
    with pytest.raises(ValueError, match="holds stylegan2, which is no method"):
        load(imported(kind))
    with pytest.raises(ValueError, match="holds e4e, not a generator"):
        load_generator(imported("e4e"))


def test_backbones_start_encoders(tmp_path, imported):
    family = load(imported("e4e")).family
    head = {"output_layer.0.weight": (32,), "output_layer.3.weight": (16, 32), "output_layer.4.running_mean": (16,)}
    files = {"ir-se-50": o.ir_se_50(4) | head, "iresnet-50": o.iresnet_50(4)}
    counts = {"ir-se-50": 385, "iresnet-50": len(o.fs(SMALL)) - 18 - 2 * SMALL.rows}
    encoders = {"ir-se-50": E4EEncoder(family), "iresnet-50": FeatureStyleEncoder(family)}
    for kind, shapes in files.items():
        values = o.fill(shapes)
        # Files from before torch 0.4.1 have no counters.
        torch.save({n: t for n, t in values.items() if not n.endswith("tracked")}, tmp_path / "backbone.pth")
        result = import_checkpoint(kind, [tmp_path / "backbone.pth"])
        out = tmp_path / f"{kind}.safetensors"
        write_imported(out, result.imported)
        left = {item.name: item for _, item in result.left_out}
        assert any("head" in item.why for item in left.values())
        assert len(result.filled_in) == 1 and result.filled_in[0].startswith("batch-norm counters: ")
        load_backbone(out, encoders[kind])
        stored = read(out).tensors
        assert len(stored) == counts[kind]
        state = encoders[kind].state_dict()
        assert all(torch.equal(state[name], tensor) for name, tensor in stored.items())
    torch.testing.assert_close(
        encoders["ir-se-50"].input_layer[0].weight, o.fill(files["ir-se-50"])["input_layer.0.weight"]
    )
    first = o.fill(files["iresnet-50"])
    torch.testing.assert_close(encoders["iresnet-50"].conv[2].weight, first["prelu.weight"])
    torch.testing.assert_close(encoders["iresnet-50"].block_3[13].conv2.weight, first["layer3.13.conv2.weight"])
    with pytest.raises(ValueError, match=r"not this encoder's: .* does not fit"):
        load_backbone(tmp_path / "ir-se-50.safetensors", encoders["iresnet-50"])
    with pytest.raises(ValueError, match="not a backbone"):
        load_backbone(imported("e4e"), encoders["ir-se-50"])


def test_what_is_written_says_where_it_came_from(imported):
    found = read(imported("sfe"))
    assert [source["role"] for source in found.sources] == ["checkpoint", "generator", "e4e"]
    assert all(len(source["sha256"]) == 64 and source["bytes"] > 0 for source in found.sources)
    assert "MIT (2024, code)" in found.licence and "generator: MIT (code of the port)" in found.licence
    assert found.family is not None and found.family.name == "square-64"


def test_reading_back_is_strict(imported, tmp_path):
    found = read(imported("e4e"))
    name = "encoder.latlayer1.bias"
    found.tensors[name] = torch.zeros(3)
    write_imported(tmp_path / "a.safetensors", found)
    with pytest.raises(ValueError, match=name):
        load(tmp_path / "a.safetensors")
    del found.tensors[name]
    write_imported(tmp_path / "a.safetensors", found)
    with pytest.raises(ValueError, match=name):
        load(tmp_path / "a.safetensors")
    data = imported("e4e").read_bytes()
    (tmp_path / "a.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match="cannot be read as imported weights"):
        load(tmp_path / "a.safetensors")


@pytest.mark.slow
@torch.no_grad()
def test_full_size(tmp_path):
    paths = write(tmp_path, "e4e", o.FACES)
    out = tmp_path / "e4e.safetensors"
    write_imported(out, import_checkpoint("e4e", paths).imported)
    method = load(out)
    # pytest keeps folders, and these are 2.4 GB.
    for path in (*paths, out):
        path.unlink()
    assert method.family == FACES_1024
    twin = create("e4e", FACES_1024)
    content = contents("e4e", o.FACES, o.fill)["checkpoint"]
    twin.load_state_dict(content["state_dict"] | {"latent_avg": content["latent_avg"]})
    image = torch.rand(1, 3, 256, 256) * 2 - 1
    assert torch.equal(method.reconstruct(method.invert(image)), twin.reconstruct(twin.invert(image)))
