"""The device under test: its clock, its memory, and errors if it is missing."""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from fate_gym.errors import InputError

_RESERVE = 0.9
"""Usable share of the free memory; kernels need the rest as workspace."""


def import_torch() -> ModuleType:
    """Import PyTorch; raise `InputError` with the remedy if it is not installed."""
    try:
        import torch
    except ImportError:
        raise InputError(
            "measuring needs PyTorch, which is not installed",
            remedy="pip install 'fate-gym[calibrate]'",
        ) from None
    found: ModuleType = torch
    return found


class TorchDevice(ABC):
    """A device on which decoders run, in bfloat16, or float16 on a GPU without it."""

    def __init__(self, torch: ModuleType, device: Any, dtype: Any) -> None:
        self.torch, self.device, self.dtype = torch, device, dtype

    @property
    @abstractmethod
    def name(self) -> str:
        """The vendor's name of the device."""

    @property
    @abstractmethod
    def memory_bytes(self) -> int:
        """Total memory."""

    @property
    @abstractmethod
    def free_bytes(self) -> int:
        """Memory that is free now."""

    @abstractmethod
    def seconds(self, work: Callable[[], object]) -> float:
        """Run work on the device until it is done; return the device's seconds."""

    @abstractmethod
    def wall_seconds(self, work: Callable[[], object]) -> float:
        """Run work until it is done; return wall-clock seconds, for work that waits for a disk."""

    @abstractmethod
    def host_tensor(self, count: int) -> Any:
        """Allocate ``count`` numbers in host memory, pinned if there is a GPU."""

    def empty(self, *shape: int) -> Any:
        """Allocate an uninitialised tensor."""
        return self.torch.empty(shape, dtype=self.dtype, device=self.device)

    def random(self, *shape: int) -> Any:
        """Make a tensor of small random numbers."""
        return 0.02 * self.torch.randn(shape, dtype=self.dtype, device=self.device)

    def require(self, needed: float, what: str, remedy: str) -> None:
        """Raise `InputError` unless ``needed`` bytes are free."""
        free = self.free_bytes * _RESERVE
        if needed > free:
            raise InputError(
                f"{what} needs {needed / 1e9:,.2f} GB, and of the memory of {self.name} "
                f"{free / 1e9:,.2f} GB can be used",
                remedy=remedy,
            )

    @property
    def has_peer(self) -> bool:
        """Whether there is another device of this kind to copy to."""
        return False

    @abstractmethod
    def release(self) -> None:
        """Return unused memory to the device."""


class CpuDevice(TorchDevice):
    """One CPU core. Seconds are this thread's CPU time, so other programs do not count."""

    def __init__(self, torch: ModuleType) -> None:
        torch.set_num_threads(1)
        super().__init__(torch, torch.device("cpu"), torch.bfloat16)

    @property
    def name(self) -> str:
        return "CPU"

    @property
    def memory_bytes(self) -> int:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")

    @property
    def free_bytes(self) -> int:
        try:
            lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        except OSError:
            return self.memory_bytes // 2
        kilobytes = (line.split()[1] for line in lines if line.startswith("MemAvailable:"))
        return 1024 * int(next(kilobytes, self.memory_bytes // 2048))

    def seconds(self, work: Callable[[], object]) -> float:
        start = time.thread_time()
        work()
        return time.thread_time() - start

    def wall_seconds(self, work: Callable[[], object]) -> float:
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    def host_tensor(self, count: int) -> Any:
        return self.torch.empty(count, dtype=self.dtype)

    def release(self) -> None:
        """Do nothing: unused memory is already free."""


class CudaDevice(TorchDevice):
    """An NVIDIA GPU, or an AMD GPU with PyTorch's ROCm build.

    Seconds are measured between two events in its stream. A call waits for the second event, so
    that no work is left over for the next call.
    """

    def __init__(self, torch: ModuleType, device: Any) -> None:
        torch.cuda.set_device(device)
        bfloat16 = torch.cuda.get_device_capability(device) >= (8, 0) or torch.version.hip
        super().__init__(torch, device, torch.bfloat16 if bfloat16 else torch.float16)

    @property
    def name(self) -> str:
        return str(self.torch.cuda.get_device_name(self.device))

    @property
    def memory_bytes(self) -> int:
        return int(self.torch.cuda.get_device_properties(self.device).total_memory)

    @property
    def free_bytes(self) -> int:
        self.release()
        free, _ = self.torch.cuda.mem_get_info(self.device)
        return int(free)

    def seconds(self, work: Callable[[], object]) -> float:
        cuda = self.torch.cuda
        start, end = cuda.Event(enable_timing=True), cuda.Event(enable_timing=True)
        cuda.synchronize(self.device)
        start.record()
        work()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) / 1e3

    def wall_seconds(self, work: Callable[[], object]) -> float:
        cuda = self.torch.cuda
        cuda.synchronize(self.device)
        start = time.perf_counter()
        work()
        cuda.synchronize(self.device)
        return time.perf_counter() - start

    def host_tensor(self, count: int) -> Any:
        return self.torch.empty(count, dtype=self.dtype, pin_memory=True)

    def peer_tensor(self, count: int) -> Any:
        """Allocate ``count`` numbers on the next GPU."""
        other = (self.device.index + 1) % self.torch.cuda.device_count()
        return self.torch.empty(count, dtype=self.dtype, device=f"cuda:{other}")

    @property
    def has_peer(self) -> bool:
        return int(self.torch.cuda.device_count()) > 1

    def release(self) -> None:
        self.torch.cuda.synchronize(self.device)
        self.torch.cuda.empty_cache()


def open_device(name: str) -> TorchDevice:
    """Open a device by PyTorch's name: ``cpu``, ``cuda:0``.

    Raises:
        InputError: PyTorch is not installed, or there is no such device.
    """
    torch = import_torch()
    if name == "cpu":
        return CpuDevice(torch)
    kind, _, number = name.partition(":")
    if kind != "cuda" or not (number or "0").isdecimal():
        raise InputError(f"unknown device {name!r}", remedy="choose cpu or cuda:NUMBER")
    if not torch.cuda.is_available():
        raise InputError(
            f"no GPU for {name}: PyTorch {torch.__version__} sees none",
            remedy="install a build of PyTorch for your GPU and its driver "
            "(https://pytorch.org/get-started), or choose --device cpu",
        )
    count = torch.cuda.device_count()
    if int(number or 0) >= count:
        raise InputError(
            f"no GPU {name}: there are {count}",
            remedy="choose one of " + ", ".join(f"cuda:{i}" for i in range(count)),
        )
    return CudaDevice(torch, torch.device("cuda", int(number or 0)))
