"""Mutants of a sweep's directory: its report and a rerun give a result or one clear error.

``python -m tests.fuzz.run_directories [FIRST [COUNT]]`` runs many. Each number always gives the
same mutant. Mutants run in a separate process with limits on memory and on the time of each, so
that those that crash the interpreter or do not end are reported, too.
"""

from __future__ import annotations

import json
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from fate_gym.errors import InputError
from fate_gym.lab.errors import JobFailedError
from fate_gym.lab.jobs.config import EvaluateConfig
from fate_gym.lab.jobs.run import run_job
from fate_gym.lab.report.compute import Report, compute_report
from fate_gym.lab.report.figures.draw import draw_figures
from fate_gym.lab.report.markdown import markdown
from fate_gym.lab.report.page.render import render_page
from fate_gym.lab.report.summary_table import latex_summary, print_summary
from tests.lab.conftest import job_config

POLICIES = ("round_robin", "heft")
SECONDS, BYTES = 60, 12 << 30
MOST_CHARACTERS = 12_000

NASTY: list[Any] = [
    None, True, -1, 0, 2**63, 10**30, 1e308, 5e-324, float("nan"), float("inf"), "",
    "\x1b[2J\u202e", "$x_$", "<!--<script>", "a\nb",
    "../../x", [], {}, [[]], {"a": None}, "\ud800", "9" * 5000,
]  # fmt: skip


def make_sweep(runs: Path) -> list[EvaluateConfig]:
    """Run the jobs whose results are mutated; return their configurations."""
    configs = [job_config(runs, policy=policy) for policy in POLICIES]
    for config in configs:
        run_job(config)
    root = configs[0].sweep_directory
    (root / "sweep.yaml").write_text("commands: [[suite=smoke, policy=heft]]\nreport: {}\n")
    return configs


def numbers(report: Report) -> list[Any]:
    """Return the numbers of a summary that do not depend on the clock."""
    return [
        {k: repr(v) for k, v in row.columns().items() if not k.startswith("decision")}
        for row in report.summary
    ]


# --- mutations -------------------------------------------------------------------------------


def _flip(rng: random.Random, path: Path, _root: Path) -> None:
    data = bytearray(path.read_bytes())
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def _cut(rng: random.Random, path: Path, _root: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: rng.choice((0, 1, rng.randrange(len(data)), len(data) - 1))])


def _drop_middle(rng: random.Random, path: Path, _root: Path) -> None:
    data = path.read_bytes()
    ends = sorted(rng.randrange(len(data)) for _ in range(2))
    path.write_bytes(data[: ends[0]] + data[ends[1] :])


def _garbage(rng: random.Random, path: Path, _root: Path) -> None:
    kinds = (b"\xff\xfe\x00", b"PAR1" * 3, rng.randbytes(4096), b"[" * 100_000, b"\0" * 512, b"{}")
    path.write_bytes(rng.choice(kinds))


def _remove(_rng: random.Random, path: Path, _root: Path) -> None:
    path.unlink()


def _swap(rng: random.Random, path: Path, root: Path) -> None:
    other = rng.choice([one for one in root.rglob("*") if one.is_file() and one != path])
    one, two = path.read_bytes(), other.read_bytes()
    path.write_bytes(two)
    other.write_bytes(one)


def _same_name(rng: random.Random, path: Path, root: Path) -> None:
    """Replace a file by that of another job."""
    others = [one for one in root.rglob(path.name) if one != path]
    if others:
        path.write_bytes(rng.choice(others).read_bytes())


def _other_kind(rng: random.Random, path: Path, _root: Path) -> None:
    path.unlink()
    kind = rng.choice(("directory", "loop", "nowhere"))
    if kind == "directory":
        path.mkdir()
    else:
        path.symlink_to(path.name if kind == "loop" else "nowhere")


def _move(rng: random.Random, path: Path, root: Path) -> None:
    place = path.parent if path.parent != root else next(root.glob("*/*/*"))
    name = rng.choice(("s7-00000000", "s0-ffffffff", "x", f"s{'9' * 30}-00000000"))
    place.rename(place.with_name(name))


def _column(rng: random.Random, path: Path, root: Path) -> None:
    """Replace values of a column of a table."""
    path = rng.choice(sorted(root.rglob("*.parquet")))
    table = pq.read_table(path)
    place = rng.randrange(table.num_columns)
    name = table.column_names[place]
    values = table[name].to_pylist()
    bad = rng.choice(NASTY)
    if rng.random() < 0.5:
        values[rng.randrange(len(values))] = bad
    else:
        values = [bad] * len(values)
    try:
        table = table.set_column(place, name, pa.array(values))
    except (pa.ArrowException, OverflowError, UnicodeEncodeError):
        table = table.drop_columns([name])
    if rng.random() < 0.2:
        table = table.slice(0, rng.randrange(len(values)))
    if table.num_columns and rng.random() < 0.1:
        table = table.append_column(name, table[table.column_names[0]])
    try:
        pq.write_table(table, path)
    except pa.ArrowNotImplementedError:  # a type that parquet does not have
        path.unlink(missing_ok=True)


def _value(rng: random.Random, values: Any) -> Any:
    """Replace or remove a value in a tree of plain values."""
    if isinstance(values, dict) and values and rng.random() < 0.9:
        key = rng.choice(sorted(values, key=str))
        if rng.random() < 0.1:
            return {name: value for name, value in values.items() if name != key}
        return values | {key: _value(rng, values[key])}
    if isinstance(values, list) and values and rng.random() < 0.7:
        place = rng.randrange(len(values))
        return [*values[:place], _value(rng, values[place]), *values[place + 1 :]]
    return rng.choice(NASTY)


