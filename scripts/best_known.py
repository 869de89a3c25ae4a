"""Finds the best known schedules of a suite and keeps them in policies/references/best_known.json.

    python scripts/best_known.py real_dag_test --seeds 0 1 2 --work 4000000

An entry is replaced only by a better one. Entries of another cost model stay, unused: their keys
are digests of the compiled problem.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from fate_gym.lab.files import write_text
from fate_gym.sim import Simulator, compile_problem
from fate_gym.workloads import build_suite, load_cluster, load_suite
from policies import make_policy
from policies.references.best_known import Entry, load_best_known, problem_key

FILE = Path(__file__).resolve().parent.parent / "policies" / "references" / "best_known.json"
ALSO = ("fate_rollout", "heft_boosted", "heft_sharded")
"""Policies whose schedules count as well."""


def main() -> None:
    """Search each problem of a suite; write after each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("suite")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--work", type=int, default=4_000_000)
    parser.add_argument("--file", type=Path, default=FILE)
    options = parser.parse_args()
    command = "python scripts/best_known.py " + " ".join(sys.argv[1:])
    entries = load_best_known(options.file)
    spec = load_suite(options.suite)
    for seed in options.seeds:
        for problem in build_suite(spec, load_cluster(spec.cluster), seed):
            compiled = compile_problem(problem)
            simulator = Simulator(compiled, seed=seed)
            policies = {name: make_policy(name) for name in ALSO}
            policies["best_known"] = make_policy("best_known", work=options.work)
            key = problem_key(compiled)
            for name, policy in policies.items():
                makespan = float(simulator.run(policy, seed=seed).makespan)
                if key not in entries or makespan < entries[key]["makespan"] * (1 - 1e-9):
                    entries[key] = Entry(
                        problem=problem.id, makespan=makespan, found_by=name, command=command
                    )
            print(f"{problem.id}: {entries[key]['makespan']:.3f} s, {entries[key]['found_by']}")
            write(options.file, entries)


def write(file: Path, entries: dict[str, Entry]) -> None:
    """By problem."""
    ordered = dict(sorted(entries.items(), key=lambda pair: (pair[1]["problem"], pair[0])))
    write_text(file, json.dumps(ordered, indent=1) + "\n")


if __name__ == "__main__":
    main()
