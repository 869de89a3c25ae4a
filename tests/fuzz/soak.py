"""Random problems under every policy, on exclusive and batching devices, through the validator.

``python -m tests.fuzz.soak FOLDER [--runs N]`` keeps its progress in FOLDER; the same command goes
on where it was stopped. A run ends in a schedule that the validator accepts, or in one
clear error that refuses the problem. Anything else, a run beyond its time, and one that ended the
process twice, is a fault, kept in FOLDER/faults with what it takes to play it again.
"""

from __future__ import annotations

import argparse
import fcntl
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, ValidationError

from fate_gym.catalog.limits import MOST_SEED
from fate_gym.errors import InputError, printable
from fate_gym.files import write_text
from fate_gym.lab.files import read_bytes
from fate_gym.problem import Problem, dump_problem
from fate_gym.sim import Simulator
from fate_gym.validator import validate
from policies import make_policy, policy_names
from tests.fuzz.bounds import TooSlowError, bounded
from tests.kernel.batching.test_engine import batching
from tests.policies.instances import SMALL
from tests.strategies import problems

STATE, DRAWN, RUNNING, LOCK, FAULTS = "state.json", "drawn.json", "running", "lock", "faults"
EACH = 4
"""Runs of one problem, half of them on batching devices; drawing it takes as long as these."""
BATCH = 200
"""Runs whose problems are drawn together."""
SECONDS = 60.0
"""Time limit of a run and its check, for a busy machine; most take milliseconds."""
MOST_TOKENS, MOST_ALONE = 6_000, 300_000
"""Limits of output tokens on batching devices, over all stages, and over all queries if none shares
a batch: the validator simulates each token."""
SAVED_EVERY = 5.0
"""Seconds between two writes of the progress."""
OBJECTIVES = ("slowdown", "makespan", "latency", "p95")
POLICIES = policy_names()
_Kept = TypeVar("_Kept", bound=BaseModel)
_BETWEEN_EVENTS = "which is no event's time"


@dataclass(frozen=True)
class Case:
    """One run."""

    policy: str
    problem: Problem
    seed: int
    charge_planning: bool


class Progress(BaseModel):
    """The runs so far."""

    model_config = ConfigDict(extra="forbid")

    runs: int = 0
    outcomes: Counter[str] = Counter()
    policies: Counter[str] = Counter()
    devices: Counter[str] = Counter()
    seconds: float = 0.0

    @property
    def faults(self) -> int:
        return sum(self.outcomes.values()) - self.outcomes["valid"] - self.outcomes["refused"]


@st.composite
def _problems(draw: st.DrawFn) -> tuple[Problem, int]:
    """Strategy for a problem and a seed."""
    problem = draw(problems())
    options = problem.options.model_copy(update={"objective": draw(st.sampled_from(OBJECTIVES))})
    problem = problem.model_copy(update={"options": options})
    return problem, draw(st.sampled_from([0, MOST_SEED]) | st.integers(0, MOST_SEED))


class Drawn(BaseModel):
    """The problems drawn for a batch, and a seed for each.

    They are stored until the batch is done: what Hypothesis draws for a seed depends on the loaded
    modules, so a process that resumes would draw other problems.
    """

    model_config = ConfigDict(extra="forbid")

    batch: int
    problems: list[tuple[Problem, int]]


