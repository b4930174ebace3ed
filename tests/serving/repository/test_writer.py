from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from edgedit.commands.serve_repo import ServeRepo
from engines.bundle import Bundle
from engines.contracts import PARTS, PIPELINES
from engines.errors import BundleError, EngineError, OutputError
from engines.session import EditSession
from serving.contract import EDIT_IMAGE, EDIT_SESSION, EDITED_IMAGE, GRAPH_MODELS, MAX_BATCH
from serving.repository import RepositoryOptions, add_version, read_repository, write_repository
from tests.edgedit.conftest import write_faces
from tests.engines.conftest import TINY, write_tiny
from tests.engines.engine_folders import flip, write_engine

configs = pytest.importorskip("serving.repository.configs", reason="tritonclient is not installed")
from tritonclient.grpc import model_config_pb2 as pb  # noqa: E402


def config(root: Path, model: str, file: str = "config.pbtxt"):
    return configs.parse((root / model / file).read_text())


def tensors(fields) -> dict[str, tuple[str, list[int]]]:
    return {t.name: (pb.DataType.Name(t.data_type), list(t.dims)) for t in fields}


def of_graph(values) -> dict[str, tuple[str, list[int]]]:
    names = {onnx.TensorProto.FLOAT: "TYPE_FP32", onnx.TensorProto.UINT8: "TYPE_UINT8"}
    found = {}
    for value in values:
        first, *rest = value.type.tensor_type.shape.dim
        assert first.dim_param, f"{value.name} has no batch"
        found[value.name] = (names[value.type.tensor_type.elem_type], [dim.dim_value for dim in rest])
    return found


@pytest.mark.parametrize("model", GRAPH_MODELS)
def test_both_variants_and_the_graph_agree(models: Path, model: str) -> None:
    gpu, cpu = config(models, model), config(models, model, "configs/cpu.pbtxt")
    graph = onnx.load(models / model / "1" / "model.onnx", load_external_data=False).graph
    assert (gpu.backend, gpu.default_model_filename) == ("tensorrt", "model.plan")
    assert (cpu.backend, cpu.default_model_filename) == ("onnxruntime", "model.onnx")
    assert [group.kind for group in gpu.instance_group] == [pb.ModelInstanceGroup.KIND_GPU]
    assert [group.kind for group in cpu.instance_group] == [pb.ModelInstanceGroup.KIND_CPU]
    for variant in (gpu, cpu):
        assert variant.name == model and variant.max_batch_size == MAX_BATCH
        assert variant.HasField("dynamic_batching") and not variant.dynamic_batching.max_queue_delay_microseconds
        assert not variant.dynamic_batching.HasField("default_queue_policy")
        assert tensors(variant.input) == of_graph(graph.input)
        assert tensors(variant.output) == of_graph(graph.output)
    assert gpu.version_policy == cpu.version_policy


@pytest.mark.parametrize("model", GRAPH_MODELS)
def test_every_batch_has_a_cuda_graph_that_is_warmed_up(models: Path, model: str) -> None:
    gpu = config(models, model)
    shapes = {name: dims for name, (_, dims) in tensors(gpu.input).items()}
    cuda = gpu.optimization.cuda
    assert cuda.graphs and cuda.output_copy_stream and not cuda.busy_wait_events
    assert gpu.optimization.input_pinned_memory.enable and gpu.optimization.output_pinned_memory.enable
    assert [spec.batch_size for spec in cuda.graph_spec] == list(range(1, MAX_BATCH + 1))
    for spec in cuda.graph_spec:
        assert {name: list(shape.dim) for name, shape in spec.input.items()} == shapes
    assert [w.batch_size for w in gpu.model_warmup] == list(range(1, MAX_BATCH + 1))
    for warm_up in gpu.model_warmup:
        assert {name: list(given.dims) for name, given in warm_up.inputs.items()} == shapes
    assert [list(group.profile) for group in gpu.instance_group] == [["0"]]


def test_the_ensemble_passes_every_tensor_of_an_inversion_on(models: Path) -> None:
    ensemble, invert, edit = (config(models, name) for name in (EDIT_IMAGE, "invert", "edit"))
    first, second = ensemble.ensemble_scheduling.step
    assert tensors(ensemble.input)["image"] == tensors(invert.input)["image"]
    assert tensors(ensemble.output) == {EDITED_IMAGE: tensors(edit.output)["image"]}
    assert set(first.output_map) == {t.name for t in invert.output}
    assert set(second.input_map) == {t.name for t in edit.input}
    given = {t.name for t in ensemble.input} | set(first.output_map.values())
    assert set(second.input_map.values()) <= given
    # Two tensors of one name would be one tensor, and the answer would be the question.
    names = [*(t.name for t in ensemble.input), *first.output_map.values(), *second.output_map.values()]
    assert len(names) == len(set(names))


