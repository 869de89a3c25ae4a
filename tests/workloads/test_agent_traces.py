"""The vendored traces: their content as recorded, splits, and windows of calls."""

from __future__ import annotations

import lzma
from importlib.resources import files
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from fate_gym.errors import InputError
from fate_gym.workloads.agent_traces import (
    SOURCES,
    TraceSplit,
    data_file,
    group_of,
    keep_calls,
    pack,
    record,
    sessions,
    split_sessions,
    unpack,
)
from fate_gym.workloads.sessions import Trace
from scripts.pack_agent_traces import ORIGINS, counts

ROOT = Path(__file__).parents[2]
DATA = Path(str(files("fate_gym.workloads").joinpath("data", "agent_traces")))
SPLITS: tuple[TraceSplit, ...] = ("train", "validation", "test")


@pytest.mark.parametrize("source", SOURCES)
def test_the_record_says_what_a_source_holds(source: str) -> None:
    said = dict(record()[source])
    assert said.pop("origins") == ORIGINS[source]
    assert said == counts(sessions(source))


def test_the_files_are_small_and_no_others() -> None:
    sizes = {path.name: path.stat().st_size for path in DATA.iterdir()}
    assert set(sizes) == {data_file(source) for source in SOURCES} | {"record.json"}
    assert sum(sizes.values()) < 400_000


@pytest.mark.parametrize("source", ["coding_sessions", "tau_bench", "mini_swe"])
def test_packing_is_reversible_and_repeatable(source: str) -> None:
    rows = sessions(source)
    data = pack(rows)
    assert data == (DATA / data_file(source)).read_bytes()
    assert tuple(unpack(data, name=source)) == rows


def test_files_of_another_version_are_refused() -> None:
    data = lzma.compress(b'{"format": 2}')
    with pytest.raises(InputError, match="pack_agent_traces"):
        list(unpack(data, name="x"))


def test_the_notice_names_every_work() -> None:
    notice = (ROOT / "NOTICE").read_text(encoding="utf-8")
    for origin in (origin for origins in ORIGINS.values() for origin in origins):
        assert origin["repository"] in notice
        if origin["licence"] == "MIT":
            assert f"Copyright (c) {origin['copyright']}" in notice
    assert "The above copyright notice and this permission notice" in notice
    assert "creativecommons.org/licenses/by/4.0" in notice


@pytest.mark.parametrize("source", SOURCES)
def test_splits_are_disjoint_and_cover_all(source: str) -> None:
    parts = [{group_of(row) for row in split_sessions(source, split)} for split in SPLITS]
    assert all(parts)
    assert not any(a & b for a, b in combinations(parts, 2))
    assert set.union(*parts) == {group_of(row) for row in sessions(source)}
    assert sum(len(split_sessions(source, split)) for split in SPLITS) == len(sessions(source))


def test_runs_of_one_task_are_in_one_split() -> None:
    groups = [group_of(row) for row in sessions("tau_bench")]
    assert len(set(groups)) < len(groups)


def test_unknown_sources_have_near_matches() -> None:
    with pytest.raises(InputError, match="'tau_bench'"):
        sessions("tau_bensh")


@pytest.mark.parametrize("source", SOURCES)
def test_every_workflow_is_a_valid_trace(source: str) -> None:
    for row in sessions(source)[:40]:
        whole = keep_calls(row, range(len(row["calls"])))
        trace = Trace.model_validate({**whole, "source": source})
        assert len(trace.calls) == len(row["calls"])
        assert [call.shared_with for call in trace.calls] == [
            None if "shared_with" not in call else tuple(call["shared_with"])
            for call in row["calls"]
        ]


def call(number: int, prompt: int, shared: tuple[int, int] | None, *parents: int) -> dict[str, Any]:
    found: dict[str, Any] = {"id": number, "kind": "llm", "parents": list(parents)}
    found |= {"prompt_tokens": prompt, "output_tokens": 1}
    return found if shared is None else {**found, "shared_with": list(shared)}


def test_a_cut_keeps_what_the_rest_of_the_prompts_have_in_common() -> None:
    # 3 continues 1, which is left out; 2 has 60 tokens of it, so 2 and 3 have 60 in common.
    calls = [
        call(0, 100, None),
        call(1, 200, (0, 90), 0),
        call(2, 300, (1, 60), 1),
        call(3, 400, (1, 200), 1, 2),
        call(4, 50, (0, 10), 0),
    ]
    cut = keep_calls({"id": "w", "calls": calls}, [2, 3, 4])
    assert [c["id"] for c in cut["calls"]] == [0, 1, 2]
    assert [c["parents"] for c in cut["calls"]] == [(), (0,), ()]
    assert [c.get("shared_with") for c in cut["calls"]] == [None, (0, 60), (1, 10)]
    assert calls[3]["id"] == 3
