"""A short soak test, and its handling of faults, kills and damaged progress."""

from __future__ import annotations

from pathlib import Path

import pytest

from fate_gym.catalog.limits import MOST_SEED
from fate_gym.errors import InputError
from fate_gym.problem import load_problem
from tests.fuzz import soak as module
from tests.fuzz.soak import (
    DRAWN,
    FAULTS,
    POLICIES,
    RUNNING,
    STATE,
    Case,
    cases,
    draw,
    drawn,
    main,
    soak,
)

BATCH = draw(0)
FIRST = list(cases(BATCH))


@pytest.fixture(autouse=True)
def drawn_before(tmp_path: Path) -> None:
    (tmp_path / DRAWN).write_text(BATCH.model_dump_json())


def well(case: Case) -> tuple[str, str]:
    return "valid", ""


def test_a_short_soak_has_no_faults(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path), "--runs", str(len(POLICIES))]) == 0
    printed = capfd.readouterr().out
    assert f"policies: {len(POLICIES)}\n" in printed
    assert "batching" in printed
    assert "exclusive" in printed
    assert not list((tmp_path / FAULTS).iterdir())


def test_what_a_soak_has_found() -> None:
    problem = load_problem(Path(__file__).parent / "found" / "clairvoyant_waits.json")
    assert module.outcome(Case("clairvoyant", problem, 941769, False))[0] == "valid"
    # The paper's horizon looked for the output of a shard that was lost, beyond an array.
    problem = load_problem(Path(__file__).parent / "found" / "horizon_of_a_lost_shard.json")
    assert module.outcome(Case("fate", problem, MOST_SEED, False))[0] == "valid"


def test_problems_are_kept_until_their_batch_is_done(tmp_path: Path) -> None:
    assert list(cases(drawn(tmp_path, 0))) == FIRST
    (tmp_path / DRAWN).unlink()
    second = drawn(tmp_path, 1)
    assert second.batch == 1
    assert second.problems != BATCH.problems
    assert drawn(tmp_path, 1) == second


def test_a_soak_that_was_stopped_goes_on_where_it_was(tmp_path: Path) -> None:
    seen: list[Case] = []

    def stopped(case: Case) -> tuple[str, str]:
        seen.append(case)
        if len(seen) == 7:
            raise KeyboardInterrupt
        return well(case)

    soak(tmp_path, 5, check=stopped, say=print)
    with pytest.raises(KeyboardInterrupt):
        soak(tmp_path, 10, check=stopped, say=print)
    assert (tmp_path / RUNNING).read_text() == "6"
    progress = soak(tmp_path, 10, check=stopped, say=print)
    assert progress.runs == 10
    assert progress.outcomes == {"valid": 10}
    assert seen[:6] == FIRST[:6]
    assert seen[-4:] == FIRST[6:10]


def test_a_run_that_ends_the_process_twice_is_a_fault(tmp_path: Path) -> None:
    def ends(case: Case) -> tuple[str, str]:
        if case == FIRST[2]:
            raise SystemExit
        return well(case)

    for _ in range(2):
        with pytest.raises(SystemExit):
            soak(tmp_path, 4, check=ends, say=print)
    assert soak(tmp_path, 4, check=ends, say=print).outcomes == {"valid": 3, "process ended": 1}


def test_two_soaks_in_one_folder(tmp_path: Path) -> None:
    def second(case: Case) -> tuple[str, str]:
        with pytest.raises(InputError, match="another soak runs here"):
            soak(tmp_path, 1, check=well, say=print)
        return well(case)

    assert soak(tmp_path, 1, check=second, say=print).runs == 1
    assert soak(tmp_path, 2, check=well, say=print).runs == 2


def test_a_fault_is_kept_with_its_problem(tmp_path: Path) -> None:
    def wrong(case: Case) -> tuple[str, str]:
        return "invalid", "a\x1b fault"

    said: list[str] = []
    progress = soak(tmp_path, 1, check=wrong, say=said.append)
    assert progress.faults == 1
    assert said[0] == f"run 0: {FIRST[0].policy}: invalid: a\\x1b fault"
    assert load_problem(tmp_path / FAULTS / "0.json") == FIRST[0].problem
    kept = (tmp_path / FAULTS / "0.txt").read_text()
    assert kept.startswith(f"policy={FIRST[0].policy} seed={FIRST[0].seed} ")


def test_every_kind_of_fault_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    case = FIRST[1]
    assert not case.charge_planning
    monkeypatch.setattr(module, "validate", lambda _: ["wrong"])
    assert module.outcome(case) == ("invalid", "wrong")
    monkeypatch.setattr(module, "validate", lambda _: 1 / 0)
    assert module.outcome(case)[0] == "ZeroDivisionError raised"

    def endless(trace: object) -> None:
        while True:
            pass

    monkeypatch.setattr(module, "validate", endless)
    assert module.outcome(case, seconds=0.5)[0] == "too slow"


def test_progress_that_is_damaged_is_one_message(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / STATE).write_text('{"runs": "x"}')
    assert main([str(tmp_path), "--runs", "1"]) == 1
    assert "not a file of a soak" in capfd.readouterr().err
