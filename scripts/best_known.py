"""Searches for best schedules of a suite; stores them in policies/references/best_known.json.

    python scripts/best_known.py real_dag_test --clusters mixed_12 homogeneous_8 --seeds 0 1 2

Candidates are the schedules of two independent searches with the same budget, and of some policies.
An entry is replaced only by a better one. Entries of another cost model stay, unused: keys are
digests of the compiled problem.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fate_gym.files import write_text
from fate_gym.sim import Simulator, compile_problem
from fate_gym.workloads import build_suite, load_cluster, load_suite
from policies import make_policy
from policies.references.kept import Entry, entry_of, load_best_known, problem_key

FILE = Path(__file__).resolve().parent.parent / "policies" / "references" / "best_known.json"
SEARCHES: dict[str, dict[str, Any]] = {"best_known": {"kept": False}, "clairvoyant": {}}
"""The two searches, with parameters that force a search."""
ALSO = ("fate_rollout", "heft_boosted", "heft_sharded")
"""Policies whose schedules are also candidates."""


def main() -> None:
    """Search each problem of a suite; write the file after each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("suite")
    parser.add_argument("--clusters", nargs="+", help="default: the suite's")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--work", type=int, default=4_000_000, help="of each search")
    parser.add_argument("--file", type=Path, default=FILE)
    options = parser.parse_args()
    entries = load_best_known(options.file)
    spec = load_suite(options.suite)
    for cluster in options.clusters or [spec.cluster]:
        for seed in options.seeds:
            for problem in build_suite(spec, load_cluster(cluster), seed):
                simulator = Simulator(compile_problem(problem), seed=seed)
                key = problem_key(simulator.compiled)
                for entry in found(simulator, options.work):
                    if key not in entries or entry["makespan"] < entries[key]["makespan"]:
                        entries[key] = entry
                best = entries[key]
                print(f"{cluster} {problem.id}: {best['makespan']:.3f} s, {best['found_by']}")
                write(options.file, entries)


def found(simulator: Simulator, work: int) -> Iterator[Entry]:
    """Yield the schedules of the policies and of the searches for one problem."""
    for name in ALSO:
        trace = simulator.run(make_policy(name))
        yield entry_of(simulator.compiled, trace, work=0)
    for name, params in SEARCHES.items():
        trace = simulator.run(make_policy(name, work=work, **params))
        yield entry_of(simulator.compiled, trace, work=work)


def write(file: Path, entries: dict[str, Entry]) -> None:
    """Write the entries, one per line, by problem and cluster."""
    ordered = sorted(entries.items(), key=lambda pair: (pair[1]["problem"], pair[1]["cluster"]))
    lines = [f"{json.dumps(key)}: {json.dumps(e, separators=(',', ':'))}" for key, e in ordered]
    write_text(file, "{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
