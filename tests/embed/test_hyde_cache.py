"""What language models wrote is kept: in a dict, in memory, on disk."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import gingham as gg
from gingham import hyde
from gingham.embed import HashingEmbedder, expand
from gingham.embed.hyde import digest
from gingham.errors import Corrupt, InvalidArgument, NotAStore, StoreFull
from language_models import EMBEDDER, QUESTIONS, SUBJECTS, Fake, Long, knowing, says

if TYPE_CHECKING:
    from pathlib import Path


def test_a_second_run_asks_no_model_and_gives_the_same_bits(docs: gg.Collection) -> None:
    llm = Fake(lambda prompt, n: [f"passage {i} {time.monotonic_ns()}" for i in range(n)])
    first = docs.search(hyde("strings", llm=llm), k=12)
    words = docs.search(hyde("strings", llm=llm), k=12, using="body")
    for _ in range(2):
        again = docs.search(hyde("strings", llm=llm), k=12)
        assert again.ids == first.ids
        assert again.scores.tobytes() == first.scores.tobytes()
        assert docs.search(hyde("strings", llm=llm), k=12, using="body").scores.tobytes() == words.scores.tobytes()
    assert llm.calls == 1


def test_a_dict_does_for_a_cache_and_other_questions_are_other_entries() -> None:
    cache: dict[bytes, bytes] = {}
    embedder = Long()
    llm = Fake(lambda prompt, n: [f"text {i}" for i in range(n)])

    def run(**options: Any) -> Any:
        return expand(hyde(**{"text": "query", "llm": llm, "cache": cache, **options}), embedder)

    first = run()
    texts = embedder.texts
    np.testing.assert_array_equal(run(), first)
    assert llm.calls == 1
    assert embedder.texts == texts
    run(mix=0.9)
    assert llm.calls == 1
    run(n=2)
    run(text="other")
    run(task="news")
    run(language="German")
    assert llm.calls == 5
    run(llm=Fake(llm.answer))
    assert len({len(value) for value in cache.values()}) >= 2


def test_vectors_of_another_embedder_are_not_taken() -> None:
    cache: dict[bytes, bytes] = {}
    asked = hyde("query", llm=says("passage"), n=1, cache=cache)
    one, other = (expand(asked, HashingEmbedder(dim=64, seed=seed)) for seed in (0, 1))
    assert not np.array_equal(one, other)
    assert len(cache) == 3


def test_failures_are_not_cached(docs: gg.Collection) -> None:
    answers: list[Any] = [[], [SUBJECTS["chess"]]]
    llm = Fake(lambda prompt, n: answers.pop(0))
    assert docs.search(hyde("zzz", llm=llm), k=1).complete.why
    hits = docs.search(hyde("zzz", llm=llm), k=1)
    assert (hits.ids, hits.complete.why) == (["chess"], "")


@pytest.mark.parametrize("damage", [b"", b"\xff" * 40, b"\x90", b"\x91\xa0", b"\x93\xa1a\xa1b\xa1c"])
def test_damaged_entries_are_ignored(damage: bytes) -> None:
    cache: dict[bytes, bytes] = {}
    asked = hyde("query", llm=says("passage"), n=1, cache=cache)
    first = expand(asked, EMBEDDER)
    for key in cache:
        cache[key] = damage
    np.testing.assert_array_equal(expand(asked, EMBEDDER), first)
    assert damage not in cache.values()
    vector = next(key for key in cache if len(cache[key]) == 1024)
    cache[vector] = np.full(256, np.nan, "<f4").tobytes()
    np.testing.assert_array_equal(expand(asked, EMBEDDER), first)


def test_a_cache_that_raises_is_remarked_and_changes_no_result(docs: gg.Collection) -> None:
    class Broken:
        def get(self, key: bytes, /) -> bytes | None:
            raise OSError("disk gone")

        def __setitem__(self, key: bytes, value: bytes, /) -> None:
            raise OSError("disk gone")

    hits = docs.search(hyde(QUESTIONS[2], llm=knowing(), cache=Broken()), k=1)
    assert hits.ids == ["tariff"]
    assert hits.complete.why.count("OSError: disk gone") == 2


def test_a_cache_on_disk_serves_later_runs_and_other_processes(tmp_path: Path) -> None:
    cache = gg.HydeCache(tmp_path / "cache")
    llm = Fake(lambda prompt, n: [f"passage {i} {time.monotonic_ns()}" for i in range(n)], name="named")
    first = expand(hyde("query", llm=llm, cache=cache), EMBEDDER)
    again = expand(hyde("query", llm=llm, cache=gg.HydeCache(tmp_path / "cache")), EMBEDDER)
    assert again.tobytes() == first.tobytes()
    assert llm.calls == 1
    code = (
        "import gingham as gg, sys\n"
        "from gingham.embed import CallableLLM, HashingEmbedder, expand\n"
        "llm = CallableLLM(lambda prompt: 1 / 0, name='named')\n"
        f"asked = gg.hyde('query', llm=llm, cache=gg.HydeCache({str(tmp_path / 'cache')!r}))\n"
        "assert not asked.write().remarks\n"
        "sys.stdout.write(expand(asked, HashingEmbedder(dim=256)).tobytes().hex())\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == first.tobytes().hex()


def test_entries_that_are_damaged_on_disk_are_ignored_and_a_damaged_file_is_remarked(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    cache, key = gg.HydeCache(folder), digest("key")
    assert cache.get(key) is None
    assert not folder.exists()
    cache[key] = b"a value that stands in the file as it is"
    assert cache.get(key) == b"a value that stands in the file as it is"
    assert cache.get(digest("other")) is None
    data = folder / "data.mdb"
    data.write_bytes(data.read_bytes().replace(b"a value that", b"A value that"))
    assert cache.get(key) is None
    cache[key] = b"new"
    assert cache.get(key) == b"new"
    data.write_bytes(data.read_bytes()[:5000])
    for call in (lambda: cache.get(key), lambda: cache.__setitem__(key, b"x")):
        with pytest.raises(Corrupt):
            call()
    written = hyde("query", llm=says("passage"), cache=cache).write()
    assert written.passages == ("passage",)
    assert len(written.remarks) == 2


def test_a_cache_on_disk_is_shared_by_threads_and_has_a_cap(tmp_path: Path) -> None:
    cache = gg.HydeCache(tmp_path / "cache", max_bytes=1 << 20)

    def work(number: int) -> None:
        for i in range(10):
            cache[digest(number, i)] = bytes([number, i])
            assert cache.get(digest(number, i)) == bytes([number, i])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(cache.get(digest(n, i)) == bytes([n, i]) for n in range(4) for i in range(10))
    with pytest.raises(StoreFull, match="max_bytes="):
        for i in range(20):
            cache[digest("large", i)] = b"x" * 100_000
    assert cache.get(digest(0, 0)) == bytes([0, 0])


def test_a_cache_lies_beside_a_database_and_not_in_it(db: gg.Database, docs: gg.Collection, tmp_path: Path) -> None:
    assert docs.count()
    with pytest.raises(NotAStore, match="folder of its own"):
        gg.HydeCache(db.path)
    generation = next((tmp_path / "db").glob("generation-*"))
    copy = tmp_path / "copy"
    copy.mkdir()
    db.close()
    before = (generation / "data.mdb").read_bytes()
    (copy / "data.mdb").write_bytes(before)
    with pytest.raises(NotAStore, match="found a database"):
        gg.HydeCache(copy)[b"key"] = b"value"
    assert (copy / "data.mdb").read_bytes() == before
    (tmp_path / "file").write_text("x")
    with pytest.raises(NotAStore):
        gg.HydeCache(tmp_path / "file")
    for wrong in (None, 3, "a\0b"):
        with pytest.raises(InvalidArgument):
            gg.HydeCache(wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="max_bytes"):
        gg.HydeCache(tmp_path / "c", max_bytes=1)
