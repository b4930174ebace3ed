"""What the results of a batch say of their edits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import edgedit
from engines.errors import CredentialsError
from engines.photo.claims import read_credentials

EDITS = {"smiling": {"smile": 2.0}, "old": {"age": 1.5, "hair": 1.0}}


def test_results_say_that_they_were_edited(bundle_path: Path, head: np.ndarray, tmp_path: Path) -> None:
    pytest.importorskip("c2pa", reason="signing pictures needs the credentials extra")
    (tmp_path / "in").mkdir()
    Image.fromarray(head).resize((64, 64)).save(tmp_path / "in" / "a.png")
    out = tmp_path / "out"

    def run(**more: Any) -> int:
        options: dict[str, Any] = {"bundle": bundle_path, "aligned": True, "threads": 1}
        return edgedit.batch(tmp_path / "in", out, EDITS, **options | more).results

    assert run() == 2
    for name, edits in EDITS.items():
        claims = read_credentials(out / name / "a.png")
        assert claims.intact and claims.edit and claims.edit["edits"] == edits and "original" in claims.edit
    # What is done stays done; what is to say something else is made anew.
    assert run() == 0
    assert run(edit_list=False) == 2
    assert set(read_credentials(out / "old" / "a.png").edit or {}) == {"bundle"}
    assert run(credentials=False) == 2
    assert not read_credentials(out / "old" / "a.png").signed
    with pytest.raises(CredentialsError, match="go together"):
        run(private_key="key.pem")
