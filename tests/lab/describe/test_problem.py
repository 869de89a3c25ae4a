"""``fate-gym validate`` and ``fate-gym import``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fate_gym.lab.cli import main
from fate_gym.problem import dump_problem, load_problem
from fate_gym.workloads import build_suite, load_cluster, load_suite


def test_a_problem_file_is_summarised(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    problem = build_suite(load_suite("smoke"), load_cluster("mixed_8"), 0)[0]
    file = tmp_path / "problem.json"
    dump_problem(problem, file)
    assert main(["validate", str(file)]) == 0
    text = capsys.readouterr().out
    assert f"{problem.stage_count} stages" in text
    assert "mixed_8: 8 devices, exclusive" in text


def test_a_problem_file_says_how_its_devices_batch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster = load_cluster("mixed_8", execution="batching", prefill="first", max_sequences=64)
    file = tmp_path / "problem.json"
    dump_problem(build_suite(load_suite("smoke"), cluster, 0)[0], file)
    assert main(["validate", str(file)]) == 0
    wanted = "mixed_8: 8 devices, batching (prompts first, 8192 tokens, 64 sequences)"
    assert wanted in capsys.readouterr().out


def _wfformat(file: Path) -> Path:
    tasks = [{"name": "a_1", "parents": []}, {"name": "b_2", "parents": ["a_1"]}]
    file.write_text(json.dumps({"schemaVersion": "1.4", "workflow": {"tasks": tasks}}))
    return file


def test_a_workflow_is_imported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, output = _wfformat(tmp_path / "mine.json"), tmp_path / "problem.json"
    options = ["--seed", "3", "--cluster", "mixed_8", "-o", str(output)]
    assert main(["import", str(file), *options]) == 0
    assert "2 stages, 1 edges" in capsys.readouterr().out
    problem = load_problem(output)
    assert (problem.id, problem.cluster.id) == ("mine/s3", "mixed_8")


def test_a_bad_import_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, output = tmp_path / "mine.json", tmp_path / "problem.json"
    file.write_text('{"schemaVersion": "1.4", "workflow": {"tasks": [{"name": 1}]}}')
    assert main(["import", str(file), "-o", str(output)]) == 2
    assert capsys.readouterr().err.startswith(f"error: {file}: task #0: field 'name'")
    assert not output.exists()
    assert main(["import", str(_wfformat(file)), "-o", str(tmp_path / "no" / "p.json")]) == 2
    assert "cannot write" in capsys.readouterr().err


EXAMPLES = Path("docs/examples/imports")


def test_an_import_says_what_the_file_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import", str(EXAMPLES / "azure.csv"), "--model", "Llama-3.1-8B"]) == 0
    text = capsys.readouterr().out
    assert "azure.csv: valid Azure LLM inference trace" in text
    assert "workflows  4" in text


def test_a_template_is_a_sidecar(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for file in ("answer.dax", "burstgpt.csv"):
        roles = tmp_path / "roles.yaml"
        assert main(["import", str(EXAMPLES / file), "--template", str(roles)]) == 0
        assert main(["import", str(EXAMPLES / file), "--roles", str(roles)]) == 0
    assert "models     Llama-3.1-8B" in capsys.readouterr().out


def test_a_wrong_verb_names_the_right_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", str(EXAMPLES / "answer.yml")]) == 2
    assert "Pegasus 5 YAML). Remedy: use fate-gym import" in capsys.readouterr().err
    assert main(["import", "docs/examples/agent.json"]) == 2
    assert "Remedy: use fate-gym validate" in capsys.readouterr().err
    assert main(["validate", "pyproject.toml"]) == 2
    assert "not valid JSON" in capsys.readouterr().err


def test_a_model_that_the_catalogue_lacks(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import", str(EXAMPLES / "burstgpt.csv")]) == 2
    error = capsys.readouterr().err
    assert "'ChatGPT', 'GPT-4'" in error and "--model NAME" in error


def test_the_schema_of_agent_traces(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    assert {"id", "calls"} <= set(json.loads(capsys.readouterr().out)["required"])


def test_prefixes_are_inferred_unless_told_otherwise(tmp_path: Path) -> None:
    file, output = EXAMPLES / "spans.json", tmp_path / "p.json"
    for option, shared in (([], True), (["--no-inferred-prefixes"], False)):
        options = ["--model", "Llama-3.1-8B", "-o", str(output), *option]
        assert main(["import", str(file), *options]) == 0
        stages = [stage for w in load_problem(output).workflows for stage in w.stages]
        assert any(stage.prefix_tokens for stage in stages) == shared


def test_a_problem_may_name_its_cluster(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "p.json"
    data = json.loads(Path("docs/examples/agent.json").read_text()) | {"cluster": "mixed_4"}
    file.write_text(json.dumps(data))
    assert main(["validate", str(file)]) == 0
    assert "mixed_4: 4 devices" in capsys.readouterr().out
