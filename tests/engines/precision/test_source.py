from __future__ import annotations

import onnx_ir as ir

from engines.precision.emulate import Emulated
from engines.precision.source import copy_of, load_source
from engines.precision.typed import retype


def test_what_is_done_to_a_copy_is_not_done_to_the_original(shipped):
    """A search lowers and emulates the same source again and again: each time must give the same."""
    source = load_source(shipped, "reconstruct")
    before = ir.to_proto(source).SerializeToString()
    assert ir.to_proto(copy_of(source)).SerializeToString() == before
    made = []
    for _ in range(2):
        model = copy_of(source)
        reasons = retype(model, "fp16")
        made.append((reasons, ir.to_proto(model).SerializeToString()))
        Emulated(model, threads=1)
    assert made[0] == made[1] and made[0][1] != before
    assert ir.to_proto(source).SerializeToString() == before
