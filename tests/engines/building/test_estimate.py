from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.building.devices import ALIASES, DEVICES, device
from engines.building.estimate import Work, estimate, floor, work
from engines.building.proof import OLDEST
from engines.bundle import Bundle
from engines.bundle.engine_manifest import Precision
from engines.contracts import PIPELINES
from engines.errors import EngineError
from engines.precision import lower
from engines.runtimes.backend import Backend
from tests.engines.building.conftest import FAMILY
from tests.random_bundle import RANDOM_BUNDLE

GPUS = st.sampled_from(sorted(DEVICES))


def some_work(macs: int = 10**9, weights: int = 10**6, interface: int = 1000, peak: int = 10**5) -> Work:
    return Work("edit", macs=macs, weights=weights, interface_bytes=interface, peak=peak)


@pytest.mark.parametrize(("gmacs", "milliseconds"), [(795, 22.4), (479, 13.5)])
def test_the_floor_of_a_complete_edit_on_the_papers_card(gmacs: int, milliseconds: float) -> None:
    found = floor(some_work(macs=gmacs * 10**9), device("rtx3090"))
    assert found.milliseconds == found.compute_ms == pytest.approx(milliseconds, abs=0.05)
    assert found.bound == "compute"


def test_the_bus_bounds_what_has_few_products() -> None:
    found = floor(some_work(macs=1000, weights=468 * 10**6, interface=0), device("rtx3090"))
    assert found.bound == "memory" and found.milliseconds == pytest.approx(1.0)
    assert floor(some_work(macs=1000, weights=468 * 10**6), device("rtx3090"), precision="fp32").milliseconds > 1.99


@pytest.mark.parametrize(("precision", "name"), [("int8", "rtx3090"), ("fp8", "rtx4090")])
def test_eight_bits_halve_weights_and_products_and_not_what_passes_between(precision: Precision, name: str) -> None:
    done, gpu = some_work(macs=10**12), device(name)
    half, eight = floor(done, gpu), floor(done, gpu, precision=precision)
    assert eight.compute_ms == pytest.approx(half.compute_ms * gpu.fp16_tflops / gpu.tflops(precision))
    assert eight.compute_ms < 0.51 * half.compute_ms
    assert 2 * eight.weight_bytes == half.weight_bytes and eight.activation_bytes == half.activation_bytes


@given(GPUS, st.integers(1, 64), st.integers(0, 10**13), st.integers(0, 10**9), st.integers(0, 10**8))
def test_batches_take_weights_once(name: str, batch: int, macs: int, weights: int, interface: int) -> None:
    gpu, done = device(name), some_work(macs, weights, interface)
    one, many = (floor(done, gpu, batch=n) for n in (1, batch))
    assert one.milliseconds <= many.milliseconds <= one.milliseconds * batch * (1 + 1e-9)
    assert many.weight_bytes == one.weight_bytes and many.activation_bytes == batch * one.activation_bytes
    assert many.compute_ms == pytest.approx(batch * one.compute_ms)


@given(GPUS)
def test_what_does_not_fit(name: str) -> None:
    gpu = device(name)
    elements = int(gpu.memory_gb * 1e9 / 2)
    assert not floor(some_work(weights=elements + 1), gpu).fits(gpu)
    assert floor(some_work(weights=elements // 2), gpu).fits(gpu)
    assert not floor(some_work(weights=elements // 2, peak=elements // 40), gpu, batch=40).fits(gpu)


def test_figures_of_the_devices() -> None:
    for gpu in DEVICES.values():
        assert gpu.fp16_tflops >= 1.9 * gpu.fp32_tflops and gpu.bandwidth_gbs > 0 and gpu.memory_gb >= 8
        assert gpu.int8_tops >= 1.99 * gpu.fp16_tflops and gpu.source.startswith("NVIDIA ")
        assert (gpu.fp8_tflops is not None) == (int(gpu.architecture[2:]) >= OLDEST["fp8"])
        assert gpu.fp8_tflops is None or gpu.fp16_tflops * 1.99 <= gpu.fp8_tflops <= gpu.int8_tops
    assert device("orin") is DEVICES["agx-orin"] and set(ALIASES.values()) <= set(DEVICES)
    with pytest.raises(EngineError, match=r"unknown GPU 'rtx3091'; there are a100, .*rtx3090"):
        device("rtx3091")


@pytest.mark.rtx
def test_rtx_serves_the_devices_it_is_named_for(rtx: Backend) -> None:
    for gpu in DEVICES.values():
        if gpu.runtime == "tensorrt-rtx":
            assert gpu.architecture in rtx.architectures, gpu.title
        elif gpu.architecture in ("sm87", "sm90"):
            assert gpu.architecture not in rtx.architectures


def test_the_work_of_a_small_graph(small_path: Path) -> None:
    """`reconstruct`: a 1x1 convolution... its products, weights and tensors counted by hand from the family."""
    found = work(Bundle.load(small_path), "reconstruct")
    channels, rows, width, size = FAMILY.feature_channels, FAMILY.w_rows, FAMILY.style_dim, FAMILY.size
    feature = channels * (size // 2) ** 2
    # The feature through the transposed convolution, and the mean code through a product to RGB.
    assert found.macs == feature * 3 * 2 * 2 + width * 3
    assert found.weights >= channels * 3 * 2 * 2 + width * 3
    assert found.interface_bytes == 4 * rows * width + 4 * feature + 3 * size * size
    image = 3 * size * size
    # While an image is made from another, both are alive; at the beginning, code and feature.
    assert max(2 * image, feature + image) <= found.peak <= rows * width + feature + 3 * image


def test_the_estimate_counts_what_is_built(tmp_path: Path) -> None:
    bundle = Bundle.load(RANDOM_BUNDLE, verify=False)
    floors = {f.graph: f for f in estimate(bundle, PIPELINES, device("orin-nano"))}
    assert list(floors) == list(PIPELINES)
    assert floors["reconstruct"].macs == lower(bundle, "reconstruct", "fp16", tmp_path).report.macs
    assert floors["reconstruct"].macs < floors["edit"].macs
    for found in floors.values():
        assert found.weight_bytes < bundle.manifest.files["graphs/weights.safetensors"].bytes
        assert found.fits(device("orin-nano")) and found.activation_bytes > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "fp8"}, "sm86 has no fp8 arithmetic, which needs sm89 or newer; build int8 or fp16 for it"),
        ({"batch": 0}, "--batch must be 1 or more, got 0"),
    ],
)
def test_estimates_that_are_refused(small_path: Path, options: dict, message: str) -> None:
    with pytest.raises(EngineError, match=message):
        estimate(Bundle.load(small_path), ["edit"], device("rtx3090"), **options)
