"""The figures of the table against those worked out from the published implementations."""

from __future__ import annotations

import json

import pytest
from rich.console import Console

from bench.table5.counts import PAPER, Row, complete, count_rows, report, row_family, summary
from engines.family import CARS_512, DEMO_64, DEMO_128, FACES_1024, FACES_1024_MOBILE

FIGURES = {
    # params and GMACs as the row counts, then complete
    "e4e": (268.570, 126.239, 297.507, 147.864),
    "FS": (144.291, 110.171, 144.291, 111.156),
    "HFGI": (303.751, 252.841, 303.751, 328.224),
    "CLCAE": (342.199, 308.135, 342.199, 167.859),
    "StyleRes": (388.821, 411.242, 390.922, 411.242),
    "SDIC": (321.002, 293.432, 321.002, 293.432),
    "SFE": (424.601, 380.121, 459.699, 503.095),
    "HyperStyle": (394.248, 651.323, 394.248, 651.323),
    "Ours": (503.264, 699.942, 538.392, 811.284),
    "Ours, light": (20.385, 32.878, 20.385, 32.878),
    "Ours, no RGB skip": (503.264, 699.942, 538.392, 795.153),
}
PARTS = {
    ("e4e", "encoder"): 72.4809,
    ("e4e", "decoder"): 75.3831,
    ("FS", "encoder"): 34.7875,
    ("HFGI", "residue"): 25.6503,
    ("HFGI", "grid_align"): 3.9439,
    ("StyleRes", "modify_feature_alignment"): 91.5365,
    ("StyleRes", "modify_feature_extraction"): 59.0558,
    ("StyleRes", "modify_feature_gates"): 106.3214,
    ("SDIC", "DIP"): 38.7927,
    ("SDIC", "SAF"): 31.3918,
    ("SFE", "inverter.fs_backbone"): 109.2783,
    ("SFE", "inverter.fuser"): 98.7842,
    ("SFE", "encoder"): 98.7842,
    ("HyperStyle", "w_encoder"): 32.8293,
    ("HyperStyle", "hypernet"): 5 * 33.2389,
    ("Ours", "ftem"): 118.159,
    ("Ours", "editor.edem"): 55.835,
    ("Ours", "editor.edfm"): 347.892,
    # Two passes of the lower half and one of the upper.
    ("Ours, light", "generator"): 9.1389,
    ("Ours, light", "e4e"): 0.2884,
    ("Ours, light", "encoder"): 6.3750,
    ("Ours, light", "ftem"): 4.6689,
    ("Ours, light", "editor.edem"): 5.7043,
    ("Ours, light", "editor.transport"): 2.7027,
    ("Ours, light", "editor.edfm"): 4.0003,
}


@pytest.fixture(scope="module")
def rows() -> dict[str, Row]:
    return {row.method: row for row in count_rows()}


def test_every_row(rows):
    found = {
        name: tuple(round(v, 3) for v in (row.params_m, row.gmacs, row.complete_params_m, row.complete_gmacs))
        for name, row in rows.items()
    }
    assert found == FIGURES


def test_the_row_that_the_paper_measured_with_thop_to_its_last_digit(rows):
    assert rows["SFE"].params_m == 424.600960
    assert round(rows["SFE"].gmacs, 6) == 380.120899
    assert "thop" in rows["SFE"].convention and "thop" in rows["Ours"].convention


def test_every_part(rows):
    found = {(name, part.name): part.gmacs for name, row in rows.items() for part in row.components}
    assert {key: round(found[key], 4 if value < 150 else 3) for key, value in PARTS.items()} == pytest.approx(
        PARTS, abs=6e-4
    )


@pytest.mark.parametrize("name", FIGURES)
def test_parts_make_up_the_row(rows, name):
    row = rows[name]
    assert sum(part.params_m for part in row.components) == pytest.approx(row.complete_params_m, abs=1e-9)
    assert sum(part.gmacs for part in row.components) == pytest.approx(row.complete_gmacs, abs=1e-9)


def test_the_light_system_keeps_within_its_budget(rows):
    """An edit at 1024 pixels from the photo on, and the weights that are not the generator's."""
    row = rows["Ours, light"]
    assert row.family == "faces-1024-mobile" and row.complete_gmacs <= 35
    own = sum(part.params_m for part in row.components if part.name != "generator")
    assert 2 * own <= 24
    assert row_family("ours-light", FACES_1024) == FACES_1024_MOBILE


def test_the_light_row_is_of_the_size_that_is_asked_for():
    for family in (DEMO_64, DEMO_128):
        light = row_family("ours-light", family)
        assert light.name == f"{family.name}-mobile" and light.feature_shape == family.feature_shape
        assert light.image_shape == family.image_shape and light.w_rows == family.w_rows
        assert complete("ours-light", light).macs > 0
    with pytest.raises(ValueError, match="Ours, light exists for faces-1024-mobile, not for cars-512x384-mobile"):
        complete("ours-light", row_family("ours-light", CARS_512))


def test_the_papers_figures_stand_beside_ours(rows):
    assert rows["CLCAE"].paper_params_m == 398.092
    assert rows["Ours"].paper_gmacs == 689.103
    assert rows["HyperStyle"].paper_params_m is None
    assert len(PAPER) == 8
    for name in ("e4e", "FS", "HFGI", "StyleRes", "SDIC", "SFE"):
        assert rows[name].params_m == pytest.approx(rows[name].paper_params_m, abs=0.003)


def test_the_report_is_a_table_with_what_each_row_counts(rows, capsys):
    report(list(rows.values()), Console(width=80), components=True)
    text = capsys.readouterr().out
    assert "268.570 +0.0" in text and "thop: called modules only" in text and "modify_feature_gates" in text
    assert max(len(line) for line in text.splitlines()) <= 80
    lines = [line.split() for line in text.splitlines()]
    assert ["HyperStyle", "-", "394.248", "394.248", "-", "651.323", "651.323"] in lines
    assert ["StyleRes", "388.822", "388.821", "-0.0", "390.922", "312.896", "411.242", "+31.4", "411.242"] in lines
    assert "…" not in text.partition("Parts")[0]


def test_the_summary_has_rows_as_objects(rows):
    data = json.loads(json.dumps(summary(list(rows.values()))))
    names = ["method", "params_m", "gmacs", "paper_params_m", "paper_gmacs", "complete_params_m", "complete_gmacs"]
    assert all({*names, "convention"} <= set(row) for row in data["rows"])
    sfe = next(row for row in data["rows"] if row["method"] == "SFE")
    assert [round(sfe[name], 3) for name in names[1:]] == [424.601, 380.121, 424.601, 380.121, 459.699, 503.095]
    assert data["command"] == "edgedit bench count --json FILE"
