"""Measures tasks with PyTorch: warm-up, several repeats, the median."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from fate_gym.lab.calibrate.plan import Task
from fate_gym.lab.decoder.device import CudaDevice, TorchDevice
from fate_gym.lab.decoder.network import (
    Decoder,
    KvCache,
    Segment,
    attend,
    load,
    random_host_tensor,
)
from fate_gym.lab.decoder.shape import DecoderShape

_REPEATS = 3


class TorchMeasurer:
    """Measures on a device; holds one decoder at a time, and a file for reads from disk.

    A context manager that closes the file at the end. The file has no name, so nothing is left
    behind however the process ends.
    """

    def __init__(
        self, device: TorchDevice, shapes: Mapping[str, DecoderShape], folder: Path | None = None
    ) -> None:
        self.device, self.shapes, self.folder = device, shapes, folder
        self._name = ""
        self._decoder: Decoder | None = None
        most = max(shape.params for shape in shapes.values())
        self._host = random_host_tensor(device, most)
        self._file: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()

    def seconds(self, task: Task) -> float:
        """Return the median of some repeats after a warm-up."""
        with self.device.torch.inference_mode():
            work, share = self._work(task)
            time = self.device.wall_seconds if task.kind == "disk" else self.device.seconds
            work()
            return float(np.median([time(work) for _ in range(_REPEATS)])) / share

    def _work(self, task: Task) -> tuple[Callable[[], object], int]:
        """Return what to time, and the number of layers by which to divide the time."""
        if not task.model:
            return self._copying(task), 1
        decoder = self._decoder_of(task.model)
        layers = decoder.shape.layers
        if task.kind == "gemm":
            return decoder.gemms(task.tokens), layers
        context = task.context + task.tokens
        if task.kind == "decode":
            context = task.context
        cache = KvCache(self.device, decoder.shape, task.queries, context).fill(self.device)
        rows = slice(0, task.queries)
        if task.kind == "pass":
            segments = [Segment(cache, rows, context - task.tokens, task.tokens, logits=True)]
            given = decoder.input_for(segments)
            return lambda: decoder.run(segments, given), 1
        shape = decoder.shape
        queries = self.device.random(task.queries, shape.heads, task.tokens, shape.head_dim)

        def attention() -> None:
            for keys, values in zip(cache.keys, cache.values, strict=True):
                attend(self.device, queries, keys, values)

        return attention, layers

    def _decoder_of(self, name: str) -> Decoder:
        if self._decoder is None or self._name != name:
            self._decoder = None
            self.device.release()
            shape = self.shapes[name]
            weights = load(self.device, self._host[: shape.params])
            self._decoder, self._name = Decoder(self.device, shape, weights), name
        return self._decoder

    def _host_tensor(self, count: int) -> Any:
        if len(self._host) < count:
            self._host = random_host_tensor(self.device, count)
        return self._host[:count]

    def _copying(self, task: Task) -> Callable[[], object]:
        device, count = self.device, task.bytes // 2
        host = self._host_tensor(count)
        if task.kind == "load":
            return lambda: load(device, host)
        if task.kind == "disk":
            return self._reading(host)
        there = device.empty(count)
        if task.kind == "to_host":
            back = device.host_tensor(count)
            return lambda: back.copy_(there, non_blocking=True)
        other: Any = device.empty(count)
        if task.kind == "peer":
            assert isinstance(device, CudaDevice)
            other = device.peer_tensor(count)
        return lambda: other.copy_(there, non_blocking=True)

    def _reading(self, host: Any) -> Callable[[], object]:
        """Return a function that reads weights from disk, past the page cache, and loads them."""
        data = host.view(self.device.torch.uint8).numpy()
        if self._file is None:
            self._file = tempfile.TemporaryFile(dir=self.folder, buffering=0)  # noqa: SIM115
            written = 0
            while written < len(data):
                written += self._file.write(memoryview(data)[written:])
            os.fsync(self._file.fileno())
        file = self._file

        def read() -> None:
            file.seek(0)
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            at = 0
            while count := file.readinto(memoryview(data)[at:]):
                at += count
            load(self.device, host)

        return read