def _json(rng: random.Random, path: Path, root: Path) -> None:
    path = rng.choice(sorted(root.rglob("result.json")))
    values = _value(rng, json.loads(path.read_text()))
    if isinstance(values, dict) and rng.random() < 0.5:
        values.pop("checksum", None)
    path.write_text(json.dumps(values))


def _yaml(rng: random.Random, path: Path, root: Path) -> None:
    path = rng.choice(sorted(root.rglob("*.yaml")))
    path.write_text(yaml.safe_dump(_value(rng, yaml.safe_load(path.read_text()))))


MUTATIONS: list[Callable[[random.Random, Path, Path], None]] = [
    _flip, _flip, _flip, _cut, _drop_middle, _garbage, _remove, _swap, _same_name, _other_kind,
    _move, _column, _column, _column, _json, _json, _json, _yaml,
]  # fmt: skip


FORGED = ("column", "json")


def mutate(root: Path, number: int) -> str:
    """Apply mutation ``number`` to a directory; return its description."""
    rng = random.Random(number)
    mutation = rng.choice(MUTATIONS)
    path = rng.choice([one for one in sorted(root.rglob("*")) if one.is_file()])
    mutation(rng, path, root)
    return f"{mutation.__name__[1:]} {path.relative_to(root)}"


# --- what has to hold ------------------------------------------------------------------------


class Game:
    """A sweep and its mutants, one at a time."""

    def __init__(self, place: Path) -> None:
        self.whole, self.copy = place / "whole", place / "runs"
        self._configs = make_sweep(self.whole)
        self._numbers = numbers(compute_report(self._configs[0].sweep_directory))
        self._again = [
            one.model_copy(update={"paths": one.paths.model_copy(update={"runs": self.copy})})
            for one in self._configs
        ]

    def play(self, number: int) -> str:
        """Return the outcome of a mutant's report and rerun; unexpected errors are raised."""
        shutil.rmtree(self.copy, ignore_errors=True)
        shutil.copytree(self.whole, self.copy)
        root = self._again[0].sweep_directory
        what = mutate(root, number)
        try:
            first = self._report(root)
        except InputError as error:
            first = _clear(error)
        try:
            ran = [not run_job(config).skipped for config in self._again]
            report = compute_report(root)
        except (InputError, JobFailedError) as error:
            return f"{what}: {first}, then {_clear(error)}"
        if numbers(report) != self._numbers:
            # A table or result that someone made on purpose, whole, is a result like any other.
            wrong = "forged" if what.startswith(FORGED) else "WRONG"
            return f"{what}: {first}, then {wrong} numbers"
        return f"{what}: {first}, then {sum(ran)} run again"

    def _report(self, root: Path) -> str:
        report = compute_report(root)
        markdown(report, ())
        latex_summary(report)
        page = render_page(report)
        print_summary(report)
        whole = all(job.state == "ok" for job in report.sweep.jobs)
        if whole:
            # Damage that is found leaves out jobs, and their figures are those of fewer jobs.
            draw_figures(report)
        for line in report.sweep.gaps():
            assert len(line) < MOST_CHARACTERS, "a message without end"
            assert line.isprintable(), "a message that a terminal obeys"
        assert "\ud800" not in page
        return f"report of {len(report.sweep.finished)}"


def _clear(error: InputError | JobFailedError) -> str:
    text = str(error)
    assert text.isprintable(), "a message that a terminal obeys"
    assert len(text) < MOST_CHARACTERS, "a message without end"
    return "one error"


def _serve(first: int, last: int) -> None:
    """Run some mutants; report the number before each and the outcome after it on stderr."""
    resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
    with tempfile.TemporaryDirectory() as place:
        game = Game(Path(place))
        for number in range(first, last):
            print(f"> {number}", file=sys.stderr, flush=True)
            signal.alarm(SECONDS)  # its default action ends the process
            try:
                end = game.play(number)
            except Exception as error:  # noqa: BLE001
                end = f"CRASH {mutation_of(game, number)}: {type(error).__name__}: {error}"
            print(f"< {end}".replace("\n", " ")[:500], file=sys.stderr, flush=True)
        signal.alarm(0)


def mutation_of(game: Game, number: int) -> str:
    """Return the description of mutation ``number``."""
    shutil.rmtree(game.copy, ignore_errors=True)
    shutil.copytree(game.whole, game.copy)
    return mutate(game.copy / "default", number)


def run(first: int, count: int) -> Iterator[tuple[int, str]]:
    """Yield the number and the outcome of some mutants."""
    last = first + count
    while first < last:
        code = f"from tests.fuzz.run_directories import _serve; _serve({first}, {last})"
        child = subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            text=True, errors="replace",
        )  # fmt: skip
        assert child.stderr is not None
        asked: int | None = None
        said: list[str] = []
        for line in child.stderr:
            said.append(line)
            if line.startswith("> "):
                asked = int(line[2:])
            elif line.startswith("< "):
                assert asked is not None
                yield asked, line[2:].strip()
        if child.wait() == 0:
            return
        if asked is None:
            raise RuntimeError(f"no mutant was played: {''.join(said)}")
        yield asked, f"CRASH: the process ended with {child.returncode}: {said[-1].strip()}"
        first = asked + 1


def main() -> int:
    """Print every mutant that failed, and how often each outcome occurred."""
    first, count = (int(word) for word in [*sys.argv[1:], "0", "2500"][:2])
    ends: Counter[str] = Counter()
    bad = 0
    for number, end in run(first, count):
        kind = end.split(": ", 1)[-1] if "CRASH" not in end else "crash"
        ends[kind] += 1
        if "CRASH" in end or "WRONG" in end:
            bad += 1
            print(f"{number}: {end}", flush=True)
    for kind, times in ends.most_common():
        print(f"{times:6} {kind}")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
