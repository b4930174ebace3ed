"""The two counting rules, on layers whose work is known."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bench.table5.counter import count, count_called_modules
from training.networks.feature_style import GridPool
from training.networks.ir import SqueezeExcitation
from training.networks.stylegan2 import Blur, ModulatedConv2d, UpsampleRGB


def on_meta(make, *shapes):
    with torch.device("meta"):
        module = make().eval()
        inputs = [torch.empty(*shape) for shape in shapes]
    return module, lambda: module(*inputs)


@pytest.mark.parametrize(
    ("make", "shape", "params", "macs", "called"),
    [
        (lambda: nn.Conv2d(4, 8, 3, 2, 1), (1, 4, 10, 10), 8 * 36 + 8, 25 * 8 * 36, 25 * 8 * 36),
        (lambda: nn.Conv2d(4, 8, 3, groups=2, bias=False), (1, 4, 5, 5), 8 * 18, 9 * 8 * 18, 9 * 8 * 18),
        (lambda: nn.Conv3d(2, 3, (1, 5, 5), padding=(0, 2, 2)), (1, 2, 4, 6, 6), 153, 144 * 150, 144 * 150),
        (lambda: nn.Linear(5, 7), (2, 3, 5), 42, 6 * 35, 6 * 35),
        # thop multiplies by the output's size, a stride of 2 counts four times.
        (lambda: nn.ConvTranspose2d(3, 2, 4, 2, 1), (1, 3, 5, 5), 98, 25 * 96, 100 * 96),
        (lambda: nn.BatchNorm2d(6), (1, 6, 4, 4), 12, 0, 4 * 96),
        (lambda: nn.LayerNorm(8, elementwise_affine=False), (1, 3, 8), 0, 0, 2 * 24),
        (lambda: nn.PReLU(6), (1, 6, 4, 4), 6, 0, 96),
        (lambda: nn.Softmax(-1), (2, 5), 0, 0, 2 * 14),
        (lambda: nn.AdaptiveAvgPool2d(3), (1, 2, 16, 16), 0, 0, 2 * 256 + 18),
        (lambda: GridPool(16, 16), (1, 2, 16, 16), 0, 0, 2 * 256 + 18),
        # The pooling counts as in the published block: a sum over the pixels and a division.
        (lambda: SqueezeExcitation(32), (1, 32, 4, 4), 128, 128, 128 + 32 * 17),
    ],
)
def test_layers(make, shape, params, macs, called):
    module, run = on_meta(make, shape)
    complete = count(module, run)
    assert (complete.params, complete.macs) == (params, macs)
    found = count_called_modules(module, run)
    assert (found.params, found.macs) == (params, called)


def test_filters_count_for_each_pixel_they_put_out():
    for make, shape, pixels in (
        (UpsampleRGB, (1, 3, 8, 8), 3 * 256),
        (lambda: Blur((1, 1), gain=4.0), (1, 5, 9, 9), 5 * 64),
    ):
        module, run = on_meta(make, shape)
        assert count(module, run).macs == 16 * pixels
        assert count_called_modules(module, run).macs == 0


def test_demodulation_does_not_count():
    module, run = on_meta(lambda: ModulatedConv2d(4, 6, 3, 8), (1, 4, 8, 8), (1, 4))
    assert count(module, run).macs == 64 * 6 * 36


class Functional(nn.Module):
    """A parameter used by a function, an attention product, and a layer that is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(4, 4, 3, 3))
        self.inner = nn.Sequential(nn.Conv2d(4, 4, 1, bias=False))
        self.idle = nn.Conv2d(4, 4, 1)

    def forward(self, x):
        tokens = F.conv2d(self.inner(x), self.weight, padding=1).flatten(2)
        return tokens.transpose(1, 2) @ tokens


def test_the_narrow_rule_misses_what_is_not_a_called_module():
    module, run = on_meta(Functional, (2, 4, 5, 5))
    complete, called = count(module, run), count_called_modules(module, run)
    assert complete.macs == 2 * (25 * 16 + 25 * 144 + 25 * 25 * 4)
    assert complete.params == 144 + 16 + 20
    assert (called.params, called.macs) == (16, 2 * 25 * 16)


def test_work_is_credited_to_the_module_that_does_it():
    module, run = on_meta(Functional, (1, 4, 5, 5))
    complete = count(module, run)
    assert complete.part("inner") == complete.part("inner.0") == 25 * 16
    assert complete.part("inn") == 0
    assert sum(complete.by_module.values()) == complete.macs
    assert not module._forward_hooks and not module.inner._forward_pre_hooks


def test_hooks_are_taken_off_again_after_a_failure():
    module, _ = on_meta(Functional, (1, 4, 5, 5))
    for rule in (count, count_called_modules):
        with pytest.raises(RuntimeError):
            rule(module, lambda: module(torch.empty(1, 3, 5, 5, device="meta")))
        assert not any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())
