"""Real trainings, as small as possible."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("sb3_contrib")

from fate_gym.errors import InputError  # noqa: E402
from fate_gym.lab.errors import JobFailedError  # noqa: E402
from fate_gym.lab.training import labels, learner, loop  # noqa: E402
from fate_gym.lab.training.config import ProblemSet, Seeds, TrainConfig, parse_train_config  # noqa: E402
from fate_gym.lab.training.evaluation import EvaluationSet  # noqa: E402
from fate_gym.lab.training.problems import build_problems  # noqa: E402
from fate_gym.lab.training.result import read_train_result  # noqa: E402
from fate_gym.lab.training.state import check_stored, read_progress  # noqa: E402
from fate_gym.sim import CompiledProblem, Simulator, compile_problem  # noqa: E402
from policies import make_policy  # noqa: E402
from policies.learned.checkpoint import load_checkpoint  # noqa: E402
from tests.policies.learned.problems import two_speeds  # noqa: E402

ROOT = Path(__file__).resolve().parents[3]
PPO = {
    "algorithm": "ppo",
    "steps": 3072,
    "lanes": 8,
    "rollout": 64,
    "batch_size": 128,
    "epochs": 4,
    "learning_rate": 0.005,
}

AGENT = {"name": "x", "network": {}, "learning": PPO}
LEARNING_RATE = "agent.learning.ppo.learning_rate"


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> list[CompiledProblem]:
    """Replace all problems by one: eight equal stages, a fast device and a slow one."""
    return _replace_problems(monkeypatch)


def _replace_problems(patch: pytest.MonkeyPatch) -> list[CompiledProblem]:
    problems = [compile_problem(two_speeds(8))]
    patch.setattr(loop, "build_problems", lambda *_, **__: [problems])
    return problems


def config(runs: Path, seed: int = 0, **agent: Any) -> TrainConfig:
    """Return a training whose problems `toy` replaces."""
    some = {"suites": ["real_dag_train"], "seeds": {"first": 0, "count": 1}, "max_stages": 45}
    given = {"name": "toy", "network": {"kind": "pointer", "hidden": 8, "rounds": 1}}
    return parse_train_config(
        {
            "agent": given | agent,
            "env": {"window": 3, "max_shards": 1},
            "reward": {"kind": "shaped"},
            "curriculum": {
                "name": "toy",
                "phases": [{"problems": [some], "share": 1.0}, {"problems": [some], "share": 1.0}],
                "validation": [some],
                "test": [some],
            },
            "validation": {"every": 1024, "patience": 9},
            "seed": seed,
            "test": True,
            "tracking": {"mode": "none"},
            "paths": {"runs": str(runs)},
        }
    )


def hush(_: str) -> None:
    """Ignore a line of progress."""


def random_ratio(problems: list[CompiledProblem]) -> float:
    validation = EvaluationSet([problems])
    return float(np.mean([validation.score(_seeded(seed)).latency_ratio for seed in range(10)]))


def _seeded(seed: int) -> Any:
    policy = make_policy("random")
    reset = policy.reset
    policy.reset = lambda view, _: reset(view, seed)  # type: ignore[method-assign]
    return policy


@pytest.mark.parametrize(
    "agent",
    [
        {"learning": PPO},
        {"learning": PPO, "network": {"kind": "graph", "hidden": 8, "rounds": 1, "depth": 2}},
        {"learning": PPO, "network": {"kind": "mlp", "hidden": 32}},
        {
            "learning": {
                "algorithm": "dqn",
                "steps": 4096,
                "lanes": 8,
                "buffer_size": 4000,
                "learning_starts": 200,
                "batch_size": 128,
                "gradient_steps": 8,
                "learning_rate": 0.003,
                "target_update_interval": 400,
            }
        },
        {
            "iteration": {
                "states": 300,
                "rounds": 5,
                "epochs": 20,
                "batch_size": 32,
                "share": 1.0,
                "learning_rate": 0.01,
            }
        },
        {
            "imitation": {
                "teachers": ["heft_boosted"],
                "states": 60,
                "rounds": 2,
                "epochs": 60,
                "batch_size": 32,
            }
        },
    ],
    ids=["ppo", "graph", "mlp", "dqn", "iteration", "heft"],
)
def test_every_agent_learns_what_is_easy(
    agent: dict[str, Any], toy: list[CompiledProblem], tmp_path: Path
) -> None:
    result, directory = loop.train(config(tmp_path, **agent), say=hush)
    assert result.best < 0.9 * random_ratio(toy)
    assert result.test is not None
    # The checkpoint is what the result says of it.
    policy = make_policy("learned", checkpoint=str(directory / loop.BEST))
    assert EvaluationSet([toy]).score(policy).latency_ratio == pytest.approx(result.best)
    assert (directory / "gantt.png").stat().st_size > 1000
    assert f"{result.best:.4f}" in (directory / loop.BEST / "card.md").read_text()


def test_what_was_stopped_goes_on_as_if_nothing_had_happened(
    toy: list[CompiledProblem], tmp_path: Path
) -> None:
    agent = {
        "imitation": {"teachers": ["heft_boosted"], "states": 40, "rounds": 2, "epochs": 3},
        "iteration": {"states": 40, "rounds": 2, "epochs": 2, "kept": 1},
        "learning": PPO | {"anchor": 0.1, "discount": 0.99},
    }
    whole, there = loop.train(config(tmp_path / "whole", **agent), say=hush)
    broken = config(tmp_path / "broken", **agent)
    said: list[str] = []

    def pull_the_plug(line: str) -> None:
        said.append(line)
        if len(said) in (4, 9) or " 2048 steps" in line:
            raise KeyboardInterrupt

    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            loop.train(broken, say=pull_the_plug)
        assert read_train_result(broken.directory) is None
    result, here = loop.train(broken, say=hush)
    assert (result.best, result.steps) == (whole.best, whole.steps)
    for name in ("state/model.zip", "best/weights.npz"):
        assert (there / name).exists()
    ours, theirs = (load_checkpoint(place / loop.BEST).weights for place in (here, there))
    assert all(np.array_equal(ours[name], theirs[name]) for name in theirs)
    curves = [read_progress(place)[0].curve for place in (here, there)]
    for row in (row for curve in curves for row in curve):
        del row["seconds"]
    assert curves[0] == curves[1]
    assert "train/value_loss" in curves[0][-1]
    # And once it is done it is done.
    said.clear()
    again, _ = loop.train(broken, say=said.append)
    assert again == result
    assert "done before" in said[0]


@pytest.mark.slow
def test_killed_with_sigkill(tmp_path: Path) -> None:
    command = [
        sys.executable, str(ROOT / "scripts" / "train.py"), "agent=maskable_ppo",
        "curriculum=demo", "agent.learning.steps=6144", "agent.learning.lanes=16",
        "agent.learning.rollout=64", "agent.network.hidden=8", "validation.every=2048",
        "tracking=none",
    ]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [*command, f"paths.runs={tmp_path}"],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as training:
        assert training.stdout is not None
        for line in training.stdout:
            if "4096 steps" in line:
                break
        training.send_signal(signal.SIGKILL)
    assert training.returncode == -signal.SIGKILL
    done = subprocess.run(
        [*command, f"paths.runs={tmp_path}"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    assert "goes on after" in done.stdout
    (directory,) = (tmp_path / "train" / "demo" / "maskable_ppo").iterdir()
    result = read_train_result(directory)
    assert result is not None
    assert result.steps == 6144


def test_parameters_that_are_not_finite_stop_the_training(
    toy: list[CompiledProblem], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    imitated = {"teachers": ["heft_boosted"], "states": 40, "rounds": 1, "epochs": 2}
    chosen = config(tmp_path, learning=PPO, imitation=imitated)
    learn = learner.MaskablePPO.learn

    def poisoned(model: Any, *args: Any, **kwargs: Any) -> Any:
        with torch.no_grad():
            next(model.policy.parameters())[0] = float("nan")
        return learn(model, *args, **kwargs)

    monkeypatch.setattr(learner.MaskablePPO, "learn", poisoned)
    with pytest.raises(JobFailedError, match=r"not finite.*the best checkpoint before that"):
        loop.train(chosen, say=hush)
    assert "not finite" in (chosen.directory / "FAILED").read_text()
    assert np.isfinite(load_checkpoint(chosen.directory / loop.BEST).weights["score.bias"]).all()
    # Without the poison the same command goes on from the last state.
    monkeypatch.setattr(learner.MaskablePPO, "learn", learn)
    result, _ = loop.train(chosen, say=hush)
    assert result.steps == PPO["steps"]
    assert not (chosen.directory / "FAILED").exists()


@pytest.mark.parametrize(
    "agent",
    [
        {"learning": PPO | {"learning_rate": 1000.0, "max_grad_norm": 1e6}},
        {"learning": PPO | {"learning_rate": 1000.0}, "network": {"kind": "graph", "hidden": 8}},
        {
            "imitation": {
                "teachers": ["heft_boosted"],
                "states": 40,
                "rounds": 1,
                "epochs": 30,
                "learning_rate": 1000.0,
            }
        },
    ],
    ids=["ppo", "graph", "imitation"],
)
def test_a_learning_rate_that_is_far_too_large_fails_in_one_line(
    agent: dict[str, Any], toy: list[CompiledProblem], tmp_path: Path
) -> None:
    """Parameters of 1e30 are finite; what torch makes of them is not."""
    chosen = config(tmp_path, **agent)
    step = torch.optim.Adam.step

    def giant(self: Any, *args: Any, **kwargs: Any) -> Any:
        for group in self.param_groups:
            group["lr"] = 1e30
        return step(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.Adam, "step", giant)
        with pytest.raises(JobFailedError, match="not finite"):
            loop.train(chosen, say=hush)
    (line,) = (chosen.directory / "FAILED").read_text().splitlines()
    assert "a lower learning rate may help" in line


def test_patience_ends(toy: list[CompiledProblem], tmp_path: Path) -> None:
    chosen = config(tmp_path, learning=PPO | {"steps": 100_000, "learning_rate": 1e-9})
    chosen = chosen.model_copy(
        update={"validation": chosen.validation.model_copy(update={"patience": 2})}
    )
    result, _ = loop.train(chosen, say=hush)
    assert result.steps == 3 * 1024
    assert result.stopped is not None


def test_test_families_are_not_for_training(tmp_path: Path) -> None:
    (some,) = config(tmp_path, learning=PPO).curriculum.phases[0].problems
    for suite in ("real_dag_test", "real_dag", "agentic_test"):
        with pytest.raises(InputError, match="kept for testing"):
            build_problems([some.model_copy(update={"suites": (suite,)})], train=True)
    with pytest.raises(InputError, match="no problem is chosen"):
        build_problems([some.model_copy(update={"max_stages": 1})], train=True)


def test_problems_come_by_kind(tmp_path: Path) -> None:
    (some,) = config(tmp_path, learning=PPO).curriculum.phases[0].problems
    both = some.model_copy(
        update={"clusters": ("mixed_8", "mixed_12"), "executions": ("exclusive", "batching")}
    )
    groups = build_problems([both, some], train=True)
    clusters = [{(p.problem.cluster.id, p.problem.cluster.execution) for p in g} for g in groups]
    assert clusters == [
        {("mixed_8", "exclusive")},
        {("mixed_8", "batching")},
        {("mixed_12", "exclusive")},
        {("mixed_12", "batching")},
        {("mixed_12", "exclusive")},
    ]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"reward": {"kind": "fame"}}, "reward.kind"),
        ({"env": {"windows": 3}}, None),
        ({"validation": {"every": 0, "patience": 1}}, "validation.every"),
        ({"curriculum": None}, None),
        ({"agent": {"name": "x", "network": {}}}, "agent"),
        ({"agent": AGENT | {"network": {"hidden": -5}}}, "agent.network.hidden"),
        ({"agent": AGENT | {"network": {"hidden": 0}}}, "agent.network.hidden"),
        ({"agent": AGENT | {"network": {"hidden": 10**9}}}, "agent.network.hidden"),
        ({"agent": AGENT | {"network": {"rounds": -1}}}, "agent.network.rounds"),
        ({"agent": AGENT | {"network": {"depth": True}}}, "agent.network.depth"),
        ({"agent": AGENT | {"learning": PPO | {"learning_rate": 1e30}}}, LEARNING_RATE),
        ({"agent": AGENT | {"learning": PPO | {"learning_rate": float("nan")}}}, LEARNING_RATE),
        ({"agent": AGENT | {"learning": PPO | {"lanes": 10**9}}}, "agent.learning.ppo.lanes"),
        ({"seed": 2**32}, "seed"),
        ({"env": {"observation": ["stages", "candidates", "globals"]}}, "env.observation"),
        ({"env": {"window": 1024, "max_devices": 10**9}}, "max_devices"),
    ],
)
def test_bad_options(tmp_path: Path, change: dict[str, Any], field: str | None) -> None:
    values = config(tmp_path, learning=PPO).model_dump(mode="json")
    with pytest.raises(InputError) as raised:
        parse_train_config(values | change)
    assert raised.value.remedy
    assert raised.value.field == field


def test_a_damaged_state(toy: list[CompiledProblem], tmp_path: Path) -> None:
    chosen = config(tmp_path, learning=PPO)
    (chosen.directory / "state").mkdir(parents=True)
    (chosen.directory / "state" / "progress.json").write_text('{"steps": "many"}')
    with pytest.raises(InputError, match="not the progress of a training"):
        loop.train(chosen, say=hush)


DQN = {
    "algorithm": "dqn",
    "steps": 2048,
    "lanes": 8,
    "buffer_size": 1000,
    "learning_starts": 200,
    "batch_size": 32,
    "gradient_steps": 1,
}


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the runs of a training that was stopped after its first chunk."""
    runs = tmp_path_factory.mktemp("stopped")
    with pytest.MonkeyPatch.context() as patch:
        _replace_problems(patch)
        _stop_after(config(runs, learning=DQN), chunks=1)
    return runs


