"""Decisions under uncertainty: candidates race in drawn futures.

A candidate's gain is the difference between the values of the list schedule without and with the
candidate in front, in the same futures (common random numbers). Each round doubles the number of
futures; after each the worse half of the candidates drops out (sequential halving; Karnin, Koren &
Somekh 2013). The best of those left is taken if its gain is significant.
"""

from __future__ import annotations

import numpy as np

from fate_gym.jit import FloatMatrix, Floats, copy_block, inlined, kernel
from fate_gym.kernel.placements import Placements
from policies.fate.plans.play import value_in
from policies.fate.plans.schema import Context, Plan, Style
from policies.fate.rollout.candidates import put_candidate

FIRST = 8
"""Futures of the first round."""


@kernel
def race(
    c: Context, style: Style, found: Placements, gains: FloatMatrix, doubt: float, most_work: int
) -> int:
    """Race the candidates ``found``, each in front of ``c.base``.

    Args:
        c: context with drawn futures.
        style: how the list schedule is played.
        found: the candidates; ``value`` is set to the mean gain, -inf: dropped out.
        gains: (candidates + 1, futures) scratch.
        doubt: number of standard errors by which the mean gain must exceed 0.
        most_work: work after which no further round begins.

    Returns:
        The row of the winner; -1: none, continue with ``c.base``.
    """
    first, start, base = c.work.tuned_on, c.work.work, found.count
    futures = c.work.futures.size - first
    done, number = 0, min(FIRST, futures)
    alive = 0
    for row in range(base):
        found.rows[row].value = 0.0
        alive += 1
    while True:
        for i in range(done, number):
            gains[base, i] = value_in(c, c.base, style, first + i, np.inf)
        for row in range(base):
            if found.rows[row].value == -np.inf:
                continue
            copy_block(c.draft, c.base)
            put_candidate(c.problem, c.start, c.draft, found, row, row)
            for i in range(done, number):
                gains[row, i] = gains[base, i] - value_in(c, c.draft, style, first + i, np.inf)
            found.rows[row].value = gains[row, :number].mean()
        if number == futures or alive == 0 or c.work.work - start > most_work:
            break
        done, number = number, min(futures, 2 * number)
        alive = _halve(found, gains, done)
    best = -1
    for row in range(base):
        if found.rows[row].value > 0.0 and (
            best < 0 or found.rows[row].value > found.rows[best].value
        ):
            best = row
    if best >= 0 and found.rows[best].value > doubt * _error(gains, best, number):
        return best
    return -1


@kernel
def leave_out(found: Placements, plan: Plan, waiting: int) -> None:
    """Drop candidates of stages with devices in a plan; with ``waiting`` also the waiting row."""
    count = 0
    for row in range(found.count):
        s = found.rows[row].stage
        if (s < 0 and waiting > 0) or (s >= 0 and plan.stages[s].width > 0):
            continue
        found.rows[count] = found.rows[row]
        for k in range(found.rows[row].width):
            found.devices[count, k] = found.devices[row, k]
            found.counts[count, k] = found.counts[row, k]
        count += 1
    found.count = count


@inlined
def _error(gains: FloatMatrix, row: int, number: int) -> float:
    """Standard error of a candidate's mean gain in the first ``number`` futures."""
    return gains[row, :number].std() / np.sqrt(max(1.0, number - 1.0)) + 1e-12


@kernel
def _halve(found: Placements, gains: FloatMatrix, number: int) -> int:
    """Drop hopeless candidates, then the worse half of the rest; return how many are left."""
    alive = 0
    for row in range(found.count):
        if found.rows[row].value > -np.inf:
            hopeful = found.rows[row].value + 2.0 * _error(gains, row, number) > 0.0
            same = (gains[row, :number] == 0.0).all()
            if same or not hopeful:
                found.rows[row].value = -np.inf
            else:
                alive += 1
    left = (alive + 1) // 2
    while alive > left:
        worst = -1
        for row in range(found.count):
            value = found.rows[row].value
            if value > -np.inf and (worst < 0 or value < found.rows[worst].value):
                worst = row
        found.rows[worst].value = -np.inf
        alive -= 1
    return alive


@kernel
def value_plan(c: Context, style: Style, values: Floats) -> None:
    """Fill ``values``, one per test future, with the values of ``c.base``."""
    for i in range(values.size):
        values[i] = value_in(c, c.base, style, c.work.tuned_on + i, np.inf)
