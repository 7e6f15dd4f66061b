"""Word vectors in files: what is read, what is refused, unknown words, analogies, retrofitting, embedding."""

from __future__ import annotations

import gzip
import itertools
import os
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gingham as gg
from gingham.embed.protocol import check_embedder
from gingham.embed.word_files import retrofitted
from gingham.errors import Corrupt, InvalidArgument, NotFound
from gingham.text.stop_words import STOP_WORDS

if TYPE_CHECKING:
    from pathlib import Path

Array = np.ndarray[Any, Any]
LONG = "because nowhere themselves yourself yourselves".split()
NAMES = sorted({*LONG, *(word for words in STOP_WORDS.values() for word in words)})
VECTORS = np.random.default_rng(0).standard_normal((len(NAMES), 12)).astype(np.float32)


def written(path: Path, names: list[str] = NAMES, vectors: Array = VECTORS, head: str = "") -> Path:
    lines = [f"{name} {' '.join(map(repr, row.tolist()))}" for name, row in zip(names, vectors, strict=True)]
    text = "\n".join([*([head] if head else []), *lines, ""]).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


@pytest.fixture
def words(tmp_path: Path) -> gg.words.Words:
    return gg.words.open(written(tmp_path / "words.txt"))


@pytest.mark.parametrize("name", ["glove.txt", "word2vec.txt", "word2vec.txt.gz"])
def test_words_have_the_directions_of_their_numbers(tmp_path: Path, name: str) -> None:
    head = f"{len(NAMES)} 12" if "2vec" in name else ""
    found = gg.words.open(written(tmp_path / name, head=head))
    assert list(found) == NAMES
    assert len(found) == len(NAMES)
    assert found.dim == 12
    assert found.name == name
    expected = VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True)
    np.testing.assert_allclose(found.vectors, expected, atol=1e-6)
    for row in (0, 7, len(NAMES) - 1):
        assert NAMES[row] in found
        np.testing.assert_array_equal(found[NAMES[row]], found.vectors[row])
    assert not found.vectors.flags.writeable


@pytest.mark.parametrize("head", ["", f"{len(NAMES)} 12"])
def test_a_byte_order_mark_is_no_part_of_the_first_word_or_count(tmp_path: Path, head: str) -> None:
    plain, marked = written(tmp_path / "plain.txt", head=head), tmp_path / "marked.txt"
    marked.write_bytes(b"\xef\xbb\xbf" + plain.read_bytes())
    found = gg.words.open(marked)
    assert list(found) == NAMES
    np.testing.assert_array_equal(found.vectors, gg.words.open(plain).vectors)
    lexicon = tmp_path / "lexicon.txt"
    lexicon.write_bytes(b"\xef\xbb\xbf" + f"{NAMES[3]} {NAMES[50]}".encode())
    moved = found.retrofit(lexicon, tmp_path / "moved")
    assert moved[NAMES[3]] @ moved[NAMES[50]] > found[NAMES[3]] @ found[NAMES[50]] + 0.05


def test_blanks_in_words_further_lines_of_a_word_and_blank_lines_are_understood(tmp_path: Path) -> None:
    path = tmp_path / "odd.txt"
    path.write_bytes(", 0 2\n. . . 3 4 \nähm\t1 0\n\n, 5 5\r\nzero 0 0".encode())
    found = gg.words.open(path)
    assert list(found) == [",", ". . .", "ähm", "zero"]
    np.testing.assert_allclose(found.vectors, [[0, 1], [0.6, 0.8], [1, 0], [0, 0]], atol=1e-7)


def test_a_file_is_converted_once_and_again_when_it_changes_or_what_was_made_is_damaged(tmp_path: Path) -> None:
    path, kept = written(tmp_path / "a.txt"), tmp_path / "kept"
    first = gg.words.open(path, cache=kept)
    stamp = kept.stat().st_mtime_ns
    assert gg.words.open(path, cache=kept).revision == first.revision
    assert kept.stat().st_mtime_ns == stamp
    assert not (tmp_path / "a.txt.words").exists()
    written(path, NAMES[:-1], VECTORS[:-1])
    assert len(gg.words.open(path, cache=kept)) == len(NAMES) - 1
    kept.write_bytes(kept.read_bytes()[:-700])
    assert len(gg.words.open(path, cache=kept)) == len(NAMES) - 1
    path.unlink()
    assert len(gg.words.open(kept)) == len(NAMES) - 1
    assert sorted(os.listdir(tmp_path)) == ["kept"]


