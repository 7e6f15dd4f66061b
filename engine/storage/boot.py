"""What tells one boot and one process from the next."""

from __future__ import annotations

import os
from pathlib import Path


def boot_id() -> str:
    """Identity of the running kernel; empty where the system does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def process_token(pid: int | None = None) -> str | None:
    """Pid and start time of a process, or None where it does not run."""
    pid = os.getpid() if pid is None else pid
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        return f"{pid}:{stat.rpartition(')')[2].split()[19]}"
    except (FileNotFoundError, ProcessLookupError):
        pass
    except OSError:
        return f"{pid}:?"
    if Path("/proc/self/stat").exists():
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return f"{pid}:?"


def process_lives(token: str) -> bool:
    """Whether the process of this token still runs."""
    return process_token(int(token.partition(":")[0])) == token
