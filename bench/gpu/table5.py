"""The job of the paper's Table 5: every method in one run, in turns, by the code of `edgedit bench time`."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from bench.gpu.context import Context
from bench.gpu.queue import Outcome, Step
from bench.table5.subjects import How, Setting
from bench.table5.times import NO_TIME, chosen, measure
from engines.errors import EdgeditError
from export.aot import Arithmetic

HOWS: tuple[tuple[str, How, Arithmetic], ...] = (
    # Most papers time this one: FP32 with TF32 off.
    ("eager FP32", "eager", "fp32"),
    ("eager TF32", "eager", "tf32"),
    ("eager FP16 channels-last", "eager", "fp16"),
    ("ONNX Runtime", "onnxruntime", "fp32"),
)


def table5(context: Context) -> Iterator[Step]:
    """A step is one way to run all methods of one family with random weights; ratios are within a step."""
    keys = chosen(context.options.method)
    for model in context.models:
        if model.bundle is not None:
            continue
        for name, how, precision in HOWS:
            setting = Setting(family=model.family, how=how, device=context.options.device, precision=precision)
            measured = partial(_measured, context, keys, setting)
            yield Step(f"{model.name} {name}", measured, _lacks(setting), context.options.least)


def _lacks(setting: Setting) -> str | None:
    """The reason why a setting cannot be measured here; None if it can."""
    try:
        setting.check()
    except EdgeditError as error:
        return str(error)
    return None


def _measured(context: Context, keys: list[str], setting: Setting) -> Outcome:
    passes = context.options.passes
    row = measure(
        keys,
        setting,
        passes=passes,
        warmup=max(1, context.warm),
        memory=False,
        left=lambda: context.left() - 2,
    )
    whole = row["passes"] == passes and NO_TIME not in row["not_measured"].values()
    return Outcome(row | {"clocks": context.clocks()}, whole)
