"""Files of word vectors and of lexicons: text read block by block, and the mapped form that is made of it."""

from __future__ import annotations

import gzip
import itertools
import os
import tempfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import xxhash

from gingham.errors import InvalidArgument, NotFound
from gingham.index.container import save_arrays
from gingham.schema import MAX_DIM

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    Array = np.ndarray[Any, Any]

KIND = "Words"
_BYTE_ORDER_MARK = "\ufeff".encode()
_LINES = 4096
"""Lines whose numbers are in memory at once."""
_DIGITS = 20
"""Of a count of words or dimensions, fewer than these."""


def read_words(source: Path, folder: Path) -> tuple[list[bytes], Array]:
    """Words of a text file and their vectors, float32 (words, dim), of length one, in a temporary file.

    Raises
    ------
    InvalidArgument : a line is no word with its numbers, or there are fewer than the first line says
    """
    words: dict[bytes, None] = {}
    with (
        (gzip.open if source.suffix == ".gz" else open)(source, "rb") as lines,
        tempfile.TemporaryFile(dir=folder) as raw,
    ):
        try:
            first = lines.readline().removeprefix(_BYTE_ORDER_MARK)
            head = first.split()
            counted = len(head) == 2 and all(one.isdigit() and len(one) < _DIGITS for one in head)
            dim = int(head[1]) if counted else len(head) - 1
            if not 1 <= dim <= MAX_DIM or (counted and not int(head[0])):
                _refuse(source, 1, f"a word and 1 to {MAX_DIM} numbers", first)
            rest = lines if counted else itertools.chain([first], lines)
            number, read = 1 + counted, 0
            while block := list(itertools.islice(rest, _LINES)):
                made, vectors = _parsed(source, number, block, dim)
                fresh = [at for at, word in enumerate(made) if word not in words and not words.update({word: None})]
                raw.write(unit(vectors[fresh]).astype(np.float32).data)
                number, read = number + len(block), read + len(made)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise InvalidArgument(
                f"words.open() expects a whole gzipped file, found {error} in {source.name!r}"
            ) from None
        if counted and read != int(head[0]):
            raise InvalidArgument(
                f"words.open() expects {int(head[0]):,} words in {source.name!r}, as its first line says, "
                f"found {read:,}; get the file again"
            )
        raw.flush()
        return list(words), np.memmap(raw, np.float32, "r", shape=(len(words), dim))


def _parsed(source: Path, number: int, block: Sequence[bytes], dim: int) -> tuple[list[bytes], Array]:
    """Words and numbers of the lines that are not blank."""
    lines = [line.rsplit(None, dim) for line in block if line.strip()]
    try:
        with np.errstate(over="ignore"):  # what is beyond float32 becomes an infinity
            numbers = np.array([line[1:] for line in lines]).reshape(len(lines), dim).astype(np.float32)
        words = [line[0].strip() for line in lines]
        b"\n".join(words).decode()
        if np.isfinite(numbers).all():
            return words, numbers
    except (ValueError, IndexError):
        if len(block) == 1:
            _refuse(source, number, f"a word in UTF-8 and {dim} numbers", block[0])
    if len(block) == 1:
        _refuse(source, number, f"{dim} finite numbers of float32", block[0])
    parts = [_parsed(source, number + at, [line], dim) for at, line in enumerate(block) if line.strip()]
    return [word for one, _ in parts for word in one], np.concatenate([vectors for _, vectors in parts])


def _refuse(source: Path, number: int, expected: str, line: bytes) -> NoReturn:
    raise InvalidArgument(f"words.open() expects {expected} in line {number} of {source.name!r}, found {line[:60]!r}")


def save_words(
    path: str | os.PathLike[str], name: str, words: Sequence[bytes], vectors: Array, source: list[int] | None
) -> None:
    """Write the mapped form, whole or not at all.

    Parameters
    ----------
    words : in UTF-8, each once, none with a line break
    vectors : float32 (words, dim), C-contiguous
    source : size and time of the text file, or None
    """
    text = np.frombuffer(b"\n".join([b"", *words, b""]), np.uint8)
    starts = np.cumsum([1, *(len(word) + 1 for word in words)], dtype=np.int64)
    hashes = np.fromiter((xxhash.xxh3_64_intdigest(word) for word in words), np.uint64, len(words))
    order = np.argsort(hashes, kind="stable")
    whole = xxhash.xxh3_64(text.data)
    whole.update(np.ascontiguousarray(vectors).data)
    about = {"kind": KIND, "name": name, "revision": whole.hexdigest(), "source": source}
    arrays = {"vectors": vectors, "text": text, "starts": starts, "hashes": hashes[order], "order": order}
    save_arrays(path, about, arrays)


def lexicon_lines(lexicon: Mapping[str, Iterable[str]] | str | os.PathLike[str]) -> Iterator[tuple[str, list[str]]]:
    """Words of a lexicon, each with those that it is linked with.

    Raises
    ------
    NotFound : there is no such file
    InvalidArgument : no mapping of words to lists of words
    """
    if isinstance(lexicon, str | os.PathLike):
        try:
            lines = Path(lexicon).read_text("utf-8-sig").splitlines()
        except OSError as error:
            raise NotFound(
                f"retrofit(lexicon) expects a file, found {error.strerror} at {os.fspath(lexicon)!r}"
            ) from None
        except ValueError as error:
            raise InvalidArgument(
                f"retrofit(lexicon) expects a file in UTF-8, found {error} in {os.fspath(lexicon)!r}"
            ) from None
        yield from ((words[0], words[1:]) for line in lines if (words := line.split()))
        return
    if not isinstance(lexicon, Mapping):
        raise InvalidArgument(f"retrofit() expects a dict of words to words, or a file, found {lexicon!r:.60}")
    for word, others in lexicon.items():
        listed = [] if isinstance(others, str | bytes) or not isinstance(others, Iterable) else list(others)
        if not isinstance(word, str) or not listed or not all(isinstance(one, str) for one in listed):
            raise InvalidArgument(f"retrofit() expects a list of words for each word, found {others!r:.40} of {word!r}")
        yield word, listed


def retrofitted(vectors: Array, neighbours: Sequence[Array], iterations: int = 10) -> Array:
    """Vectors moved towards those that they are linked with, float64 (n, dim).

    Parameters
    ----------
    vectors : (n, dim)
    neighbours : of each, the rows that it is linked with, at least one; links go in both directions

    Notes
    -----
    Faruqui et al. 2015, NAACL, "Retrofitting word vectors to semantic lexicons", equation 1 with alpha = 1 and beta one
    over the number of neighbours: each vector in turn becomes the mean of where it was and the mean of its neighbours.
    """
    start = vectors.astype(np.float64)
    out = start.copy()
    for _ in range(iterations):
        for row, linked in enumerate(neighbours):
            out[row] = (start[row] + out[linked].mean(axis=0)) / 2
    return out


def unit(vectors: Array) -> Array:
    """Vectors scaled to length one, float64 (..., dim); zeros stay zeros."""
    wide = vectors.astype(np.float64)
    lengths = np.linalg.norm(wide, axis=-1, keepdims=True)
    out: Array = np.divide(wide, lengths, out=np.zeros_like(wide), where=lengths > 0)
    return out