def test_a_cache_replaces_no_file_but_one_made_of_the_same_text(tmp_path: Path, words: gg.words.Words) -> None:
    source, other = tmp_path / "words.txt", written(tmp_path / "other.txt")
    words.retrofit({NAMES[1]: [NAMES[2]]}, tmp_path / "moved")
    index = gg.index.Flat(4)
    index.save(tmp_path / "index")
    for taken in (source, other, tmp_path / "moved", tmp_path / "index"):
        before = taken.read_bytes()
        with pytest.raises(InvalidArgument, match="another place with cache="):
            gg.words.open(source, cache=taken)
        assert taken.read_bytes() == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"a 1 2\nb 1\n", r"a word in UTF-8 and 2 numbers in line 2 of 'bad.txt'"),
        (b"a 1 2\n\nb 1 x\n", "line 3"),
        (b"2 2\na 1 2\nb 1 nan\n", "2 finite numbers of float32 in line 3"),
        (b"a 1 2\n\xff 1 2\n", "line 2"),
        (b"3 2\na 1 2\n", "expects 3 words"),
        (b"a\n", "in line 1"),
        (b"", "in line 1"),
        (b"a 1 1e99\n", "finite"),
        (b"0 5\n", "in line 1"),
        (b"9" * 5000 + b" 1" * 2 + b"\n" + b"9" * 5000 + b" " + b"9" * 5000 + b"\n", "in line 2"),
    ],
)
def test_lines_that_are_no_words_with_numbers_are_refused_by_number(tmp_path: Path, text: bytes, message: str) -> None:
    (tmp_path / "bad.txt").write_bytes(text)
    with pytest.raises(InvalidArgument, match=message):
        gg.words.open(tmp_path / "bad.txt")
    assert os.listdir(tmp_path) == ["bad.txt"]


def test_files_that_are_not_there_or_hold_something_else_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="file of word vectors"):
        gg.words.open(tmp_path / "none.txt")
    index = gg.index.Flat(4)
    index.add(np.eye(4, dtype=np.float32))
    index.save(tmp_path / "index")
    with pytest.raises(Corrupt, match="file of word vectors"):
        gg.words.open(tmp_path / "index")
    (tmp_path / "cut.gz").write_bytes(gzip.compress(b"a 1 2\n" * 99)[:-9])
    with pytest.raises(InvalidArgument, match="whole gzipped file"):
        gg.words.open(tmp_path / "cut.gz")
    (tmp_path / "bent.gz").write_bytes(gzip.compress(b"a 1 2\n")[:10] + b"\xff" * 20)
    with pytest.raises(InvalidArgument, match="whole gzipped file"):
        gg.words.open(tmp_path / "bent.gz")
    with pytest.raises(NotFound, match="null byte"):
        gg.words.open("a\0b")
    for bad in ({"path": 5}, {"path": tmp_path / "index", "cache": 5}):
        with pytest.raises(InvalidArgument, match="expects the path"):
            gg.words.open(**bad)
    with pytest.raises(InvalidArgument, match="give a place with cache="):
        gg.words.open(written(tmp_path / "a.txt"), cache=tmp_path / "no" / "folder")


def test_unknown_words_have_vectors_near_those_of_words_spelled_alike_the_same_in_every_process(
    tmp_path: Path, words: gg.words.Words
) -> None:
    assert "yourselfs" not in words
    assert "YOURSELF" in words
    assert words.similar_spellings("yourselfs", k=1)[0][0] in ("yourself", "yourselves")
    vector = words["yourselfs"]
    assert vector.dtype == np.float32
    assert abs(np.linalg.norm(vector) - 1) < 1e-6
    alike = [word for word, _ in words.similar_spellings("yourselfs", k=3)]
    assert np.mean([words[word] for word in alike], axis=0) @ vector > 0.3
    code = (
        "import sys, gingham as gg; w = gg.words.open(sys.argv[1]); print(w['yourselfs'].tobytes().hex())"
    )  # fmt: skip
    run = [sys.executable, "-c", code, str(tmp_path / "words.txt")]
    assert subprocess.run(run, capture_output=True, text=True, check=True).stdout.strip() == vector.tobytes().hex()
    for odd in ("", "q", "\n", "\ud800", "日本"):
        assert np.isfinite(words[odd]).all()


def test_spellings_are_compared_by_the_share_of_n_grams(words: gg.words.Words) -> None:
    def grams(word: str) -> Counter[str]:
        marked = f"\n{word}\n"
        return Counter(marked[at : at + size] for size in (2, 3) for at in range(len(marked) - size + 1))

    for word in ("wouldn", "überall", "thamselves", "nosotros", "yourself", "desesesde"):
        mine = grams(word)
        shares = {name: 2 * (mine & grams(name)).total() / (mine + grams(name)).total() for name in NAMES}
        found = words.similar_spellings(word, k=5)
        np.testing.assert_allclose([share for _, share in found], sorted(shares.values(), reverse=True)[:5])
        assert all(share == pytest.approx(shares[name]) for name, share in found)


