"""Checkpoints of trained agents: ``weights.npz``, ``checkpoint.json`` and a card.

Weights are plain arrays, read without pickle: a file from an untrusted source can be wrong but not
harmful. The JSON describes what the weights are for: the network, the environment's options and the
names of the features in order. It also describes how the weights were made.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from fate_gym.env.faults import bad
from fate_gym.env.features import CANDIDATES, DEVICES, GLOBALS, NODES, STAGES
from fate_gym.env.options import EnvOptions
from fate_gym.errors import InputError, near_matches
from fate_gym.files import replacing, write_text
from fate_gym.problem import Frozen, parse_json
from policies.learned.archive import MOST_PACKED, Arrays, pack_weights, unpack_weights

WEIGHTS = "weights.npz"
FACTS = "checkpoint.json"
CARD = "card.md"
SHIPPED = Path(__file__).parent / "checkpoints"

_ANEW = "train anew, or use the version of fate-gym that made it"
_MOST_FACTS = 2**20
"""Maximum size of ``checkpoint.json``, bytes."""
MOST_WEIGHT = 1e6
"""Largest weight allowed. Trained ones are below 100; products of much larger ones overflow."""

_READ = [group.key for group in (STAGES, DEVICES, CANDIDATES, GLOBALS)]
"""Groups of the observation that every network reads."""

Layers = Annotated[int, Field(ge=0, le=64)]
Size = Annotated[int, Field(ge=1, le=10**6)]


class NetworkSpec(Frozen):
    """The kind of a network and its parameters."""

    kind: Literal["pointer", "graph", "mlp"] = "pointer"
    hidden: Annotated[int, Field(ge=1, le=4096)] = 32
    rounds: Layers = 2
    depth: Layers = 3

    @property
    def params(self) -> dict[str, int]:
        """The parameters that a network of this kind takes."""
        names = {"pointer": ("hidden", "rounds"), "graph": ("hidden", "rounds", "depth")}
        return {name: getattr(self, name) for name in names.get(self.kind, ("hidden",))}


class Sizes(Frozen):
    """Sizes that the agent was trained with; only the plain MLP requires the same ones."""

    devices: Size
    models: Size
    stages: Size
    edges: Annotated[int, Field(ge=0, le=10**6)]


class CheckpointFacts(Frozen):
    """The content of ``checkpoint.json``."""

    format: Literal["fate-gym checkpoint 1"] = "fate-gym checkpoint 1"
    agent: str
    values: Literal["logits", "q"] = "logits"
    """Meaning of the scores: logits (MaskablePPO, supervised learning) or values (DQN)."""
    network: NetworkSpec
    env: EnvOptions
    sizes: Sizes
    features: dict[str, list[str]]
    """Names of the features of each group, in order."""
    weights_sha256: str
    training: dict[str, Any] = Field({})
    """How the weights were made: data, seeds, steps, wall time, versions, commit, result."""


class Checkpoint:
    """A trained network: its weights and the facts about it."""

    def __init__(self, facts: CheckpointFacts, weights: Arrays) -> None:
        self.facts, self.weights = facts, weights


def feature_names() -> dict[str, list[str]]:
    """Return the names of this version's features by group, in order."""
    groups = (STAGES, DEVICES, CANDIDATES, GLOBALS, NODES)
    return {group.key: [feature.name for feature in group.features] for group in groups}


def save_checkpoint(
    folder: Path,
    weights: Mapping[str, NDArray[Any]],
    *,
    agent: str,
    network: NetworkSpec,
    env: EnvOptions,
    sizes: Sizes,
    values: Literal["logits", "q"] = "logits",
    training: Mapping[str, Any] | None = None,
) -> CheckpointFacts:
    """Write a checkpoint: the weights, then the JSON, which contains their hash."""
    folder.mkdir(parents=True, exist_ok=True)
    packed = pack_weights(weights)
    facts = CheckpointFacts(
        agent=agent,
        values=values,
        network=network,
        env=env,
        sizes=sizes,
        features=feature_names(),
        weights_sha256=hashlib.sha256(packed).hexdigest(),
        training=dict(training or {}),
    )
    with replacing(folder / WEIGHTS) as temporary:
        temporary.write_bytes(packed)
    write_text(folder / FACTS, facts.model_dump_json(indent=1) + "\n")
    return facts


