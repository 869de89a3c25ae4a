"""The device under test: its clock, its memory, and what to do without one."""

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
"""Share of the free memory that may be planned with: kernels need workspace."""


def import_torch() -> ModuleType:
    """PyTorch; without it an `InputError` that says what to install."""
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
    """Where decoders run. Numbers are bfloat16, or float16 on a GPU without it."""

    def __init__(self, torch: ModuleType, device: Any, dtype: Any) -> None:
        self.torch, self.device, self.dtype = torch, device, dtype

    @property
    @abstractmethod
    def name(self) -> str:
        """What its maker calls it."""

    @property
    @abstractmethod
    def memory_bytes(self) -> int:
        """All its memory."""

    @property
    @abstractmethod
    def free_bytes(self) -> int:
        """The memory that is free now."""

    @abstractmethod
    def seconds(self, work: Callable[[], object]) -> float:
        """Seconds of work on the device, until it is done."""

    @abstractmethod
    def wall_seconds(self, work: Callable[[], object]) -> float:
        """Seconds on the clock on the wall, for what waits for a disk."""

    @abstractmethod
    def host_tensor(self, count: int) -> Any:
        """Numbers in the host's memory, pinned where that means something."""

    def empty(self, *shape: int) -> Any:
        """A tensor that nothing was written to."""
        return self.torch.empty(shape, dtype=self.dtype, device=self.device)

    def random(self, *shape: int) -> Any:
        """A tensor of small random numbers."""
        return 0.02 * self.torch.randn(shape, dtype=self.dtype, device=self.device)

    def require(self, needed: float, what: str, remedy: str) -> None:
        """Raise an `InputError` unless so many bytes are free."""
        free = self.free_bytes * _RESERVE
        if needed > free:
            raise InputError(
                f"{what} needs {needed / 1e9:,.2f} GB, and of the memory of {self.name} "
                f"{free / 1e9:,.2f} GB can be used",
                remedy=remedy,
            )

    @property
    def has_peer(self) -> bool:
        """Whether there is another device of its kind to copy to."""
        return False

    @abstractmethod
    def release(self) -> None:
        """Give memory that nothing uses back to the device."""


class CpuDevice(TorchDevice):
    """One core. Seconds are those of this thread alone: other programs do not count."""

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
        """Nothing: what is not used has been freed."""


class CudaDevice(TorchDevice):
    """A GPU of NVIDIA, or of AMD with PyTorch's ROCm build.

    Seconds lie between two events in its stream. A call waits for the second one, so that nothing
    of it is left over for the next.
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
        """Numbers on another GPU, the next one."""
        other = (self.device.index + 1) % self.torch.cuda.device_count()
        return self.torch.empty(count, dtype=self.dtype, device=f"cuda:{other}")

    @property
    def has_peer(self) -> bool:
        return int(self.torch.cuda.device_count()) > 1

    def release(self) -> None:
        self.torch.cuda.synchronize(self.device)
        self.torch.cuda.empty_cache()


def open_device(name: str) -> TorchDevice:
    """A device as PyTorch names it: ``cpu``, ``cuda:0``.

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
