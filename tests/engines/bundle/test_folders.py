from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engines.bundle import Bundle
from engines.bundle.engine_manifest import MAX_ENGINE_MANIFEST_BYTES
from engines.bundle.folders import EngineFolder, find_engine, list_engines
from engines.bundle.preflight import HostInfo
from engines.errors import BundleError, EngineError
from tests.engines.engine_folders import flip, seal, write_engine

RTX = "tensorrt-rtx-sm86-fp16"


@pytest.fixture
def bundle_copy(tiny_bundle_path: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle_path, tmp_path / "tiny"))


@pytest.fixture
def engine(bundle_copy: Path) -> Path:
    """The folder of an engine in a bundle of its own."""
    return write_engine(bundle_copy)


@pytest.fixture(scope="module")
def scratch(tiny_bundle_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with two engine folders, damaged and mended by the fuzzers."""
    path = Path(shutil.copytree(tiny_bundle_path, tmp_path_factory.mktemp("fuzz") / "tiny"))
    write_engine(path)
    write_engine(path, "tensorrt", "sm86+sm89", "fp32", ("edit",))
    return path


def bundle_of(folder: Path) -> Bundle:
    return Bundle.load(folder.parent.parent, verify=False)


def problems(folder: Path) -> list[tuple[str, str]]:
    """File and kind, as the bundle and, where it can be opened, the folder itself tell them."""
    found = [(p.file, p.kind) for p in bundle_of(folder).verify()]
    try:
        opened = EngineFolder.load(bundle_of(folder), folder.name)
    except EngineError:
        return found
    assert [(p.file, p.kind) for p in opened.verify()] == found
    return found


def test_an_engine_folder_is_read_back(engine: Path) -> None:
    bundle = Bundle.load(engine.parent.parent)
    assert bundle.verify() == [] and list_engines(bundle) == [RTX]
    folder = EngineFolder.load(bundle, RTX)
    assert folder.path == engine and folder.manifest.precision == "fp16"
    assert folder.read(folder.graph("edit").file) == (engine / "edit.engine").read_bytes()
    assert folder.verify() == []
    assert EngineFolder.at(engine).manifest == folder.manifest
    with pytest.raises(EngineError, match="has no graph 'reconstruct'; it has edit, invert"):
        folder.graph("reconstruct")
    for file in ("engine.json", "../../card.md", "/etc/passwd", "none"):
        with pytest.raises(EngineError, match=f"there is no {file} in engines/{RTX}"):
            folder.read(file)


def test_what_is_not_published_is_no_engine(engine: Path, bundle_copy: Path) -> None:
    shutil.copytree(engine, engine.parent / f".{RTX}.1a2b")
    (engine.parent / ".lock").write_bytes(b"")
    bundle = Bundle.load(bundle_copy)
    assert bundle.verify() == [] and list_engines(bundle) == [RTX]
    for name in (f".{RTX}.1a2b", f"../engines/{RTX}", f"{RTX}/", "", ".", "..", "nothing"):
        with pytest.raises(EngineError, match=rf"there is no engine '.*'; there are {RTX}"):
            EngineFolder.load(bundle, name)


def test_a_bundle_without_engines(tiny_bundle: Bundle, tmp_path: Path) -> None:
    assert list_engines(tiny_bundle) == []
    with pytest.raises(EngineError, match="there is no engine 'x'; there are none"):
        EngineFolder.load(tiny_bundle, "x")
    with pytest.raises(EngineError, match="is not an engine folder; give one of those in BUNDLE/engines"):
        EngineFolder.at(tiny_bundle.path)


@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_flipped_byte_in_an_engine_folder_is_found(scratch: Path, data: st.DataObject) -> None:
    file = data.draw(st.sampled_from(sorted(p for p in (scratch / "engines").rglob("*") if p.is_file())), label="file")
    offset = data.draw(st.integers(0, file.stat().st_size - 1), label="offset")
    name = file.relative_to(scratch).as_posix()
    folder = Path(*file.relative_to(scratch / "engines").parts[:1]).name
    sound = EngineFolder.at(scratch / "engines" / folder)
    undo = flip(file, offset, data.draw(st.integers(1, 255), label="mask"))
    try:
        lazy = Bundle.load(scratch, verify=False)
        (problem,) = lazy.verify()
        if file.name in ("engine.json", "engine.sha256"):
            assert problem.file.endswith("engine.json") and problem.message == "does not match engine.sha256"
            with pytest.raises(
                EngineError, match=r"engine\.json does not match engine\.sha256; build the engine again"
            ):
                EngineFolder.load(lazy, folder)
        else:
            assert (problem.file, problem.kind) == (name, "digest")
            with pytest.raises(EngineError, match="its digest differs"):
                sound.read(name.split("/", 2)[2])
        with pytest.raises(BundleError, match="; build the engine again, or copy the bundle again"):
            Bundle.load(scratch)
    finally:
        undo()
    assert Bundle.load(scratch, verify=False).verify() == []


@pytest.mark.parametrize("file", ["edit.engine", "layers/edit.json", "engine.json", "engine.sha256"])
def test_truncated_grown_missing_and_swapped_files(engine: Path, file: str) -> None:
    sound = (engine / file).read_bytes()
    for wrong in (sound[:-1], b"", sound + b"x", (engine / "invert.engine").read_bytes()):
        (engine / file).write_bytes(wrong)
        assert len(problems(engine)) == 1, wrong
    (engine / file).unlink()
    assert problems(engine) == [(f"engines/{RTX}/{file}", "missing")]
    (engine / file).mkdir()
    assert problems(engine) == [(f"engines/{RTX}/{file}", "irregular")]


def test_unlisted_files(engine: Path) -> None:
    (engine.parent / "stray" / "deep").mkdir(parents=True)
    for file in (f"{RTX}/more.engine", f"{RTX}/.hidden", "notes.txt", "stray/deep/x"):
        (engine.parent / file).write_bytes(b"x")
        with pytest.raises(BundleError, match=f"engines/{file} is not listed in any engine.json; remove it"):
            Bundle.load(engine.parent.parent)
        assert [(p.file, p.kind) for p in bundle_of(engine).verify()] == [(f"engines/{file}", "unlisted")]
        (engine.parent / file).unlink()


@pytest.mark.parametrize("file", ["edit.engine", "engine.json", "engine.sha256"])
def test_linked_files_are_refused_even_to_the_right_bytes(engine: Path, tmp_path: Path, file: str) -> None:
    folder = EngineFolder.at(engine)
    (engine / file).rename(tmp_path / "elsewhere")
    (engine / file).symlink_to(tmp_path / "elsewhere")
    assert problems(engine) == [(f"engines/{RTX}/{file}", "irregular")]
    if file == "edit.engine":
        with pytest.raises(EngineError, match=r"edit\.engine cannot be read: it is a symbolic link"):
            folder.read(file)


@pytest.mark.parametrize("linked", [f"engines/{RTX}", "engines"])
def test_linked_folders_are_refused(engine: Path, tmp_path: Path, bundle_copy: Path, linked: str) -> None:
    folder = EngineFolder.at(engine)
    (bundle_copy / linked).rename(tmp_path / "elsewhere")
    (bundle_copy / linked).symlink_to(tmp_path / "elsewhere")
    bundle = Bundle.load(bundle_copy, verify=False)
    assert [p.file for p in bundle.verify()] == [linked] and list_engines(bundle) == []
    with pytest.raises(EngineError, match="lies behind a symbolic link"):
        folder.read("edit.engine")


def test_a_renamed_folder_is_found(engine: Path) -> None:
    renamed = engine.rename(engine.with_name("tensorrt-rtx-sm86-int8"))
    (problem,) = bundle_of(renamed).verify()
    assert str(problem) == f"engines/tensorrt-rtx-sm86-int8/engine.json is that of {RTX}"
    with pytest.raises(EngineError, match=r"no tensorrt-rtx fp32 engine of edit; there are .*int8 \(damaged\)"):
        find_engine(bundle_of(renamed), "tensorrt-rtx", "edit", "fp32")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(schema_version=2), "schema_version: Input should be 1"),
        (lambda m: m.update(surprise=1), "surprise: Extra inputs are not permitted"),
        (lambda m: m["files"].pop("edit.engine"), "graph edit refers to edit.engine, which is not among the files"),
        (lambda m: m["files"].update({"../../card.md": m["files"]["edit.engine"]}), "not a plain relative path"),
        (lambda m: m["graphs"]["edit"]["proof"].update(share=1.5), "graphs.edit.proof.share"),
    ],
)
def test_invalid_manifests_with_a_right_digest(engine: Path, change, message: str) -> None:
    manifest = json.loads((engine / "engine.json").read_bytes())
    change(manifest)
    seal(engine, json.dumps(manifest).encode())
    (problem,) = bundle_of(engine).verify()
    assert problem.kind == "invalid" and "is not valid: " in problem.message and message in problem.message
    with pytest.raises(EngineError) as caught:
        EngineFolder.load(bundle_of(engine), RTX)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_an_oversized_manifest_is_not_read(engine: Path) -> None:
    with (engine / "engine.json").open("r+b") as stream:
        stream.truncate(MAX_ENGINE_MANIFEST_BYTES + 1)
    assert problems(engine) == [(f"engines/{RTX}/engine.json", "size")]


@given(raw=st.binary(max_size=300))
@settings(max_examples=30, deadline=None)
def test_no_engine_json_raises_anything_but_a_user_error(scratch: Path, raw: bytes) -> None:
    folder = scratch / "engines" / RTX
    keep = (folder / "engine.json").read_bytes()
    try:
        seal(folder, raw)
        with pytest.raises(EngineError, match=r"engine\.json is not valid"):
            EngineFolder.at(folder)
    finally:
        seal(folder, keep)


def test_finding_an_engine(bundle_copy: Path) -> None:
    for runtime, target, precision in (
        ("tensorrt-rtx", "sm86", "fp32"),
        ("tensorrt-rtx", "sm86+sm89", "fp16"),
        ("tensorrt-rtx", "sm120", "int8"),
        ("tensorrt", "sm86", "fp16"),
        ("onnxruntime", "cpu", "fp16"),
    ):
        write_engine(bundle_copy, runtime, target, precision)
    write_engine(bundle_copy, "tensorrt-rtx", "sm75", "fp16", ("reconstruct",))
    bundle = Bundle.load(bundle_copy)

    def name(*words: str | None, host: HostInfo | None = None) -> str:
        return find_engine(bundle, *words, host=host).name

    assert name("tensorrt", "edit") == "tensorrt-sm86-fp16"
    assert name("onnxruntime", "edit") == "onnxruntime-cpu-fp16"
    assert name("tensorrt-rtx", "edit") == "tensorrt-rtx-sm86+sm89-fp16"
    assert name("tensorrt-rtx", "reconstruct") == "tensorrt-rtx-sm75-fp16"
    assert name("tensorrt-rtx", "edit", "fp32") == "tensorrt-rtx-sm86-fp32"
    assert name("tensorrt-rtx", "edit", None, "sm86") == "tensorrt-rtx-sm86-fp32"
    assert name("tensorrt-rtx", "edit", "fp16", "sm89") == "tensorrt-rtx-sm86+sm89-fp16"
    # What fits the machine comes before the preferred precision.
    assert name("tensorrt-rtx", "edit", host=HostInfo("TensorRT-RTX", "11.4.0", "12.0")) == "tensorrt-rtx-sm120-int8"


def test_no_engine_lists_those_there_are_and_the_command(engine: Path, bundle_copy: Path) -> None:
    bundle = Bundle.load(bundle_copy)
    with pytest.raises(EngineError) as caught:
        find_engine(bundle, "tensorrt-rtx", "edit", "int8", "sm89")
    assert str(caught.value) == (
        f"tiny: there is no tensorrt-rtx int8 engine for sm89 of edit; there are {RTX} (edit, invert): run "
        f"`edgedit build -b {bundle_copy} --runtime tensorrt-rtx --target sm89 --precision int8 --graph edit`"
    )
    for arguments, command in (
        (("tensorrt", "edit"), "--runtime tensorrt --target current --precision fp16 --graph edit"),
        (("tensorrt", "encoder"), "--runtime tensorrt --target current --precision fp16 --graph split"),
        (("onnxruntime", "invert"), "--runtime onnxruntime --target cpu --precision fp16 --graph invert"),
    ):
        with pytest.raises(EngineError, match=command):
            find_engine(bundle, *arguments)
    with pytest.raises(EngineError, match="--target sm89 "):
        find_engine(bundle, "tensorrt", "edit", host=HostInfo("TensorRT", "11.4.0", "8.9"))


def test_a_damaged_engine_is_not_passed_over(engine: Path, bundle_copy: Path) -> None:
    write_engine(bundle_copy, precision="fp32")
    flip(engine / "engine.json")
    with pytest.raises(EngineError, match=f"{RTX}/engine.json does not match"):
        find_engine(bundle_of(engine), "tensorrt-rtx", "edit")
    assert find_engine(bundle_of(engine), "tensorrt-rtx", "edit", "fp32").manifest.precision == "fp32"


def test_a_folder_that_is_gone(engine: Path) -> None:
    folder = EngineFolder.at(engine)
    shutil.rmtree(engine)
    (problem,) = folder.verify()
    assert (problem.file, problem.kind) == (f"engines/{RTX}", "irregular") and "cannot be listed" in problem.message
    with pytest.raises(EngineError, match=r"edit\.engine is missing; build the engine again"):
        folder.read("edit.engine")