def load_checkpoint(place: str | Path) -> Checkpoint:
    """Load a checkpoint, given by its directory or by the name of a shipped one.

    Raises:
        InputError: there is none, a file is damaged, or its features are not this version's.
    """
    folder = _find(place)
    facts = _read_facts(folder / FACTS)
    path = folder / WEIGHTS
    packed = _read(path, MOST_PACKED)
    if hashlib.sha256(packed).hexdigest() != facts.weights_sha256:
        fault = f"the weights are not those that {FACTS} describes"
        remedy = "the file is damaged or from another checkpoint: copy both anew"
        raise bad(path, "weights_sha256", fault, remedy)
    try:
        weights = unpack_weights(packed)
    except ValueError as error:
        fault = f"not an archive of arrays ({error})"
        raise bad(path, None, fault, "copy the file anew") from None
    remedy = "the training failed: take an earlier checkpoint"
    for name, array in weights.items():
        if not np.isfinite(array).all():
            raise bad(path, None, f"the weights hold values that are not finite ({name})", remedy)
        if np.abs(array).max(initial=0.0) > MOST_WEIGHT:
            fault = f"the weights hold values beyond {MOST_WEIGHT:g} ({name})"
            raise bad(path, None, fault, remedy)
    return Checkpoint(facts, weights)


def shipped_checkpoints() -> list[str]:
    """Return the names of the checkpoints that are shipped with the package."""
    return sorted(path.parent.name for path in SHIPPED.glob(f"*/{FACTS}"))


def _find(place: str | Path) -> Path:
    for folder in (Path(place), SHIPPED / str(place)):
        if (folder / FACTS).is_file():
            return folder
    if Path(place).is_dir():
        remedy = "give the directory of a checkpoint, e.g. runs/train/NAME/best"
        raise bad(place, None, f"there is no {FACTS} in this directory", remedy)
    raise InputError(
        f"unknown checkpoint {str(place)!r}",
        field="checkpoint",
        remedy=f"give a directory, or {near_matches(str(place), shipped_checkpoints())}"
        if shipped_checkpoints()
        else "give the directory of a checkpoint",
    )


def _read_facts(path: Path) -> CheckpointFacts:
    content = parse_json(_read(path, _MOST_FACTS), source=path)
    try:
        facts = CheckpointFacts.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or None
        fault = f"not a checkpoint of this version ({first['msg']})"
        raise bad(path, field, fault, _ANEW) from None
    check_observation(facts.network, facts.env, path)
    for key, names in feature_names().items():
        found = facts.features.get(key)
        if found != names:
            fault = f"the features of '{key}' are not those of this version: "
            raise bad(path, f"features.{key}", fault + _changes(found or [], names), _ANEW)
    return facts


def _changes(old: list[str], new: list[str]) -> str:
    """Describe which features a checkpoint lacks, and which of its features are gone."""
    parts = [
        f"{what} {', '.join(map(repr, some[:8]))}" + (" and more" if len(some) > 8 else "")
        for what, some in (
            ("it does not know", [name for name in new if name not in old]),
            ("it knows", [name for name in old if name not in new]),
        )
        if some
    ]
    return "; ".join(parts) or "their order is another"


def check_observation(network: NetworkSpec, env: EnvOptions, source: str | Path) -> None:
    """Raise `InputError` if the observation lacks something that the network reads."""
    missing = [key for key in _READ if key not in env.observation]
    if missing:
        fault = f"networks read the group {missing[0]!r}, which is not shown"
        raise bad(source, "env.observation", fault, f"show {', '.join(_READ)}")
    if network.kind == "graph" and not env.dag:
        raise bad(source, "env.dag", "a graph network reads the graph", "set env.dag")


def _read(path: Path, most: int) -> bytes:
    """Return the content of a file, which must have at most ``most`` bytes."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > most:
                fault = f"a file of {size:,} bytes, more than {most:,}"
                raise bad(path, None, fault, "copy the file anew")
            return file.read(size)
    except OSError as error:
        fault = f"cannot read the file ({error.strerror})"
        raise bad(path, None, fault, "copy the whole directory of the checkpoint") from None
