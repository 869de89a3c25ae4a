"""Modules with kernels that are written for a test and imported in it or in a subprocess."""

from __future__ import annotations

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
    """Import a module with this text; a new one each time unless it has a name."""
    name = name or f"jit_case_{next(_numbers)}"
    path = folder / f"{name}.py"
    path.write_text(HEADER + text, encoding="utf-8")
    module = sys.modules[name] = ModuleType(name)
    # Not imported: byte code that is kept would outlive an edit within the same second.
    exec(compile(HEADER + text, str(path), "exec"), vars(module))
    return module