def test_most_similar_words_are_those_of_an_exact_scan_without_the_words_given(words: gg.words.Words) -> None:
    unit = words.vectors.astype(np.float64)
    a, b, c = 3, 50, 200
    for positive, negative in (([b], []), ([b, c], [a])):
        query = unit[positive].sum(axis=0) - unit[negative].sum(axis=0)
        cosines = unit @ query / np.linalg.norm(query)
        halves = (unit @ unit[[*positive, *negative]].T + 1) / 2
        n = len(positive)
        products = halves[:, :n].prod(axis=1) / (halves[:, n:].prod(axis=1) + 0.001)
        for by, scores in (("add", cosines), ("multiply", products)):
            order = [row for row in np.argsort(-scores, kind="stable") if row not in (*positive, *negative)][:5]
            found = words.most_similar([NAMES[i] for i in positive], [NAMES[i] for i in negative], k=5, by=by)  # type: ignore[arg-type]
            assert [word for word, _ in found] == [NAMES[row] for row in order]
            np.testing.assert_allclose([score for _, score in found], scores[order], atol=1e-5)
    assert words.most_similar(words.vectors[a], k=1)[0][0] == NAMES[a]
    assert len(words.most_similar(NAMES[a], k=10**9)) == len(NAMES) - 1
    for bad in ((), [np.ones(3)], [np.full(12, np.nan)], [1.0], 5, None, [[[1], [1, 2]]], np.array(1.0)):
        with pytest.raises(InvalidArgument, match="most_similar"):
            words.most_similar(bad)
    for good, bad in ((NAMES[a], NAMES[a]), ([NAMES[a], NAMES[b]], [NAMES[b], NAMES[a]]), ([np.zeros(12)], [])):
        with pytest.raises(InvalidArgument, match="a sum of directions of 0"):
            words.most_similar(good, bad)
    with pytest.raises(InvalidArgument, match="a word"):
        words.similar_spellings(5)  # type: ignore[arg-type]


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 12), st.integers(0, 2**32 - 1))
def test_each_round_of_retrofitting_lowers_what_is_minimized(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    linked = np.triu(rng.random((n, n)) < 0.4, 1)
    linked[np.arange(n - 1), np.arange(1, n)] = True
    linked |= linked.T
    start, neighbours = rng.standard_normal((n, 3)), [np.flatnonzero(row) for row in linked]
    degrees = linked.sum(axis=1)

    def loss(q: Array) -> float:
        pairs = np.square(q[:, None] - q[None]).sum(axis=2)
        return float((degrees * np.square(q - start).sum(axis=1)).sum() + (pairs * linked).sum() / 2)

    losses = [loss(retrofitted(start, neighbours, rounds)) for rounds in range(6)]
    assert all(after <= before + 1e-9 for before, after in itertools.pairwise(losses))
    assert losses[5] < losses[0]


def test_retrofitting_brings_linked_words_together_and_leaves_others(tmp_path: Path, words: gg.words.Words) -> None:
    a, b, c = NAMES[10], NAMES[20], NAMES[30]
    (tmp_path / "lexicon.txt").write_text(f"{a} {b} nowhere-to-be-found\n\n{b} {c}\n", "utf-8")
    moved = words.retrofit(tmp_path / "lexicon.txt", tmp_path / "new")
    for one, other in ((a, b), (b, c)):
        assert moved[one] @ moved[other] > words[one] @ words[other] + 0.1
    others = [row for row in range(len(NAMES)) if row not in (10, 20, 30)]
    np.testing.assert_array_equal(moved.vectors[others], words.vectors[others])
    np.testing.assert_allclose(np.linalg.norm(moved.vectors, axis=1), 1, atol=1e-6)
    same = words.retrofit({a: [b], c: [b, a.upper() + "?"]}, tmp_path / "same")
    np.testing.assert_array_equal(same.vectors, moved.vectors)
    assert list(moved) == NAMES
    assert moved.revision not in (words.revision, "")
    for bad in ({a: b}, {a: [1]}, [a]):
        with pytest.raises(InvalidArgument, match="retrofit"):
            words.retrofit(bad, tmp_path / "bad")  # type: ignore[arg-type]
    (tmp_path / "latin").write_bytes("größe groß".encode("latin-1"))
    with pytest.raises(InvalidArgument, match="UTF-8"):
        words.retrofit(tmp_path / "latin", tmp_path / "bad")
    with pytest.raises(InvalidArgument, match="another path"):
        words.retrofit({a: [b]}, tmp_path)


def test_texts_are_embedded_as_the_means_of_their_known_words(db: gg.Database, words: gg.words.Words) -> None:
    check_embedder(words)
    one, other = "because", "themselves"
    made = words.embed_documents([f"{one.upper()}, qqzzxx {other}!", "qqzzxx", ""])
    mean = words[one] + words[other]
    np.testing.assert_allclose(made[0], mean / np.linalg.norm(mean), atol=1e-6)
    assert not made[1:].any()
    docs = db.create_collection("docs", fields={"body": gg.Text()}, vectors={"v": gg.Dense(12)}, embedder=words)
    docs.upsert([{"id": 1, "body": one}, {"id": 2, "body": other}])
    assert docs.search(other, k=1).ids == [2]
