"""Action numbers and the placements that they stand for in the last observation."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from fate_gym.env.schema import Run
from fate_gym.errors import IllegalActionError
from fate_gym.sim import Assignment


def wait_action(run: Run) -> int:
    """Return the last action: wait."""
    return int(run.placements.rows.size)


def legal_actions(run: Run) -> NDArray[np.bool_]:
    """Return the (S P + 1,) mask of legal actions."""
    episode, positions = run.episode, run.facts.positions
    mask = np.zeros(wait_action(run) + 1, np.bool_)
    shown = episode.shown
    widths = run.placements.rows["width"].reshape(-1, positions)
    mask[: shown * positions] = widths[episode.lines[:shown]].reshape(-1) > 0
    mask[-1] = episode.can_wait or episode.ended
    return mask


def row_of(run: Run, action: int) -> int:
    """Return the row of ``run.placements`` for an action; -1 if its slot is empty."""
    slot, position = divmod(action, run.facts.positions)
    if not 0 <= slot < run.episode.shown:
        return -1
    return int(run.episode.lines[slot]) * run.facts.positions + position


def placement_of(run: Run, action: int) -> Assignment | None:
    """Return the placement of an action; None if it has none."""
    row, table = row_of(run, action), run.placements
    if row < 0 or table.rows["width"][row] == 0:
        return None
    stage, k = int(table.rows["stage"][row]), int(table.rows["width"][row])
    devices, counts = table.devices[row, :k].tolist(), table.counts[row, :k].tolist()
    return Assignment(stage, tuple(devices), tuple(counts))


def action_of(run: Run, assignment: Assignment | None, *, exact: bool) -> int | None:
    """Return the action for an assignment; see `WorkflowSchedulingEnv.action_of`."""
    if assignment is None:
        return wait_action(run) if run.episode.can_wait else None
    slots = np.flatnonzero(run.episode.window == assignment.stage)
    if not slots.size or assignment.migrate_from is not None:
        return None
    wanted = _pairs(assignment, exact)
    positions = run.facts.positions
    first = int(slots[0]) * positions
    for action in range(first, first + positions):
        offered = placement_of(run, action)
        if offered is None:
            continue
        if assignment.counts is None:
            offered = Assignment(offered.stage, offered.devices)
        if _pairs(offered, exact) == wanted:
            return action
    return None


def nearest_action(run: Run, assignment: Assignment) -> int:
    """Return the legal action closest to an assignment: same stage if the window shows it."""
    legal = np.flatnonzero(legal_actions(run)).tolist()
    wanted = set(assignment.devices)

    def distance(action: int) -> float:
        offered = placement_of(run, action)
        if offered is None or offered.stage != assignment.stage:
            return math.inf
        return len(wanted ^ set(offered.devices))

    return int(min(legal, key=distance))


def check_action(run: Run, action: int) -> None:
    """Raise `IllegalActionError` if an action is not legal now."""
    wait = wait_action(run)
    if not 0 <= action <= wait:
        raise IllegalActionError(f"{action} is not an action: they are 0 to {wait}")
    if action == wait:
        if not run.episode.can_wait:
            raise IllegalActionError(
                "waiting is illegal when no event lies ahead: place a ready stage"
            )
    elif placement_of(run, action) is None:
        slot, position = divmod(action, run.facts.positions)
        raise IllegalActionError(
            f"action {action}: slot {slot} of the window has no placement {position}"
        )


def _pairs(assignment: Assignment, ordered: bool) -> list[tuple[int, int]]:
    counts = assignment.counts or (0,) * len(assignment.devices)
    pairs = list(zip(assignment.devices, counts, strict=True))
    return pairs if ordered else sorted(pairs)
