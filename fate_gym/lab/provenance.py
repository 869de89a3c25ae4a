"""Provenance of results: versions, commit, machine, and hashes of the workload."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fate_gym import __version__

if TYPE_CHECKING:
    from fate_gym.problem import Problem

PACKAGES = ("numpy", "scipy", "numba", "gymnasium", "ortools", "hydra-core", "wandb")


def made_with() -> dict[str, Any]:
    """Collect the fields ``versions``, ``git_sha`` and ``machine`` of a result."""
    return {"versions": versions(), "git_sha": git_sha(), "machine": machine()}


def versions() -> dict[str, str]:
    """Return the versions of Python and of installed packages that results depend on."""
    found = {"fate-gym": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def git_sha() -> str | None:
    """Return the commit of the package's checkout (``+dirty`` if changed); None: no checkout."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        # An installed wheel may be inside an unrelated repository, whose commit is meaningless.
        return None
    try:
        sha = _git(root, "rev-parse", "--short=12", "HEAD")
        return f"{sha}+dirty" if _git(root, "status", "--porcelain", "-uno") else sha
    except (OSError, subprocess.SubprocessError):
        return None


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(
        ("git", "-C", str(root), *arguments), capture_output=True, text=True, timeout=10, check=True
    )
    return done.stdout.strip()


def machine() -> str:
    """Describe processor, cores and system in one line."""
    return f"{_processor()}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown processor"
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or "unknown processor")


def digest(value: Any) -> str:
    """Hash a plain value to 8 hex digits, independent of the order of keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def workload_hash(problems: Iterable[Problem]) -> str:
    """Hash all fields of all problems to 12 hex digits."""
    digest = hashlib.sha256()
    for problem in problems:
        digest.update(problem.model_dump_json().encode())
    return digest.hexdigest()[:12]
