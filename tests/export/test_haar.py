from __future__ import annotations

import pytest
import torch

from export.haar import one_operator, transposed
from training.networks.mobilestylegan import Up, band_sums


def test_one_operator_gives_the_same_sums() -> None:
    for batch in (1, 3):
        x = torch.randn(batch, 20, 3, 5, dtype=torch.float64)
        torch.testing.assert_close(transposed(x), band_sums(x), rtol=1e-14, atol=1e-14)


def test_the_network_is_itself_again_after_an_export_that_failed() -> None:
    up = Up(8, 4)
    with pytest.raises(RuntimeError, match="traced"), one_operator(up):
        assert up.haar is transposed
        raise RuntimeError("traced")
    assert up.haar is band_sums
