"""What moves to a shard, and how long it takes.

Re-implements the paragraphs "Transfer" and "Copied prefixes" and the section "Contention" of
docs/execution-model.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from fate_gym.validator.memory import cached_of, find_hits, prefix_path
from fate_gym.validator.state import Fetch, Flow, Hits, Row, Shard, State, close
from fate_gym.validator.world import HOST, Link, Node, World


@dataclass
class Inflow:
    """What a shard needs before it can begin, and its turn on the device."""

    turn: float
    hits: Hits
    flows: list[Flow]
    transfer: float = 0.0
    """Seconds from the turn until everything is there."""
    fetch: Fetch | None = None

    @property
    def bytes_moved(self) -> float:
        return math.fsum(flow.bytes for flow in self.flows)


def inflow_of_tool(state: State, node: Node, row: Row) -> Inflow:
    """Return what moves to a tool."""
    now, flows = row["committed"], flows_into(state, node, row)
    return Inflow(now, Hits(0, {}), flows, seconds_from(state, flows, now))


def inflow_of_shard(state: State, node: Node, row: Row) -> Inflow:
    """Return what moves to a shard on a device."""
    device, now = row["device"], row["committed"]
    memory = state.memories[device]
    planned = _expected_turn(state, device, now)
    inflow = Inflow(
        max(now, memory.drains), find_hits(state, node, memory), flows_into(state, node, row)
    )
    if row["source"] != -1:
        planned = max(planned, _copy_prefix(state, node, row, inflow))
    if state.world.problem.options.contention:
        queues = (_queue(state, other, now) for other in range(len(state.placed)))
        booked = [shard.fetch for queue in queues for shard in queue if shard.fetch]
        book(state, inflow, state.world.machines[device].node, planned, booked)
    else:
        inflow.transfer = seconds_from(state, inflow.flows, inflow.turn)
    return inflow


def flows_into(state: State, node: Node, row: Row) -> list[Flow]:
    """Return what a shard fetches from its parents."""
    share = row["queries"] / node.stage.queries
    flows: list[Flow] = []
    for parent, edge in node.parents:
        if edge.bytes == 0 or parent in state.vanished_by:
            continue
        done = state.done[parent]
        for place, shard in done.shards.items():
            link = _link(state.world, place, row["device"], away=place in done.away)
            if link is not None:
                part = shard.row["queries"] / done.node.stage.queries
                flows.append(Flow(link, edge.bytes * share * part, done.end))
    return flows


def _link(world: World, place: int, target: int, *, away: bool) -> Link | None:
    """Return the link from where an output was computed to where it is needed; None if local.

    With ``away`` the device has failed since, and its output is on its host.
    """
    if place == target and not away:
        return None
    if target == HOST:
        return None if away else world.link_to_host(place)
    return world.link(HOST if place == target else place, target)


def seconds_from(state: State, flows: list[Flow], start: float) -> float:
    """Return the seconds from ``start`` until everything is there, without contention."""
    if state.world.problem.options.eager_transfers:
        there = max((flow.since + flow.seconds for flow in flows), default=start)
        return max(0.0, there - start)
    links: dict[tuple[str, str], float] = {}
    for flow in flows:
        links[flow.link.key] = links.get(flow.link.key, 0.0) + flow.seconds
    return max(links.values(), default=0.0)


def _copy_prefix(state: State, node: Node, row: Row, inflow: Inflow) -> float:
    """Add a prefix that is copied from another device; return when it is expected there."""
    source, device, now = row["source"], row["device"], row["committed"]
    where = f"{state.at(row)}: source: device {source}"
    if source == device or not 0 <= source < len(state.memories) or node.model is None:
        state.faults.stop(f"{where} has nothing to copy from")
    memory, hits, path = state.memories[source], inflow.hits, prefix_path(state, node)
    copied = cached_of(memory, path) - hits.prefix
    if copied <= 0:
        state.faults.stop(f"{where} caches no more of the prefix")
    there = max(now, memory.touch_path([piece.key for piece in path]))
    size = copied * node.model.kv_bytes_per_token
    inflow.flows.append(Flow(state.world.link(source, device), size, there))
    inflow.hits = replace(hits, prefix=hits.prefix + copied, copied=copied)
    inflow.turn = max(inflow.turn, there)
    late = there > now and not close(there, now)
    return _expected_turn(state, source, now) if late and _is_noisy(state) else there


def _is_noisy(state: State) -> bool:
    options = state.world.problem.options
    return options.uncertainty > 0 or options.length_uncertainty > 0


def _queue(state: State, device: int, now: float) -> list[Shard]:
    """Return the shards that run or wait on a device, by the ends in the trace."""
    return [shard for shard in state.placed[device] if shard.row["end"] > now]


def _expected_turn(state: State, device: int, now: float) -> float:
    """Return when the queue of a device drains, as far as can be known."""
    if not _is_noisy(state):
        return max(now, state.memories[device].drains)
    queue = _queue(state, device, now)
    if not queue:
        return now
    running = max(now, queue[0].turn + queue[0].busy)
    return running + math.fsum(shard.busy for shard in queue[1:])


def book(state: State, inflow: Inflow, receiver: str, planned: float, booked: list[Fetch]) -> None:
    """Book the first gap in the network that is wide enough, from the planned turn on."""
    # A transfer of zero duration (a fraction of a byte) fits between two others.
    network = [flow for flow in inflow.flows if flow.link.key[0] == "node" and flow.seconds > 0]
    others = [flow for flow in inflow.flows if flow.link.key[0] != "node"]
    inflow.transfer = seconds_from(state, others, planned)
    if not network:
        return
    length = math.fsum(flow.seconds for flow in network)
    senders = frozenset(flow.link.key[1] for flow in network)
    # Candidates are the turn and the ends of other fetches: take the first that meets none.
    moments = {planned} | {fetch.end for fetch in booked if fetch.end > planned}
    fetches = (Fetch(receiver, senders, t, t + length) for t in sorted(moments))
    fetch = next(one for one in fetches if not any(one.meets(other) for other in booked))
    inflow.transfer = max(inflow.transfer, fetch.start - planned + length)
    inflow.fetch = fetch
