"""Devices: the error without one, and how a GPU is timed (with a made-up GPU)."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from fate_gym.errors import InputError
from fate_gym.lab.decoder.device import CudaDevice, open_device


class Cuda:
    """Stands in for ``torch.cuda`` and records the calls."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.Event = self._event

    def _event(self, *, enable_timing: bool) -> Any:
        assert enable_timing
        number = self.calls.count("event")
        self.calls.append("event")
        return SimpleNamespace(
            record=lambda: self.calls.append(f"record {number}"),
            synchronize=lambda: self.calls.append(f"wait for {number}"),
            elapsed_time=lambda _: 12.5,
        )

    def is_available(self) -> bool:
        return True

    def device_count(self) -> int:
        return 2

    def set_device(self, device: Any) -> None:
        self.calls.append("set")

    def get_device_capability(self, device: Any) -> tuple[int, int]:
        return (9, 0)

    def get_device_name(self, device: Any) -> str:
        return "Made-up"

    def synchronize(self, device: Any) -> None:
        self.calls.append("synchronize")

    def empty_cache(self) -> None:
        self.calls.append("empty")

    def mem_get_info(self, device: Any) -> tuple[int, int]:
        return (10**9, 2 * 10**9)


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Cuda:
    """Pretend that PyTorch has two GPUs."""
    torch = ModuleType("torch")
    found = Cuda()
    facts = {
        "cuda": found,
        "bfloat16": "bfloat16",
        "float16": "float16",
        "version": SimpleNamespace(hip=None),
        "device": lambda kind, number=0: SimpleNamespace(type=kind, index=number),
    }
    for name, value in facts.items():
        setattr(torch, name, value)
    monkeypatch.setitem(sys.modules, "torch", torch)
    return found


def test_a_gpu_is_timed_between_events_that_are_waited_for(cuda: Cuda) -> None:
    device = open_device("cuda:1")
    assert isinstance(device, CudaDevice)
    cuda.calls.clear()
    assert device.seconds(lambda: cuda.calls.append("work")) == 0.0125
    assert cuda.calls == [
        "event", "event", "synchronize", "record 0", "work", "record 1", "wait for 1"
    ]  # fmt: skip
    cuda.calls.clear()
    device.wall_seconds(lambda: cuda.calls.append("work"))
    assert cuda.calls == ["synchronize", "work", "synchronize"]


def test_too_little_memory_is_said_before_it_is_used(cuda: Cuda) -> None:
    device = open_device("cuda")
    device.require(0.8e9, "this", "that")
    with pytest.raises(InputError) as caught:
        device.require(0.95e9, "the schedule", "raise --scale")
    assert "the schedule needs 0.95 GB" in str(caught.value)
    assert "Made-up" in str(caught.value) and "raise --scale" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [("cuda:2", "choose one of cuda:0, cuda:1"), ("gpu", "choose cpu or cuda:NUMBER"),
     ("cuda:x", "choose cpu or cuda:NUMBER")],
)  # fmt: skip
def test_a_device_that_is_not_there_is_one_error(cuda: Cuda, name: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        open_device(name)


def test_without_a_gpu_it_says_what_to_choose(cuda: Cuda, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys.modules["torch"], "__version__", "2.13.0+cpu", raising=False)
    with pytest.raises(InputError, match="choose --device cpu"):
        open_device("cuda:0")


def test_without_pytorch_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(InputError, match=r"fate-gym\[calibrate\]"):
        open_device("cpu")
