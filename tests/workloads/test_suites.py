"""Suites: the problems that they contain, and errors for bad input."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from fate_gym.errors import InputError
from fate_gym.problem import Slo
from fate_gym.workloads import (
    WfCommonsSuite,
    build_suite,
    families,
    load_cluster,
    load_suite,
    parse_suite,
    select_topologies,
)
from fate_gym.workloads.suites import TEST_FAMILIES, TRAIN_FAMILIES

CONF = Path(__file__).parents[2] / "conf"
SHIPPED = sorted(path.stem for path in (CONF / "suite").glob("*.yaml"))


def spec(**fields: Any) -> WfCommonsSuite:
    return WfCommonsSuite.model_validate({"name": "s", "cluster": "mixed_8"} | fields)


def wfcommons(name: str) -> WfCommonsSuite:
    suite = load_suite(name)
    assert isinstance(suite, WfCommonsSuite)
    return suite


def test_splits_share_no_family_and_cover_all() -> None:
    assert not set(TRAIN_FAMILIES) & set(TEST_FAMILIES)
    assert set(TRAIN_FAMILIES) | set(TEST_FAMILIES) == set(families())


REAL = [name for name in SHIPPED if isinstance(load_suite(name), WfCommonsSuite)]


@pytest.mark.parametrize("name", REAL)
def test_shipped_suites_of_real_topologies(name: str) -> None:
    suite = wfcommons(name)
    assert suite.name == name
    chosen = select_topologies(suite)
    assert len({entry.name for entry in chosen}) == len(chosen)
    assert all(entry.duplicate_of is None for entry in chosen)
    if suite.max_stages is not None:
        assert all(len(entry) <= suite.max_stages for entry in chosen)
    load_cluster(suite.cluster)


@pytest.mark.parametrize("name", SHIPPED)
def test_files_name_every_field(name: str) -> None:
    # Hydra overrides (`suite.max_stages=50`) work only on keys that are there.
    data = yaml.safe_load((CONF / "suite" / f"{name}.yaml").read_text(encoding="utf-8"))
    suite = load_suite(name)
    absent = set() if suite.mode == "stream" else {"arrivals"}
    optional = {"uncertain", "contention", "slo", "cluster_changes", "most_models", "objective"}
    absent |= optional - set(suite.model_dump())
    assert set(data) == set(type(suite).model_fields) - absent


def test_train_and_test_suites_part_the_headline_suite() -> None:
    parts = [
        {entry.name for entry in select_topologies(wfcommons(name))}
        for name in ("real_dag_train", "real_dag_test", "real_dag")
    ]
    assert not parts[0] & parts[1]
    assert parts[0] | parts[1] == parts[2]


def test_quick_has_every_family_in_small() -> None:
    chosen = select_topologies(wfcommons("quick"))
    assert {entry.family for entry in chosen} == set(families())
    assert len(chosen) <= 18


def test_problems_are_repeatable_and_seeds_keep_the_topologies() -> None:
    suite = load_suite("smoke")
    cluster = load_cluster(suite.cluster)
    first, again, other = (build_suite(suite, cluster, seed) for seed in (0, 0, 1))
    assert first == again
    assert [problem.id for problem in other] == [
        problem.id.replace("/s0", "/s1") for problem in first
    ]
    assert first[0].workflows[0].stages != other[0].workflows[0].stages
    assert [p.workflows[0].edges[0].parent for p in first] == [
        p.workflows[0].edges[0].parent for p in other
    ]
    assert all(problem.workflows[0].family for problem in first)


def test_objectives_of_a_suite_are_those_of_its_workflows() -> None:
    suite = load_suite("agentic")
    plain = build_suite(suite, load_cluster("mixed_12"), 0)
    wanted = parse_suite(suite.model_dump(mode="json") | {"slo": {"ttft_s": 1.0}}, source="test")
    (problem,) = build_suite(wanted, load_cluster("mixed_12"), 0)
    assert {workflow.slo for workflow in problem.workflows} == {Slo(ttft_s=1.0)}
    bare = tuple(w.model_copy(update={"slo": None}) for w in problem.workflows)
    assert [problem.model_copy(update={"workflows": bare})] == plain
    assert "slo" not in suite.model_dump()


def test_a_suite_says_what_planners_minimise() -> None:
    suite = load_suite("agentic")
    plain = build_suite(suite, load_cluster("mixed_12"), 0)
    wanted = parse_suite(suite.model_dump(mode="json") | {"objective": "p95"}, source="test")
    (problem,) = build_suite(wanted, load_cluster("mixed_12"), 0)
    assert (problem.options.objective, plain[0].options.objective) == ("p95", "slowdown")
    assert problem.workflows == plain[0].workflows
    # Hashes of what says nothing stay as they were.
    assert "objective" not in suite.model_dump()
    assert "objective" not in plain[0].options.model_dump()


def test_spread_takes_both_ends_of_the_sizes() -> None:
    suite = spec(families=["epigenomics"], max_stages=600)
    every = select_topologies(suite)
    few = select_topologies(suite.model_copy(update={"per_family": 3}))
    assert [few[0].name, few[-1].name] == [every[0].name, every[-1].name]
    assert all(len(a) <= len(b) for a, b in pairwise(every))
    assert len(few) == 3


def test_instances_may_be_duplicates_and_keep_their_order() -> None:
    names = ("srasearch-chameleon-10a-003", "blast-chameleon-small-002")
    assert tuple(e.name for e in select_topologies(spec(instances=names))) == names


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"families": ["blasst"]}, ["families", "blasst", "'blast'"]),
        ({"families": ["blast"], "split": "test"}, ["families", "blast", "soykb"]),
        (
            {"instances": ["blast-chameleon-smal-001"]},
            ["instances", "smal", "blast-chameleon-small-001"],
        ),
        ({"min_stages": 100000}, ["no topology"]),
    ],
)
def test_bad_selection(fields: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        select_topologies(spec(**fields))
    assert "suite 's'" in str(caught.value)
    assert all(word in str(caught.value) for word in words)


def test_cluster_that_cannot_host_a_suite(tmp_path: Path) -> None:
    write(tmp_path / "cluster" / "tiny.yaml", "name: tiny\nnodes: [{gpus: {T4: 1}}]\n")
    cluster = load_cluster("tiny", [tmp_path])
    with pytest.raises(InputError, match="no device can host") as caught:
        build_suite(load_suite("real_dag"), cluster, 0)
    assert caught.value.source == "suite 'real_dag'"


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def test_own_suites_are_found_and_go_first(tmp_path: Path) -> None:
    write(tmp_path / "suite" / "mine.yaml", "name: mine\ncluster: mixed_8\nper_family: 1\n")
    write(tmp_path / "suite" / "smoke.yaml", "name: other\ncluster: mixed_8\n")
    assert load_suite("mine", [tmp_path]).per_family == 1
    assert load_suite("smoke", [tmp_path]).name == "other"
    assert load_suite("quick", [tmp_path]).name == "quick"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name: bad\ncluster: mixed_8\nper_familiy: 3\n", ["per_familiy", "per_family"]),
        ("name: bad\ncluster: mixed_8\nsplit: tets\n", ["split", "tets"]),
        ("name: bad\n", ["cluster"]),
        ("name: bad\ncluster: c\nmin_stages: 9\nmax_stages: 3\n", ["max_stages"]),
        ("name: [\n", ["YAML"]),
        ("- 1\n", ["bad.yaml"]),
    ],
)
def test_bad_files(tmp_path: Path, text: str, words: list[str]) -> None:
    write(tmp_path / "suite" / "bad.yaml", text)
    with pytest.raises(InputError) as caught:
        load_suite("bad", [tmp_path])
    assert "bad.yaml" in str(caught.value)
    assert all(word in str(caught.value) for word in words)


def test_unknown_suite_has_near_matches() -> None:
    with pytest.raises(InputError, match="'real_dag'"):
        load_suite("real_dga")


@pytest.mark.parametrize(
    "name", ["stress", "prefix_reuse", "real_dag_stream", "agents", "requests"]
)
def test_a_suite_is_the_same_in_every_process(name: str) -> None:
    code = (
        "import hashlib; from fate_gym.workloads import load_suite, load_cluster, build_suite;"
        f"spec = load_suite({name!r});"
        "p = build_suite(spec, load_cluster(spec.cluster), 3);"
        "print(hashlib.sha256(repr(p).encode()).hexdigest())"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            cwd=CONF.parent,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(outputs) == 1


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"source": "agentic", "tenants": 2**31 - 1}, "tenants"),
        ({"source": "agentic", "tenants": 90_000, "runs": 90_000}, "100,000 workflows"),
        ({"source": "prefix_reuse", "shares": [0.5], "layers": 10**9}, "layers"),
        ({"source": "prefix_reuse", "shares": [0.5], "layers": 10**4, "width": 10**4}, "100,000"),
        ({"source": "prefix_reuse", "shares": [0.5], "queries": 10**9}, "queries"),
        ({"source": "stress", "sizes": [10**9]}, "sizes"),
        ({"source": "alibaba", "jobs": 10**9}, "jobs"),
        (
            {"source": "agentic", "mode": "stream", "arrivals": {"rate_per_s": 5e-324}},
            "arrivals.rate_per_s",
        ),
        ({"source": "agentic", "slo": {"ttft_s": 1e308}}, "slo.ttft_s"),
        (
            {
                "source": "requests",
                "mode": "stream",
                "arrivals": {"process": "trace"},
                "requests": 10**9,
                "models": ["Llama-3.1-8B"],
            },
            "requests",
        ),
    ],
)
def test_a_suite_that_no_memory_holds_is_refused(fields: dict[str, Any], word: str) -> None:
    def build() -> None:
        spec = parse_suite({"name": "huge", "cluster": "mixed_4", **fields}, source="huge.yaml")
        build_suite(spec, load_cluster("mixed_4"), 0)

    with pytest.raises(InputError, match=word):
        build()