def draw(batch: int) -> Drawn:
    """Draw new problems."""
    found: list[tuple[Problem, int]] = []

    @seed(batch)
    @settings(
        max_examples=BATCH // EACH,
        database=None,
        deadline=None,
        derandomize=False,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(_problems())
    def collect(one: tuple[Problem, int]) -> None:
        found.append(one)

    collect()
    return Drawn(batch=batch, problems=found)


def drawn(folder: Path, batch: int) -> Drawn:
    """Return the problems of a batch: those drawn earlier, or new ones."""
    path = folder / DRAWN
    if path.exists():
        kept = _read(path, Drawn)
        if kept.batch == batch:
            return kept
    new = draw(batch)
    write_text(path, new.model_dump_json())
    return new


def cases(given: Drawn) -> Iterator[Case]:
    """Return the runs of a batch, with every policy in turn."""
    for place in range(BATCH):
        number = given.batch * BATCH + place
        # Hypothesis may find fewer than were asked for.
        problem, luck = given.problems[place // EACH % len(given.problems)]
        stages = [stage for workflow in problem.workflows for stage in workflow.stages]
        tokens = sum(stage.output_tokens for stage in stages)
        alone = sum(stage.output_tokens * stage.queries for stage in stages)
        batches = number % 2 and tokens <= MOST_TOKENS and alone <= MOST_ALONE
        yield Case(
            policy=POLICIES[number % len(POLICIES)],
            problem=batching(problem) if batches else problem,
            seed=luck,
            charge_planning=number % 10 == 0,
        )


def outcome(case: Case, seconds: float = SECONDS) -> tuple[str, str]:
    """Return ``valid``, ``refused`` or the kind of fault, and details."""
    try:
        with bounded(seconds):
            policy = make_policy(case.policy, **SMALL.get(case.policy, {}))
            simulator = Simulator(case.problem)
            trace = simulator.run(policy, seed=case.seed, charge_planning=case.charge_planning)
            faults = validate(trace)
            if case.charge_planning:
                # Time of planning is no event of the execution model.
                faults = [fault for fault in faults if not fault.endswith(_BETWEEN_EVENTS)]
    except InputError as error:
        text = str(error)
        clear = bool(error.remedy) and text.isprintable() and len(text) < 2_000
        return ("refused", text) if clear else ("unclear error", text)
    except TooSlowError:
        return "too slow", f"more than {seconds:g} s"
    except Exception as error:  # noqa: BLE001  each is a find
        return f"{type(error).__name__} raised", traceback.format_exc()
    return ("invalid", "\n".join(faults)) if faults else ("valid", "")


def read_progress(folder: Path) -> Progress:
    """Read the progress; raise `InputError` if the file cannot be read."""
    return _read(folder / STATE, Progress) if (folder / STATE).exists() else Progress()


def _read(path: Path, kind: type[_Kept]) -> _Kept:
    try:
        return kind.model_validate_json(read_bytes(path))
    except ValidationError:
        remedy = f"delete {path.parent} to begin anew"
        raise InputError("not a file of a soak", source=path, remedy=remedy) from None


def soak(
    folder: Path,
    runs: int,
    *,
    check: Callable[[Case], tuple[str, str]] = outcome,
    say: Callable[[str], None] = print,
) -> Progress:
    """Run until so many runs are done, starting with the first one that is not.

    Args:
        folder: directory of the progress and the faults.
        runs: total number of runs, including earlier ones.
        check: performs a run.
        say: called with a line about each fault, and about the progress.

    Raises:
        InputError: another process uses the folder, or its files are damaged.
    """
    (folder / FAULTS).mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        return _go_on(folder, runs, check, say)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Lock a folder, as two processes would count each other's runs."""
    with (folder / LOCK).open("a", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            remedy = "wait for it to end, or choose another folder"
            raise InputError("another soak runs here", source=folder, remedy=remedy) from None
        yield


def _go_on(
    folder: Path,
    runs: int,
    check: Callable[[Case], tuple[str, str]],
    say: Callable[[str], None],
) -> Progress:
    progress = read_progress(folder)
    saved = time.monotonic()
    while progress.runs < runs:
        batch, first = divmod(progress.runs, BATCH)
        for case in list(cases(drawn(folder, batch)))[first : first + runs - progress.runs]:
            number, start = progress.runs, time.monotonic()
            kind, text = _guarded(folder, number, case, check)
            progress.runs += 1
            progress.seconds += time.monotonic() - start
            progress.outcomes[kind] += 1
            progress.policies[case.policy] += 1
            progress.devices[case.problem.cluster.execution] += 1
            if kind not in ("valid", "refused"):
                _keep(folder / FAULTS / f"{number}", case, f"{kind}\n{text}\n")
                last = text.strip().splitlines()[-1:]
                say(printable(f"run {number}: {case.policy}: {kind}: {''.join(last)}", 300))
            if time.monotonic() - saved > SAVED_EVERY or progress.runs in (
                runs,
                (batch + 1) * BATCH,
            ):
                write_text(folder / STATE, progress.model_dump_json(indent=1) + "\n")
                saved = time.monotonic()
        say(f"{progress.runs:,} runs in {progress.seconds:,.0f} s: {_counts(progress.outcomes)}")
    return progress


def _guarded(
    folder: Path, number: int, case: Case, check: Callable[[Case], tuple[str, str]]
) -> tuple[str, str]:
    """Return the outcome of a run; a run that has twice ended the process is not tried again.

    A file has the numbers of runs that ended the process; during a run its number is added.
    """
    mark = folder / RUNNING
    ended = mark.read_text(encoding="ascii").split() if mark.exists() else []
    # Once may have been a user who stopped the process.
    if ended.count(str(number)) >= 2:
        mark.unlink()
        return "process ended", "twice in this run"
    mark.write_text(" ".join([*ended, str(number)]), encoding="ascii")
    found = check(case)
    mark.write_text(" ".join(ended), encoding="ascii")
    return found


def _keep(place: Path, case: Case, text: str) -> None:
    """Store a fault: the problem, and how it was run."""
    dump_problem(case.problem, place.with_suffix(".json"))
    how = f"policy={case.policy} seed={case.seed} charge_planning={case.charge_planning}\n"
    write_text(place.with_suffix(".txt"), how + text)


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in sorted(counter.items()))


def main(arguments: list[str] | None = None) -> int:
    """Run and print the result; return 1 if there are faults."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.soak", description=__doc__)
    parser.add_argument("folder", type=Path, help="of the progress and the faults")
    parser.add_argument("--runs", type=int, default=100_000, help="in all (default: %(default)s)")
    chosen = parser.parse_args(arguments)
    try:
        progress = soak(chosen.folder, chosen.runs)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"devices: {_counts(progress.devices)}; policies: {len(progress.policies)}")
    return 1 if progress.faults else 0


if __name__ == "__main__":
    sys.exit(main())
