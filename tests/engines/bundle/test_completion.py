"""Bundles without their generator, with the real package: graphs are left out, the weights are what it is about."""

from __future__ import annotations

import multiprocessing
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, save

from engines import packages
from engines.bundle import WEIGHTS_FILE, Bundle
from engines.bundle.completion import generator_weights, lacks_generator, leave_out_generator, weights_file
from engines.bundle.manifest import MANIFEST_FILE, OWN_WEIGHTS_FILE
from engines.errors import BundleError, OutputError, RuntimeUnavailableError
from engines.family import FACES_1024, FACES_1024_MOBILE
from engines.packages import GENERATOR, PackageError
from tests.engines.engine_folders import flip
from tests.engines.packaged import OWN, write_whole

SOURCE = GENERATOR.installed()
if SOURCE is None:
    pytest.skip(f"{GENERATOR} is not installed", allow_module_level=True)

DATA = Path("data") / "SynthesisNetwork.bin"


@pytest.fixture(scope="module")
def generator() -> dict[str, np.ndarray]:
    return generator_weights()


@pytest.fixture(scope="module")
def shared_whole(tmp_path_factory: pytest.TempPathFactory, generator: dict[str, np.ndarray]) -> Path:
    return write_whole(tmp_path_factory.mktemp("whole") / "face", OWN | generator).path


@pytest.fixture(scope="module")
def shared_part(tmp_path_factory: pytest.TempPathFactory, shared_whole: Path) -> Path:
    path = shutil.copytree(shared_whole, tmp_path_factory.mktemp("part") / "face")
    leave_out_generator(Bundle.load(path))
    return path


