"""The job of the paper's Table 5: every method in one run, in turns, by the code of `edgedit bench table5 --time`."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from bench.gpu.context import Context
from bench.gpu.queue import Outcome, Step
from bench.table5.subjects import Setting
from bench.table5.times import NO_TIME, chosen, measure
from engines.errors import EdgeditError
from engines.family import ModelFamily


def table5(context: Context) -> Iterator[Step]:
    """A step is one arithmetic of one family with random weights, or its exported graphs; ratios are within a step."""
    keys = chosen(context.methods)
    for model in context.models:
        if model.bundle is not None:
            continue
        for setting in _settings(model.family, context.device):
            how = f"eager {setting.precision.upper()}" if setting.how == "eager" else "ONNX Runtime"
            yield Step(f"{model.name} {how}", _measured(context, keys, setting), _lacks(setting), context.least)


def _settings(family: ModelFamily, device: str) -> Iterator[Setting]:
    # Most papers time the first: FP32 with TF32 off.
    for precision in ("fp32", "tf32", "fp16"):
        yield Setting(family=family, device=device, precision=precision)
    yield Setting(family=family, device=device, how="onnxruntime")


def _lacks(setting: Setting) -> str | None:
    """Why a setting cannot be measured here."""
    try:
        setting.check()
    except EdgeditError as error:
        return str(error)
    return None


def _measured(context: Context, keys: list[str], setting: Setting) -> Callable[[], Outcome]:
    def run() -> Outcome:
        row = measure(
            keys,
            setting,
            passes=context.passes,
            warmup=max(1, context.warm),
            memory=False,
            left=lambda: context.left() - 2,
        )
        whole = row["passes"] == context.passes and NO_TIME not in row["not_measured"].values()
        return Outcome(row | {"clocks": context.clocks()}, whole)

    return run
