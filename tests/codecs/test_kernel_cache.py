"""Compiled kernels are found by the next process, and by no process that they are not made for."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from gingham.codecs import jit, kernel_cache
from gingham.codecs.kernel_cache import cache_folder
from kernels import compiled_from_the_end


def child(code: str, **settings: object) -> str:
    environment = {**os.environ, **{name: str(value) for name, value in settings.items()}}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        capture_output=True, text=True, env=environment, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def plus_one(x):
    return x + 1


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "gingham" / "0.1.0" / "kernels-1-avx2"
    monkeypatch.setattr(jit, "CACHE_FOLDER", place)
    return place


def cache_lowering() -> str:
    return child("from gingham.codecs.jit import SIMD; print(SIMD)", GINGHAM_SIMD="").strip()


def hits_and_misses() -> tuple[int, int]:
    compiled = jit.kernel("int64(int64)")(plus_one)
    assert compiled(41) == 42
    return sum(compiled.stats.cache_hits.values()), sum(compiled.stats.cache_misses.values())


def test_a_second_process_compiles_no_kernel() -> None:
    if jit.CACHE_FOLDER is None or not kernel_cache.can_write(jit.CACHE_FOLDER):
        pytest.skip("the user's cache cannot be written")
    code = """
        import importlib
        from gingham.index.warmup import KERNEL_MODULES
        for name in KERNEL_MODULES:
            for value in vars(importlib.import_module(name)).values():
                if getattr(getattr(value, "stats", None), "cache_path", None):
                    print(name, sum(value.stats.cache_hits.values()), sum(value.stats.cache_misses.values()))
        """
    from gingham.index.warmup import KERNEL_MODULES

    lines = [line.split() for line in child(code).splitlines()]
    assert {name for name, *_ in lines} == set(KERNEL_MODULES)
    assert all(counts == ["1", "0"] for _, *counts in lines), lines


def test_a_kernel_is_compiled_once(folder: Path) -> None:
    assert hits_and_misses() == (0, 1)
    assert hits_and_misses() == (1, 0)
    assert len(list(folder.iterdir())) == 1


@pytest.mark.parametrize("damage", [lambda b: b[:-9], lambda b: b[:50] + b"\0" + b[51:], lambda b: b""])
def test_a_damaged_file_is_compiled_anew(folder: Path, damage: object) -> None:
    hits_and_misses()
    (file,) = folder.iterdir()
    file.write_bytes(damage(file.read_bytes()))  # type: ignore[operator]
    assert hits_and_misses() == (0, 1)
    assert hits_and_misses() == (1, 0)


def test_nothing_is_compiled_where_only_loading_is_asked_for(folder: Path) -> None:
    with kernel_cache.only_cached():
        with pytest.raises(kernel_cache.KernelNotCachedError, match=r"plus_one is not in the cache"):
            hits_and_misses()
        assert not folder.exists()
    hits_and_misses()
    with kernel_cache.only_cached():
        assert hits_and_misses() == (1, 0)


@pytest.mark.parametrize("name", kernel_cache.SHARED_SOURCES)
def test_a_changed_shared_source_has_another_folder(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = cache_folder("avx2")
    for source in kernel_cache.SHARED_SOURCES:
        shutil.copy(Path(kernel_cache.__file__).with_name(source), tmp_path / source)
    monkeypatch.setattr(kernel_cache, "__file__", str(tmp_path / "kernel_cache.py"))
    assert cache_folder("avx2") == before
    with (tmp_path / name).open("a") as file:
        file.write("\n")
    assert cache_folder("avx2") != before
    (tmp_path / name).unlink()
    assert cache_folder("avx2") is None


def test_a_changed_kernel_is_compiled_anew(folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "some_kernels.py"
    results = []
    for text in ("def twice(x):\n    return TWO * x\nTWO = 2\n", "def twice(x):\n    return TWO * x\nTWO = 3\n"):
        source.write_text(text)
        names: dict[str, object] = {"__name__": "some_kernels"}
        exec(compile(text, str(source), "exec"), names)
        results.append(jit.kernel("int64(int64)")(names["twice"])(5))  # type: ignore[arg-type]
    assert results == [10, 15]


def test_portable_kernels_have_a_folder_of_their_own(tmp_path: Path) -> None:
    show = "from gingham.codecs.jit import CACHE_FOLDER; print(CACHE_FOLDER)"
    portable = child(show, GINGHAM_SIMD="portable", NUMBA_CACHE_DIR=tmp_path).strip()
    assert Path(portable).parents[2] == tmp_path
    assert portable.endswith("-portable")
    assert child(show, NUMBA_CPU_NAME="generic", NUMBA_CACHE_DIR=tmp_path).strip() == portable
    host = child(show, GINGHAM_SIMD="", NUMBA_CACHE_DIR=tmp_path).strip()
    assert host == portable.removesuffix("portable") + cache_lowering()


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="where Linux keeps caches")
def test_the_base_is_that_of_numba_then_of_the_desktop_then_of_the_home(tmp_path: Path) -> None:
    show = "from gingham.codecs.kernel_cache import cache_folder; print(cache_folder('avx2'))"
    names = {"NUMBA_CACHE_DIR": "", "XDG_CACHE_HOME": "", "HOME": str(tmp_path / "home")}
    for name, value, expected in (
        ("HOME", tmp_path / "home", tmp_path / "home" / ".cache"),
        ("XDG_CACHE_HOME", "not/absolute", tmp_path / "home" / ".cache"),
        ("XDG_CACHE_HOME", tmp_path / "xdg", tmp_path / "xdg"),
        ("NUMBA_CACHE_DIR", tmp_path / "numba", tmp_path / "numba"),
    ):
        names[name] = str(value)
        assert Path(child(show, **names).strip()).parents[2] == expected


def test_kernels_work_where_the_cache_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code = """
        import numpy as np
        from gingham.codecs.topk_kernels import sort_heaps
        scores, rows = np.array([[1, 3, 2]], np.float32), np.array([[7, 8, 9]])
        sort_heaps(scores, rows)
        print(rows.tolist())
        """
    assert child(code, NUMBA_CACHE_DIR=tmp_path / "file" / "below") == "[[8, 9, 7]]\n"


def test_the_folders_used_last_are_kept(folder: Path) -> None:
    for i in range(kernel_cache.KEPT_FOLDERS + 3):
        old = folder.parents[1] / f"0.0.{i % 2}" / f"kernels-{i}-avx2"
        old.mkdir(parents=True)
        (old / "kernel").touch()
        os.utime(old, (i, i))
    hits_and_misses()
    kept = {path.name for path in folder.parents[1].glob("*/*")}
    assert len(kept) == kernel_cache.KEPT_FOLDERS
    assert {folder.name, "kernels-18-avx2"} <= kept
    assert "kernels-3-avx2" not in kept


def test_searches_run_on_a_cpu_without_any_extension(tmp_path: Path) -> None:
    code = f"""
        import numpy as np
        import gingham as gg
        gg.warmup()
        rows = np.random.default_rng(0).standard_normal((50, 12)).astype(np.float32)
        with gg.open({str(tmp_path / "db")!r}) as db:
            for dtype in ("float32", "float16"):
                vectors = {{"dense": gg.Dense(12, dtype=dtype)}}
                docs = db.create_collection(dtype, fields={{"body": gg.Text(bm25=True)}}, vectors=vectors)
                docs.upsert(ids=list(range(50)), fields={{"body": [f"word{{i}}" for i in range(50)]}},
                            vectors={{"dense": rows}})
                print(docs.search(rows[7], k=1).ids, docs.query(gg.match("body", "word9").limit(1)).ids)
        """
    with compiled_from_the_end(NUMBA_CPU_NAME="generic"):
        assert child(code, NUMBA_CPU_NAME="generic") == "[7] [9]\n" * 2
