"""The suite `files`: patterns, streams, contention, and clusters by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fate_gym.errors import InputError
from fate_gym.problem import Problem, dump_problem, load_problem
from fate_gym.workloads import (
    FilesSuite,
    build_suite,
    load_cluster,
    load_problem_file,
    parse_suite,
)

EXAMPLES = "docs/examples/imports"
AGENT = Path("docs/examples/agent.json")
CLUSTER = load_cluster("mixed_12")
MODEL = "Llama-3.1-8B"


def suite(*files: str | Path, **fields: Any) -> FilesSuite:
    data = {"name": "f", "cluster": "mixed_12", "source": "files", "model": MODEL} | fields
    spec = parse_suite(data | {"files": [str(file) for file in files]}, source="f")
    assert isinstance(spec, FilesSuite)
    return spec


def stream(*files: str | Path, seed: int = 0, **fields: Any) -> Problem:
    (problem,) = build_suite(suite(*files, mode="stream", **fields), CLUSTER, seed)
    return problem


def arrivals(problem: Problem) -> dict[str, float]:
    return {workflow.id: workflow.arrival for workflow in problem.workflows}


def test_patterns_are_the_files_that_match_in_order() -> None:
    spec = suite(f"{EXAMPLES}/*.jsonl", f"{EXAMPLES}/mooncake.jsonl")
    problems = build_suite(spec, CLUSTER, 0)
    assert [problem.id for problem in problems] == ["bailian", "mooncake", "traces"]
    with pytest.raises(InputError, match=r"no file matches 'nothing/\*.json'.*looked up from"):
        build_suite(suite("nothing/*.json"), CLUSTER, 0)


def test_names_with_brackets_are_names_first(tmp_path: Path) -> None:
    file = tmp_path / "a[1].jsonl"
    file.write_bytes(Path(EXAMPLES, "mooncake.jsonl").read_bytes())
    assert len(build_suite(suite(file), CLUSTER, 0)) == 1


def test_a_stream_has_the_arrivals_of_its_files() -> None:
    problem = stream(f"{EXAMPLES}/mooncake.jsonl", f"{EXAMPLES}/traces.jsonl")
    assert problem.id == "stream/s0"
    times = arrivals(problem)
    assert times["mooncake/2"] == 0.9
    assert (times["review"], times["fix-a-bug/turn-1"]) == (8, 0)


def test_a_stream_with_a_load_moves_sessions_as_a_whole() -> None:
    spans = f"{EXAMPLES}/spans.json"
    files = (f"{EXAMPLES}/traces.jsonl", spans)
    poisson = {"process": "poisson", "load": 0.5}
    problem = stream(*files, arrivals=poisson)
    times = arrivals(problem)
    assert times["fix-a-bug/turn-0"] == times["fix-a-bug/turn-1"] > 0
    assert times["trip/turn-0"] == times["trip/turn-1"] != times["review"]
    assert times == arrivals(stream(*files, arrivals=poisson))
    assert times != arrivals(stream(*files, arrivals=poisson, seed=1))
    slower = arrivals(stream(*files, arrivals={"process": "poisson", "load": 0.25}))
    assert slower["review"] == pytest.approx(2 * times["review"])


def test_recorded_gaps_are_stretched() -> None:
    file = f"{EXAMPLES}/mooncake.jsonl"
    given = arrivals(stream(file))
    times = arrivals(stream(file, arrivals={"process": "trace", "rate_per_s": 0.5}))
    assert max(times.values()) == 8
    assert times["mooncake/2"] / 8 == pytest.approx(given["mooncake/2"] / 3.1)
    with pytest.raises(InputError, match="no arrival times of their own"):
        stream(f"{EXAMPLES}/graph.json", model=None, arrivals={"process": "trace"})


def test_equal_names_in_a_stream_get_those_of_their_files(tmp_path: Path) -> None:
    copy = tmp_path / "copy.jsonl"
    copy.write_bytes(Path(EXAMPLES, "traces.jsonl").read_bytes())
    problem = stream(f"{EXAMPLES}/traces.jsonl", copy)
    assert len(problem.workflows) == 6
    follows = {workflow.follows for workflow in problem.workflows}
    assert f"{copy}/fix-a-bug/turn-0" in follows


def test_problem_files_in_a_stream_give_workflows_alone(tmp_path: Path) -> None:
    problem = stream(AGENT, f"{EXAMPLES}/mooncake.jsonl")
    assert problem.cluster == CLUSTER
    assert len(problem.workflows) == 4 + len(load_problem(AGENT).workflows)
    file = tmp_path / "p.json"
    file.write_text(json.dumps(json.loads(AGENT.read_text()) | {"options": {"max_shards": 2}}))
    with pytest.raises(InputError, match=r"p\.json: field 'options'.*suite.mode=alone"):
        stream(file)


def test_transfers_contend_where_the_suite_says_so() -> None:
    files = (AGENT, f"{EXAMPLES}/mooncake.jsonl")
    for contention in (False, True):
        problems = build_suite(suite(*files, contention=contention), CLUSTER, 0)
        assert [problem.options.contention for problem in problems] == [contention] * 2
    assert stream(*files, contention=True).options.contention


def test_alone_takes_no_arrivals() -> None:
    with pytest.raises(InputError, match="arrivals are those of mode stream"):
        suite(AGENT, arrivals={"process": "at_once"})


def test_hashes_of_suites_without_the_new_fields_stay() -> None:
    assert not {"arrivals", "contention"} & set(suite(AGENT).model_dump())


def named(tmp_path: Path, cluster: Any) -> Path:
    file = tmp_path / "named.json"
    file.write_text(json.dumps(json.loads(AGENT.read_text()) | {"cluster": cluster}))
    return file


def test_a_problem_file_may_name_its_cluster(tmp_path: Path) -> None:
    file = named(tmp_path, "mixed_4")
    assert load_problem_file(file).cluster == load_cluster("mixed_4")
    (problem,) = build_suite(suite(file), CLUSTER, 0)
    assert problem.cluster == load_cluster("mixed_4")
    changed = suite(file, cluster_changes={"execution": "batching"})
    assert build_suite(changed, CLUSTER, 0)[0].cluster.execution == "batching"
    assert build_suite(suite(file, keep_clusters=False), CLUSTER, 0)[0].cluster == CLUSTER
    # What is written says the devices: it can be read anywhere.
    dump_problem(problem, tmp_path / "written.json")
    assert load_problem(tmp_path / "written.json") == problem


def test_a_cluster_file_lies_beside_the_problem(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("name: mine\nnodes:\n- gpus: {L40S: 2}\n")
    file = named(tmp_path, "mine.yaml")
    before = suite(file).contents_hash()
    assert [device.id for device in load_problem_file(file).cluster.devices] == ["l40s-0", "l40s-1"]
    (tmp_path / "mine.yaml").write_text("name: mine\nnodes:\n- gpus: {L40S: 3}\n")
    assert suite(file).contents_hash() != before
    (tmp_path / "mine.yaml").write_text("name: mine\nnodes:\n- gpus: {L41S: 3}\n")
    with pytest.raises(InputError, match=r"mine\.yaml.*unknown GPU"):
        load_problem_file(file)


def test_a_cluster_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"named\.json: field 'cluster'.*'mixed_12'"):
        load_problem_file(named(tmp_path, "mixed_13"))
    with pytest.raises(InputError, match=r"no\.yaml: cannot read the file"):
        load_problem_file(named(tmp_path, "no.yaml"))
    with pytest.raises(InputError, match=r"field 'cluster'.*load_problem_file"):
        load_problem(named(tmp_path, "mixed_4"))


@pytest.mark.parametrize(
    "text", ['{"workflows": [], "cluster": 5}', "{", '{"a": {"cluster": 1}}', '[{"cluster": 1}]']
)
def test_contents_of_any_json_have_a_hash(text: str, tmp_path: Path) -> None:
    file = tmp_path / "p.json"
    file.write_text(text)
    assert len(suite(file).contents_hash()) == 64


def test_contents_of_broken_json_are_one_error(tmp_path: Path) -> None:
    file = tmp_path / "p.json"
    file.write_text('{"cluster": ')
    with pytest.raises(InputError, match=r"p\.json: not valid JSON"):
        suite(file).contents_hash()


def test_one_path_needs_no_brackets() -> None:
    data = {"name": "f", "cluster": "mixed_12", "source": "files"}
    one = parse_suite(data | {"files": str(AGENT)}, source="f")
    assert one == parse_suite(data | {"files": [str(AGENT)]}, source="f")
