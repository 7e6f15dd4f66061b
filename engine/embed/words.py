"""Word vectors in files: read once, mapped from then on; words that are not there, analogies, retrofitting.

>>> words = gg.words.open("glove.6B.50d.txt")  # doctest: +SKIP
>>> words.most_similar(["king", "woman"], ["man"], k=1)  # doctest: +SKIP
"""

from __future__ import annotations

import functools
import os
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xxhash

from gingham.embed.protocol import checked_texts
from gingham.embed.word_files import KIND, lexicon_lines, read_words, retrofitted, save_words, unit
from gingham.errors import Corrupt, InvalidArgument, NotFound
from gingham.index.container import MAGIC, load_arrays
from gingham.index.exact import row_norms, search_exact
from gingham.parallel import one_blas_thread
from gingham.types import shown, whole

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    Array = np.ndarray[Any, Any]

_WORD = re.compile(r"\w+")
_RUNS = re.compile(r"(.)\1{2,}", re.DOTALL)
_GRAMS = (2, 3)
"""Lengths of n-grams. The word meant is among the first three for 80.5 % of words with a letter too few, too many or
swapped; with the 3 to 6 of pymagnitude for 60.5 % (bench/words.py)."""
_SHARE = 0.7
"""Of an unknown word's vector, what words like it say; the rest tells it from others (as in pymagnitude)."""
_LIKE = 3
_EPSILON = 0.001
_NOTHING = 1e-9
"""Sums of directions that are only the rounding of what cancels out."""


def open(path: str | os.PathLike[str], *, cache: str | os.PathLike[str] | None = None) -> Words:  # noqa: A001
    """Open word vectors: a text file of GloVe or word2vec, gzipped or not, or what was made of one.

    A text file is converted when it is first opened, and again once it has changed; what is made of it is written whole
    or not at all, and mapped.

    Parameters
    ----------
    path : lines of a word and its numbers, UTF-8, after a line of two counts or none
    cache : file that the mapped form is kept in; None takes the path and ``.words``

    Raises
    ------
    NotFound : there is no such file
    InvalidArgument : a line is no word with its numbers, or the mapped form cannot be written, for instance since
        another file stands there
    Corrupt, ChecksumMismatch, FormatTooNew : a mapped form that was given itself cannot be read

    Notes
    -----
    Vectors are scaled to length one. Of several lines of a word the first counts. Converting holds the words in memory,
    and the vectors in a temporary file beside ``cache``.
    """
    for name, given in (("path", path), ("cache", path if cache is None else cache)):
        if not isinstance(given, str | os.PathLike):
            raise InvalidArgument(f"words.open({name}) expects the path of a file, found {shown(given)}")
    source = Path(path)
    try:
        with source.open("rb") as file:
            mapped = file.read(len(MAGIC)) == MAGIC
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise NotFound(f"words.open(path) expects a file of word vectors, found {why} at {os.fspath(path)!r}") from None
    if mapped:
        return Words(*load_arrays(source))
    target = source.with_name(source.name + ".words") if cache is None else Path(cache)
    found = source.stat()
    stamp = [found.st_size, found.st_mtime_ns]
    if target.is_file():
        try:
            about, arrays = load_arrays(target)
        except Corrupt:
            about, arrays = {}, {}
        if about.get("source") == stamp:
            return Words(about, arrays)
        with target.open("rb") as file:
            damaged = not about and file.read(len(MAGIC)) in (MAGIC, b"")
        if not damaged and about.get("source") is None:
            raise InvalidArgument(
                f"words.open() expects no file at {os.fspath(target)!r}, or one made of {source.name!r}, found another "
                "one, which stays; give another place with cache="
            )
    try:
        words, vectors = read_words(source, target.parent)
        save_words(target, source.name, words, vectors, stamp)
    except OSError as error:
        raise InvalidArgument(
            f"words.open() expects to write {os.fspath(target)!r}, found {error.strerror}; give a place with cache="
        ) from error
    return Words(*load_arrays(target))


