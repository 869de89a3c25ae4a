"""What a system knows of agents' programs: turns of a session, their calls, the tools between.

A program is a session, or a workflow that belongs to none. A call is a stage with a model.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fate_gym.kernel.schema import DONE, PLACED, TOOL_STAGE, VANISHED
from policies.base import DecisionView


class Programs:
    """The programs that have arrived, and their calls that have ended.

    Args:
        view: view at the start of a run.

    Attributes:
        arrived: arrival of each program's first workflow, in order of arrival.
    """

    def __init__(self, view: DecisionView) -> None:
        self.arrived: dict[int, float] = {}
        self._known = 0
        self._ended = np.zeros(view.compiled.arrays.stages.size, np.bool_)
        self._open: set[int] = set()

    def of(self, view: DecisionView, workflow: int) -> int:
        """Return the program that a workflow belongs to."""
        session = view.session(workflow)
        return session if session >= 0 else -1 - workflow

    def meet(self, view: DecisionView) -> None:
        """Add newly arrived workflows."""
        arrived = view.arrived
        for workflow in arrived[self._known :]:
            self.arrived.setdefault(self.of(view, workflow), view.arrival(workflow))
            self._open.add(workflow)
        self._known = len(arrived)

    def ended_calls(self, view: DecisionView) -> list[int]:
        """Return the calls that have ended since the last request, ordered by end."""
        stages, p = view.state.stages, view.compiled.arrays
        over = (stages["status"] == DONE) & (stages["note"] != VANISHED) & (p.stages["model"] >= 0)
        fresh = np.flatnonzero(over & ~self._ended)
        self._ended[fresh] = True
        calls: list[int] = fresh[np.argsort(stages["end"][fresh], kind="stable")].tolist()
        return calls

    def ended_workflows(self, view: DecisionView) -> list[int]:
        """Return the workflows that have ended since the last request."""
        left = view.state.workflows["left"]
        over = sorted(workflow for workflow in self._open if left[workflow] == 0)
        self._open.difference_update(over)
        return over

    def calls_of(self, view: DecisionView, workflow: int) -> int:
        """Count the calls of a workflow that have ended."""
        record = view.compiled.arrays.workflows[workflow]
        return int(self._ended[record["stages_from"] : record["stages_to"]].sum())


def running_tools(view: DecisionView) -> list[int]:
    """Return the tools that are running."""
    p = view.compiled.arrays
    under_way = view.state.stages["status"] == PLACED
    tools: list[int] = np.flatnonzero(under_way & (p.stages["kind"] == TOOL_STAGE)).tolist()
    return tools


def calls_before(view: DecisionView, tool: int) -> Iterator[int]:
    """Yield the calls that led to a tool: its parents, looking through tools among them."""
    p, vanished = view.compiled.arrays, view.state.stages["note"] == VANISHED
    for parent in view.parents(tool):
        if p.stages["kind"][parent] == TOOL_STAGE:
            yield from calls_before(view, parent)
        elif p.stages["model"][parent] >= 0 and not vanished[parent]:
            yield parent


def returned(view: DecisionView, stage: int) -> list[int]:
    """Return the calls that led to the tools whose results a ready stage has received."""
    kinds = view.compiled.arrays.stages["kind"]
    tools = [parent for parent in view.parents(stage) if kinds[parent] == TOOL_STAGE]
    return sorted({call for tool in tools for call in calls_before(view, tool)})


def keys_left(view: DecisionView, call: int) -> list[int]:
    """Return the keys of the prefixes that an ended call leaves cached, innermost first."""
    p = view.compiled.arrays
    key, keys = int(p.stages["written"][call]), []
    while key >= 0:
        keys.append(key)
        key = int(p.prefixes["parent"][key])
    return keys
