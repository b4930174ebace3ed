from __future__ import annotations

import json
from pathlib import Path

from engines.family import DEMO_64, FACES_1024_MOBILE
from training.measuring.card import model_card

METRICS = {
    "photos": 500,
    "first": "a.webp",
    "last": "z.webp",
    "reconstruction": {"ours": {"psnr": 27.531, "lpips": 0.02502, "identity": 0.7704}},
    "edits": [
        {
            "direction": "smile",
            "strength": 4.0,
            "ours": {"change": 0.434, "identity": 0.631},
            "linear": {"change": 0.17, "identity": 0.72},
        }
    ],
    "targets": {"psnr": {"met": True}, "identity": {"met": False}, "smile +4": {"met": True}},
}


def _stage(root: Path, name: str, seconds: float, **more: object) -> None:
    folder = root / name / "checkpoint"
    folder.mkdir(parents=True)
    meta = {"stage": name, "step": 10, "seconds": seconds, "seed": 3, "torch": "2.13.0"}
    (folder / "meta.json").write_text(json.dumps({**meta, "config": {"options": {"batch": 8}}, **more}))


def _card(root: Path) -> str:
    return model_card(root, DEMO_64, "demo-64", METRICS, data="Photos of faces.", device="two cores")


def test_a_whole_run(tmp_path):
    for name in ("generator", "e4e", "encoder", "editor"):
        _stage(tmp_path, name, 1_800.0)
    card = _card(tmp_path)
    assert "Trained on two cores in 2.0 hours with torch 2.13.0." in card
    assert "for stage in generator e4e encoder; do\n    edgedit train $stage $run --lpips LPIPS\ndone\n" in card
    order = ("done", "directions fit $run $judges", "train editor $run", "directions calibrate $run", "evaluate $run")
    assert sorted(order, key=card.index) == list(order)
    assert "| encoder E and feature | 27.53 | 0.0250 | 0.770 |" in card
    assert "| smile | +4.00 | +0.43 | +0.63 | +0.17 | +0.72 |" in card
    assert "are not met: identity." in card
    assert "START" not in card


def test_a_run_that_started_from_a_bundle_says_what_it_took_over(tmp_path):
    _stage(tmp_path, "encoder", 3_600.0, processes=2)
    _stage(tmp_path, "editor", 1_800.0)
    card = _card(tmp_path)
    assert "| encoder | 10 | 8 x 2 processes | 60 | 3 |" in card and "in 1.5 hours" in card
    assert "holds what is not in the table: generator, e4e." in card
    assert "for stage in encoder; do" in card and "edgedit train editor" in card
    assert "--lpips LPIPS --processes 2 --threads 1" in card
    assert 'run="--run RUN --faces FACES --recipe demo-64 --from-bundle START --identity' in card
    assert "--recipe demo-64 --from-bundle START --metrics RUN/evaluate.json -o BUNDLE" in card


def test_a_run_on_the_generator_of_the_package(tmp_path):
    """What is not ours is named, with its lineage, and the commands leave it out."""
    for name in ("e4e", "encoder", "editor"):
        _stage(tmp_path, name, 1_800.0)
    card = model_card(tmp_path, FACES_1024_MOBILE, "faces-1024-mobile", METRICS, data="Photos.", device="two cores")
    assert "MobileStyleGAN" in card and "random-face" in card and "StyleGAN2-FFHQ (Source Code License-NC)" in card
    assert "at 256 x 256, with the weights" in card and "research and evaluation" in card and "Apache-2.0." not in card
    assert "edgedit import weights mobilestylegan -o GENERATOR\nrun=" in card
    assert "for stage in pairs e4e encoder; do" in card and "edgedit train editor" in card
    assert "--recipe faces-1024-mobile --generator GENERATOR --identity EMBEDDER" in card
    assert "--metrics RUN/evaluate.json --without-generator -o BUNDLE" in card and "START" not in card