class Words:
    """Words and their vectors of length one, in a mapped file; an embedder too, of means of word vectors.

    ``words["king"]`` is the vector of a word, made of words like it where it is unknown (``"king" in words`` tells).
    A word is looked up as it stands, then in lower case.

    Attributes
    ----------
    dim : width of the vectors
    vectors : float32 (words, dim), in the order of the file
    """

    def __init__(self, about: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
        if about.get("kind") != KIND:
            raise Corrupt(f"words.open() expects a file of word vectors, found one of {about.get('kind')!r}")
        self._about = about
        self.vectors, self._starts, self._bytes = arrays["vectors"], arrays["starts"], arrays["text"]
        self._text = self._bytes.data
        self._hashes, self._order = arrays["hashes"], arrays["order"]
        self.dim = int(self.vectors.shape[1])
        self._unknown = functools.lru_cache(4096)(self._made)

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __repr__(self) -> str:
        return f"<Words {self.name!r}, {len(self):,} of {self.dim} dimensions>"

    def __contains__(self, word: object) -> bool:
        return isinstance(word, str) and self._row(word) >= 0

    def __iter__(self) -> Iterator[str]:
        return (self._word(row) for row in range(len(self)))

    def __getitem__(self, word: str) -> Array:
        """Vector of a word, float32 (dim,).

        Notes
        -----
        Of an unknown word 0.7 times the direction of the three known ones that share most character n-grams of 2 and 3
        with it (Dice's coefficient), plus 0.3 times that of the sum of random vectors which its n-grams seed, the same
        everywhere. The idea and the shares are those of Patel et al. 2018, EMNLP, "Magnitude: a fast, efficient
        universal vector embedding utility package", section 3. Of runs of a character two count.
        The text of all words is searched for each n-gram, so an unknown word costs O(bytes of words) the first time;
        the last 4,096 are kept.
        """
        if not isinstance(word, str):
            raise InvalidArgument(f"words[...] expects a word, found {type(word).__name__} {word!r:.40}")
        row = self._row(word)
        vector: Array = self._unknown(word) if row < 0 else self.vectors[row]
        return vector.copy()

    @property
    def name(self) -> str:
        """Name of the file that the words were in."""
        return str(self._about["name"])

    @property
    def revision(self) -> str:
        """Hash of words and vectors."""
        return str(self._about["revision"])

    def embed_documents(self, texts: Sequence[str]) -> Array:
        """Directions of the means of the vectors of known words, float32 (n, dim); zeros where none is known.

        Words are runs of letters and digits.
        """
        texts = checked_texts(texts)
        out = np.zeros((len(texts), self.dim), np.float32)
        for at, text in enumerate(texts):
            known = [row for word in _WORD.findall(text) if (row := self._row(word)) >= 0]
            if known:
                out[at] = unit(self.vectors[known].mean(axis=0, dtype=np.float64))
        return out

    def embed_queries(self, texts: Sequence[str]) -> Array:
        """The same as :meth:`embed_documents`."""
        return self.embed_documents(texts)

    def similar_spellings(self, word: str, *, k: int = 10) -> list[tuple[str, float]]:
        """Known words that share most character n-grams of 2 and 3 with a word: at most k, with Dice's coefficient.

        Of runs of a character in the word given two count.
        """
        if not isinstance(word, str):
            raise InvalidArgument(f"similar_spellings() expects a word, found {shown(word)}")
        rows, shares = self._spelled_like(word, whole("similar_spellings(k=)", k))
        return [(self._word(row), share) for row, share in zip(rows.tolist(), shares.tolist(), strict=True)]

    def most_similar(
        self,
        positive: Any,
        negative: Any = (),
        *,
        k: int = 10,
        by: Literal["add", "multiply"] = "add",
    ) -> list[tuple[str, float]]:
        """Words near a word, or near several and far from others; those given are left out.

        ``most_similar(["king", "woman"], ["man"])`` asks what is to woman as king is to man.

        Parameters
        ----------
        positive, negative : a word, known or not, a vector of shape (dim,), or a list of both
        k : words found
        by : ``"add"``, cosine with the sum of directions (3CosAdd), or ``"multiply"``, the product of similarities
            to positive ones over that to negative ones (3CosMul)

        Returns
        -------
        list of tuple : words and scores, best first, ties in the order of the file

        Raises
        ------
        InvalidArgument : nothing positive, an option out of range, or under ``"add"`` a sum of directions of 0

        Notes
        -----
        Levy and Goldberg 2014, CoNLL, "Linguistic regularities in sparse and explicit word representations", equations
        3 and 5: similarities are (cosine + 1) / 2, and the divisor is 0.001 greater. Exact: O(words * dim).
        """
        good, bad, k = self._given(positive), self._given(negative), whole("most_similar(k=)", k)
        if not good or by not in ("add", "multiply"):
            raise InvalidArgument("most_similar() expects something positive and by='add' or by='multiply'")
        left_out = {row for one in (*good, *bad) if isinstance(one, str) and (row := self._row(one)) >= 0}
        made = unit(np.array([self[one] if isinstance(one, str) else one for one in (*good, *bad)], np.float64))
        depth = min(k + len(left_out), len(self))
        if by == "add":
            total = made[: len(good)].sum(axis=0) - made[len(good) :].sum(axis=0)
            if np.abs(total).max() < _NOTHING:
                raise InvalidArgument(
                    "most_similar() expects positive and negative ones that differ, found a sum of directions of 0; "
                    "leave out what is in both"
                )
            query = unit(total)[None].astype(np.float32)
            scores, rows = search_exact(query, self.vectors, self._norms, depth, metric="cosine")
            scores, rows = scores[0], rows[0]
        else:
            with one_blas_thread():
                cosines = self.vectors @ made.astype(np.float32).T
            halves = (cosines.astype(np.float64) + 1) / 2
            all_scores = halves[:, : len(good)].prod(axis=1) / (halves[:, len(good) :].prod(axis=1) + _EPSILON)
            rows = np.argsort(-all_scores, kind="stable")[:depth]
            scores = all_scores[rows]
        pairs = zip(rows.tolist(), scores.tolist(), strict=True)
        return [(self._word(row), score) for row, score in pairs if row not in left_out][:k]

    def retrofit(
        self,
        lexicon: Mapping[str, Iterable[str]] | str | os.PathLike[str],
        path: str | os.PathLike[str],
        *,
        iterations: int = 10,
    ) -> Words:
        """Move words that a lexicon links towards each other, and write all of them to a new mapped file.

        Parameters
        ----------
        lexicon : words and those that each is linked with, in both directions; or a text file with a line for each, of
            words with blanks between them. Unknown words are passed over
        path : replaced where it exists
        iterations : rounds over all linked words

        Notes
        -----
        See :func:`gingham.embed.word_files.retrofitted`. Words without a link keep their bits, others are scaled to
        length one at the end.
        """
        links: dict[int, set[int]] = {}
        for word, others in lexicon_lines(lexicon):
            row = self._row(word)
            for other in (self._row(one) for one in others if row >= 0):
                if other not in (row, -1):
                    links.setdefault(row, set()).add(other)
                    links.setdefault(other, set()).add(row)
        rows = np.array(sorted(links), np.int64)
        neighbours = [np.searchsorted(rows, sorted(links[row])) for row in rows.tolist()]
        vectors = np.array(self.vectors)
        moved = retrofitted(vectors[rows], neighbours, whole("retrofit(iterations=)", iterations))
        vectors[rows] = unit(moved)
        try:
            save_words(path, self.name, [word.encode() for word in self], vectors, None)
        except OSError as error:
            raise InvalidArgument(
                f"retrofit(path) expects to write {os.fspath(path)!r}, found {error.strerror}; give another path"
            ) from error
        return Words(*load_arrays(path))

    @functools.cached_property
    def _norms(self) -> Array:
        return row_norms(self.vectors, "cosine")

    @functools.cached_property
    def _lengths(self) -> Array:
        """Characters of each word."""
        begins = (self._bytes & 0xC0) != 0x80
        counts: Array = np.add.reduceat(begins, self._starts[:-1], dtype=np.int64) - 1
        return counts

    def _word(self, row: int) -> str:
        return bytes(self._text[self._starts[row] : self._starts[row + 1] - 1]).decode()

    def _row(self, word: str) -> int:
        """Row of a word as it stands, else in lower case, else -1."""
        row = self._exactly(word)
        return self._exactly(lower) if row < 0 and (lower := word.lower()) != word else row

    def _exactly(self, word: str) -> int:
        wanted = word.encode(errors="surrogatepass")
        value = np.uint64(xxhash.xxh3_64_intdigest(wanted))
        at = int(np.searchsorted(self._hashes, value))
        while at < len(self._hashes) and self._hashes[at] == value:
            row = int(self._order[at])
            if self._text[self._starts[row] : self._starts[row + 1] - 1] == wanted:
                return row
            at += 1
        return -1

    def _given(self, given: Any) -> list[str | Array]:
        single = not isinstance(given, Iterable) or isinstance(given, str) or getattr(given, "ndim", 2) <= 1
        out: list[str | Array] = []
        for one in [given] if single else list(given):
            try:
                array = np.zeros(self.dim) if isinstance(one, str) else np.asarray(one)
            except ValueError:
                array = np.empty(0)
            if array.dtype.kind not in "fiu" or array.shape != (self.dim,) or not np.isfinite(array).all():
                raise InvalidArgument(
                    f"most_similar() expects words and finite vectors of shape ({self.dim},), found {one!r:.60}"
                )
            out.append(one if isinstance(one, str) else array)
        return out

    def _spelled_like(self, word: str, k: int) -> tuple[Array, Array]:
        """Rows of known words and the shares of n-grams, best first."""
        grams = _grams(word)
        counts = np.zeros(len(self), np.int64)
        for gram, mine in Counter(grams).items():
            found = re.finditer(_overlapping(gram), self._text)
            # A gram that begins with the end of the word before belongs to the word after it.
            places = np.fromiter((one.start() for one in found), np.int64) + gram.startswith("\n")
            rows, theirs = np.unique(np.searchsorted(self._starts, places, "right") - 1, return_counts=True)
            counts[rows] += np.minimum(theirs, mine)
        lengths = sum(np.maximum(self._lengths + 3 - size, 0) for size in _GRAMS)
        shares = 2 * counts / np.maximum(lengths + len(grams), 1)
        rows = np.argsort(-shares, kind="stable")[:k]
        rows = rows[counts[rows] > 0]
        return rows, shares[rows]

    def _made(self, word: str) -> Array:
        grams = _grams(word)
        seeds = (xxhash.xxh3_64_intdigest(gram.encode(errors="surrogatepass")) for gram in grams)
        vectors = [np.random.Generator(np.random.PCG64(seed)).uniform(-1, 1, self.dim) for seed in seeds]
        own = unit(np.sum(vectors, axis=0)) if vectors else np.zeros(self.dim)
        rows, _ = self._spelled_like(word, _LIKE)
        like = unit(self.vectors[rows].sum(axis=0, dtype=np.float64))
        vector: Array = unit((1 - _SHARE) * own + _SHARE * like).astype(np.float32)
        return vector


def _overlapping(gram: str) -> bytes:
    """Pattern of all places of an n-gram, those that begin within another one included."""
    first, rest = (re.escape(part.encode(errors="surrogatepass")) for part in (gram[0], gram[1:]))
    return first + b"(?=" + rest + b")" if gram[0] == gram[-1] else first + rest


def _grams(word: str) -> list[str]:
    """Character n-grams of a word between line breaks, as words stand in the file."""
    marked = "\n" + _RUNS.sub(r"\1\1", word) + "\n"
    return [marked[at : at + size] for size in _GRAMS for at in range(len(marked) - size + 1)]
