from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fate_gym.errors import InputError
from policies import make_policy
from policies.learned.agent import make_agent
from policies.learned.checkpoint import (
    CARD,
    FACTS,
    SHIPPED,
    WEIGHTS,
    NetworkSpec,
    Sizes,
    feature_names,
    load_checkpoint,
    pack_weights,
    save_checkpoint,
    shipped_checkpoints,
)
from tests.policies.learned.problems import OPTIONS, observations, random_weights, smoke

SIZES = Sizes(devices=8, models=4, stages=50, edges=80)


def save(folder: Path, **change: Any) -> Path:
    given: dict[str, Any] = {
        "agent": "test",
        "network": NetworkSpec(kind="pointer", hidden=8),
        "env": OPTIONS,
        "sizes": SIZES,
        "training": {"seed": 3},
    }
    save_checkpoint(folder, change.pop("weights", random_weights()), **(given | change))
    return folder


def test_round_trip(tmp_path: Path) -> None:
    loaded = load_checkpoint(save(tmp_path / "c"))
    weights = random_weights()
    assert sorted(loaded.weights) == sorted(weights)
    assert all(np.array_equal(loaded.weights[name], weights[name]) for name in weights)
    assert loaded.facts.env == OPTIONS
    assert loaded.facts.training == {"seed": 3}
    (seen,) = observations(smoke()[0], count=1)
    assert np.isfinite(make_agent(loaded).scores(seen)).any()


def test_equal_weights_give_equal_bytes() -> None:
    shuffled = dict(reversed(list(random_weights().items())))
    assert pack_weights(random_weights()) == pack_weights(shuffled)


@pytest.mark.parametrize("name", shipped_checkpoints())
def test_shipped_checkpoints_play_and_have_a_card(name: str) -> None:
    loaded = load_checkpoint(name)
    assert loaded.facts.training
    assert (SHIPPED / name / CARD).is_file()
    (seen,) = observations(smoke()[0], count=1, **loaded.facts.env.model_dump())
    assert np.isfinite(make_agent(loaded).scores(seen)).any()


def _cut(folder: Path) -> None:
    path = folder / WEIGHTS
    path.write_bytes(path.read_bytes()[:-100])


def _foreign_weights(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes(pack_weights(random_weights(seed=1)))


def _no_weights(folder: Path) -> None:
    (folder / WEIGHTS).unlink()


def _edit(folder: Path, **change: Any) -> None:
    path = folder / FACTS
    path.write_text(json.dumps(json.loads(path.read_text()) | change))


def _other_format(folder: Path) -> None:
    _edit(folder, format="fate-gym checkpoint 9")


def _other_features(folder: Path) -> None:
    facts = json.loads((folder / FACTS).read_text())
    facts["features"]["stages"][3] = "colour"
    _edit(folder, features=facts["features"])


def _not_json(folder: Path) -> None:
    (folder / FACTS).write_text("PK\x03\x04")


def _no_json(folder: Path) -> None:
    (folder / FACTS).unlink()


@pytest.mark.parametrize(
    "damage",
    [
        _cut,
        _foreign_weights,
        _no_weights,
        _other_format,
        _other_features,
        _not_json,
        _no_json,
    ],
)
def test_damaged_and_foreign_checkpoints(tmp_path: Path, damage: Any) -> None:
    folder = save(tmp_path / "c")
    damage(folder)
    with pytest.raises(InputError) as raised:
        make_policy("learned", checkpoint=str(folder))
    assert raised.value.remedy
    assert raised.value.source is not None


def test_a_checkpoint_of_an_older_observation_says_which_features_changed(tmp_path: Path) -> None:
    folder = save(tmp_path / "c")
    facts = json.loads((folder / FACTS).read_text())
    devices = facts["features"]["devices"]
    devices.remove("wanted")
    devices[0] = "there"
    _edit(folder, features=facts["features"])
    with pytest.raises(InputError) as raised:
        load_checkpoint(folder)
    assert raised.value.field == "features.devices"
    assert "does not know 'present', 'wanted'; it knows 'there'" in raised.value.fault
    devices[:] = [*reversed(feature_names()["devices"])]
    _edit(folder, features=facts["features"])
    with pytest.raises(InputError, match="their order is another"):
        load_checkpoint(folder)


def test_no_pickle_is_ever_read(tmp_path: Path) -> None:
    folder = save(tmp_path / "c")
    import hashlib
    import io

    packed = io.BytesIO()
    np.savez(packed, **{"score.weight": np.array([object()])})  # type: ignore[arg-type]
    (folder / WEIGHTS).write_bytes(packed.getvalue())
    _edit(folder, weights_sha256=hashlib.sha256(packed.getvalue()).hexdigest())
    with pytest.raises(InputError, match="not an archive of arrays"):
        load_checkpoint(folder)


def test_weights_that_are_not_finite(tmp_path: Path) -> None:
    weights = random_weights()
    weights["score.bias"][0] = np.nan
    with pytest.raises(InputError, match="not finite"):
        load_checkpoint(save(tmp_path / "c", weights=weights))


def test_weights_of_another_size(tmp_path: Path) -> None:
    folder = save(tmp_path / "c", weights=random_weights(hidden=8) | {"score.weight": np.ones(3)})
    with pytest.raises(InputError, match="not those of the network"):
        make_agent(load_checkpoint(folder))


def test_unknown_checkpoint() -> None:
    with pytest.raises(InputError, match="unknown checkpoint 'nonesuch'") as raised:
        make_policy("learned", checkpoint="nonesuch")
    assert raised.value.field == "checkpoint"


def test_a_network_that_needs_torch_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = OPTIONS.model_copy(update={"dag": True})
    folder = save(tmp_path / "c", network=NetworkSpec(kind="graph", hidden=8), env=shown)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(InputError, match="extra 'rl'") as raised:
        make_agent(load_checkpoint(folder))
    assert "pip install" in (raised.value.remedy or "")


def test_the_pointer_network_plays_without_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    assert make_policy("learned", checkpoint=str(save(tmp_path / "c"))).name == "learned"
