"""Functions are short and take few arguments, but for the exceptions listed here."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MOST_LINES, MOST_PARAMETERS = 60, 8
LONG: dict[str, str] = {}
"""Functions over `MOST_LINES`, with the reason."""
WIDE = {
    "policies.fate.paper.policy.__init__": "its parameters are the keys of conf/policy/fate.yaml",
    "policies.fate.rollout.policy.__init__": "likewise, of conf/policy/fate_rollout.yaml",
}
"""Functions with more than `MOST_PARAMETERS`, with the reason."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions() -> Iterator[tuple[str, Function]]:
    """Yield every function of the product with its module and name."""
    for package in ("fate_gym", "policies", "scripts"):
        for path in sorted((ROOT / package).rglob("*.py")):
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, Function):
                    yield f"{module}.{node.name}", node


def lines(function: Function) -> int:
    """Count the lines of the body, without docstring and signature."""
    first = function.body[0]
    has_docstring = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    body = function.body[1:] if has_docstring else function.body
    return (function.end_lineno or 0) - body[0].lineno + 1 if body else 0


def parameters(function: Function) -> int:
    """Count the parameters, without self and cls."""
    given = function.args
    every = [*given.posonlyargs, *given.args, *given.kwonlyargs]
    return sum(one.arg not in ("self", "cls") for one in every)


def test_functions_are_short() -> None:
    found = {name for name, function in functions() if lines(function) > MOST_LINES}
    assert found == set(LONG)


def test_functions_take_few_arguments() -> None:
    found = {name for name, function in functions() if parameters(function) > MOST_PARAMETERS}
    assert found == set(WIDE)
