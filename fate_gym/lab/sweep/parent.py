"""Ends the workers of a sweep on one machine when the process that started them ends."""

from __future__ import annotations

import os
import threading
import time

_SECONDS = 0.5
_watching = threading.Lock()


def end_with(parent: int) -> None:
    """End this worker process soon after its parent has ended; further calls have no effect.

    Otherwise joblib's workers would wait for more work for a minute or longer, or finish their
    current job, beside those of a restarted sweep. Results are written atomically, so a job can be
    abandoned at any moment.
    """
    if os.getpid() != parent and _watching.acquire(blocking=False):
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_SECONDS)
    os._exit(1)
