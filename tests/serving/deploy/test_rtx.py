"""The cache and its child process with a real builder: TensorRT-RTX has TensorRT's interface and needs no GPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from engines.bundle import Bundle
from engines.libraries import LIBRARIES
from serving.deploy import build
from serving.deploy.builders import Builder
from serving.deploy.engine_cache import EngineCache
from serving.deploy.errors import StartError
from serving.deploy.onnx_file import read
from serving.deploy.repository import ENGINE_SOURCE, assemble
from tests.random_bundle import RANDOM_BUNDLE

pytestmark = pytest.mark.rtx
MODULE = LIBRARIES["tensorrt-rtx"].module


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`reconstruct` of the random bundle, strongly typed in FP16, as `edgedit serve repo --build-engines fp16` lays it
    out."""
    from engines.precision import lower

    root = tmp_path_factory.mktemp("models")
    version = root / "reconstruct" / "1"
    version.mkdir(parents=True)
    lower(Bundle.load(RANDOM_BUNDLE), "reconstruct", "fp16", version).file.rename(version / ENGINE_SOURCE)
    config = 'backend: "tensorrt"\nmax_batch_size: 8\ndefault_model_filename: "model.plan"\n'
    (root / "reconstruct" / "config.pbtxt").write_text(config)
    return root


@pytest.fixture(scope="module")
def builder() -> Builder:
    api = pytest.importorskip(MODULE, reason="TensorRT-RTX is not installed")
    return Builder(api.__version__, ("sm89",), None, MODULE)


def test_builds_an_engine_and_keeps_it(tmp_path: Path, models: Path, builder: Builder) -> None:
    api = pytest.importorskip(MODULE, reason="TensorRT-RTX is not installed")
    cache = EngineCache(tmp_path / "plans")
    assert assemble(models, tmp_path / "run", builder, cache) == ["reconstruct"]
    engine = tmp_path / "run" / "reconstruct" / "1" / "model.plan"
    weights = models / "reconstruct" / "1" / "reconstruct.weights"
    assert engine.stat().st_size > weights.stat().st_size * 0.9  # they are in it
    runtime = api.Runtime(api.Logger(api.Logger.ERROR))
    header = engine.read_bytes()[: runtime.engine_header_size]
    # Where there is no GPU the library can only say that the header is one of its own: damage is told apart.
    damaged = bytes(len(header))
    assert runtime.get_engine_validity(header)[1] != runtime.get_engine_validity(damaged)[1]
    first = engine.read_bytes()
    assert assemble(models, tmp_path / "run", builder, cache) == [] and engine.read_bytes() == first


def test_another_architecture_is_another_engine(tmp_path: Path, models: Path, builder: Builder) -> None:
    cache = EngineCache(tmp_path / "plans")
    for sm in ("sm89", "sm86"):
        assemble(models, tmp_path / sm, Builder(builder.version, (sm,), None, MODULE, 2**28), cache)
    engines = [(tmp_path / sm / "reconstruct" / "1" / "model.plan").read_bytes() for sm in ("sm89", "sm86")]
    assert engines[0] != engines[1]
    assert len(list((tmp_path / "plans").glob("*.plan"))) == 2


def test_the_librarys_own_words(tmp_path: Path, builder: Builder) -> None:
    """A graph with an operator that the library does not know."""
    from onnx import TensorProto, helper

    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 2]) for name in "xy"]
    node = helper.make_node("Nonsense", ["x"], ["y"], "the_node", domain="com.example")
    model = helper.make_graph([node], "g", tensors[:1], tensors[1:])
    (tmp_path / ENGINE_SOURCE).write_bytes(helper.make_model(model).SerializeToString())
    with pytest.raises(
        StartError, match=r"for sm89 by TensorRT 1\.\S+ \(Python bindings\): node the_node \(Nonsense\): "
    ):
        builder.build(read(tmp_path / ENGINE_SOURCE), tmp_path / "x.plan", (1, 1, 8), "sm89")
    assert not (tmp_path / "x.plan").exists()


def test_describe_reads_the_library(builder: Builder) -> None:
    libs = pytest.importorskip("tensorrt_rtx_libs", reason="TensorRT-RTX is not installed")
    (library,) = Path(libs.__file__).parent.glob("libtensorrt_rtx.so.*")
    # The same functions that TensorRT's library has.
    assert build.library_version(str(library)) == builder.version
    assert build.describe(MODULE)["bindings"] == builder.version
    assert build.describe("no_such_module")["bindings"] is None
    assert build.library_version("libno_such_thing.so") is None