@pytest.fixture
def part(shared_part: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return shutil.copytree(shared_part, tmp_path / "face")


@pytest.fixture(autouse=True)
def cache(no_index: Path, tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A copy of the installed package, found in its place."""
    assert SOURCE is not None
    copy = shutil.copytree(SOURCE / "data", tmp_path / "site" / GENERATOR.module / "data").parent
    (copy / "__init__.py").touch()
    monkeypatch.syspath_prepend(copy.parent)
    return copy


@pytest.fixture
def no_package(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    return lambda: monkeypatch.setattr(packages.importlib.util, "find_spec", lambda name: None)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def test_what_is_passed_on_holds_nothing_of_the_generator(shared_part: Path, shared_whole: Path) -> None:
    assert lacks_generator(shared_part) and not lacks_generator(shared_whole)
    own, whole = contents(shared_part), contents(shared_whole)
    assert set(load(own.pop(OWN_WEIGHTS_FILE))) == set(OWN)
    # 9.4 million parameters of two bytes.
    assert len(whole.pop(WEIGHTS_FILE)) > 18e6 and own == whole


def test_the_completed_bundle_is_the_whole_one(part: Path, shared_whole: Path, cache: Path) -> None:
    said: list[str] = []
    bundle = Bundle.load(part, progress=said.append)
    assert bundle.path.parent == cache / "bundles" and bundle.verify() == []
    assert contents(bundle.path) == contents(shared_whole)
    assert len(said) == 1 and said[0].startswith("completing face with the generator of the package random-face, once")
    assert [p.name for p in bundle.path.parent.iterdir() if p.is_dir()] == [bundle.path.name]


def test_the_second_time_nothing_is_done_and_no_package_needed(part: Path, no_package: Callable[[], None]) -> None:
    first = Bundle.load(part)
    before = {f: f.stat().st_mtime_ns for f in first.path.rglob("*")}
    no_package()
    said: list[str] = []
    again = Bundle.load(part, progress=said.append)
    assert (again.path, said) == (first.path, [])
    assert {f: f.stat().st_mtime_ns for f in again.path.rglob("*")} == before
    # Another place with the same bundle is the same bundle.
    assert Bundle.load(shutil.copytree(part, part.with_name("moved"))).path == first.path


def test_without_the_package(part: Path, cache: Path, no_package: Callable[[], None]) -> None:
    no_package()
    with pytest.raises(RuntimeUnavailableError, match=r"pip install --no-deps random-face==2021\.7\.21\.1$"):
        Bundle.load(part)
    assert not list(cache.glob("bundles/*face*"))


@pytest.mark.parametrize("name", sorted(GENERATOR.members))
def test_a_package_with_a_flipped_byte(part: Path, package: Path, cache: Path, name: str) -> None:
    flip(package / name)
    with pytest.raises(
        PackageError, match=f"{Path(name).name} in .* is not that of random-face .*--force-reinstall"
    ) as caught:
        Bundle.load(part)
    assert "\n" not in str(caught.value) and not list(cache.glob("bundles/*face*"))


def test_another_version_of_the_package(part: Path, package: Path) -> None:
    (package / DATA).unlink()
    with pytest.raises(PackageError, match=r"holds no SynthesisNetwork\.bin of random-face 2021"):
        Bundle.load(part)


def test_damage_of_the_bundle_itself(part: Path, cache: Path) -> None:
    own = part / OWN_WEIGHTS_FILE
    restore = flip(own)
    with pytest.raises(BundleError, match=r"face: graphs/own\.safetensors is damaged .*; copy the bundle again$"):
        Bundle.load(part)
    restore()
    good = own.read_bytes()
    for data in (b"", b"\0" * 64, good[:-1], save({"e4e.bias": OWN["e4e.bias"]})):
        own.write_bytes(data)
        with pytest.raises(BundleError, match=r"own\.safetensors is damaged"):
            Bundle.load(part)
    own.unlink()
    own.symlink_to(part / "card.md")
    with pytest.raises(BundleError, match=r"own\.safetensors cannot be read: it is a symbolic link"):
        Bundle.load(part)
    own.unlink()
    own.write_bytes(good)
    flip(part / "card.md")
    with pytest.raises(BundleError, match=r"face: card\.md is damaged"):
        Bundle.load(part)
    assert not list(cache.glob("bundles/*face*"))


def test_damage_in_the_cache_is_mended_and_engines_stay(part: Path) -> None:
    bundle = Bundle.load(part)
    (bundle.path / "engines").mkdir()
    (bundle.path / "engines" / ".lock").touch()
    flip(bundle.path / WEIGHTS_FILE)
    (bundle.path / MANIFEST_FILE).unlink()
    said: list[str] = []
    again = Bundle.load(part, progress=said.append)
    assert again.path == bundle.path and len(said) == 1
    assert again.verify() == [] and (again.path / "engines" / ".lock").exists()


def test_what_a_killed_process_left_is_swept(part: Path, cache: Path) -> None:
    place = Bundle.load(part).path
    left = place.rename(place.with_name(f".{place.name}.0123abcd"))
    assert Bundle.load(part).path == place and not left.exists()


def test_a_cache_that_cannot_be_written(part: Path, cache: Path) -> None:
    cache.write_text("in the way")
    with pytest.raises(OutputError, match=r"cannot write .*; EDGEDIT_CACHE can name another cache folder$"):
        Bundle.load(part)


def test_a_bundle_that_cannot_be_written_to(part: Path) -> None:
    """As in site-packages of another user; root may write there all the same."""
    for folder in (part / "graphs", part):
        folder.chmod(0o555)
    before = contents(part)
    assert Bundle.load(part).verify() == [] and contents(part) == before


def _load(part: Path, cache: Path) -> None:
    import os

    os.environ["EDGEDIT_CACHE"] = str(cache)
    assert Bundle.load(part).verify() == []


def test_several_processes_at_once(part: Path, cache: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_load, args=(part, cache)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert len([p for p in (cache / "bundles").iterdir() if p.is_dir()]) == 1


def test_bundles_that_cannot_be_completed_stay_whole(tmp_path: Path, generator: dict[str, np.ndarray]) -> None:
    name = "generator.to_image.bias"
    other = write_whole(tmp_path / "other", OWN | generator | {name: generator[name] + np.float16(1)})
    stylegan = write_whole(tmp_path / "large", OWN, FACES_1024)
    for bundle in (other, stylegan):
        with pytest.raises(BundleError, match=r"generator is not that of random-face .*leave --without-generator out$"):
            leave_out_generator(bundle)
        assert bundle.verify() == []


def test_a_family_that_no_package_has(tmp_path: Path) -> None:
    bundle = write_whole(tmp_path / "large", OWN, FACES_1024)
    (bundle.path / OWN_WEIGHTS_FILE).write_bytes(weights_file(OWN))
    with pytest.raises(BundleError, match="no package to complete a bundle of family faces-1024 from"):
        Bundle.load(bundle.path)


def test_the_casts_and_the_file_are_those_of_an_export(generator: dict[str, np.ndarray], tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    from export.weights import half_weights, write_weights
    from training.importers.mobilestylegan import import_package
    from training.networks.mobilestylegan import MobileGenerator

    imported = import_package().imported.tensors
    network = torch.nn.Module()
    network.generator = MobileGenerator(FACES_1024_MOBILE)
    network.generator.load_state_dict({n.removeprefix("generator."): t for n, t in imported.items() if "." in n})
    halves = half_weights(network).tensors
    assert set(halves) == set(generator)
    for name, tensor in halves.items():
        assert np.array_equal(tensor.numpy().view(np.uint16), generator[name].view(np.uint16)), name
    own = {"e4e.odd": torch.arange(3).half(), "a": torch.tensor(1.5).half(), "Z": torch.zeros(0, 2).half()}
    write_weights(halves | own, tmp_path / "weights.safetensors")
    assert (tmp_path / "weights.safetensors").read_bytes() == weights_file(
        generator | {name: tensor.numpy() for name, tensor in own.items()}
    )
