from __future__ import annotations

import ctypes
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
import safetensors.numpy

from engines.building import refit as module
from engines.building.builder import parse
from engines.building.calibrated import Calibrated
from engines.building.refit import Weights, compare, refit, refit_engine
from engines.bundle import WEIGHTS_FILE, Bundle, BundleWriter
from engines.bundle.engine_manifest import EIGHT_BIT, EngineManifest, engine_manifest_bytes, parse_engine_manifest
from engines.bundle.folders import EngineFolder
from engines.errors import EngineError
from engines.precision import lower
from engines.runtimes.backend import Backend, current_capability
from tests.engines.building.conftest import write_small
from tests.engines.conftest import TINY, write_tiny
from tests.engines.engine_folders import entry, flip, seal, write_engine
from tests.engines.runtimes.fake_gpu import FakeRecorder
from tests.random_bundle import RANDOM_BUNDLE

NAME = "tensorrt-rtx-sm86-fp32"
GRAPHS = ("edit", "reconstruct")


@pytest.fixture
def old(own_bundle: Path) -> Path:
    """A bundle with a refittable engine folder, as its manifest says; its engines are random bytes."""
    engine(own_bundle)
    return own_bundle


@pytest.fixture(scope="module")
def shared_new(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small(tmp_path_factory.mktemp("new") / "small", seed=8)


@pytest.fixture
def new(shared_new: Path, tmp_path: Path) -> Path:
    """A bundle of the same family and graphs with other weights."""
    return Path(shutil.copytree(shared_new, tmp_path / "new" / "small"))


def engine(path: Path, precision: str = "fp32", runtime: str = "tensorrt-rtx", refit: bool = True) -> Path:
    target = "cpu" if runtime == "onnxruntime" else "sm86"
    folder = write_engine(path, runtime, target, precision, GRAPHS, version="1.7.1.116", flags={"refit": refit})
    flat(folder)
    return folder


def flat(folder: Path) -> None:
    """Layer reports where a build puts them."""
    raw = (folder / "engine.json").read_bytes()
    for graph in GRAPHS:
        raw = raw.replace(f"layers/{graph}.json".encode(), f"{graph}.layers.json".encode())
        shutil.move(folder / "layers" / f"{graph}.json", folder / f"{graph}.layers.json")
    (folder / "layers").rmdir()
    seal(folder, engine_manifest_bytes(parse_engine_manifest(raw, folder.name)))


def refusal(engine: Path, weights: Path, **options: Any) -> str:
    with pytest.raises(EngineError) as error:
        refit(engine, weights, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ({"refit": False}, "was built without --refit, so that its weights are fixed: run `edgedit build "),
        ({"precision": "int8"}, "tensorrt-rtx-sm86-int8 is quantised, and the ranges it was built with are not kept"),
        ({"runtime": "onnxruntime"}, "onnxruntime-cpu-fp32 holds ONNX graphs"),
    ],
)
def test_engines_that_take_no_weights(own_bundle: Path, new: Path, kind: dict, message: str) -> None:
    assert message in refusal(engine(own_bundle, **kind), new)
    assert not (new / "engines").exists()


def test_weights_that_do_not_go_into_it(old: Path, tmp_path: Path) -> None:
    folder = old / "engines" / NAME
    assert "was built from the very weights of small" in refusal(folder, old)
    other = write_tiny(tmp_path / "tiny", TINY)
    assert "is of family small, and tiny of tiny: weights of the same family alone fit" in refusal(folder, other)


@pytest.mark.rtx
@pytest.mark.skipif(current_capability() is not None, reason="a GPU is here")
def test_without_a_gpu_one_line_says_so(old: Path, new: Path) -> None:
    message = refusal(old / "engines" / NAME, new)
    assert f"refitting {NAME} needs an NVIDIA GPU that runs it, and none is here" in message
    assert f"`edgedit build -b {new} --runtime tensorrt-rtx --target sm86 --precision fp32 --graph edit" in message
    assert not (new / "engines").exists()


def manifest(path: Path) -> EngineManifest:
    return EngineFolder.load(Bundle.load(path), NAME).manifest


def test_weights_that_differ_are_told_from_those_that_do_not(old: Path, new: Path, tmp_path: Path) -> None:
    bundles = Bundle.load(old), Bundle.load(new)
    (work := tmp_path / "work").mkdir()
    weights = compare(*bundles, "edit", manifest(old), work)
    assert not list(work.iterdir())
    assert weights.changed and all(weights.all[name].dtype == np.float32 for name in weights.changed)
    same = [name for name in weights.all if name not in weights.changed]
    # Shapes, axes and constants of the graph itself.
    assert same and all(weights.all[name].size <= 4 for name in same)
    assert compare(bundles[0], bundles[0], "edit", manifest(old), work).changed == []


