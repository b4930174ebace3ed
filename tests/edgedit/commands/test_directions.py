"""`edgedit import direction`: the official files, and what it says to files that are not what they should be."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from edgedit.commands.directions import spelt_out
from engines.directions import Direction, resolve
from engines.directions.recipes import CHANNELS, COMPONENTS
from engines.family import CARS_512, FACES_1024
from tests.edgedit.conftest import Cli
from training.importers.arrays import read_arrays
from training.importers.directions import KNOWN
from training.importers.mapper import load_mapper
from training.networks.mapper import LatentMapper, mapper_delta


@pytest.fixture(scope="session")
def official(shared: Path) -> Path:
    return shared / "directions"


@pytest.fixture(scope="session")
def codes(official: Path) -> np.ndarray:
    return np.load(official / "styleclip_e4e_w_plus.npy")


class Imports:
    """`edgedit import direction` into a folder of its own."""

    def __init__(self, cli: Cli, folder: Path) -> None:
        self._cli, self.folder = cli, folder / "out"
        self.folder.mkdir()
        self.out, self.json = self.folder / "d.safetensors", self.folder / "d.json"

    def __call__(self, *words: object) -> Direction:
        done = self._cli("import", "direction", *words, "-o", self.out, "--json", self.json)
        assert (done.status, done.err) == (0, ""), done.err
        direction = Direction.load(self.out)
        summary = json.loads(self.json.read_text())["direction"]
        assert f"wrote {self.out}: {direction.name}, {direction.kind}" in done.out and direction.licence in done.out
        rows = summary.pop("rows")
        assert (tuple(rows) if rows else None) == direction.rows
        assert all(summary[key] == getattr(direction, key) for key in ("name", "kind", "space", "units", "licence"))
        return direction

    def error(self, *words: object) -> str:
        kind = () if words[0] == "mapper" else ("direction",)
        message = self._cli("import", *kind, *words, "-o", self.out).error
        assert os.listdir(self.folder) == []
        return message


@pytest.fixture
def imports(cli: Cli, tmp_path: Path) -> Imports:
    return Imports(cli, tmp_path)


def moved(direction: Direction, strength: float, codes: np.ndarray) -> np.ndarray:
    family = CARS_512 if codes.shape[1] == CARS_512.w_rows else FACES_1024
    return codes + resolve({"x": direction}, {"x": strength}, family).delta_w


@pytest.mark.parametrize(("name", "space"), [("age", "w"), ("smile", "w"), ("pose", "w+")])
def test_official_interfacegan(imports: Imports, official: Path, codes: np.ndarray, name: str, space: str) -> None:
    direction = imports("interfacegan", official / f"{name}.pt")
    assert (direction.name, direction.space, direction.licence) == (name, space, "MIT")
    assert (direction.min_strength, direction.max_strength) == (-5, 5)
    vector = torch.load(official / f"{name}.pt", weights_only=True, map_location="cpu").numpy()
    np.testing.assert_allclose(moved(direction, 3.0, codes), codes + 3 * vector, atol=1e-6)


@pytest.mark.parametrize("family", [FACES_1024, CARS_512], ids=lambda f: f.name)
def test_official_ganspace(imports: Imports, official: Path, codes: np.ndarray, family) -> None:
    file = official / ("ffhq_pca.pt" if family is FACES_1024 else "cars_pca.pt")
    pca = torch.load(file, weights_only=True, map_location="cpu")
    mean, comp, std = (pca[key].double().numpy() for key in ("mean", "comp", "std"))
    codes = codes[:, : family.w_rows]
    for name, recipe in COMPONENTS[family.name].items():
        direction = imports("ganspace", file, "--recipe", name, "--family", family.name)
        assert (direction.name, direction.rows, direction.licence) == (name, recipe.rows, "MIT AND Apache-2.0")
        assert (direction.min_strength, direction.max_strength) == recipe.range
        first, end = recipe.rows
        expected = codes.astype(np.float64)
        expected[:, first:end] += recipe.strength * comp[recipe.component, 0] * std[recipe.component]
        np.testing.assert_allclose(moved(direction, recipe.strength, codes), expected, atol=1e-4)
        coordinates = (codes[:, 0] - mean[0]) @ comp[recipe.component, 0] / std[recipe.component]
        np.testing.assert_allclose([direction.coordinate(code) for code in codes], coordinates, atol=1e-4)
    own = imports("ganspace", file, "--component", 2, "--rows", 3, 5, "--range", -4, 4, "--family", family.name)
    assert (own.name, own.rows, own.min_strength) == ("pc02", (3, 5), -4.0)


def test_official_stylespace(imports: Imports, official: Path) -> None:
    _, deviations = pickle.loads((official / "S_mean_std").read_bytes())
    starts = np.cumsum([0, *(layer.size for layer in deviations)])
    for name, channels in CHANNELS[FACES_1024.name].items():
        direction = imports("stylespace", official / "S_mean_std", "--recipe", name)
        expected = np.zeros(9088)
        for layer, channel in channels:
            expected[starts[layer] + channel] = deviations[layer][channel]
        np.testing.assert_allclose(direction.vector, expected, rtol=1e-6)
        assert (direction.licence, direction.units) == ("MIT", "standard deviations of the channel")
    own = imports("stylespace", official / "S_mean_std", "--channels", "6:501", "9:6", "--name", "two")
    assert own.name == "two" and np.count_nonzero(own.vector) == 2
    plain = imports(
        "stylespace", "--recipe", "trees", "--family", CARS_512.name,
        "--unit", 3, "--range", -5, 5, "--licence", "MIT", "--source", "by hand",
    )  # fmt: skip
    assert plain.vector.shape == (8960,) and plain.vector.max() == 3 and plain.source == "by hand"


def test_styleclip_global(imports: Imports, official: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(6048, 512)) / 512**0.5
    text = rng.normal(size=(1, 512)).astype(np.float32)
    np.save(tmp_path / "fs3.npy", matrix)
    np.save(tmp_path / "afro.npy", text)
    words = (
        "styleclip",
        tmp_path / "fs3.npy",
        "--text",
        tmp_path / "afro.npy",
        "--statistics",
        official / "S_mean_std",
    )
    direction = imports(*words, "--beta", 0.08, "--licence", "MIT")
    assert (direction.name, direction.kind, direction.space) == ("afro", "styleclip", "s")
    assert (direction.min_strength, direction.max_strength) == (-15, 25)
    scores = matrix @ (text[0] / np.linalg.norm(text))
    deviations = np.concatenate(pickle.loads((official / "S_mean_std").read_bytes())[1])
    convolutions = np.repeat([i % 3 != 1 for i in range(26)], FACES_1024.style_channels)
    assert np.count_nonzero(direction.vector) == (np.abs(scores) >= 0.08).sum() > 0
    top = np.abs(scores).argmax()
    assert np.abs(direction.vector[convolutions][top]) == pytest.approx(deviations[convolutions][top], rel=1e-5)
    assert not direction.vector[~convolutions].any()


def official_mapper(path: Path) -> LatentMapper:
    torch.manual_seed(0)
    mapper = LatentMapper(128, ("coarse", "medium"))
    state = {
        f"mapper.{'course' if level == 'coarse' else level}_mapping.mapping.{layer}.{part}": tensor
        for name, tensor in mapper.state_dict().items()
        for _, level, layer, part in [name.split(".")]
    }
    torch.save({"state_dict": state | {"decoder.input.input": torch.ones(2)}, "opts": {}}, path)
    return mapper


def test_a_mapper_as_weights(cli: Cli, tmp_path: Path, codes: np.ndarray) -> None:
    mapper = official_mapper(tmp_path / "mohawk.pt")
    words = ("import", "mapper", tmp_path / "mohawk.pt", "--family", "demo-64", "--licence", "MIT")
    done = cli(*words, "-o", tmp_path / "m.safetensors")
    assert done.status == 0 and "levels coarse, medium (rows 0 to 3, 4 to 7)" in done.out
    read, about = load_mapper(tmp_path / "m.safetensors")
    assert (about.name, about.levels, about.licence, about.max_strength) == ("mohawk", ("coarse", "medium"), "MIT", 0.1)
    code = codes[0, :10, :128]
    assert np.array_equal(mapper_delta(read, code), mapper_delta(mapper, code))


@pytest.mark.slow
def test_a_mapper_as_a_graph(cli: Cli, tmp_path: Path, codes: np.ndarray) -> None:
    mapper = official_mapper(tmp_path / "mohawk.pt")
    words = ("import", "mapper", tmp_path / "mohawk.pt", "--family", "demo-64", "--licence", "MIT")
    assert cli(*words, "-o", tmp_path / "m.onnx").status == 0
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    code = codes[0, :10, :128]
    (delta,) = session.run(None, {"w_plus": code[None]})
    np.testing.assert_allclose(0.1 * delta[0], mapper_delta(mapper, code), rtol=1e-4, atol=1e-6)


def test_both_spellings_of_the_listing(cli: Cli, bundle_path: Path) -> None:
    assert cli("directions", "-b", bundle_path).out == cli("directions", "list", "-b", bundle_path).out
    assert "import direction" in cli("directions", "list", "--help").out
    for verb in ("interfacegan", "ganspace", "stylespace", "styleclip"):
        assert verb in cli("import", "direction", "--help").out
        assert "--licence" in cli("import", "direction", verb, "--help").out
    assert "mapper" in cli("import", "--help").out and "--licence" in cli("import", "mapper", "--help").out
    assert spelt_out(["info", "x"]) == ["info", "x"] and spelt_out([]) == []


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("smile (1).pt", "smile"),
        ("smile[2].pt", "smile"),
        ("my smile - v2.pt", "my_smile_-_v2"),
        ("sourire d\u00e9t\u00e9.pt", "sourire_dete"),
        ("smile.final.pt", "smile.final"),
    ],
)
def test_names_as_browsers_save_them(imports: Imports, tmp_path: Path, file: str, name: str) -> None:
    vector = np.random.default_rng(0).normal(size=(18, 1, 512)).astype(np.float32)
    torch.save(vector, tmp_path / file)
    direction = imports("interfacegan", tmp_path / file, "--licence", "MIT", "--range", -3, 3)
    assert direction.name == name and np.array_equal(direction.vector, vector[:, 0])


def test_one_vector_in_any_container(imports: Imports, tmp_path: Path) -> None:
    vector = np.random.default_rng(0).normal(size=512)
    np.savez(tmp_path / "npz", vector)
    np.savetxt(tmp_path / "txt", vector)
    torch.save({"direction": torch.tensor(vector), "intercept": torch.ones(1, 1), "name": "smile"}, tmp_path / "torch")
    (tmp_path / "list").write_bytes(pickle.dumps(vector.tolist(), 2))
    (tmp_path / "tuple").write_bytes(pickle.dumps((vector,), 5))
    for file in ("npz.npz", "txt", "torch", "list", "tuple"):
        direction = imports("interfacegan", tmp_path / file, "--licence", "MIT", "--range", -3, 3)
        np.testing.assert_allclose(direction.vector, vector, rtol=1e-6)


def test_ganspaces_own_container(imports: Imports, tmp_path: Path, official: Path) -> None:
    pca = torch.load(official / "ffhq_pca.pt", weights_only=True)
    own = {f"act_{key}": pca[theirs].numpy() for key, theirs in (("comp", "comp"), ("mean", "mean"), ("stdev", "std"))}
    np.savez_compressed(tmp_path / "ipca.npz", **own, lat_comp=own["act_comp"], var_ratio=own["act_stdev"])
    words = ("--recipe", "lipstick", "--licence", "MIT")
    ours, theirs = (imports("ganspace", file, *words) for file in (tmp_path / "ipca.npz", official / "ffhq_pca.pt"))
    assert np.array_equal(ours.vector, theirs.vector) and ours.origin == theirs.origin and ours.rows == theirs.rows


def test_refusals(imports: Imports, official: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "w.npy", np.ones((1, 512), np.float32))
    np.save(tmp_path / "nan.npy", np.full((1, 512), np.nan))
    np.save(tmp_path / "late.npy", np.repeat([[0.0], [1.0]], [16, 2], axis=0) * np.ones(512))
    zeros, lfs, nameless = tmp_path / "zeros.npy", tmp_path / "lfs.pt", tmp_path / "\u5fae\u7b11.npy"
    np.save(zeros, np.zeros((1, 512), np.float32))
    np.save(nameless, np.ones((1, 512), np.float32))
    lfs.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 2799\n")
    licence = ("--licence", "MIT", "--range", -1, 1)
    pca, statistics = official / "ffhq_pca.pt", official / "S_mean_std"
    for words, message in (
        (
            ("interfacegan", official / "pose.pt", "--family", "cars-512x384"),
            "holds 18 rows of 512 in w+, as faces-1024 and faces-1024-mobile have",
        ),
        (("interfacegan", pca), "ffhq_pca.pt holds mean, comp, std and not one vector; is it of another kind?"),
        (("interfacegan", statistics), "S_mean_std holds lists of arrays and not one vector"),
        (("interfacegan", tmp_path / "w.npy"), "not an official file that edgedit knows; say its terms with --licence"),
        (("interfacegan", tmp_path / "w.npy", "--licence", "MIT"), "say them with --range LOW HIGH"),
        (("interfacegan", tmp_path / "nan.npy", *licence), "is not made of finite numbers"),
        (("interfacegan", official / "age.pt", "--range", 3, -3), "min_strength 3.0 is not below -3.0"),
        (
            ("interfacegan", official / "age.pt", "--family", "faces"),
            "unknown model family 'faces'; there are faces-1024",
        ),
        (("interfacegan", official / "age.pt", "--name", "a/b"), "must be letters, digits"),
        (("interfacegan", tmp_path / "missing.pt"), "cannot read"),
        (
            ("interfacegan", tmp_path / "late.npy", *licence, "--family", "faces-1024-mobile"),
            "late edits nothing: it moves rows from 16 on alone",
        ),
        (
            ("ganspace", pca, "--component", 3, "--rows", 16, 18, *licence[2:], "--family", "faces-1024-mobile"),
            "pc03 edits nothing",
        ),
        (
            ("stylespace", "--channels", "6:501", "--unit", 3, *licence, "--family", "faces-1024-mobile"),
            "numbered as StyleGAN2 has them",
        ),
        (("ganspace", pca), "give either --recipe NAME or --component NUMBER"),
        (("ganspace", pca, "--recipe", "eye_opennes"), "unknown recipe 'eye_opennes'; did you mean eye_openness?"),
        (("ganspace", pca, "--recipe", "lipstick", "--rows", 1, 2), "a recipe has its rows; leave --rows out"),
        (("ganspace", pca, "--component", 80, "--range", -1, 1), "no component 80; the file has 80, 0 to 79"),
        (("ganspace", official / "age.pt", "--recipe", "lipstick"), "age.pt holds no mean, comp and std"),
        (("stylespace", statistics), "give either --recipe NAME or --channels"),
        (("stylespace", "--recipe", "smiling"), "give either a statistics file or --unit NUMBER"),
        (("stylespace", statistics, "--channels", "6-501"), "'6-501' is not LAYER:CHANNEL, such as 6:501"),
        (("stylespace", statistics, "--channels", "26:0"), "no style layer 26 in family faces-1024"),
        (("stylespace", pca, "--recipe", "smiling"), "holds no lists of means and deviations"),
        (
            ("stylespace", statistics, "--recipe", "trees", "--family", "cars-512x384"),
            "26 style layers with 9088 channels",
        ),
        (("interfacegan", zeros, *licence), "direction zeros: the vector is zero"),
        (("stylespace", "--channels", "6:501", "--unit", "0", *licence), "style 6:501 would not move: a unit of 0"),
        (("interfacegan", lfs), "lfs.pt is a Git LFS pointer"),
        (("ganspace", lfs, "--component", 1), "lfs.pt is a Git LFS pointer"),
        (("stylespace", lfs, "--recipe", "smiling"), "lfs.pt is a Git LFS pointer"),
        (("mapper", lfs, "--licence", "MIT"), "lfs.pt is a Git LFS pointer"),
        (
            ("styleclip", lfs, "--text", zeros, "--statistics", statistics, "--beta", 0.1, *licence[:2]),
            "lfs.pt is a Git LFS pointer",
        ),
        (("interfacegan", nameless, *licence), "makes no name for a direction; give one with --name"),
        (("mapper", official / "age.pt", "--licence", "MIT"), "holds no dictionary of tensors"),
        (("mapper", pca, "--licence", "MIT"), "holds no latent mapper"),
    ):
        assert message in imports.error(*words), words


def test_output_is_checked_before_the_work(cli: Cli, official: Path, tmp_path: Path) -> None:
    words = ("import", "direction", "interfacegan", official / "age.pt", "-o")
    assert "its name must end in .safetensors" in cli(*words, tmp_path / "age.pt").error
    assert "there is no directory" in cli(*words, tmp_path / "no" / "age.safetensors").error
    assert os.listdir(tmp_path) == []


def test_an_exploit_in_a_direction_file_is_not_run(imports: Imports, tmp_path: Path) -> None:
    class Exploit:
        def __reduce__(self) -> tuple:
            return os.system, (f"touch {tmp_path / 'ran'}",)

    (tmp_path / "S_mean_std").write_bytes(pickle.dumps([[Exploit()], [Exploit()]], 3))
    torch.save({"mean": Exploit()}, tmp_path / "pca.pt")
    assert "refused; nothing of it ran" in imports.error("stylespace", tmp_path / "S_mean_std", "--recipe", "smiling")
    assert "refused; nothing of it ran" in imports.error("ganspace", tmp_path / "pca.pt", "--recipe", "lipstick")
    assert "refused; nothing of it ran" in imports.error("mapper", tmp_path / "pca.pt", "--licence", "MIT")
    assert not (tmp_path / "ran").exists()


def test_official_files_are_known_by_their_digest(official: Path) -> None:
    for known, name in ((k, k.name) for k in KNOWN.values()):
        file = official / (name if name == "S_mean_std" else f"{name}.pt")
        assert KNOWN[read_arrays(file).sha256] is known
