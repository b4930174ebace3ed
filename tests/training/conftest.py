"""Fixtures of the training tests: a family that trains in milliseconds, images, and loss and judge networks as files.

The networks have random weights and the tensor names, operators and shapes of the real files.
"""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from safetensors.torch import save_file

from engines.family import EditorArchitecture, ModelFamily
from training.data import FaceSet, load_faces
from training.losses.identity import Identity
from training.losses.image import LossFiles
from training.losses.lpips import LPIPS
from training.measuring.judges import JudgeFiles, Judges
from training.methods.paper import EditingSystem
from training.networks.discriminator import Discriminator
from training.networks.stylegan2 import Generator
from training.running import checkpoint
from training.running.loop import LoopOptions, train
from training.stages.protocol import Stage

# torch 2.13 crashes now and then in the backward pass of channels-last convolutions on images of a few pixels when two
# threads share it. Sizes that are trained for real were not affected; tests of this size gain nothing from threads.
torch.set_num_threads(1)

SMALL = ModelFamily(
    name="small",
    size=32,
    style_dim=16,
    mapping_layers=2,
    channel_base=256,
    channel_max=16,
    feature_resolution=8,
    encoder_size=(32, 32),
    encoder_width=4,
    head_width=16,
    editor=EditorArchitecture(window=4, heads=4, ftem_blocks=1, edem_layers=1, edem_mlp_ratio=2, edfm_blocks=1),
)

MOBILE = ModelFamily(
    name="small-mobile",
    size=256,
    generator="mobilestylegan",
    style_dim=16,
    mapping_layers=2,
    channel_base=1024,
    channel_max=16,
    feature_resolution=32,
    encoder="light",
    encoder_size=(128, 128),
    encoder_width=8,
    encoder_blocks=1,
    editor=EditorArchitecture(
        window=8,
        heads=4,
        ftem_blocks=1,
        edem_layers=1,
        edem_mlp_ratio=2,
        edfm_blocks=1,
        edfm_norm="layer",
        inner_width=8,
        separable=True,
        linear_start=True,
        transport=True,
        surroundings=True,
    ),
)
"""A light family shaped as faces-1024-mobile: an eighth of the picture is the feature, a cell is four input pixels."""

PHOTOS = 15
HELD_OUT = 3


@pytest.fixture(scope="session")
def family() -> ModelFamily:
    return SMALL


@pytest.fixture(scope="session")
def mobile() -> ModelFamily:
    return MOBILE


@pytest.fixture(scope="session")
def photo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """15 smooth 40 x 40 images, half of them PNG, half JPEG, unlike each other."""
    folder = tmp_path_factory.mktemp("photos")
    source = np.random.default_rng(0)
    y, x = np.mgrid[0:1:40j, 0:1:40j]
    for index in range(PHOTOS):
        waves = source.uniform(0.5, 3, (3, 2))
        phase = source.uniform(0, 6, 3)
        image = np.sin(waves[:, :1, None] * x * 3 + waves[:, 1:, None] * y * 3 + phase[:, None, None])
        pixels = ((image + 1) * 127.5).round().astype(np.uint8).transpose(1, 2, 0)
        Image.fromarray(pixels).save(folder / f"{index:03d}.{'png' if index % 2 else 'jpg'}", quality=95)
    (folder / "readme.txt").write_text("not an image")
    return folder


@pytest.fixture(scope="session")
def splits(photo_folder: Path, family: ModelFamily) -> tuple[FaceSet, FaceSet]:
    return load_faces(photo_folder, family.size, held_out=HELD_OUT)


@pytest.fixture(scope="session")
def faces(splits: tuple[FaceSet, FaceSet]) -> FaceSet:
    """12 training images of 32 x 32."""
    return splits[0]


def _initializer(name: str, value: np.ndarray) -> TensorProto:
    return numpy_helper.from_array(np.ascontiguousarray(value), name)