def test_a_graph_that_computes_something_else(old: Path, tmp_path: Path) -> None:
    def edit(name: str, model: onnx.ModelProto) -> None:
        node = next(n for n in model.graph.node if n.op_type == "Sub")
        node.op_type = "Add"

    def named(name: str, model: onnx.ModelProto) -> None:
        if name == "edit":
            edit(name, model)

    other = Bundle.load(write_small(tmp_path / "other", named, seed=8))
    (work := tmp_path / "work").mkdir()
    with pytest.raises(EngineError, match=r"graph edit of small differs .* in more than its weights \(node .*\(Add\)"):
        compare(Bundle.load(old), other, "edit", manifest(old), work)


@pytest.fixture(scope="module")
def demo() -> Bundle:
    return Bundle.load(RANDOM_BUNDLE, verify=False)


@pytest.fixture(scope="module")
def peaks(demo: Bundle, tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    """Ranges for every product of `reconstruct` that could be quantised."""
    report = lower(demo, "reconstruct", "fp32", tmp_path_factory.mktemp("fp32")).report
    return {layer.name: 4.0 for layer in report.layers if layer.macs}


@pytest.mark.rtx
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8", "fp8"])
def test_the_parser_keeps_the_names_of_weights(
    rtx: Backend, demo: Bundle, peaks: dict[str, float], precision: str, tmp_path: Path
) -> None:
    """What is replaced by name is known by that name to the network, weights of a model all of them."""
    typed = lower(demo, "reconstruct", precision, tmp_path, peaks=peaks if precision in EIGHT_BIT else None)
    stored = onnx.load(typed.file).graph.initializer
    kinds = onnx.TensorProto
    small = [t for t in stored if t.data_type in (kinds.INT8, kinds.FLOAT8E4M3FN) and t.name.endswith("/values")]
    assert len(small) == (4 if precision in EIGHT_BIT else 0)
    floating = [t for t in stored if t.data_type in (kinds.FLOAT, kinds.FLOAT16)] + small
    with rtx.messages() as messages:
        network = parse(rtx, rtx.api.Builder(rtx.logger), typed.file, "reconstruct", messages)
        unknown = [t for t in floating if not network.mark_weights_refittable(t.name)]
        assert not network.mark_weights_refittable("teapot")
    # The limits of Clip become a layer's attributes; they are no weights and the same in every model.
    assert len(floating) > 40 and all(not t.dims for t in unknown) and len(unknown) <= 2


def test_eight_bit_weights_and_ranges_are_told_apart(demo: Bundle, peaks: dict[str, float], tmp_path: Path) -> None:
    """Other weights change values and their scales, other ranges the steps of data, and nothing else changes."""
    weights = {
        name: (array * 1.03).astype(array.dtype)
        for name, array in safetensors.numpy.load(demo.read(WEIGHTS_FILE)).items()
    }
    graph = demo.graph("reconstruct")
    with BundleWriter(
        tmp_path / "new",
        name="new",
        family=demo.family,
        precision="fp16",
        licence="CC0-1.0",
        produced_by=demo.manifest.produced_by,
    ) as writer:
        writer.add_bytes(WEIGHTS_FILE, safetensors.numpy.save(weights))
        writer.add_graph("reconstruct", demo.read(graph.file))
        writer.add_bytes("card.md", b"# new")
    other = Bundle.load(tmp_path / "new")
    engine = SimpleNamespace(graphs={"reconstruct": SimpleNamespace(certificate=None)}, precision="int8")
    was = Calibrated.of("reconstruct", peaks)
    (work := tmp_path / "work").mkdir()

    def changed(new: Bundle, ranges: Calibrated) -> set[str]:
        found = compare(demo, new, "reconstruct", engine, work, (was, ranges))  # type: ignore[arg-type]
        return {name.rsplit("/", 1)[-1] for name in found.changed}

    assert changed(demo, was) == set()
    assert changed(demo, Calibrated.of("reconstruct", dict.fromkeys(peaks, 6.0))) == {"step"}
    kinds = changed(other, was)
    assert "scales" in kinds and "step" not in kinds


class Api:
    """The library's part of refitting, which needs a GPU: an engine is a mapping of names to values."""

    IErrorRecorder = FakeRecorder

    def __init__(self, *, known: set[str], needs: tuple[str, ...] = (), refuse: str = "", fails: str = "") -> None:
        self.known, self.needs, self.refuse, self.fails = known, needs, refuse, fails
        self.given: dict[str, np.ndarray] = {}
        self.flags: set[str] = set()
        self.SerializationFlag = SimpleNamespace(EXCLUDE_WEIGHTS="exclude", INCLUDE_REFIT="refit")

    class DataType:
        FP8 = "fp8"

    def Weights(self, array: Any, pointer: int = 0, count: int = 0) -> np.ndarray:
        if isinstance(array, str):
            return np.ctypeslib.as_array((ctypes.c_uint8 * count).from_address(pointer)).view(ml_dtypes.float8_e4m3fn)
        assert array.dtype.kind in "fiu"
        return array

    def Runtime(self, logger: Any) -> Any:
        return SimpleNamespace(deserialize_cuda_engine=lambda data: self)

    refittable = True

    def Refitter(self, engine: Any, logger: Any) -> Any:
        api = self

        class Refitter:
            error_recorder: Any = None

            def get_all_weights(self) -> list[str]:
                return sorted(api.known)

            def get_missing_weights(self) -> list[str]:
                return [name for name in api.needs if name not in api.given]

            def set_named_weights(self, name: str, array: np.ndarray) -> bool:
                if name == api.refuse:
                    self.error_recorder.report_error(3, "Count mismatch")
                    return False
                api.given[name] = array
                return True

            def refit_cuda_engine(self) -> bool:
                if api.fails == "refit":
                    self.error_recorder.report_error(1, "Cuda failure: out of memory")
                return api.fails != "refit"

        return Refitter()

    def create_serialization_config(self) -> Any:
        return SimpleNamespace(set_flag=self.flags.add, clear_flag=self.flags.discard)

    def serialize_with_config(self, config: Any) -> bytes | None:
        return None if self.fails == "write" else b"refitted " + str(sorted(self.given)).encode()


def backend_of(api: Api) -> Backend:
    return Backend("tensorrt-rtx", "TensorRT-RTX", api, None)


WEIGHTS = Weights({name: np.full(2, index, np.float32) for index, name in enumerate("abc")}, ["a", "b"])


def test_weights_are_put_under_their_names() -> None:
    api = Api(known={"a", "b", "c"}, needs=("c",))
    plan = refit_engine(backend_of(api), b"", WEIGHTS, "e")
    assert bytes(plan) == b"refitted ['a', 'b', 'c']" and api.flags == {"refit"}
    assert all(np.array_equal(api.given[name], WEIGHTS.all[name]) for name in "abc")


def test_fp8_weights_are_put_though_numpy_does_not_know_them() -> None:
    values = np.array([-448, 0.5, 3], ml_dtypes.float8_e4m3fn)
    api = Api(known={"a"})
    refit_engine(backend_of(api), b"", Weights({"a": values}, ["a"]), "e")
    assert np.array_equal(api.given["a"], values)


@pytest.mark.rtx
@pytest.mark.parametrize("dtype", [np.int8, np.float16, np.float32, ml_dtypes.float8_e4m3fn])
def test_the_library_takes_weights_of_every_type(rtx: Backend, dtype: Any) -> None:
    given = module._weights(rtx.api, np.ones(3, dtype))
    assert given.size == 3 and given.dtype.itemsize == np.dtype(dtype).itemsize


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"known": {"b"}}, "e: weight a cannot be replaced; build the engine from the new weights"),
        ({"known": set()}, "e: weights a, b cannot be replaced"),
        ({"known": {"a", "b"}, "refuse": "b"}, r"e: b \(float32 \[2\]\) is refused: Count mismatch"),
        ({"known": {"a", "b"}, "needs": ("x", "y")}, "e: weights x, y must be given too and are not in the graph"),
        ({"known": {"a", "b"}, "fails": "refit"}, "e could not be refitted: Cuda failure: out of memory"),
        ({"known": {"a", "b"}, "fails": "write"}, "e was refitted and cannot be written"),
    ],
)
def test_what_the_library_refuses(options: dict[str, Any], message: str) -> None:
    with pytest.raises(EngineError, match=message):
        refit_engine(backend_of(Api(**options)), b"", WEIGHTS, "e")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, old: Path) -> Api:
    """All but the library and the GPU is real."""
    everything = {
        t.name
        for g in GRAPHS
        for t in onnx.load(old / "graphs" / f"{g}.onnx", load_external_data=False).graph.initializer
    }
    api = Api(known=everything)
    api.__version__ = "1.7.1.116"  # type: ignore[attr-defined]
    monkeypatch.setattr(module.backends, "load", lambda runtime: backend_of(api))
    monkeypatch.setattr(module.backends, "current_capability", lambda: (8, 6))
    monkeypatch.setattr(module, "compare", lambda *a: Weights({"a": np.ones(1, np.float32)}, []) if a[2] else None)
    return api


