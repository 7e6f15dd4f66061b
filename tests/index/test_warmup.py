"""Kernels become ready behind the first answers, whatever the machine allows."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from typing import TYPE_CHECKING

import pytest

from gingham.index import warmup

if TYPE_CHECKING:
    from pathlib import Path

KERNEL = """
from gingham.codecs.intrinsics import kernel

@kernel("int64(int64)")
def plus(x):
    return x + {}
"""
START = """
import os, subprocess, sys, time
from gingham.index import warmup

warmup.KERNEL_MODULES = ("one_kernels", "two_kernels")

def wait(name):
    while (module := warmup.ready_kernels(name)) is None:
        time.sleep(0.01)
    return sum(module.plus.stats.cache_hits.values()), sum(module.plus.stats.cache_misses.values()), module.plus(40)
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A program in a folder with two modules of one small kernel each, and an empty cache."""
    for number, name in enumerate(("one_kernels.py", "two_kernels.py"), 1):
        (tmp_path / name).write_text(KERNEL.format(number))
    return tmp_path / "program.py"


def started(program: Path, code: str, **settings: object) -> subprocess.Popen[str]:
    text = START + textwrap.dedent(code)
    if not program.exists() or program.read_text("utf-8") != text:  # which one started before may be reading
        program.write_text(text, "utf-8")
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(program.parent / "cache")}
    environment |= {name: str(value) for name, value in settings.items()}
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-X", "dev", str(program)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip


def ended(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    return out


def kept(program: Path) -> set[str]:
    return {path.name.split("-")[0] for path in (program.parent / "cache").rglob("*_kernels*")}


def test_a_child_compiles_and_the_process_loads(program: Path) -> None:
    code = "print(warmup.ready_kernels('two_kernels'), wait('two_kernels'), sorted(warmup._ready))"
    assert ended(started(program, code)) == "None (1, 0, 42) ['two_kernels']\n"


def test_the_child_goes_on_to_modules_that_nobody_asked_for(program: Path) -> None:
    code = "print(wait('two_kernels')); warmup._thread.join(); print(wait('one_kernels'))"
    assert ended(started(program, code)) == "(1, 0, 42)\n(1, 0, 41)\n"
    assert kept(program) == {"one_kernels.plus", "two_kernels.plus"}


def test_a_module_asked_for_while_another_is_compiled_becomes_ready_too(program: Path) -> None:
    code = "warmup.ready_kernels('one_kernels'); print(wait('two_kernels'), wait('one_kernels'))"
    assert ended(started(program, code)) == "(1, 0, 42) (1, 0, 41)\n"


def test_a_filled_cache_starts_no_child(program: Path) -> None:
    code = "subprocess.Popen = None; print(wait('one_kernels'))"
    ended(started(program, "warmup.warmup()"))
    assert ended(started(program, code)) == "(1, 0, 41)\n"


@pytest.mark.parametrize("executable", ["''", "None", "'/no/such/python'", "'/bin/false'", "broken"])
def test_the_thread_compiles_where_no_child_can(program: Path, executable: str) -> None:
    broken = program.parent / "python3"
    broken.write_text("#!/bin/sh\nexit 3\n")
    broken.chmod(0o755)
    code = f"broken = {str(broken)!r}; sys.executable = {executable}; print(wait('one_kernels'))"
    assert ended(started(program, code)) == "(0, 1, 41)\n"


def test_the_thread_compiles_in_a_frozen_application(program: Path) -> None:
    assert ended(started(program, "sys.frozen = True; print(wait('one_kernels'))")) == "(0, 1, 41)\n"


def test_the_thread_compiles_where_the_cache_cannot_be_written(program: Path) -> None:
    (program.parent / "file").touch()
    code = "print(wait('one_kernels'))"
    assert ended(started(program, code, NUMBA_CACHE_DIR=program.parent / "file" / "x")) == "(0, 1, 41)\n"


def test_a_module_that_cannot_be_compiled_is_reported_once(program: Path) -> None:
    (program.parent / "one_kernels.py").write_text("raise LookupError('no kernel')")
    code = """
        import threading
        reported = []
        threading.excepthook = lambda failure: reported.append(repr(failure.exc_value))
        for _ in range(300):
            assert warmup.ready_kernels("one_kernels") is None
            time.sleep(0.01)
        print(reported, wait("two_kernels")[2])
        """
    assert ended(started(program, code)) == "[\"LookupError('no kernel')\"] 42\n"


def test_a_process_may_end_while_its_child_compiles(program: Path) -> None:
    code = """
        start, pids = warmup._Child.start, []
        def noted(first):
            child = start(first)
            pids.append(child.process.pid)
            return child
        warmup._Child.start = noted
        warmup.ready_kernels("one_kernels")
        while not pids:
            time.sleep(0.001)
        print(*pids)
        """
    pid = int(ended(started(program, code)))
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    raise AssertionError("the child outlives its parent")


def test_kernels_become_ready_in_a_fork_and_in_its_parent(program: Path) -> None:
    code = """
        warmup.ready_kernels("one_kernels")
        time.sleep(0.2)
        import warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
        result = wait("one_kernels")[2]
        if pid == 0:
            os._exit(result)
        print(result, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        """
    assert ended(started(program, code)) == "41 41\n"


def test_processes_that_start_at_once_compile_once(program: Path) -> None:
    code = "print(wait('one_kernels'))"
    both = [started(program, code) for _ in range(3)]
    assert [ended(process) for process in both] == ["(1, 0, 41)\n"] * 3


def test_a_module_is_ready_after_the_warm_up_of_all() -> None:
    assert all(warmup.ready_kernels(name) is sys.modules[name] for name in warmup.KERNEL_MODULES)


def test_a_process_that_waits_for_a_filled_cache_has_all_kernels_at_once(program: Path) -> None:
    ended(started(program, "wait('two_kernels'); wait('one_kernels')"))
    out = ended(started(program, "print(warmup.load_cached(), warmup.all_ready(), wait('one_kernels'))"))
    assert out == "True True (1, 0, 41)\n"


def test_a_process_waits_for_no_kernel_that_has_to_be_compiled(program: Path) -> None:
    code = "print(warmup.load_cached(), warmup.load_cached(), wait('one_kernels')[2], wait('two_kernels')[2])"
    assert ended(started(program, code)) == "False False 41 42\n"
