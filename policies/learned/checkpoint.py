"""Checkpoints of trained agents: ``weights.npz``, ``checkpoint.json`` and a card beside them.

Weights are plain arrays, read without pickle: a file from a stranger can be wrong, not harmful.
The JSON says what the weights are for: network, the environment's options, the names of the
features in their order, and where they come from.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from fate_gym.env.faults import bad
from fate_gym.env.features import CANDIDATES, DEVICES, GLOBALS, NODES, STAGES
from fate_gym.env.options import EnvOptions
from fate_gym.errors import InputError, near_matches

WEIGHTS = "weights.npz"
FACTS = "checkpoint.json"
CARD = "card.md"
SHIPPED = Path(__file__).parent / "checkpoints"

_ANEW = "train anew, or use the version of fate-gym that made it"
Arrays = dict[str, NDArray[np.float32]]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class NetworkSpec(_Frozen):
    """Which network, and its parameters."""

    kind: Literal["pointer", "graph", "mlp"] = "pointer"
    hidden: int = 32
    rounds: int = 2
    depth: int = 3

    @property
    def params(self) -> dict[str, int]:
        """Those that the network of this kind takes."""
        names = {"pointer": ("hidden", "rounds"), "graph": ("hidden", "rounds", "depth")}
        return {name: getattr(self, name) for name in names.get(self.kind, ("hidden",))}


class Sizes(_Frozen):
    """Sizes that the agent was trained with; they bind the plain MLP only."""

    devices: int
    models: int
    stages: int
    edges: int


class CheckpointFacts(_Frozen):
    """The content of ``checkpoint.json``."""

    format: Literal["fate-gym checkpoint 1"] = "fate-gym checkpoint 1"
    agent: str
    values: Literal["logits", "q"] = "logits"
    """What scores are: logits of MaskablePPO and of imitation, or values of DQN."""
    network: NetworkSpec
    env: EnvOptions
    sizes: Sizes
    features: dict[str, list[str]]
    """Names of the features of each group, in order."""
    weights_sha256: str
    training: dict[str, Any] = {}
    """Where the weights come from: data, seeds, steps, wall time, versions, commit, result."""


class Checkpoint:
    """A trained network and what it is for."""

    def __init__(self, facts: CheckpointFacts, weights: Arrays) -> None:
        self.facts, self.weights = facts, weights


def feature_names() -> dict[str, list[str]]:
    """The features that networks see, as this version has them."""
    groups = (STAGES, DEVICES, CANDIDATES, GLOBALS, NODES)
    return {group.key: [feature.name for feature in group.features] for group in groups}


def pack_weights(weights: Mapping[str, NDArray[Any]]) -> bytes:
    """The content of ``weights.npz``; equal weights give equal bytes."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(weights):
            array = io.BytesIO()
            np.save(array, np.asarray(weights[name], np.float32), allow_pickle=False)
            # A fixed date: the archive's bytes are hashed.
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), array.getvalue())
    return packed.getvalue()


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
    """Write a checkpoint; the JSON, which has the hash of the weights, comes last."""
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
    _replace(folder / WEIGHTS, packed)
    _replace(folder / FACTS, (facts.model_dump_json(indent=1) + "\n").encode())
    return facts


def load_checkpoint(place: str | Path) -> Checkpoint:
    """A checkpoint by the name of a shipped one, or by its directory.

    Raises:
        InputError: there is none, a file is damaged, or it is for another version's features.
    """
    folder = _find(place)
    facts = _read_facts(folder / FACTS)
    path = folder / WEIGHTS
    try:
        packed = path.read_bytes()
    except OSError as error:
        fault = f"cannot read the weights ({error.strerror})"
        raise bad(path, None, fault, "copy the whole directory of the checkpoint") from None
    if hashlib.sha256(packed).hexdigest() != facts.weights_sha256:
        fault = f"the weights are not those that {FACTS} describes"
        remedy = "the file is damaged or from another checkpoint: copy both anew"
        raise bad(path, "weights_sha256", fault, remedy)
    try:
        with np.load(io.BytesIO(packed), allow_pickle=False) as archive:
            weights = {name: archive[name] for name in archive.files}
    except (ValueError, OSError, zipfile.BadZipFile, EOFError) as error:
        fault = f"not an archive of arrays ({error})"
        raise bad(path, None, fault, "copy the file anew") from None
    if not all(np.isfinite(array).all() for array in weights.values()):
        remedy = "the training failed: take an earlier checkpoint"
        raise bad(path, None, "the weights hold values that are not finite", remedy)
    return Checkpoint(facts, weights)


def shipped_checkpoints() -> list[str]:
    """Names of the checkpoints that come with the package."""
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
    try:
        facts = CheckpointFacts.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or None
        fault = f"not a checkpoint of this version ({first['msg']})"
        raise bad(path, field, fault, _ANEW) from None
    for key, names in feature_names().items():
        found = facts.features.get(key)
        if found != names:
            other = next(
                (a for a, b in zip(names, found or [], strict=False) if a != b), "their number"
            )
            fault = f"the features of '{key}' are not those of this version (from {other!r} on)"
            raise bad(path, f"features.{key}", fault, _ANEW)
    return facts


def _replace(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(content)
    temporary.replace(path)
