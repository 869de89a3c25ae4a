"""A proxy of ThunderAgent: programs are admitted, paused and resumed by their memory use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from fate_gym.kernel.schema import DONE, PLACED
from policies.base import Assignment, Decision, DecisionView
from policies.bounds import CountOrNone, Period
from policies.proxies.base import Routed, least
from policies.proxies.programs import Programs

NOWHERE = -1
_FORGOTTEN_S = 10.0
"""Seconds after which an acting program counts less than a thousandth of its size."""


@dataclass(eq=False, slots=True)
class Program:
    """The calls of one program with one model.

    Attributes:
        model: number of the model.
        backend: device that the program is assigned to; ``NOWHERE``: new or paused.
        steps: number of calls so far.
        calls: calls that are ready or running; if there are none, the program is acting.
        since: when it began to act, or to wait.
        marked: whether it is to be paused when its running calls have ended.
        shared: bytes of each prefix key that its calls read.
        own: bytes beyond that.
    """

    model: int
    backend: int = NOWHERE
    steps: int = 0
    calls: set[int] = field(default_factory=set)
    since: float = 0.0
    marked: bool = False
    shared: dict[int, float] = field(default_factory=dict)
    own: float = 0.0

    @property
    def size(self) -> float:
        """Bytes of its context."""
        return self.own + sum(self.shared.values())


class Thunderagent(Routed):
    """Program-aware admission: the active programs of a backend must fit into its memory.

    Source: Kang et al., "ThunderAgent: A Simple, Fast and Program-Aware Agentic Inference System"
    (arXiv 2602.13692), as implemented at github.com/ThunderAgent-org/ThunderAgent
    (wiki/Scheduler.md, ThunderAgent/scheduler/router.py).

    Taken: a program reasons while a call of it runs or waits, and acts while its tools run. A
    backend counts the tokens of all its active programs, shared prefixes once, plus
    ``buffer_tokens`` per program. A new program goes to the backend with the fewest tokens among
    those that have room for it, unless others wait; else it waits. Waiting programs are selected
    while the total room lasts, those with earlier calls before new ones, small ones first; the
    selected ones, largest first, go to the backend with most room. Where the active programs do not
    fit, acting ones are paused, small ones first; then reasoning ones are marked, and paused when
    their calls have ended. For resuming, an acting program counts half as much with each second
    (an option of the published system). A program that has waited ``patience`` seconds is admitted.

    Inferred: checks are made at events, not every 5 seconds. Tokens are bytes, since models
    differ; memory for KV is what the weights of the active programs' models leave. The size of a
    program is that of the prompts of its calls, as routers see them; one that no backend could
    hold counts as large as the backend, and the last program of a backend is not paused. A program
    is a session with one of its models, or a workflow that belongs to no session. The end of a
    session is not announced: ten seconds after its last call it no longer counts when others are
    resumed, and it is not resumed itself before its next call. If nothing else can happen, all are
    admitted. Calls on a backend are served first come, first served, and eviction is the engine's
    own. Stages without a model go to the device with the fewest stages.

    Sees neither costs, what is cached, nor the graph ahead.

    Args:
        name: the policy's name in results.
        buffer_tokens: tokens reserved for each program.
        patience: longest wait before a program is admitted anyway, seconds.
        boosted: keep the admission, but choose the device of each call by EFT*.
    """

    def __init__(
        self,
        *,
        name: str = "thunderagent",
        buffer_tokens: CountOrNone = 100,
        patience: Period = 1800.0,
        boosted: bool = False,
    ) -> None:
        super().__init__(name=name)
        self._buffer, self._patience, self._by_finish = buffer_tokens, patience, boosted

    def reset(self, view: DecisionView, seed: int) -> None:
        """Forget the programs."""
        super().reset(view, seed)
        p = view.compiled.arrays
        self._sessions = Programs(view)
        self._programs: dict[tuple[int, int], Program] = {}
        self._of: dict[int, Program] = {}
        self._memory = p.devices["memory"].copy()
        self._weights, self._kv = p.models["weight_bytes"].copy(), p.models["kv"].copy()
        self._checked_at = -1

    def decide(self, view: DecisionView) -> Sequence[Decision]:
        """Admit and pause programs once per event; then start calls."""
        if self._checked_at != view.instant:
            self._checked_at = view.instant
            self.check(view)
        if not self._by_finish:
            return super().decide(view)
        for stage in self.admitted(view, view.ready):
            device = least(view.end_estimates(stage), view.eligible(stage))
            if view.starts_now(stage)[device]:
                if stage in self._of:
                    self._of[stage].backend = device
                return [Assignment(stage, (device,))]
        return []

    def admitted(self, view: DecisionView, ready: Sequence[int]) -> Sequence[int]:
        """Return the calls of active programs, and stages without a model."""
        active = [s for s in ready if s not in self._of or self._of[s].backend != NOWHERE]
        if active or view.can_wait:
            return active
        for stage in ready:
            self.assign(view, self._of[stage], view.eligible(stage))
        return ready

    def route(self, view: DecisionView, stage: int) -> int:
        eligible = view.eligible(stage)
        if stage not in self._of:
            return least(self.load(), eligible)
        program = self._of[stage]
        if program.backend not in eligible:
            self.assign(view, program, eligible)
        return program.backend

    # --- memory ----------------------------------------------------------------------------------

    def room(
        self, view: DecisionView, device: int, model: int | None = None, *, decay: bool = False
    ) -> float:
        """Bytes left for KV on a device, if the weights of ``model`` are there too."""
        active = [one for one in self._programs.values() if one.backend == device]
        if decay:
            active = [one for one in active if one.calls or view.now - one.since <= _FORGOTTEN_S]
        models = {one.model for one in active} | ({model} if model is not None else set())
        room = float(self._memory[device]) - sum(float(self._weights[m]) for m in models)
        shared: dict[int, float] = {}
        for one in active:
            if one.marked:
                continue
            weight = 2.0 ** (one.since - view.now) if decay and not one.calls else 1.0
            room -= weight * one.own + self._buffer * float(self._kv[one.model])
            for key, size in one.shared.items():
                shared[key] = max(shared.get(key, 0.0), weight * size)
        return room - sum(shared.values())

    def need(self, program: Program, device: int) -> float:
        """Bytes that a program takes on a device, at most what the device has for it."""
        whole = float(self._memory[device] - self._weights[program.model])
        return min(program.size + self._buffer * float(self._kv[program.model]), whole)

    def assign(self, view: DecisionView, program: Program, hosts: NDArray[np.int64]) -> None:
        """Assign a program to the host with most room, even if that is not enough."""
        rooms = np.zeros(view.devices)
        for device in hosts:
            rooms[device] = self.room(view, int(device), program.model)
        program.backend = least(-rooms, hosts)

    # --- programs --------------------------------------------------------------------------------

    def check(self, view: DecisionView) -> None:
        """Update the programs, resume waiting ones, and pause where memory is overcommitted."""
        status = view.state.stages["status"]
        left = view.state.workflows["left"]
        for key, program in list(self._programs.items()):
            over = {call for call in program.calls if status[call] == DONE}
            program.calls -= over
            if over and not program.calls:
                program.since = view.now
            if key[0] < 0 and left[-1 - key[0]] == 0:
                del self._programs[key]
            elif program.marked and not any(status[call] == PLACED for call in program.calls):
                program.backend, program.marked = NOWHERE, False
                for call in program.calls:
                    self.withdraw(view, call)
        for stage in view.ready:
            if stage not in self._of and view.request(stage).model >= 0:
                self.meet(view, stage)
        self.resume(view)
        for device in range(view.devices):
            self.pause(view, device)

    def meet(self, view: DecisionView, stage: int) -> None:
        """Add a new call; admit its program if it is new, no other waits and there is room."""
        request = view.request(stage)
        key = self._sessions.of(view, request.workflow), request.model
        program = self._programs.setdefault(key, Program(request.model))
        if not program.calls:
            program.since, program.own, program.shared = view.now, 0.0, {}
        kv = float(self._kv[request.model])
        program.calls.add(stage)
        program.steps += 1
        program.own += request.queries * request.own_tokens * kv
        for (prefix, tokens), (_, start) in pairwise([*view.prefix_path(stage), (NOWHERE, 0)]):
            size = (tokens - start) * kv
            program.shared[prefix] = max(program.shared.get(prefix, 0.0), size)
        self._of[stage] = program
        if program.steps == 1 and len(self.waiting()) == 1:
            program.backend = self.fewest(view, program, stage)

    def fewest(self, view: DecisionView, program: Program, stage: int) -> int:
        """Of the devices with room for a program, return the one with the fewest active bytes."""
        hosts = [
            int(device)
            for device in view.eligible(stage)
            if self.room(view, int(device), program.model) >= self.need(program, int(device))
        ]
        if not hosts:
            return NOWHERE
        active = np.zeros(view.devices)
        for one in self._programs.values():
            if one.backend != NOWHERE:
                active[one.backend] += one.size
        return least(active, np.asarray(hosts))

    def waiting(self) -> list[Program]:
        """Return the programs that have calls but no device, in the order of resuming."""
        held = [one for one in self._programs.values() if one.calls and one.backend == NOWHERE]
        return sorted(held, key=lambda one: (one.steps == 1, one.size))

    def resume(self, view: DecisionView) -> None:
        """Resume waiting programs: select as many as fit in total, and place the largest first."""
        held = self.waiting()
        if not held:
            return
        ready = set(view.ready)
        rooms = np.array([self.room(view, d, decay=True) for d in range(view.devices)])
        left = float(np.maximum(rooms, 0.0)[view.up].sum())
        chosen = []
        for program in held:
            pending = ready & program.calls
            if not pending:
                continue  # its hosts are down
            hosts = view.eligible(min(pending))
            size = min(self.need(program, int(device)) for device in hosts)
            if size <= left:
                chosen.append((program, hosts))
                left -= size
            elif view.now - program.since >= self._patience:
                self.assign(view, program, hosts)
        for program, hosts in sorted(chosen, key=lambda one: -one[0].size):
            best = np.full(view.devices, -np.inf)
            for device in hosts:
                best[device] = self.room(view, int(device), program.model, decay=True)
            device = least(-best, hosts)
            if self.need(program, device) <= best[device]:
                program.backend = device

    def pause(self, view: DecisionView, device: int) -> None:
        """Pause or mark programs of a device until the rest fits, small ones first."""
        while self.room(view, device) < 0.0:
            active = [
                one for one in self._programs.values() if one.backend == device and not one.marked
            ]
            if len(active) < 2:
                return
            program = min(active, key=lambda one: (bool(one.calls), one.size))
            if program.calls:
                program.marked = True
            else:
                program.backend = NOWHERE
