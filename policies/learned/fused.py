"""The memory-bound steps of the pointer network and their gradients, each as one compiled pass.

With torch's own operations nearly all training time goes into gathers, scatters and sums of rows of
32 numbers; fused, a training step is three times as fast. CPU and float32 only. The N candidates of
a batch form one list; ``where`` (3, N) has the lane of each, its row (slot of a lane) and its place
(position of a lane).
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fate_gym.jit import IntMatrix, kernel

Rows = Annotated[NDArray[np.float32], 2]
Numbers = Annotated[NDArray[np.int32], 2]


class Pool(torch.autograd.Function):
    """Maximum over each slot and each position, and sum over each lane, of non-negative rows.

    Empty groups give 0.
    """

    @staticmethod
    def forward(
        ctx: Any, z: Tensor, where: Tensor, sizes: tuple[int, int, int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        hidden = z.shape[1]
        total, slot_max, place_max = (z.new_zeros(size, hidden) for size in sizes)
        slot_arg, place_arg = (
            torch.full((size, hidden), -1, dtype=torch.int32) for size in sizes[1:]
        )
        tensors = (z, where, slot_max, slot_arg, place_max, place_arg, total)
        _pool(*(t.detach().numpy() for t in tensors))
        ctx.save_for_backward(where, slot_arg, place_arg)
        return slot_max, place_max, total

    @staticmethod
    def backward(ctx: Any, by_slot: Tensor, by_place: Tensor, by_total: Tensor) -> Any:
        where, slot_arg, place_arg = ctx.saved_tensors
        out = by_total.index_select(0, where[0])
        tensors = (slot_arg, by_slot.contiguous(), place_arg, by_place.contiguous(), out)
        _unpool(*(t.numpy() for t in tensors))
        return out, None, None


class Combine(torch.autograd.Function):
    """``relu(own + of_slot[row] + of_place[place] + of_all[lane])``, row by row."""

    @staticmethod
    def forward(
        ctx: Any, own: Tensor, of_slot: Tensor, of_place: Tensor, of_all: Tensor, where: Tensor
    ) -> Tensor:
        out = torch.empty_like(own)
        tensors = (own, of_slot, of_place, of_all, where, out)
        _combine(*(t.detach().contiguous().numpy() for t in tensors))
        ctx.save_for_backward(out, where)
        ctx.sizes = of_slot.shape[0], of_place.shape[0], of_all.shape[0]
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        out, where = ctx.saved_tensors
        by_own = torch.empty_like(grad)
        by_slot, by_place, by_all = (grad.new_zeros(n, grad.shape[1]) for n in ctx.sizes)
        tensors = (grad.contiguous(), out, where, by_own, by_slot, by_place, by_all)
        _uncombine(*(t.detach().numpy() for t in tensors))
        return by_own, by_slot, by_place, by_all, None


@kernel
def _pool(
    z: Rows,
    where: IntMatrix,
    slot_max: Rows,
    slot_arg: Numbers,
    place_max: Rows,
    place_arg: Numbers,
    total: Rows,
) -> None:
    for i in range(z.shape[0]):
        b, r, q = where[0, i], where[1, i], where[2, i]
        for j in range(z.shape[1]):
            x = z[i, j]
            total[b, j] += x
            if x > slot_max[r, j]:
                slot_max[r, j] = x
                slot_arg[r, j] = i
            if x > place_max[q, j]:
                place_max[q, j] = x
                place_arg[q, j] = i


@kernel
def _unpool(
    slot_arg: Numbers, by_slot: Rows, place_arg: Numbers, by_place: Rows, out: Rows
) -> None:
    for r in range(slot_arg.shape[0]):
        for j in range(slot_arg.shape[1]):
            i = slot_arg[r, j]
            if i >= 0:
                out[i, j] += by_slot[r, j]
    for q in range(place_arg.shape[0]):
        for j in range(place_arg.shape[1]):
            i = place_arg[q, j]
            if i >= 0:
                out[i, j] += by_place[q, j]


@kernel
def _combine(
    own: Rows, of_slot: Rows, of_place: Rows, of_all: Rows, where: IntMatrix, out: Rows
) -> None:
    zero = np.float32(0.0)
    for i in range(own.shape[0]):
        b, r, q = where[0, i], where[1, i], where[2, i]
        for j in range(own.shape[1]):
            x = own[i, j] + of_slot[r, j] + of_place[q, j] + of_all[b, j]
            out[i, j] = max(x, zero)


@kernel
def _uncombine(
    grad: Rows,
    out: Rows,
    where: IntMatrix,
    by_own: Rows,
    by_slot: Rows,
    by_place: Rows,
    by_all: Rows,
) -> None:
    zero = np.float32(0.0)
    for i in range(grad.shape[0]):
        b, r, q = where[0, i], where[1, i], where[2, i]
        for j in range(grad.shape[1]):
            g = grad[i, j] if out[i, j] > zero else zero
            by_own[i, j] = g
            by_slot[r, j] += g
            by_place[q, j] += g
            by_all[b, j] += g
