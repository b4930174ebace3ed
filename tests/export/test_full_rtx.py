"""An engine of the full 1024 family, built for real: random weights, no GPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from engines.building.build import build
from engines.bundle import EXTERNAL_LOCATION, WEIGHTS_FILE, Bundle, BundleWriter, ProducedBy
from engines.errors import RuntimeUnavailableError
from engines.family import FACES_1024
from engines.runtimes.backend import load
from export.graphs import method_graphs
from export.onnx_graph import export_graph
from export.weights import half_weights, write_weights
from training.methods import paper

pytestmark = [pytest.mark.rtx, pytest.mark.timeout(900)]


def _nothing(family: object) -> nn.Module:
    return nn.Identity()


@pytest.fixture(scope="module")
def faces_1024(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with the graph `edit` alone: the encoders, three quarters of the weights, are not made."""
    try:
        load("tensorrt-rtx")
    except RuntimeUnavailableError as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("full")
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("e4e_encoder", "base_encoder", "FeatureTensorEnhancement"):
            patch.setattr(paper, name, _nothing)
        system = paper.EditingSystem(FACES_1024).eval().requires_grad_(False)
    table = write_weights(half_weights(system).tensors, folder / EXTERNAL_LOCATION)
    graph = export_graph(method_graphs(system)["edit"], table)
    del system
    produced_by = ProducedBy(tools={}, command="pytest", date="2026-01-01T00:00:00Z")
    with BundleWriter(
        folder / "faces", name="faces", family=FACES_1024, precision="fp16", licence="CC0-1.0", produced_by=produced_by
    ) as writer:
        writer.add_file(WEIGHTS_FILE, folder / EXTERNAL_LOCATION)
        writer.add_graph("edit", graph.data, graph.inputs, graph.outputs)
        writer.add_bytes("card.md", b"# random weights\n")
    (folder / EXTERNAL_LOCATION).unlink()
    return folder / "faces"


def test_the_full_edit_builds_in_fp16_for_the_papers_card(faces_1024: Path) -> None:
    manifest = build(faces_1024, runtime="tensorrt-rtx", target="sm86", graphs=("edit",))
    edit = manifest.graphs["edit"]
    # The figure of the design: 479 GMACs of an edit whose inversion is there.
    assert edit.proof.macs == pytest.approx(479e9, rel=0.03)
    assert edit.proof.share >= 0.999 and edit.proof.source == "network" and edit.profile.max == 8
    assert all(layer.reason != "unexplained" for layer in edit.proof.wide)
    weights = Bundle.load(faces_1024, verify=False).manifest.files[WEIGHTS_FILE].bytes
    engine = manifest.files[edit.file].bytes
    # Weights once, in FP16, and kernels.
    assert 0.9 < engine / edit.weight_bytes < 1.2 and edit.weight_bytes < 1.1 * weights
    # What field.md measured of the editor and the upper generator alone was 210 MB.
    assert 150e6 < engine < 350e6
