"""The scene that `foresight` plays forward: the shards of one device, and the state of its batch.

A scene is a block in a buffer that compiled code allocates, so that functions pass on only its
address. (With a tuple of arrays, reference counting in every call took half of the time.)
"""

from __future__ import annotations

from typing import Any

from fate_gym.jit import Block, Ints, Row, column, inlined, scalar, table


class SceneShard(Row):
    """A shard. Fields without a comment are those of `fate_gym.kernel.schema.Lane`."""

    stage: int = column("i8", "its stage")
    state: int = column("i8", "of its present wave")
    wave: int = column("i8", "queries of the present wave")
    waiting: int = column("i8", "queries whose wave is still to come")
    prompt: int = column("i8", "prompt tokens of the wave that are not computed yet")
    stop: int = column("i8", "of a decoding wave: the step count at which it ends")
    made: int = column(
        "i8", "tokens of each query so far; while it decodes, minus the steps so far"
    )
    again: int = column("i8", "1: its inputs are there already")
    begun: int = column("i8", "1: one of its waves has joined")
    source: int = column("i8", "the device that sends its prefix, -1: none")
    blind: int = column("i8", "1: as if nothing were loaded or cached for it")
    there: float = column("f8", "when its inputs and weights are there", "s")
    pair_s: float = column("f8", "attention of one of its prompt tokens", "s")
    context_hit: float = column("f8", "inherited tokens of a query that are cached", "tokens")
    end: float = column("f8", "when its last wave so far has ended", "s")


class Scene(Block):
    """A device while it is played forward, with N shards."""

    border: float = scalar("f8", "the present time: a border of the batch", "s")
    loaded: float = scalar("f8", "when the weights of the served model are there", "s")
    taken: float = scalar("f8", "KV of admitted waves", "bytes")
    sequences: int = scalar("i8", "admitted queries")
    serving: int = scalar("i8", "their model; -2: none is admitted")
    fetching: int = scalar("i8", "admitted waves that have not joined")
    decoding: int = scalar("i8", "queries that decode")
    context: int = scalar("i8", "tokens that they attend to")
    steps: int = scalar("i8", "decode steps so far")
    in_line: int = scalar("i8", "length of `line`")
    first_decoder: int = scalar("i8", "decoders[first_decoder:behind] decode")
    behind: int = scalar("i8", "see first_decoder")
    queue_head: int = scalar("i8", "no shard is queued before this position")
    look: int = scalar("i8", "1: the head of the queue has to be checked again")
    admitted: int = scalar("i8", "length of `inside`")
    unfinished: int = scalar("i8", "shards in `inside` that have further waves")
    # What is found out about the last shard.
    turn: float = scalar("f8", "its admission", "s")
    load: float = scalar("f8", "of its model", "s")
    transfer: float = scalar("f8", "until its inputs are there", "s")
    moved: float = scalar("f8", "that come from elsewhere", "bytes")
    copied: int = scalar("i8", "prefix tokens that another device sends")
    first: float = scalar("f8", "its first tokens", "s")

    shards: Any = table(SceneShard, "N", text="as they were or will be admitted")
    inside: Any = table("i8", "N", text="positions of admitted shards, in any order")
    line: Any = table(
        "i8", "N", text="positions of shards whose prompt is computed, as they joined"
    )
    decoders: Any = table("i8", "N", text="positions of decoding shards, by `stop`")


EMPTY = tuple(Scene.directory(N=0).tolist())
"""The directory of a scene without shards."""
EACH = tuple((Scene.directory(N=1) - Scene.directory(N=0)).tolist())
"""What each shard adds to `EMPTY`: columns of 8 bytes need no padding."""


@inlined
def scene_words(shards: int) -> int:
    """Return the length of the buffer of a scene, in words of 8 bytes."""
    return (EMPTY[0] + EACH[0] * shards) // 8


@inlined
def scene_in(words: Ints, shards: int) -> Scene:
    """Return a scene in a buffer of zeros, which the caller has to keep."""
    for i in range(len(EMPTY)):
        words[i] = EMPTY[i] + EACH[i] * shards
    address: Any = int(words.ctypes.data)
    return Scene(address)
