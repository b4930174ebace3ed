"""Bundles of other methods: the inversion is what their own `invert` graph gives."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from engines.building.certificate import Certifier
from engines.bundle import Bundle
from engines.bundle.manifest import parse_manifest
from engines.contracts import BATCH, DEFAULT_METHOD, TensorSpec, graph_contract, mismatch, pipeline_contract
from engines.directions import load_directions, resolve
from engines.errors import BundleError, DirectionError
from engines.inversion import HeldInversion, Inversion
from engines.session import EditSession
from tests.engines.conftest import TINY
from tests.engines.methods import METHOD, contract, write_method

PHOTOS = np.random.default_rng(0).integers(0, 256, (2, *TINY.image_shape, 3), np.uint8)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.load(write_method(tmp_path_factory.mktemp("method") / "other"))


@pytest.fixture(scope="module")
def session(bundle: Bundle) -> EditSession:
    return EditSession(bundle, threads=1)


def test_the_manifest_names_the_method(bundle: Bundle, tiny_bundle: Bundle) -> None:
    assert bundle.method == METHOD and not bundle.edits_styles
    assert [spec.name for spec in bundle.inversion] == ["w", "residual"]
    assert json.loads((bundle.path / "manifest.json").read_text())["method"] == METHOD
    assert tiny_bundle.method == DEFAULT_METHOD and tiny_bundle.edits_styles
    assert tiny_bundle.inversion == graph_contract(TINY, "invert")[1]


def test_a_manifest_without_a_method_is_of_ours(tiny_bundle: Bundle) -> None:
    manifest = json.loads((tiny_bundle.path / "manifest.json").read_text())
    assert manifest.pop("method") == DEFAULT_METHOD
    assert parse_manifest(json.dumps(manifest).encode(), "tiny").method == DEFAULT_METHOD


def test_a_session_takes_its_tensors_from_the_manifest(session: EditSession) -> None:
    inversion = session.invert(PHOTOS)
    assert inversion.names == ("w", "residual") and inversion.shape("residual") == (2, 3, 16, 16)
    assert isinstance(inversion, HeldInversion) and inversion.residual.dtype == np.float32
    delta = np.full((6, 8), 0.4, np.float32)
    edited = session.edit(inversion, delta)
    assert edited.shape == PHOTOS.shape and np.abs(edited.astype(int) - session.edit(inversion, 0 * delta)).max() > 5
    # The residual is what an edit has and the reconstruction of this method does not.
    without = Inversion({"w": inversion.w, "residual": np.zeros_like(inversion.residual)})
    assert np.array_equal(session.reconstruct(inversion), session.edit(without, 0 * delta))
    assert np.array_equal(session.edit(inversion[1], delta), edited[1:])


def test_an_inversion_of_a_method_survives_its_file(session: EditSession, tmp_path: Path) -> None:
    inversion = session.invert(PHOTOS)
    inversion.save(tmp_path / "photo")
    held = session.hold(Inversion.load(tmp_path / "photo"))
    delta = np.full((6, 8), 0.4, np.float32)
    assert np.array_equal(session.edit(held, delta), session.edit(inversion, delta))


def test_inversions_of_another_method_are_refused(session: EditSession, tiny_bundle: Bundle) -> None:
    ours = EditSession(tiny_bundle, threads=1)
    delta = np.zeros((6, 8), np.float32)
    with pytest.raises(ValueError, match="no residual; family tiny takes, with method hfgi, w "):
        session.edit(ours.invert(PHOTOS), delta)
    with pytest.raises(ValueError, match="no feature; family tiny takes, with method ours, w "):
        ours.edit(session.invert(PHOTOS), delta)
    more = session.invert(PHOTOS).host()
    more = Inversion({name: more.array(name) for name in more.names} | {"more": more.w})
    with pytest.raises(ValueError, match=r"has more \(2, 6, 8\); family tiny takes"):
        session.reconstruct(more)


def test_styles_are_not_edited_where_the_graph_takes_none(
    session: EditSession, tiny_bundle: Bundle, bundle: Bundle
) -> None:
    inversion = session.invert(PHOTOS)
    edit = resolve(load_directions(bundle), {"smile": 1.0, "pose": -2.0}, TINY)
    assert session.edit(inversion, edit.delta_w, edit.style_delta).any()
    hair = resolve(load_directions(tiny_bundle), {"hair": 1.0}, TINY)
    with pytest.raises(DirectionError, match="method hfgi edits codes alone") as error:
        session.edit(inversion, hair.delta_w, hair.style_delta)
    assert "\n" not in str(error.value)


def test_graphs_that_do_not_fit_or_are_not_there(tmp_path: Path) -> None:
    lone = EditSession(Bundle.load(write_method(tmp_path / "lone", graphs=("invert",))), threads=1)
    assert lone.invert(PHOTOS).batch == 2
    with pytest.raises(BundleError, match="there is no graph 'edit' in this bundle"):
        lone.edit(lone.invert(PHOTOS), np.zeros((6, 8), np.float32))
    with pytest.raises(BundleError, match="there is no graph 'invert' in this bundle"):
        EditSession(Bundle.load(write_method(tmp_path / "none", graphs=("edit",))))

    def another(graph: str, inputs: list[TensorSpec]) -> list[TensorSpec]:
        other = TensorSpec(name="mask", dtype="float32", shape=[BATCH, 1])
        return [*inputs, other] if graph == "edit" else inputs

    with pytest.raises(BundleError, match="graph edit does not fit family tiny: mask is not expected"):
        EditSession(Bundle.load(write_method(tmp_path / "more", change=another)))


def test_a_pipelines_contract_follows_what_it_reads() -> None:
    inversion = contract(TINY, "invert")[1]
    for graph in ("invert", "edit", "reconstruct"):
        have = contract(TINY, graph)
        wanted = pipeline_contract(TINY, graph, inversion, have[0])
        assert mismatch(wanted[0], have[0]) is None and mismatch(wanted[1], have[1]) is None
    ours = graph_contract(TINY, "edit")
    assert pipeline_contract(TINY, "edit", graph_contract(TINY, "invert")[1], ours[0]) == ours
    with pytest.raises(KeyError):
        pipeline_contract(TINY, "features", inversion, [])


@pytest.mark.parametrize("graph", ["invert", "edit", "reconstruct"])
def test_a_certificate_of_another_method(bundle: Bundle, graph: str) -> None:
    certifier = Certifier(bundle, PHOTOS, batch=2, threads=1)
    assert set(certifier.feeds(graph)[0]) == {spec.name for spec in bundle.graph(graph).inputs}
    certificate = certifier.certify(graph, "fp16")
    assert certificate["passed"] and certificate["images"]["psnr"]["worst"] > 50
