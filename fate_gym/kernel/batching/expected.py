"""Expected ends of loads and fetches under way, without knowledge of their actual noise.

Their noise shows only once they are over.
"""

from __future__ import annotations

from fate_gym.jit import inlined, kernel
from fate_gym.kernel.draws import noise_factor
from fate_gym.kernel.numbers import slot_of
from fate_gym.kernel.schema import GRAZE, ProblemArrays, StateArrays


@inlined
def loaded_by(p: ProblemArrays, st: StateArrays, d: int, drawn: int) -> float:
    """Return when the weights of the model that ``d`` serves are there.

    With ``drawn`` by the noise that the state's seed draws, otherwise without noise. The load began
    with the first admitted wave.
    """
    batch = st.batches[d]
    if batch.loaded_at <= st.now or batch.admitted < 0 or batch.serving < 0:
        return batch.loaded_at
    s, k = slot_of(p, batch.admitted)
    noise = noise_factor(p, st, s, k, d) if drawn else 1.0
    return max(st.now, st.lanes[s, k].admitted_at + p.load_seconds[batch.serving, d] * noise)


@kernel
def there_by(
    p: ProblemArrays, st: StateArrays, s: int, k: int, was: float, loaded: float, noise: float
) -> float:
    """Return when the inputs of the admitted wave in a slot are there, under another ``noise``.

    Args:
        p: the problem.
        st: the state.
        s: stage of the slot.
        k: shard of the slot.
        was: when its weights are there according to the state.
        loaded: when they are there under the other noise.
        noise: factor in place of the lane's own.
    """
    lane = st.lanes[s, k]
    launch = 0.0 if p.stages[s].model < 0 else p.devices[st.slots[s, k].device].launch_s
    there = lane.admitted_at + (lane.there - lane.admitted_at) * noise / lane.noise
    if abs(lane.there - launch * lane.noise - was) <= GRAZE:
        there = loaded + launch * noise  # the wave waits for the weights
    return max(st.now, there)