def write_onnx(
    path: Path,
    nodes: list[onnx.NodeProto],
    weights: dict[str, np.ndarray],
    source: tuple[str, list[int | str]],
    results: dict[str, list[int | str]],
) -> Path:
    """One float32 input, float32 outputs; opset 17."""
    graph = helper.make_graph(
        nodes,
        path.stem,
        [helper.make_tensor_value_info(source[0], TensorProto.FLOAT, source[1])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in results.items()],
        [_initializer(name, value) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


@pytest.fixture(scope="session")
def onnx_file() -> Callable[..., Path]:
    return write_onnx


def _embedder(path: Path) -> Path:
    """112 x 112 to 512: strided, depthwise and 1x1 convolutions, PReLUs, a residual sum and a reshape."""
    source = np.random.default_rng(1)

    def normal(*shape: int) -> np.ndarray:
        return (source.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)

    weights = {
        "stem": normal(8, 3, 3, 3),
        "stem_bias": source.normal(0, 0.3, 8).astype(np.float32),
        "slope": source.uniform(0.05, 0.5, (8, 1, 1)).astype(np.float32),
        "down": normal(8, 8, 3, 3),
        "depthwise": normal(8, 1, 3, 3),
        "whole": normal(32, 8, 7, 7),
        "head": normal(512, 32, 1, 1),
        "head_bias": source.normal(0, 0.1, 512).astype(np.float32),
        "shape": np.array([1, 512], np.int64),
    }
    nodes = [
        helper.make_node("Conv", ["input", "stem", "stem_bias"], ["a"], strides=[4, 4], pads=[1, 1, 1, 1]),
        helper.make_node("PRelu", ["a", "slope"], ["b"]),
        helper.make_node("Conv", ["b", "down"], ["c"], strides=[4, 4], pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["c", "depthwise"], ["d"], pads=[1, 1, 1, 1], group=8),
        helper.make_node("Add", ["c", "d"], ["e"]),
        helper.make_node("PRelu", ["e", "slope"], ["f"]),
        helper.make_node("Conv", ["f", "whole"], ["g"]),
        helper.make_node("Conv", ["g", "head", "head_bias"], ["h"]),
        helper.make_node("Reshape", ["h", "shape"], ["output"]),
    ]
    return write_onnx(path, nodes, weights, ("input", [1, 3, 112, 112]), {"output": [1, 512]})


ALEXNET = {0: (8, 3, 11), 3: (12, 8, 5), 6: (16, 12, 3), 8: (12, 16, 3), 10: (12, 12, 3)}
"""Convolutions of an AlexNet with few channels: outputs, inputs, kernel."""


def alexnet_tensors() -> dict[str, torch.Tensor]:
    source = torch.Generator().manual_seed(2)
    tensors = {}
    for level, (index, (outputs, inputs, kernel)) in enumerate(ALEXNET.items()):
        weight = torch.randn(outputs, inputs, kernel, kernel, generator=source) / (inputs * kernel**2) ** 0.5
        tensors[f"features.{index}.weight"] = weight
        tensors[f"features.{index}.bias"] = torch.randn(outputs, generator=source) * 0.1
        tensors[f"lin{level}.model.1.weight"] = torch.rand(1, outputs, 1, 1, generator=source)
    return tensors


@pytest.fixture(scope="session")
def loss_files(tmp_path_factory: pytest.TempPathFactory) -> LossFiles:
    folder = tmp_path_factory.mktemp("losses")
    save_file(alexnet_tensors(), folder / "lpips.safetensors")
    return LossFiles(lpips=folder / "lpips.safetensors", identity=_embedder(folder / "embedder.onnx"))


@pytest.fixture(scope="session")
def lpips(loss_files: LossFiles) -> LPIPS:
    return LPIPS(loss_files.lpips).eval()


@pytest.fixture(scope="session")
def identity(loss_files: LossFiles) -> Identity:
    return Identity(loss_files.identity).eval()


@pytest.fixture(scope="session")
def judge_files(tmp_path_factory: pytest.TempPathFactory) -> JudgeFiles:
    """Judges of colour: `age` is 50 (1 + mean), p_male the sigmoid of 4 (red - green), `smile` a softmax whose logits
    are linear in the channel means, `yaw` and `pitch` likewise over 66 bins."""
    folder = tmp_path_factory.mktemp("judges")
    source = np.random.default_rng(3)

    def linear(outputs: int) -> np.ndarray:
        return source.normal(0, 3, (3, outputs)).astype(np.float32)

    means = helper.make_node("ReduceMean", ["image"], ["means"], axes=[2, 3], keepdims=0)
    image: tuple[str, list[int | str]] = ("image", ["batch", 3, 112, 112])
    age = write_onnx(
        folder / "age_gender.onnx",
        [
            means,
            helper.make_node("MatMul", ["means", "tone"], ["years"]),
            helper.make_node("Add", ["years", "start"], ["age"]),
            helper.make_node("MatMul", ["means", "contrast"], ["logit"]),
            helper.make_node("Sigmoid", ["logit"], ["p_male"]),
        ],
        {
            "tone": np.full(3, 50 / 3, np.float32),
            "start": np.float32(50).reshape(1),
            "contrast": np.array([4, -4, 0], np.float32),
        },
        image,
        {"age": ["batch"], "p_male": ["batch"]},
    )
    expression = write_onnx(
        folder / "expression.onnx",
        [means, helper.make_node("MatMul", ["means", "w"], ["logits"]), helper.make_node("Softmax", ["logits"], ["p"])],
        {"w": linear(7)},
        image,
        {"p": ["batch", 7]},
    )
    pose = write_onnx(
        folder / "pose.onnx",
        [
            means,
            helper.make_node("MatMul", ["means", "w"], ["yaw_bins"]),
            helper.make_node("MatMul", ["means", "v"], ["pitch_bins"]),
        ],
        {"w": linear(66), "v": linear(66)},
        ("image", [1, 3, 224, 224]),
        {"yaw_bins": [1, 66], "pitch_bins": [1, 66]},
    )
    return JudgeFiles(age_gender=age, expression=expression, pose=pose)


@pytest.fixture(scope="session")
def judges(judge_files: JudgeFiles) -> Judges:
    return Judges(judge_files, threads=1)


def _calm(generator: Generator) -> Generator:
    """Untrained, the image grows to several units; a sixteenth of that is mostly inside [-1, 1]."""
    with torch.no_grad():
        for layer in (generator.to_rgb1, *generator.to_rgbs):
            layer.conv.weight /= 16
    return generator.eval().requires_grad_(False)


@pytest.fixture
def generator(family: ModelFamily) -> Generator:
    """A frozen random generator, the same for every test."""
    torch.manual_seed(10)
    return _calm(Generator(family))


@pytest.fixture
def discriminator(family: ModelFamily) -> Discriminator:
    torch.manual_seed(11)
    return Discriminator(family)


@pytest.fixture
def system(family: ModelFamily) -> EditingSystem:
    """A frozen system with random parts, none of them switched off by its initialisation."""
    torch.manual_seed(12)
    system = EditingSystem(family).eval().requires_grad_(False)
    for part in (system.e4e, system.encoder, system.ftem, system.editor):
        for parameter in part.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    _calm(system.generator)
    system.latent_avg.normal_(0.0, 0.3)
    return system


@pytest.fixture
def state() -> Callable[[torch.nn.Module], dict[str, torch.Tensor]]:
    """A module's tensors, copied."""
    return lambda module: {name: tensor.clone() for name, tensor in module.state_dict().items()}


@pytest.fixture
def changed() -> Callable[[dict[str, torch.Tensor], torch.nn.Module], set[str]]:
    """Names of a module's tensors that differ in any bit from an earlier state."""

    def names(before: dict[str, torch.Tensor], module: torch.nn.Module) -> set[str]:
        after = module.state_dict()
        assert after.keys() == before.keys()
        return {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}

    return names


def log_rows(run: Path) -> list[dict[str, str]]:
    """The log without its clock."""
    with (run / "log.csv").open(newline="") as stream:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(stream)]


@pytest.fixture
def rows() -> Callable[[Path], list[dict[str, str]]]:
    return log_rows


@pytest.fixture
def assert_exact_resume(tmp_path: Path) -> Callable[[Callable[[], Stage], int, int], None]:
    """Asserts that `total` steps in one go and `cut` steps plus a resumed run leave the same bits behind."""

    def check(make: Callable[[], Stage], cut: int, total: int) -> None:
        def options(steps: int) -> LoopOptions:
            return LoopOptions(steps=steps, seed=3, log_every=1, checkpoint_every=1000, grid_every=1000)

        whole, parts = tmp_path / "whole", tmp_path / "parts"
        straight = make()
        assert train(straight, whole, options(total)) == total
        assert train(make(), parts, options(cut)) == cut
        resumed = make()
        assert train(resumed, parts, options(total)) == total

        first, first_meta = checkpoint.load(whole / "checkpoint")
        second, second_meta = checkpoint.load(parts / "checkpoint")
        assert first.keys() == second.keys()
        assert any(name.startswith("optimizer.") for name in first)
        different = [name for name in first if not torch.equal(first[name], second[name])]
        assert not different, different
        for name, module in straight.modules.items():
            tensors, others = module.state_dict(), resumed.modules[name].state_dict()
            assert not [n for n in tensors if not torch.equal(tensors[n], others[n])]
        assert first_meta["step"] == second_meta["step"] == total
        assert first_meta | {"seconds": 0} == second_meta | {"seconds": 0}
        assert len(log_rows(whole)) == total
        assert log_rows(whole) == log_rows(parts)
        grids = [(run / "grids" / f"{total:07d}.png").read_bytes() for run in (whole, parts)]
        assert grids[0] == grids[1]

    return check


@pytest.fixture
def with_options(tiny: ModelFamily) -> Callable[..., ModelFamily]:
    """The tests' tiny family with some editor options replaced."""
    torch.manual_seed(0)
    return lambda **options: dataclasses.replace(tiny, editor=dataclasses.replace(tiny.editor, **options))


@pytest.fixture
def randomise() -> Callable[..., torch.nn.Module]:
    """Gives every parameter of a module random values, so that no branch is switched off by its initialisation."""

    def apply(module: torch.nn.Module, std: float = 0.2) -> torch.nn.Module:
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.normal_(0, std)
        return module.eval()

    return apply
