"""Mistakes on the command line: one message, near matches, nothing run."""

from __future__ import annotations

from pathlib import Path

import pytest

from fate_gym.lab import evaluate


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("suite=smoke polcy=heft", "unknown option 'polcy'. Remedy: did you mean 'policy'?"),
        ("suite=smoke policy=hefft", "unknown policy 'hefft'. Remedy: did you mean 'heft'"),
        ("suite=smok policy=heft", "unknown suite 'smok'. Remedy: did you mean 'smoke'?"),
        ("suite=smoke policy=heft cluster=mixd_8", "unknown cluster 'mixd_8'. Remedy: did you"),
        ("suite=smoke policy=heft suite.cluster=mixd_8", "unknown cluster 'mixd_8'"),
        (
            "suite=smoke policy=heft cluster.execution=batchin",
            "cluster: field 'execution': unknown execution 'batchin'. Remedy: did you mean",
        ),
        ("suite=smoke policy=heft cluster.excution=batching", "did you mean 'execution'"),
        (
            "suite=smoke policy=heft cluster.prefill=first",
            "cluster 'mixed_8': field 'prefill': prefill is an option of batching devices",
        ),
        (
            "suite=smoke policy=heft cluster=mixed_4 cluster.token_budget=512",
            "cluster 'mixed_4': field 'token_budget': token_budget is an option of batching",
        ),
        (
            "suite=smoke policy=heft cluster.execution=batching cluster.token_budget=true",
            "cluster: field 'token_budget': true and false are not numbers (got True)",
        ),
        ("suite=smoke policy=heft seeed=1", "unknown option 'seeed'. Remedy: did you mean 'seed'"),
        (
            "suite=smoke policy=heft policy.params.bosted=true",
            "unknown option 'policy.params.bosted'. Remedy: did you mean 'boosted'?",
        ),
        ("suite=smoke policy=heft suite.max_stags=9", "did you mean 'max_stages'"),
        ("suite=smoke policy=heft trackin.mode=none", "did you mean 'tracking'"),
        ("suite=smoke policy=heft seed.x=1", "there is nothing below 'seed'"),
        ("suite=smoke policy=heft +foo=1", "unknown option 'foo'"),
        ("suite=smoke policy=heft +tracking.foo=1", "unknown option 'tracking.foo'"),
        (f"suite=smoke policy=heft seed={2**63}", f"equal to {2**63 - 1} (got {2**63})"),
        ("suite=smoke policy=heft seed=abc", "option 'seed': Input should be a valid integer"),
        ("suite=smoke policy=heft seed=-1", "greater than or equal to 0 (got -1)"),
        ("suite=smoke policy=heft tracking.mode=of", "'offline', 'online' or 'none' (got 'of')"),
        ("suite=smoke policy=heft name=../x", "option 'name'"),
        ("suite=smoke policy=heft policy.name=../x", "cannot name a directory"),
        ("suite=smoke policy=heft foo", "cannot read the option 'foo'"),
        ("suite=smoke", "no policy chosen. Remedy: add policy=NAME"),
        ("policy=heft", "no suite chosen. Remedy: add suite=NAME"),
        ("suite=smoke policy.params.boosted=true", "no policy chosen"),
        ("suite=smoke policy=heft,eft", "several values in 'policy=heft,eft'. Remedy: add -m"),
        (
            "suite=smoke policy=fate policy.params.horizon=abc",
            "field 'params.horizon': Input should",
        ),
        ("suite=smoke policy=heft --mulirun", "unknown flag '--mulirun'. Remedy: did you mean"),
        ("suite=smoke policy=heft --config-dir", "the flag --config-dir needs a value"),
        ("suite=smoke -m policy=heft,hefft seed=0", "unknown policy 'hefft'"),
        ("-m suite=smoke policy=heft,hefft", "unknown policy 'hefft'"),
        ("-m suite=smoke policy=glob(nothing*)", "no policy matches"),
    ],
)
def test_a_mistake_is_one_line_with_a_remedy(
    arguments: str, message: str, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert evaluate.main(arguments.split()) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert err.startswith("error: ")
    assert message in err
    assert not list(tmp_path.glob("**/result.json"))


def test_help_lists_the_choices(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        evaluate.main(["--help"])
    assert not stop.value.code
    text = capsys.readouterr().out
    assert "suite:" in text
    assert "round_robin" in text


def test_suites_and_clusters_of_ones_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for group, text in {
        "suite": "{name: mine, cluster: two, instances: [srasearch-chameleon-10a-001]}",
        "cluster": "{name: two, nodes: [{gpus: {H100-SXM: 2}}]}",
    }.items():
        folder = tmp_path / "own" / group
        folder.mkdir(parents=True)
        (folder / f"{'mine' if group == 'suite' else 'two'}.yaml").write_text(text)
    arguments = ["--config-dir", "own", "suite=mine", "policy=least_loaded", "tracking=none"]
    assert evaluate.main(arguments) == 0
    assert "mine/least_loaded/s0 on two" in capsys.readouterr().out
    assert evaluate.main([*arguments, "sed=1"]) == 2
    assert "did you mean 'seed'" in capsys.readouterr().err
