"""Data-parallel training: one process per GPU or, on a CPU, per core.

Small convolutions gain next to nothing from a second thread, and nearly everything from a second process. Each process
draws its own share of the data, gradients are averaged before every optimizer step, and the first process writes.
Processes are started by `together`, or by anything that sets the variables torchrun sets. Alone everything here does
nothing.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import socket
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
import torch.distributed as dist
import torch.multiprocessing
from torch.optim import Optimizer

Task = TypeVar("Task")
Result = TypeVar("Result")

_PATIENCE = datetime.timedelta(minutes=10)
"""The time that one process waits for another, which may be encoding a whole data set."""


def together(
    work: Callable[[Task], Result], task: Task, count: int, first: Callable[[Task], Result] | None = None
) -> Result:
    """Does the same work in `count` processes, this one being the first.

    Args:
        work: a function of a module, called with the task in every process; it calls `begin`.
        task: what can be pickled.
        first: the same work as this process does it, such as with a word on its progress; None: `work`.

    Returns:
        What the work returned here.

    Raises:
        ChildProcessError: if another process failed.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    context = torch.multiprocessing.get_context("spawn")
    others = [context.Process(target=_other, args=(work, task, shared, rank), daemon=True) for rank in range(1, count)]
    for process in others:
        process.start()
    try:
        with _variables(shared | {"RANK": "0", "LOCAL_RANK": "0"}):
            return (first or work)(task)
    except RuntimeError as error:
        # Whoever is left of a group learns no more than that a connection closed, and learns it first.
        for process in others:
            process.join(30)
        if failed := [process for process in others if process.exitcode]:
            raise ChildProcessError(f"{len(failed)} of {count} training processes failed: {error}") from error
        raise
    finally:
        end()
        for process in others:
            process.join(10)
            process.terminate()


def _other(work: Callable[[Task], Result], task: Task, shared: dict[str, str], rank: int) -> None:
    with _variables(shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}):
        try:
            work(task)
        except Exception as error:
            raise SystemExit(f"process {rank}: {error}") from None
        finally:
            end()


@contextlib.contextmanager
def _variables(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def begin(device: str) -> str:
    """Joins the processes that were started with this one, if any were.

    Returns:
        This process's device: on CUDA, the one of its local rank.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return device
    if torch.device(device).type == "cuda":
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        backend = "nccl" if torch.device(device).type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=_PATIENCE)
    return device


def end() -> None:
    """Leaves the group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def rank() -> int:
    """This process's number, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def processes() -> int:
    """The number of processes that train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def average_gradients(optimizer: Optimizer) -> None:
    """Makes every step of the optimizer use the gradients' mean over the processes."""
    # By hand: DDP of torch 2.13 leaves out what is called past its wrapper's `forward`, as a generator's `mapping` is.
    if processes() == 1:
        return

    def average(optimizer: Optimizer, *_: Any) -> None:
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        if not gradients:
            return
        # One message for all: a network has hundreds of small tensors.
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        dist.all_reduce(flat)
        flat /= processes()
        for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
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
