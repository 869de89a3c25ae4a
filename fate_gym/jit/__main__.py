"""Compile ahead: ``python -m fate_gym.jit PACKAGE...`` compiles every kernel of some packages."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from fate_gym.jit import build


def main() -> None:
    """Import the modules that have kernels, and compile these."""
    for package in sys.argv[1:]:
        spec = find_spec(package)
        for folder in (spec.submodule_search_locations or ()) if spec else ():
            for path in sorted(Path(folder).rglob("*.py")):
                if "@kernel" in path.read_text(encoding="utf-8"):
                    inner = path.relative_to(folder).with_suffix("").parts
                    import_module(".".join((package, *inner)))
    build.build(build.REGISTRY, least=1)


if __name__ == "__main__":
    main()