@pytest.mark.parametrize("damage", ["cut", "removed", "foreign", "packed"])
@pytest.mark.parametrize("file", ["model.zip", "buffer.npz"])
def test_a_state_that_is_damaged_is_one_clear_message(
    toy: list[CompiledProblem], stopped: Path, tmp_path: Path, file: str, damage: str
) -> None:
    chosen = config(shutil.copytree(stopped, tmp_path / "runs"), learning=DQN)
    path = chosen.directory / "state" / file
    if damage == "removed":
        path.unlink()
    elif damage == "packed":
        compress(path)
    else:
        path.write_bytes(path.read_bytes()[:-100] if damage == "cut" else b"foreign")
    with pytest.raises(InputError, match="missing or damaged") as raised:
        loop.train(chosen, say=hush)
    assert raised.value.source == str(path)
    assert "to train anew" in str(raised.value)
    assert "missing or damaged" in (chosen.directory / "FAILED").read_text()


def compress(path: Path) -> None:
    """Rewrite an archive compressed, like one that unpacks to gigabytes."""
    with zipfile.ZipFile(path) as archive:
        content = {entry: archive.read(entry) for entry in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            archive.writestr(name, data)


def test_archives_are_as_large_as_their_files(tmp_path: Path) -> None:
    path = tmp_path / "1-imitation.npz"
    states = {"targets": np.zeros((3, 2)), "returns": np.zeros(3)}
    labels.save_states(path, states)
    assert labels.load_states(path)["targets"].shape == (3, 2)
    compress(path)
    with pytest.raises(InputError, match="missing or damaged"):
        labels.load_states(path)
    with pytest.raises(ValueError, match="a part is compressed"):
        check_stored(path, path.stat().st_size)
    labels.save_states(path, states)
    with pytest.raises(ValueError, match="larger than the file"):
        check_stored(path, 10)
    inside = tmp_path / "model.zip"
    compress(path)
    with zipfile.ZipFile(inside, "w") as archive:
        archive.write(path, "policy.pth")
    with pytest.raises(ValueError, match="a part is compressed"):
        check_stored(inside, inside.stat().st_size)


def _stop_after(chosen: TrainConfig, chunks: int) -> None:
    """Train until a number of chunks is done."""
    done = []

    def say(line: str) -> None:
        done.append(line)
        if sum("latency / RoundRobin" in one for one in done) > chunks:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        loop.train(chosen, say=say)
    assert (chosen.directory / "state" / "progress.json").exists()


def test_a_replay_buffer_is_kept_without_pickle(toy: list[CompiledProblem], tmp_path: Path) -> None:
    chosen = config(tmp_path / "broken", learning=DQN)
    _stop_after(chosen, chunks=1)
    with np.load(chosen.directory / "state" / learner.BUFFER, allow_pickle=False) as kept:
        assert kept["place"].tolist()[0] > 0
    result, _ = loop.train(chosen, say=hush)
    whole, _ = loop.train(config(tmp_path / "whole", learning=DQN), say=hush)
    assert (result.best, result.best_steps) == (whole.best, whole.best_steps)


def test_a_training_that_fails_says_why(
    toy: list[CompiledProblem], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = config(tmp_path, learning=PPO)

    def broken(*_: object, **__: object) -> None:
        raise ValueError("Expected parameter logits to satisfy the constraint")

    monkeypatch.setattr(learner.MaskablePPO, "learn", broken)
    with pytest.raises(JobFailedError, match="failed: ValueError: Expected parameter logits"):
        loop.train(chosen, say=hush)
    marker = (chosen.directory / "FAILED").read_text()
    assert marker.startswith("Traceback")


def test_noise_of_a_validation_is_the_same_every_time(toy: list[CompiledProblem]) -> None:
    validation = EvaluationSet([toy])
    heft = make_policy("heft_boosted")
    assert validation.score(heft) == validation.score(heft)
    assert validation.score(make_policy("round_robin")).latency_ratio == pytest.approx(1.0)
    assert Simulator(toy[0]).run(heft).makespan > 0


def test_every_kind_of_problems_counts_the_same() -> None:
    heft = make_policy("heft_boosted")
    many, few = [[compile_problem(two_speeds(n)) for n in sizes] for sizes in ((3, 8, 5), (6,))]
    alone = [EvaluationSet([kind]).score(heft) for kind in (many, few)]
    both = EvaluationSet([many, [], few]).score(heft)
    assert both.problems == 4
    assert both.latency_ratio == pytest.approx(sum(one.latency_ratio for one in alone) / 2)
    assert alone[1].low is None
    assert both.low is not None
    assert both.high is not None
    assert both.low < both.latency_ratio < both.high


def test_loads_of_a_set_are_those_of_its_streams() -> None:
    calm, busy = build_problems(
        [ProblemSet(suites=("agentic_train",), seeds=Seeds(first=1000, count=1), loads=(0.5, 1.0))],
        train=True,
    )
    last = [one.arrays.workflows["arrival"].max() for one in (*calm, *busy)]
    assert last[0] == pytest.approx(2.0 * last[1])
    chosen = ProblemSet(suites=("stress",), seeds=Seeds(first=1000, count=1), loads=(0.5,))
    with pytest.raises(InputError, match=r"suite 'stress'.*no load.*streams only"):
        build_problems([chosen], train=True)
