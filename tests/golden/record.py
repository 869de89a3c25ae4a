"""Records new digests: ``python -m tests.golden.record [SUITE ...]``.

Do this only after a change that is meant to change schedules, and give the reason in the commit.
"""

from __future__ import annotations

import json
import sys
from time import perf_counter

from tests.golden.cases import CASES, DIGESTS, POLICIES, SEEDS, digest, play


def main() -> None:
    """Run every policy on the cases named on the command line, or on all."""
    recorded = json.loads(DIGESTS.read_text(encoding="utf-8")) if DIGESTS.exists() else {}
    for suite in sys.argv[1:] or CASES:
        recorded[suite] = {}
        for policy in POLICIES:
            start = perf_counter()
            recorded[suite][policy] = [digest(play(suite, policy, seed)) for seed in SEEDS]
            seconds = perf_counter() - start
            if seconds > 1.0:
                print(f"{suite} {policy}: {seconds:.1f} s", flush=True)
    DIGESTS.write_text(json.dumps(recorded, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
