"""Types of vector fields: dense vectors, sparse ones, and matrices of tokens."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec

from gingham.errors import InvalidArgument

if TYPE_CHECKING:
    import pyarrow as pa

Metric = Literal["cosine", "dot", "l2"]
VectorDtype = Literal["float32", "float16"]
TokenCodec = Literal["PQ16", "PQ32", "PQ64", "RaBitQ1", "Residual2", "Residual4", "Residual8"]
TOKEN_BITS: dict[str, Literal[1, 2, 4, 8]] = {"RaBitQ1": 1, "Residual2": 2, "Residual4": 4, "Residual8": 8}
"""Codecs of tokens, and bits of each dimension of what a centroid leaves."""
TOKEN_PARTS: dict[str, int] = {"PQ16": 16, "PQ32": 32, "PQ64": 64}
"""Codecs of tokens, and parts of what a centroid leaves, each of which has a byte."""
TOKEN_CODECS = (*TOKEN_PARTS, *TOKEN_BITS)

MAX_DIM = 65_535
"""Largest vector width: the smallest limit among the peers read is 16,000 (pgvector); codes index by uint16."""

NIBBLE_DIM = 96
"""Dimensions below which codes of four bits misjudge neighbours so often that those of eight find as many sooner."""
BIT_DIM = 256
"""Dimensions from which on codes of one bit are the default under IVF: their error falls as 1 / sqrt(dim)."""
MOST_M = 512
_DEFAULT_M = 16
MOST_LISTS = 1 << 16
MAX_POOL_FACTOR, MAX_TOKENS = 1000, 1 << 20
_INDEX = re.compile(r"(HNSW|IVF|Flat)([1-9][0-9]{0,5})?(,SOAR)?\Z", re.IGNORECASE | re.ASCII)


class Dense(msgspec.Struct, frozen=True, tag="dense"):
    """One vector of fixed width per row.

    Parameters
    ----------
    dim : width, 1 to 65,535
    metric : ``"cosine"`` (default), ``"dot"`` or ``"l2"``; a greater score is better for all three,
        L2 scores are negative squared distances. Squared distances of two vectors have to fit float32:
        lengths up to 6.5e18, and under cosine 0 or from 1.1e-19; others are refused by row
    dtype : ``"float32"`` (default) or ``"float16"``, the stored precision
    codec : codes that searches scan in place of the vectors, such as ``"LVQ8"`` or ``"RaBitQ4"``; the table of all
        stands in the README. The best rows by code are scored again from the vectors. Each segment trains its own:
        where that takes long (OPQ, RQ, PQ of 12 bits and more) fill the collection without and recode it then. None
        (default) has none; under HNSW it takes ``"LVQ4x8"``, or ``"LVQ8"`` below 96 dimensions, and under IVF
        ``"RaBitQ1"``, or ``"LVQ8"`` below 256
    index : ``"HNSW16"``: each large segment gets a graph, whose rows have up to 2 * 16 links, over its codes; from 2
        to 512, 16 where no number is given. The codec has to score rows one by one: F32, F16, BF16, SQ8, LVQ and
        RaBitQ of 2 to 8 bits do. ``"IVF"``: each gets its rows in lists around 4 sqrt(n) centroids, of which searches
        read the nearest; ``"IVF4096"`` has up to as many, but none of fewer than 32 rows in the mean; ``"IVF,SOAR"``
        and ``"IVF4096,SOAR"`` have each row in two, for twice the codes (:class:`gingham.index.IVF`). The codec may
        also be RaBitQ1 or PQ of 4 bits. ``"Flat"`` scans. None (default) scans codes where a codec is given; else
        segments of more than 32 MiB of vectors get HNSW16, or IVF where that cannot be built within ``memory_budget``,
        and searches that say nothing else look for a recall of 0.99 among rows like those there are
    source : text field, or several, that the collection's embedder makes this vector from; None means all text
        fields that there are when the embedder comes, where this is the only dense vector

    Raises
    ------
    InvalidArgument : dim, metric, dtype or index is none of the above
    """

    dim: int
    metric: Metric = msgspec.field(default="cosine")
    dtype: VectorDtype = msgspec.field(default="float32")
    source: str | tuple[str, ...] | None = None
    codec: str | None = None
    index: str | None = None

    @property
    def m(self) -> int:
        """Links of a node of a graph in the layers above, half of those in the layer of all rows; 0 without one."""
        kind, number, _ = _parsed(self.index)
        return (number or _DEFAULT_M) if kind == "HNSW" else 0

    @property
    def by_size(self) -> bool:
        """Whether codes and index are chosen by the size of each segment."""
        return self.index is None and self.codec is None

    @property
    def indexed(self) -> bool:
        """Whether an index is named."""
        return _parsed(self.index).kind in ("HNSW", "IVF")

    @property
    def in_lists(self) -> bool:
        """Whether the index is one of lists."""
        return _parsed(self.index).kind == "IVF"

    @property
    def nlist(self) -> int | None:
        """Lists of a segment at most; None for as many as its rows suggest."""
        return _parsed(self.index).number if self.in_lists else None

    @property
    def soar(self) -> bool:
        """Whether each row lies in two lists."""
        return _parsed(self.index).soar

    def __post_init__(self) -> None:
        if isinstance(self.dim, bool) or not isinstance(self.dim, int) or not 1 <= self.dim <= MAX_DIM:
            raise InvalidArgument(f"Dense(dim=) expects an integer from 1 to {MAX_DIM}, found {self.dim!r}")
        if self.metric not in ("cosine", "dot", "l2"):
            raise InvalidArgument(f"Dense(metric=) expects 'cosine', 'dot' or 'l2', found {self.metric!r}")
        if self.dtype not in ("float32", "float16"):
            raise InvalidArgument(f"Dense(dtype=) expects 'float32' or 'float16', found {self.dtype!r}")
        if not isinstance(self.codec, (str, type(None))):
            raise InvalidArgument(f"Dense(codec=) expects a name such as 'LVQ8', found {self.codec!r:.60}")
        if self.index is not None:
            kind, number, soar = _parsed(self.index)
            if kind == "HNSW":
                number = number or _DEFAULT_M
            msgspec.structs.force_setattr(self, "index", f"{kind}{number or ''}{',SOAR' * soar}")
            if self.codec is None and self.indexed:
                least, codec = (NIBBLE_DIM, "LVQ4x8") if kind == "HNSW" else (BIT_DIM, "RaBitQ1")
                msgspec.structs.force_setattr(self, "codec", "LVQ8" if self.dim < least else codec)
        names = (self.source,) if isinstance(self.source, (str, type(None))) else self.source
        if not isinstance(names, tuple) or not all(isinstance(name, (str, type(None))) for name in names):
            raise InvalidArgument(
                f"Dense(source=) expects a text field's name or a tuple of them, found {self.source!r:.60}"
            )


class _Index(NamedTuple):
    kind: str | None = None
    number: int | None = None
    soar: bool = False


def _parsed(index: object) -> _Index:
    """Kind and number of an index such as HNSW16, and whether rows lie in two lists."""
    if index is None:
        return _Index()
    found = _INDEX.match(index) if isinstance(index, str) else None
    if found is not None:
        kind, number = found[1].upper(), int(found[2]) if found[2] else None
        soar = bool(found[3])
        if kind == "FLAT" and number is None and not soar:
            return _Index("Flat")
        if kind == "HNSW" and not soar and (number is None or 2 <= number <= MOST_M):
            return _Index(kind, number)
        if kind == "IVF" and (number is None or number <= MOST_LISTS):
            return _Index(kind, number, soar)
    raise InvalidArgument(
        f"Dense(index=) expects 'HNSW2' to 'HNSW{MOST_M}', 'IVF', 'IVF1' to 'IVF{MOST_LISTS}', 'IVF,SOAR', 'Flat' or "
        f"None, found {index!r:.60}"
    )


class Sparse(msgspec.Struct, frozen=True, tag="sparse"):
    """One sparse vector per row, scored by inner product, such as SPLADE makes.

    A vector is a dict of dimension to weight, a pair (dimensions, weights), or anything with ``indices`` and
    ``values`` or ``data``; dimensions are integers from 0 to 2**32 - 1, weights finite and above 0.
    """

    @property
    def arrow_type(self) -> pa.DataType:
        """``list<struct<index: uint32, weight: float32>>``, ascending by index."""
        import pyarrow as pa

        return pa.list_(pa.struct([("index", pa.uint32()), ("weight", pa.float32())]))


class Tokens(msgspec.Struct, frozen=True, tag="tokens"):
    """A matrix of token vectors per row, of any number of rows, searched by late interaction.

    The score of a row is the sum over the tokens of the query of the greatest product with one of its own (MaxSim;
    Khattab and Zaharia, "ColBERT", SIGIR 2020, section 3.3).

    Parameters
    ----------
    dim : width of a token, 1 to 65,535
    metric : ``"cosine"`` (default): tokens are stored and asked for with length one; ``"dot"``: as they are
    pool_factor : tokens that become one when a row is written, by :func:`gingham.codecs.pooling.pool_tokens`; 1
        (default) keeps all, ``"adaptive"`` keeps fewer of longer rows
    protected : first tokens of a row that are never pooled
    max_tokens : first tokens of a row that are kept, before they are pooled; None (default) keeps all
    codec : ``"Residual8"``, ``"Residual4"``, ``"Residual2"`` or ``"RaBitQ1"``: large segments get a centroid and so
        many bits a dimension for each token, which lead searches to rows that are then scored from their tokens;
        ``"PQ64"``, ``"PQ32"`` or ``"PQ16"``: a centroid and so many bytes, which have to divide ``dim``; None (default)
        scores all rows

    Raises
    ------
    InvalidArgument : one of them is out of range, or ``codec`` does not divide ``dim``
    """

    dim: int
    metric: Literal["cosine", "dot"] = msgspec.field(default="cosine")
    pool_factor: int | Literal["adaptive"] = 1
    protected: int = 0
    max_tokens: int | None = None
    codec: TokenCodec | None = None

    def __post_init__(self) -> None:
        _whole_number("Tokens(dim=)", self.dim, 1, MAX_DIM)
        if self.metric not in ("cosine", "dot"):
            raise InvalidArgument(f"Tokens(metric=) expects 'cosine' or 'dot', found {self.metric!r:.60}")
        if self.pool_factor != "adaptive":
            _whole_number("Tokens(pool_factor=)", self.pool_factor, 1, MAX_POOL_FACTOR)
        _whole_number("Tokens(protected=)", self.protected, 0, MAX_TOKENS)
        if self.max_tokens is not None:
            _whole_number("Tokens(max_tokens=)", self.max_tokens, 1, MAX_TOKENS)
        if self.codec is not None and (not isinstance(self.codec, str) or self.codec not in TOKEN_CODECS):
            raise InvalidArgument(f"Tokens(codec=) expects one of {[*TOKEN_CODECS]} or None, found {self.codec!r:.60}")
        parts = TOKEN_PARTS.get(self.codec or "", 1)
        if self.dim % parts:
            raise InvalidArgument(
                f"Tokens(codec={self.codec!r}) expects a dim that {parts} divides, found {self.dim}; take another dim "
                "or a codec of residuals"
            )

    @property
    def arrow_type(self) -> pa.DataType:
        """``list<fixed_size_list<float16>[dim]>``."""
        import pyarrow as pa

        return pa.list_(pa.list_(pa.float16(), self.dim))


def _whole_number(what: str, value: object, least: int, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise InvalidArgument(f"{what} expects an integer from {least} to {most:,}, found {value!r:.60}")
