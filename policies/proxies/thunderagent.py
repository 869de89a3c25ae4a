"""A proxy of ThunderAgent: programs are let in, paused and resumed by the memory they take."""

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
"""Seconds after which a program that acts counts less than a thousandth of what it was."""


@dataclass(eq=False, slots=True)
class Program:
    """The calls of one program with one model.

    Attributes:
        model: its number.
        backend: device that it is assigned to; ``NOWHERE``: new or paused.
        steps: calls so far.
        calls: that are ready or under way; without any it acts.
        since: when it began to act, or to wait.
        marked: is to be paused when what runs has ended.
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
    """Program-aware admission: what is active on a backend has to fit into its memory.

    Source: Kang et al., "ThunderAgent: A Simple, Fast and Program-Aware Agentic Inference System"
    (arXiv 2602.13692), as implemented at github.com/ThunderAgent-org/ThunderAgent
    (wiki/Scheduler.md, ThunderAgent/scheduler/router.py).

    Taken: a program reasons while a call of it runs or waits, and acts while its tools do. A
    backend counts the tokens of all its active programs, prefixes that they share once, and
    ``buffer_tokens`` for each. A new program goes to the backend with the fewest of those that have
    room for it, unless others wait; else it waits. Those that wait are resumed as far as all the
    room together allows, those with earlier calls first, then new ones, small ones first; of these
    the largest first goes to the backend with most room. Where more is active than fits, programs
    that act are paused, small ones first, then those that reason are marked, and paused when their
    calls have ended. When others are resumed, what acts counts half with each second that it has
    acted (an option of the published system). Who has waited ``patience`` seconds is let in.

    Inferred: checks are made at events, not every 5 seconds. Tokens are bytes, since models
    differ; memory for KV is what the weights of the active programs' models leave. The size of a
    program is that of the prompts of its calls, as routers see them; one that no backend could
    hold counts as large as the backend, and the last program of a backend is not paused. A program
    is a session with one of its models, or a workflow that belongs to none. No one tells when a
    session is over: after ten seconds between calls it does not count when others are resumed, and
    it is not resumed itself before its next call. If nothing else can happen all are let in. Calls
    on a backend are served first come first served, and eviction is the engine's own. Stages
    without a model go where the fewest stages are.

    Sees neither costs, what is cached, nor the graph ahead.

    Args:
        name: the policy's name in results.
        buffer_tokens: of each program.
        patience: seconds.
        boosted: the same programs are let in; each of their calls takes the device by EFT*.
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
        """Let programs in and pause them once an event; then start calls."""
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
        """The calls of programs that are active, and stages without a model."""
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
        """Bytes that are left for KV on a device, with the weights of one more ``model``."""
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
        """Bytes that a program takes on a device, no more than it has."""
        whole = float(self._memory[device] - self._weights[program.model])
        return min(program.size + self._buffer * float(self._kv[program.model]), whole)

    def assign(self, view: DecisionView, program: Program, hosts: NDArray[np.int64]) -> None:
        """Assign a program to the host with most room, whether that is enough or not."""
        rooms = np.zeros(view.devices)
        for device in hosts:
            rooms[device] = self.room(view, int(device), program.model)
        program.backend = least(-rooms, hosts)

    # --- programs --------------------------------------------------------------------------------

    def check(self, view: DecisionView) -> None:
        """Bring the programs up to date, resume those that wait, and pause where it is too much."""
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
        """Count a new call; a new program is let in if nobody waits and there is room."""
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
        """The device with the least that is active, of those that have room for a program."""
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
        """The programs that have calls and are assigned to no device, in the order of resuming."""
        held = [one for one in self._programs.values() if one.calls and one.backend == NOWHERE]
        return sorted(held, key=lambda one: (one.steps == 1, one.size))

    def resume(self, view: DecisionView) -> None:
        """Let programs in that wait: as many as fit into all the room, the largest first."""
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
