"""Modules with kernels, written for a test and imported in it or in a process of its own."""

from __future__ import annotations

import importlib.util
import itertools
import sys
from pathlib import Path
from types import ModuleType

HEADER = """\
from __future__ import annotations
from typing import NamedTuple
import numpy as np
from fate_gym.jit import (
    Block, Floats, Row, clear_block, column, copy_block, inlined, kernel, scalar, table
)
"""
_numbers = itertools.count()


def load(folder: Path, text: str, name: str | None = None) -> ModuleType:
    """Import a module of this text; a new one each time unless it is named."""
    name = name or f"jit_case_{next(_numbers)}"
    path = folder / f"{name}.py"
    path.write_text(HEADER + text, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