def test_the_folder_of_the_new_bundle(old: Path, new: Path, gpu: Api) -> None:
    lines: list[str] = []
    made = refit(old / "engines" / NAME, new, progress=lines.append, command="edgedit refit small")
    bundle, before = Bundle.load(new), manifest(old)
    folder = EngineFolder.load(bundle, NAME)
    assert folder.verify() == [] and folder.manifest == made and bundle.verify() == []
    assert made.weights_sha256 == bundle.manifest.files[WEIGHTS_FILE].sha256 != before.weights_sha256
    assert (made.built.command, made.built.flags) == ("edgedit refit small", {"refit": True})
    for graph in GRAPHS:
        entry, was = made.graphs[graph], before.graphs[graph]
        assert entry.source_sha256 == bundle.manifest.files[bundle.graph(graph).file].sha256
        assert folder.read(entry.file).startswith(b"refitted") and made.files[entry.file] != before.files[was.file]
        assert entry.certificate is None and (entry.proof, entry.profile) == (was.proof, was.profile)
        assert entry.layers is not None and made.files[entry.layers] == before.files[entry.layers]
    assert lines == ["edit: 0 of 1 weights differ", "reconstruct: 0 of 1 weights differ"]


@pytest.fixture
def quantised(own_bundle: Path) -> Path:
    """An INT8 engine folder with ranges, as its manifest says."""
    folder = engine(own_bundle, precision="int8")
    made = parse_engine_manifest((folder / "engine.json").read_bytes(), folder.name)
    graphs, files = dict(made.graphs), dict(made.files)
    for graph in GRAPHS:
        ranges = Calibrated.of(graph, {"node": 2.5})
        (folder / ranges.file).write_bytes(ranges.document())
        files[ranges.file] = entry(ranges.document())
        graphs[graph] = graphs[graph].model_copy(update={"ranges": ranges.file})
    seal(folder, engine_manifest_bytes(made.model_copy(update={"graphs": graphs, "files": files})))
    return folder


