"""Named points at which a test can end the process, as a power switch would."""

from __future__ import annotations

import os
import signal

_VARIABLE = "GINGHAM_CRASH_AT"


def point(name: str) -> None:
    """End the process by SIGKILL where the environment names this point, ``name`` or ``name:n`` for the n-th pass."""
    wanted = os.environ.get(_VARIABLE)
    if wanted is None:
        return
    target, _, count = wanted.partition(":")
    if target != name:
        return
    if int(count or 1) > 1:
        os.environ[_VARIABLE] = f"{target}:{int(count) - 1}"
    else:
        os.kill(os.getpid(), signal.SIGKILL)
