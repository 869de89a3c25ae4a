"""Whether planners make the recorded schedules with other versions of OR-Tools.

``python -m tests.golden.ortools 9.12 9.15`` puts each version before the environment's own on the
path and runs the tests that use solvers: recorded schedules of FATE and its variants, the solvers
and the oracle. Of equally good solutions another version may find another one, so pyproject.toml
allows only versions that find the recorded ones. The exit code is 1 if one of these does not.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parents[2]
TESTS = (
    "tests/golden/test_golden.py",
    "tests/policies/references/test_oracle.py",
    "tests/policies/fate/test_solver.py",
    "tests/policies/fate/test_joint_choice.py",
)
CHOSEN = "fate or oracle or solver or joint"


def allowed() -> SpecifierSet:
    """Return the versions of OR-Tools that pyproject.toml allows."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    requirements = map(Requirement, project["dependencies"])
    return next(one.specifier for one in requirements if one.name == "ortools")


def differences(version: str, folder: Path) -> str:
    """Run the tests with a version; return the last line of output, or nothing if all passed."""
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(folder)]
    subprocess.run([*pip, f"ortools=={version}.*"], check=True)
    before = os.environ.get("PYTHONPATH")
    paths = [str(folder), str(ROOT), *([before] if before else [])]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *TESTS, "-k", CHOSEN],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    return done.stdout.strip().splitlines()[-1] if done.returncode else ""


def main() -> int:
    """Try the versions named on the command line, and print the results."""
    specifier, wrong = allowed(), 0
    for version in sys.argv[1:]:
        with tempfile.TemporaryDirectory() as folder:
            found = differences(version, Path(folder))
        may = specifier.contains(f"{version}.0")
        wrong += bool(found) and may
        print(f"OR-Tools {version} ({'allowed' if may else 'not allowed'}): ", end="")
        print(f"other schedules: {found}" if found else "the recorded schedules", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
