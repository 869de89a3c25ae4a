"""``fate-gym doctor``: what is installed, what is missing, and the remedies."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal

import click

from fate_gym.lab.cli.options import as_json

State = Literal["ok", "optional", "problem"]

_LEAST_FREE_GB = 1.0
_EXTRAS = {
    "rl": "trains agents",
    "calibrate": "measures your own GPU",
    "wandb": "builds views of W&B",
    "ray": "sweeps on a Ray cluster",
    "slurm": "sweeps on Slurm",
    "tune": "searches for parameters",
    "traces": "plays a sample of Alibaba's trace",
    "video": "renders MP4",
}
"""Purposes of the package's extras, without those for developers."""


@dataclass(frozen=True)
class Check:
    """Result of checking one thing."""

    name: str
    state: State
    found: str
    remedy: str = ""


@click.command()
@as_json()
def doctor(as_json: bool) -> int:
    """Check the installation: versions, extras, compiled cache, disk; names remedies.

    The exit code is 1 if something that every run needs is missing.
    """
    checks = every_check()
    if as_json:
        print(json.dumps([asdict(check) for check in checks], indent=1))
    else:
        from fate_gym.lab.tables import print_table

        rows = [(check.name, check.state, check.found, check.remedy) for check in checks]
        print_table(("what", "state", "found", "remedy"), rows, left=4)
    return int(any(check.state == "problem" for check in checks))


def every_check() -> list[Check]:
    """Run all checks, in the order in which they are shown."""
    return [
        _python(),
        *_packages(),
        *(_extra(name, what) for name, what in _EXTRAS.items()),
        _compiled(),
        _writable("results", Path("runs")),
        _disk(Path.cwd()),
        Check("cores", "ok", str(os.cpu_count())),
        _gpu(),
    ]


def _python() -> Check:
    found = f"{platform.python_version()}, {sys.executable}"
    if (3, 11) <= sys.version_info[:2] <= (3, 13):
        return Check("python", "ok", found)
    return Check("python", "problem", found, "use Python 3.11, 3.12 or 3.13")


def _packages() -> list[Check]:
    """Check the package itself and its required dependencies."""
    from fate_gym import __version__

    own = Check("fate-gym", "ok", f"{__version__}, {Path(__file__).resolve().parents[3]}")
    try:
        needed = [text for text in requires("fate-gym") or () if "extra ==" not in text]
    except PackageNotFoundError:
        return [own, Check("packages", "problem", "fate-gym is not installed", "pip install -e .")]
    return [own, *(_requirement(text) for text in needed)]


def _requirement(text: str) -> Check:
    from packaging.requirements import Requirement

    wanted = Requirement(text)
    remedy = f"pip install '{wanted.name}{wanted.specifier}'"
    try:
        found = version(wanted.name)
    except PackageNotFoundError:
        return Check(wanted.name, "problem", "missing", remedy)
    fits = wanted.specifier.contains(found, prereleases=True)
    return Check(wanted.name, "ok" if fits else "problem", found, "" if fits else remedy)


def _extra(name: str, what: str) -> Check:
    """Check whether the packages of an extra are installed."""
    from packaging.requirements import Requirement

    try:
        declared = [Requirement(text) for text in requires("fate-gym") or ()]
    except PackageNotFoundError:
        declared = []
    mine = [one for one in declared if one.marker and one.marker.evaluate({"extra": name})]
    mine = [one for one in mine if f'"{name}"' in str(one.marker)]
    missing = [one.name for one in mine if not _is_installed(one.name)]
    if mine and not missing:
        return Check(f"[{name}]", "ok", what)
    found = f"{what}: needs {', '.join(missing) or 'a newer installation of fate-gym'}"
    return Check(f"[{name}]", "optional", found, f"pip install 'fate-gym[{name}]'")


def _is_installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True


def _compiled() -> Check:
    """Check the cache of compiled code, and whether it can be written."""
    from fate_gym.jit.store import default_directory

    folder = default_directory()
    entries = [path for path in folder.rglob("*") if path.is_file()] if folder.is_dir() else []
    size = sum(path.stat().st_size for path in entries) / 1e6
    found = f"{folder}: {len(entries)} files, {size:.0f} MB"
    if not _can_write(folder):
        remedy = "set FATE_GYM_CACHE to a directory that can be written"
        return Check("compiled cache", "problem", f"{found}; cannot be written", remedy)
    if entries:
        return Check("compiled cache", "ok", found)
    return Check(
        "compiled cache", "ok", f"{folder}: empty; the first run compiles, a minute at most"
    )


def _writable(name: str, folder: Path) -> Check:
    where = folder.resolve()
    if _can_write(where):
        return Check(name, "ok", str(where))
    remedy = "choose another place with paths.runs=DIRECTORY"
    return Check(name, "problem", f"{where} cannot be written", remedy)


def _can_write(folder: Path) -> bool:
    """Whether files can be created in a directory, or the directory itself can."""
    there = next((one for one in (folder, *folder.parents) if one.exists()), folder)
    return there.is_dir() and os.access(there, os.W_OK)


def _disk(folder: Path) -> Check:
    free = shutil.disk_usage(folder).free / 1e9
    if free >= _LEAST_FREE_GB:
        return Check("disk", "ok", f"{free:.0f} GB free")
    return Check("disk", "problem", f"{free:.2f} GB free", "make room: a sweep may need 1 GB")


def _gpu() -> Check:
    return Check("GPU", "ok", "not needed: GPUs are simulated")