@pytest.mark.parametrize("measured", [None, {"node": 3.5}])
def test_a_quantised_folder_keeps_its_ranges_or_takes_new_ones(
    own_bundle: Path, quantised: Path, new: Path, gpu: Api, monkeypatch: pytest.MonkeyPatch, measured: dict | None
) -> None:
    asked: list[tuple[dict, dict]] = []

    def compared(old: Bundle, new: Bundle, graph: str, *rest: Any) -> Weights:
        asked.append(tuple(ranges.peaks for ranges in rest[-1]))
        return Weights({"a": np.ones(1, np.float32)}, [])

    monkeypatch.setattr(module, "compare", compared)
    lines: list[str] = []
    made = refit(quantised, new, peaks=(lambda graph: measured) if measured else None, progress=lines.append)
    folder = EngineFolder.load(Bundle.load(new), quantised.name)
    assert folder.verify() == [] and asked == [({"node": 2.5}, measured or {"node": 2.5})] * 2
    for graph in GRAPHS:
        file = made.graphs[graph].ranges
        assert file == f"{graph}.ranges.json"
        assert Calibrated.parse(folder.read(file), file).peaks == (measured or {"node": 2.5})
    assert ("edit: keeps the ranges of the old weights; --faces measures those of the new ones" in lines) == (
        measured is None
    )


def test_ranges_that_are_none_or_of_another_graph(quantised: Path, new: Path, gpu: Api) -> None:
    for content, message in (
        (b"{}", "int8/edit.ranges.json holds no ranges: graph: "),
        (Calibrated.of("edit", {"n": 1.0}).document().replace(b"1.0", b"-1"), "holds no ranges: peaks.n"),
        (Calibrated.of("reconstruct", {"n": 1.0}).document(), "edit.ranges.json is of graph reconstruct, not edit"),
    ):
        made = parse_engine_manifest((quantised / "engine.json").read_bytes(), quantised.name)
        (quantised / "edit.ranges.json").write_bytes(content)
        files = dict(made.files) | {"edit.ranges.json": entry(content)}
        seal(quantised, engine_manifest_bytes(made.model_copy(update={"files": files})))
        assert message in refusal(quantised, new)
        assert not (new / "engines").exists()


def test_what_fails_halfway_leaves_nothing(old: Path, new: Path, gpu: Api) -> None:
    gpu.fails = "write"
    assert "was refitted and cannot be written" in refusal(old / "engines" / NAME, new)
    assert not (new / "engines").exists()


def test_damage_and_strangers_are_found_before_anything_is_deserialised(old: Path, new: Path, gpu: Api) -> None:
    gpu.Runtime = lambda logger: pytest.fail("deserialised")  # type: ignore[method-assign]
    restore = flip(old / "engines" / NAME / "edit.engine")
    assert "edit.engine is damaged" in refusal(old / "engines" / NAME, new)
    restore()
    gpu.__version__ = "1.8.0"  # type: ignore[attr-defined]
    assert "built for SM86 by TensorRT-RTX 1.7.1.116, found TensorRT-RTX 1.8.0" in refusal(old / "engines" / NAME, new)
