"""Workers of a sweep on one machine end when the process that started them does."""

from __future__ import annotations

import os
import threading
import time

_SECONDS = 0.5
_watching = threading.Lock()


def end_with(parent: int) -> None:
    """End this process, a worker, soon after its parent has ended; once is enough.

    joblib's workers would wait for more to do, a minute or longer, or play the job at hand to its
    end, beside those of a sweep that was started again. Results appear whole or not at all, so
    that a job can be given up at any moment.
    """
    if os.getpid() != parent and _watching.acquire(blocking=False):
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_SECONDS)
    os._exit(1)
