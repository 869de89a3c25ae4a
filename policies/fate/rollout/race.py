"""Decisions under uncertainty: candidates race in drawn futures.

A candidate is compared with the list schedule that it would stand in front of by the difference
of their values in the same futures (common random numbers). Futures come in rounds, each twice as
many as before; after each the worse half of the candidates falls out (sequential halving; Karnin,
Koren & Somekh 2013). The best of those that are left is taken if its gain is significant.
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
    """Let the candidates ``found`` race, each in front of ``c.base``.

    Args:
        c: with drawn futures.
        style: of the list schedule.
        found: the candidates; ``value`` becomes the mean gain, -inf: fell out.
        gains: scratch, (candidates + 1, futures).
        doubt: standard errors that the mean gain has to be above 0.
        most_work: no further round begins when that is done.

    Returns:
        The row of the winner; -1: to go on as ``c.base`` does.
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
    """Drop the candidates of stages that are placed in a plan; with ``waiting`` also to wait."""
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
    """The standard error of the mean gain of a candidate in the first ``number`` futures."""
    return gains[row, :number].std() / np.sqrt(max(1.0, number - 1.0)) + 1e-12


@kernel
def _halve(found: Placements, gains: FloatMatrix, number: int) -> int:
    """Drop the worse half of the candidates, and those hardly better at best; how many are left."""
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
    """Fill ``values``, one for each future to test in, with those of ``c.base``."""
    for i in range(values.size):
        values[i] = value_in(c, c.base, style, c.work.tuned_on + i, np.inf)