def test_edit_session_says_what_it_takes_and_which_directions_it_has(models: Path, tiny: Bundle) -> None:
    session = config(models, EDIT_SESSION)
    height, width = tiny.family.image_shape
    assert tensors(session.input) == {
        "image": ("TYPE_UINT8", [height, width, 3]),
        "handle": ("TYPE_STRING", [1]),
        "edits": ("TYPE_STRING", [1]),
    }
    assert all(tensor.optional for tensor in session.input)
    assert list(tensors(session.output)) == ["handle", "image"]
    assert [(group.count, group.kind) for group in session.instance_group] == [(1, pb.ModelInstanceGroup.KIND_CPU)]
    parameters = {name: value.string_value for name, value in session.parameters.items()}
    assert parameters["bundle_sha256"] == tiny.digest()
    assert parameters["cache_bytes"] == str(256 * 2**20)
    directions = json.loads(parameters["directions"])
    assert list(directions) == tiny.manifest.directions
    assert directions["smile"] == {"min_strength": -3.0, "max_strength": 3.0, "description": "d"}


def test_onnxruntime_loads_the_graphs_as_they_lie_there(models: Path, tiny: Bundle) -> None:
    image = np.random.default_rng(0).integers(0, 256, (2, *tiny.family.image_shape, 3), np.uint8)
    expected = EditSession(tiny, threads=1).invert(image)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(models / "invert" / "1" / "model.onnx", options, providers=["CPUExecutionProvider"])
    names = [node.name for node in session.get_outputs()]
    for name, array in zip(names, session.run(names, {"image": image}), strict=True):
        assert np.array_equal(array, getattr(expected, name))


def test_weights_lie_on_the_disk_once(models: Path) -> None:
    files = list(models.rglob("weights.safetensors"))
    assert len(files) == len(GRAPH_MODELS)
    assert len({file.stat().st_ino for file in files}) == 1


