"""The one place that knows which device there is and how much memory it has."""

__all__ = ["best_device", "free_memory", "one_thread"]

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def best_device(name: str = "auto") -> torch.device:
    """Return the device called `name`; `auto` takes the GPU when there is one.

    Raises `ValueError` where the device is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("this machine shows no CUDA GPU to PyTorch: choose device 'auto' or 'cpu'")
    if name not in ("cpu", "cuda"):
        raise ValueError(f"device must be auto, cpu or cuda, got {name!r}")
    return torch.device(name)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch work with one thread inside: for small tensors, which more threads slow down and sum up differently.

    The setting belongs to the whole process, so nothing may be yielded inside.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def free_memory(device: torch.device) -> int:
    """Return the bytes of memory free on a device (on the CPU: what the system calls available)."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return _physical_memory() // 2


def _physical_memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 8 * 2**30
