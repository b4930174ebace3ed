"""Data-parallel training: one process per GPU or, on a CPU, per core.

Small convolutions gain next to nothing from a second thread, and twice the images from a second process (measured on
the demo family: 35 images a second on two threads, 68 in two processes of one). Processes are started by `torchrun`;
each draws its own share of the data, gradients are averaged before every optimizer step, and the first process writes.
Without `torchrun` everything here does nothing.
"""

from __future__ import annotations

import os
from typing import Any

import torch
import torch.distributed as dist
from torch.optim import Optimizer


def begin(device: str) -> str:
    """Joins the processes `torchrun` started, if it did.

    Returns:
        This process's device: on CUDA, the one of its local rank.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return device
    if torch.device(device).type == "cuda":
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        dist.init_process_group("nccl" if torch.device(device).type == "cuda" else "gloo")
    return device


def end() -> None:
    """Leaves the group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def rank() -> int:
    """This process's number, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def processes() -> int:
    """How many train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def average_gradients(optimizer: Optimizer) -> None:
    """Makes every step of the optimizer use the gradients' mean over the processes."""
    if processes() == 1:
        return

    def average(optimizer: Optimizer, *_: Any) -> None:
        found = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        if not found:
            return
        # One message for all: a network has hundreds of small tensors.
        flat = torch.cat([gradient.reshape(-1) for gradient in found])
        dist.all_reduce(flat)
        flat /= processes()
        for gradient, mean in zip(found, flat.split([g.numel() for g in found]), strict=True):
            gradient.copy_(mean.view_as(gradient))

    optimizer.register_step_pre_hook(average)


def first_says(value: bool) -> bool:
    """The first process's answer, so that all stop at the same step."""
    if processes() == 1:
        return value
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    answer = torch.tensor([float(value)], device=device)
    dist.broadcast(answer, 0)
    return bool(answer.item())