def test_without_links_the_weights_are_copied(tiny: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("as on a file system without hard links")

    monkeypatch.setattr(os, "link", refuse)
    out = write_repository(tiny, tmp_path / "models")
    files = list(out.rglob("weights.safetensors"))
    assert len({file.stat().st_ino for file in files}) == len(GRAPH_MODELS)
    assert {file.read_bytes() for file in files} == {tiny.read("graphs/weights.safetensors")}


def test_a_repository_is_replaced_and_nothing_else_is(tiny: Bundle, tmp_path: Path) -> None:
    out = write_repository(tiny, tmp_path / "models")
    (out / "stale").mkdir()
    assert write_repository(tiny, out, RepositoryOptions(threads=3)) == out
    assert not (out / "stale").exists()
    assert config(out, "edit", "configs/cpu.pbtxt").parameters["intra_op_thread_count"].string_value == "3"
    for name, content in (("photos", "face.jpg"), ("other", "repository.json")):
        (tmp_path / name).mkdir()
        (tmp_path / name / content).write_text("{}")
        with pytest.raises(OutputError, match="is not a model repository; give another place"):
            write_repository(tiny, tmp_path / name)
        assert [p.name for p in (tmp_path / name).iterdir()] == [content]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["models", "other", "photos"]


@pytest.mark.parametrize("file", ["graphs/weights.safetensors", "graphs/edit.onnx", "directions/age.safetensors"])
def test_a_damaged_bundle_leaves_what_was_there(tmp_path: Path, file: str) -> None:
    bundle = Bundle.load(write_tiny(tmp_path / "bundle"))
    out = write_repository(bundle, tmp_path / "models")
    before = read_repository(out)
    # A hard link shares the damage: the repository was moved to another disk.
    shutil.copytree(out, tmp_path / "copy")
    shutil.rmtree(out)
    (tmp_path / "copy").rename(out)
    flip(bundle.path / file)
    with pytest.raises(BundleError, match="damaged"):
        write_repository(bundle, out)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bundle", "models"]
    assert read_repository(out) == before and (out / "edit" / "1" / "model.onnx").is_file()


@pytest.mark.parametrize("graphs", [PIPELINES, PARTS])
def test_a_bundle_of_some_graphs_gives_those_models(tmp_path: Path, graphs: tuple[str, ...]) -> None:
    bundle = Bundle.load(write_tiny(tmp_path / "bundle", graphs=graphs))
    out = write_repository(bundle, tmp_path / "models")
    more = (EDIT_SESSION, EDIT_IMAGE) if graphs == PIPELINES else ()
    assert read_repository(out).models == [*graphs, *more]
    assert sorted(p.name for p in out.iterdir() if p.is_dir()) == sorted((*graphs, *more))


def test_a_bundle_without_graphs_is_refused(tmp_path: Path) -> None:
    bundle = Bundle.load(write_tiny(tmp_path / "bundle", graphs=()))
    with pytest.raises(BundleError, match="no graph to serve"):
        write_repository(bundle, tmp_path / "models")


def test_served_engines_are_those_that_triton_can_load(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "bundle")
    fast = write_engine(path, "tensorrt", "sm89", "fp16", ("edit",))
    plain = write_engine(path, "tensorrt", "sm86+sm89", "fp32", ("edit", "invert"))
    write_engine(path, "tensorrt-rtx", "sm120", "fp16", ("edit",))
    write_engine(path, "tensorrt", "sm90", "fp16", ("edit",), profile=(1, 1, 4))
    write_engine(path, "tensorrt", "sm100", "fp16", ("edit",), version_compatible=True)
    out = write_repository(Bundle.load(path), tmp_path / "models", RepositoryOptions(busy_wait=True))
    written = read_repository(out)
    assert written.plans == {"edit": ["8.6", "8.9"], "invert": ["8.6", "8.9"]}
    assert dict(config(out, "edit").cc_model_filenames) == {"8.6": "model_sm86.plan", "8.9": "model_sm89.plan"}
    assert config(out, "edit").optimization.cuda.busy_wait_events
    assert not config(out, "features").cc_model_filenames
    # Of two precisions for one GPU, the faster.
    assert (out / "edit" / "1" / "model_sm89.plan").read_bytes() == (fast / "edit.engine").read_bytes()
    assert (out / "edit" / "1" / "model_sm86.plan").read_bytes() == (plain / "edit.engine").read_bytes()
    notes = "\n".join(written.notes)
    assert "tensorrt-rtx-sm120-fp16 is not served: Triton's tensorrt backend loads no TensorRT-RTX" in notes
    assert "edit of engines/tensorrt-sm90-fp16 is not served: it takes batches of 1 to 4" in notes
    assert "--batch-range 1:1:8" in notes
    assert "tensorrt-sm100-fp16 is not served: it is version-compatible" in notes
    assert len(written.notes) == 3


def test_engines_of_other_weights_and_damaged_ones_are_not_served(tmp_path: Path) -> None:
    path, other = write_tiny(tmp_path / "bundle"), write_tiny(tmp_path / "other", seed=8)
    write_engine(other, "tensorrt", "sm89", "fp16", ("edit",))
    shutil.copytree(other / "engines", path / "engines")
    out = write_repository(Bundle.load(path), tmp_path / "models")
    assert read_repository(out).plans == {} and len(read_repository(out).notes) == 1
    shutil.rmtree(path / "engines")
    flip(write_engine(path, "tensorrt", "sm89", "fp16", ("edit",)) / "edit.engine")
    with pytest.raises(EngineError, match="damaged"):
        write_repository(Bundle.load(path, verify=False), out)


def _typed(out: Path, model: str) -> onnx.ModelProto:
    """The typed graph with its weights."""
    return onnx.load(out / model / "1" / "model.plan.onnx")


def test_typed_graphs_lie_ready_for_a_server_that_builds_engines(tmp_path: Path, tiny: Bundle) -> None:
    pytest.importorskip("onnx_ir", reason="onnx-ir is not installed")
    out = write_repository(tiny, tmp_path / "models", RepositoryOptions(plan_sources="fp16"))
    assert read_repository(out).plan_sources == "fp16"
    for model in GRAPH_MODELS:
        graph = _typed(out, model).graph
        assert tensors(config(out, model).input) == of_graph(graph.input)
        assert tensors(config(out, model).output) == of_graph(graph.output)
    weights = [w for w in _typed(out, "generator").graph.initializer if len(w.dims) == 4]
    assert weights and {w.data_type for w in weights} == {onnx.TensorProto.FLOAT16}


def test_a_typed_graph_that_the_bundle_holds_is_taken_as_it_is(tmp_path: Path) -> None:
    pytest.importorskip("onnx_ir", reason="onnx-ir is not installed")
    from engines.building.build import build

    # Of TINY's edit the styles, which are FP32, are too great a share for an FP16 build.
    path = write_faces(tmp_path / "bundle")
    build(path, runtime="onnxruntime", target="cuda", precision="fp16", graphs=("edit",))
    built = path / "engines" / "onnxruntime-cuda-fp16"
    out = write_repository(Bundle.load(path), tmp_path / "models", RepositoryOptions(plan_sources="fp16"))
    assert (out / "edit" / "1" / "model.plan.onnx").read_bytes() == (built / "edit.onnx").read_bytes()
    assert _typed(out, "edit").graph.output[0].name == "image"
    assert _typed(out, "invert").graph.input[0].name == "image"


def test_a_new_version_stands_beside_the_old_one(tmp_path: Path, tiny: Bundle) -> None:
    other = Bundle.load(write_tiny(tmp_path / "other", seed=8))
    out = write_repository(tiny, tmp_path / "models")
    before = (out / "edit" / "config.pbtxt").stat().st_mtime_ns
    asked: list[tuple[list[str], int]] = []

    def loaded(models: list[str], version: int) -> None:
        asked.append((models, version))
        assert all((out / model / "2").is_dir() for model in models)
        assert not (out / EDIT_SESSION / "2").exists()

    add_version(other, out, None, loaded)
    assert asked == [(list(GRAPH_MODELS), 2)]
    written = read_repository(out)
    assert written.version == 2 and written.bundle_sha256 == other.digest() != tiny.digest()
    for model in written.models:
        assert sorted(p.name for p in (out / model).iterdir() if p.is_dir() and p.name != "configs") == ["1", "2"]
    weights = [(out / "edit" / version / "weights.safetensors").read_bytes() for version in "12"]
    assert weights == [bundle.read("graphs/weights.safetensors") for bundle in (tiny, other)]
    digests = [json.loads((out / EDIT_SESSION / v / "session.json").read_text())["bundle_sha256"] for v in "12"]
    assert digests == [tiny.digest(), other.digest()]
    assert config(out, EDIT_SESSION).parameters["bundle_sha256"].string_value == other.digest()
    # Triton loads every version again when a configuration was touched.
    assert (out / "edit" / "config.pbtxt").stat().st_mtime_ns == before
    # The server keeps the version before, which `edit_session` of that version calls.
    assert config(out, "edit").version_policy.latest.num_versions == 2


def test_a_new_version_must_be_of_the_same_family(tmp_path: Path, tiny: Bundle) -> None:
    wider = dataclasses.replace(TINY, name="wider", style_dim=16)
    other = Bundle.load(write_tiny(tmp_path / "other", family=wider))
    out = write_repository(tiny, tmp_path / "models")
    with pytest.raises(OutputError, match="models of another family"):
        add_version(other, out)
    split = Bundle.load(write_tiny(tmp_path / "split", graphs=PARTS))
    with pytest.raises(OutputError, match="holds other models"):
        add_version(split, out)
    assert read_repository(out).version == 1 and not list(out.glob("*/2"))
    with pytest.raises(OutputError, match="is not a model repository; write one with `edgedit serve repo`"):
        add_version(tiny, tmp_path / "nowhere")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["models", "other", "split"]


def test_the_verb_says_what_it_wrote_and_what_is_missing(
    tmp_path: Path, tiny: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = ServeRepo(bundle=tiny.path, out=tmp_path / "models", cache="2M").run()
    assert json.loads(json.dumps(summary))["models"] == [*GRAPH_MODELS, EDIT_SESSION, EDIT_IMAGE]
    assert config(tmp_path / "models", EDIT_SESSION).parameters["cache_bytes"].string_value == "2000000"
    said = capsys.readouterr().out
    assert "version 1 of invert, edit" in said and "no TensorRT engine of invert" in said
    summary = ServeRepo(bundle=tiny.path, out=tmp_path / "models", add_version=True).run()
    assert summary["version"] == 2
    with pytest.raises(OutputError, match="give --add-version too"):
        ServeRepo(bundle=tiny.path, out=tmp_path / "models", server="127.0.0.1:1").run()
    with pytest.raises(EngineError, match="--cache much is not a size"):
        ServeRepo(bundle=tiny.path, out=tmp_path / "models", cache="much").run()
