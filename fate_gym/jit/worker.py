"""A process that compiles the kernels whose names it reads, into a store, and says "done".

``python -m fate_gym.jit.worker DIRECTORY``; started by `fate_gym.jit.build`.
"""

from __future__ import annotations

import gc
import sys
from importlib import import_module
from pathlib import Path

from fate_gym.jit import build
from fate_gym.jit.function import KernelFunction
from fate_gym.jit.store import Store


def main() -> None:
    """Serve until the input ends."""
    # Compiling makes many objects that live as long as the process: a fifth of its time was spent
    # on looking for garbage among them.
    gc.disable()
    store = build.STORE = Store(Path(sys.argv[1]))
    for line in sys.stdin:
        module, _, name = line.strip().rpartition(".")
        function = getattr(import_module(module), name)
        if isinstance(function, KernelFunction):
            store.write(function, function.compile())
        print("done", flush=True)


if __name__ == "__main__":
    main()
