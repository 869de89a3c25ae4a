"""``fate-gym policies`` and ``fate-gym suites``."""

from __future__ import annotations

import json

import pytest

from fate_gym.lab.cli import main
from policies.registry import policy_names, policy_specs


@pytest.mark.parametrize("columns", ["40", "80"])
def test_nothing_is_cut_in_a_file(
    columns: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert main(["policies"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + len(policy_names())
    for line, spec in zip(lines[1:], policy_specs().values(), strict=True):
        assert line.split()[0] == spec.name
        assert line.rstrip().endswith(spec.source)


def test_filters(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policies", "--family", "fate", "ROLLOUT", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    wanted = {name for name, s in policy_specs().items() if s.family == "fate"}
    assert {spec["name"] for spec in found} <= wanted
    assert "fate_rollout" in {spec["name"] for spec in found}
    assert main(["policies", "no such text"]) == 2
    assert "nothing contains 'no such text'" in capsys.readouterr().err


def test_suites_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["suites", "--json"]) == 0
    found = {suite["name"]: suite for suite in json.loads(capsys.readouterr().out)}
    assert found["quick"]["origin"] == "real topology, modelled attributes"
    assert main(["suites", "smoke"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[:3] == ["smoke", "wfcommons", "mixed_8"]
