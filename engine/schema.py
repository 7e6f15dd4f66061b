"""What a collection holds: payload fields and vector fields, and their Arrow form.

Every field is nullable. A field class is a frozen, tagged msgspec struct, so the schema is stored as
it is written and compared by value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import msgspec

from gingham.errors import InvalidArgument, SchemaMismatch

if TYPE_CHECKING:
    import pyarrow as pa

Metric = Literal["cosine", "dot", "l2"]
VectorDtype = Literal["float32", "float16"]

MAX_DIM = 65_535
"""Largest vector width: the smallest limit among the peers read is 16,000 (pgvector); codes index by uint16."""

NIBBLE_DIM = 96
"""Dimensions below which codes of four bits misjudge neighbours so often that those of eight find as many sooner."""
BIT_DIM = 256
"""Dimensions below which codes of one bit lead to too few neighbours among 4 k + 64 candidates."""
MOST_M = 512
_DEFAULT_M = 16
MOST_LISTS = 1 << 16
_INDEX = re.compile(r"(HNSW|IVF)([1-9][0-9]{0,5})?\Z|(Flat)\Z", re.IGNORECASE | re.ASCII)
_MAX_K1 = 1e6
RESERVED_NAMES = frozenset({"id", "score"})
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}\Z")


class _Field(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """Base of the payload fields."""

    @property
    def arrow_type(self) -> pa.DataType:
        """Arrow type of the stored column."""
        raise TypeError(f"{type(self).__name__} has no Arrow type")


def _check_flag(what: str, value: object) -> None:
    # msgspec checks types when it decodes, not when a struct is made: what passes here is written to the file.
    if not isinstance(value, bool):
        raise InvalidArgument(f"{what} expects True or False, found {value!r:.60}")


def _number(what: str, value: object, most: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= most:
        raise InvalidArgument(f"{what} expects a number from 0 to {most:g}, found {value!r:.60}")
    return float(value)


class Int(_Field, frozen=True, tag="int"):
    """Signed 64-bit integers; ``many=True`` stores a list of them per row."""

    many: bool = False

    def __post_init__(self) -> None:
        _check_flag("Int(many=)", self.many)

    @property
    def arrow_type(self) -> pa.DataType:
        """``int64`` or ``list<int64>``."""
        import pyarrow as pa

        return pa.list_(pa.int64()) if self.many else pa.int64()


class Float(_Field, frozen=True, tag="float"):
    """64-bit floating point numbers, finite; an integer that they do not hold exactly is refused."""

    @property
    def arrow_type(self) -> pa.DataType:
        """``float64``."""
        import pyarrow as pa

        return pa.float64()


class Bool(_Field, frozen=True, tag="bool"):
    """True or false."""

    @property
    def arrow_type(self) -> pa.DataType:
        """``bool``."""
        import pyarrow as pa

        return pa.bool_()


class Keyword(_Field, frozen=True, tag="keyword"):
    """Short strings compared as a whole; ``many=True`` stores a list of them per row."""

    many: bool = False

    def __post_init__(self) -> None:
        _check_flag("Keyword(many=)", self.many)

    @property
    def arrow_type(self) -> pa.DataType:
        """``string`` or ``list<string>``."""
        import pyarrow as pa

        return pa.list_(pa.string()) if self.many else pa.string()


class Text(_Field, frozen=True, tag="text"):
    """Text that is stored and returned, filtered like a keyword, and searched by its words where asked.

    Parameters
    ----------
    bm25 : keep an inverted index of the words, for ``match``
    language : ``"english"`` (default) or another Snowball stemmer, with its stop words where there is a list;
        ``"none"`` only lower-cases
    positions : also keep where each word stands, for phrases; about 4 bytes a word
    k1, b : parameters of BM25, from 0 to 1e6 and from 0 to 1; 0.9 and 0.4 as in Anserini

    Raises
    ------
    InvalidArgument : an unknown language, or k1 or b out of range
    """

    bm25: bool = False
    language: str = "english"
    positions: bool = False
    k1: float = 0.9
    b: float = 0.4

    def __post_init__(self) -> None:
        _check_flag("Text(bm25=)", self.bm25)
        _check_flag("Text(positions=)", self.positions)
        if not isinstance(self.language, str):
            raise InvalidArgument(f"Text(language=) expects a name such as 'english', found {self.language!r:.60}")
        msgspec.structs.force_setattr(self, "k1", _number("Text(k1=)", self.k1, _MAX_K1))
        msgspec.structs.force_setattr(self, "b", _number("Text(b=)", self.b, 1.0))
        if self.positions and not self.bm25:
            raise InvalidArgument("Text(positions=True) keeps positions of an index; it expects bm25=True too")

    @property
    def arrow_type(self) -> pa.DataType:
        """``large_string``: a segment may hold more than 2 GiB of text."""
        import pyarrow as pa

        return pa.large_string()


class Timestamp(_Field, frozen=True, tag="timestamp"):
    """Instants in UTC in whole microseconds, others are refused; a naive datetime is taken as UTC."""

    @property
    def arrow_type(self) -> pa.DataType:
        """``timestamp[us, UTC]``."""
        import pyarrow as pa

        return pa.timestamp("us", tz="UTC")


class Json(_Field, frozen=True, tag="json"):
    """Any JSON value, stored as its text; it cannot be filtered."""

    @property
    def arrow_type(self) -> pa.DataType:
        """``large_string`` holding JSON."""
        import pyarrow as pa

        return pa.large_string()


Field = Int | Float | Bool | Keyword | Text | Timestamp | Json


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
        read the nearest; ``"IVF4096"`` has up to as many, but none of fewer than 32 rows in the mean. The codec may
        also be RaBitQ1 or PQ of 4 bits. ``"Flat"`` scans. None (default) scans codes where a codec is given; else
        segments of more than 32 MiB of vectors get HNSW16, or IVF where that cannot be built within ``memory_budget``,
        and searches that say nothing else look for a recall of 0.98
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
        kind, number = _parsed(self.index)
        return (number or _DEFAULT_M) if kind == "HNSW" else 0

    @property
    def by_size(self) -> bool:
        """Whether codes and index are chosen by the size of each segment."""
        return self.index is None and self.codec is None

    @property
    def indexed(self) -> bool:
        """Whether an index is named."""
        return _parsed(self.index)[0] in ("HNSW", "IVF")

    @property
    def in_lists(self) -> bool:
        """Whether the index is one of lists."""
        return _parsed(self.index)[0] == "IVF"

    @property
    def nlist(self) -> int | None:
        """Lists of a segment at most; None for as many as its rows suggest."""
        return _parsed(self.index)[1] if self.in_lists else None

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
            kind, number = _parsed(self.index)
            if kind == "HNSW":
                number = number or _DEFAULT_M
            msgspec.structs.force_setattr(self, "index", f"{kind}{number or ''}")
            if self.codec is None and self.indexed:
                least, codec = (NIBBLE_DIM, "LVQ4x8") if kind == "HNSW" else (BIT_DIM, "RaBitQ1")
                msgspec.structs.force_setattr(self, "codec", "LVQ8" if self.dim < least else codec)
        names = (self.source,) if isinstance(self.source, (str, type(None))) else self.source
        if not isinstance(names, tuple) or not all(isinstance(name, (str, type(None))) for name in names):
            raise InvalidArgument(
                f"Dense(source=) expects a text field's name or a tuple of them, found {self.source!r:.60}"
            )


def _parsed(index: object) -> tuple[str | None, int | None]:
    """Kind and number of an index such as HNSW16."""
    if index is None:
        return None, None
    found = _INDEX.match(index) if isinstance(index, str) else None
    if found is not None and found[3]:
        return "Flat", None
    if found is not None:
        kind, number = found[1].upper(), int(found[2]) if found[2] else None
        if number is None or (2 <= number <= MOST_M if kind == "HNSW" else number <= MOST_LISTS):
            return kind, number
    raise InvalidArgument(
        f"Dense(index=) expects 'HNSW2' to 'HNSW{MOST_M}', 'IVF', 'IVF1' to 'IVF{MOST_LISTS}', 'Flat' or None, "
        f"found {index!r:.60}"
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


Vector = Dense | Sparse
Column = Field | Sparse
"""What is stored as an Arrow column."""


class Schema(msgspec.Struct, frozen=True, dict=True):
    """Fields and vectors of one collection; their names share one namespace."""

    fields: dict[str, Field]
    vectors: dict[str, Vector]

    @cached_property
    def dense(self) -> dict[str, Dense]:
        """Vector fields that are stored as matrices."""
        return {name: v for name, v in self.vectors.items() if isinstance(v, Dense)}

    @property
    def without_codecs(self) -> Schema:
        """The same fields and vectors; codecs and indexes change nothing about the rows."""
        dense = {name: msgspec.structs.replace(kind, codec=None, index=None) for name, kind in self.dense.items()}
        return Schema(self.fields, {**self.vectors, **dense})

    @property
    def columns(self) -> dict[str, Column]:
        """Fields and vectors that are stored as Arrow columns."""
        return {**self.fields, **{name: v for name, v in self.vectors.items() if isinstance(v, Sparse)}}

    @property
    def inverted(self) -> dict[str, Text | Sparse]:
        """Columns with an inverted index."""
        return {
            name: kind
            for name, kind in self.columns.items()
            if isinstance(kind, Sparse) or (isinstance(kind, Text) and kind.bm25)
        }

    @property
    def embedded(self) -> dict[str, tuple[str, ...]]:
        """Dense vectors that an embedder makes, each with the text fields it is made from."""
        named: dict[str, tuple[str, ...]] = {}
        for name, vector in self.dense.items():
            source = (vector.source,) if isinstance(vector.source, str) else vector.source
            if source is not None:
                named[name] = tuple(text for text in source if text in self.fields)
        texts = tuple(name for name, field in self.fields.items() if isinstance(field, Text))
        if named or len(self.dense) != 1 or not texts:
            return {name: source for name, source in named.items() if source}
        return dict.fromkeys(self.dense, texts)

    def with_sources(self) -> Schema:
        """The schema with the sources of embedded vectors named, so that later fields do not change them."""
        named = {name: msgspec.structs.replace(self.dense[name], source=s) for name, s in self.embedded.items()}
        return Schema(self.fields, {**self.vectors, **named})

    @classmethod
    def of(cls, fields: Mapping[str, Field] | None = None, vectors: Mapping[str, Vector] | None = None) -> Schema:
        """Build a schema after checking every name and type.

        Raises
        ------
        InvalidArgument : a name is malformed, reserved or used twice, or a value is no field
        """
        for what, given in (("fields", fields), ("vectors", vectors)):
            if not isinstance(given, (Mapping, type(None))):
                raise InvalidArgument(f"{what}= expects a dict of names and types, found {type(given).__name__}")
        fields, vectors = dict(fields or {}), dict(vectors or {})
        for name, field in fields.items():
            check_name(name, "field")
            if not isinstance(field, _Field):
                raise InvalidArgument(f"field {name!r} expects a field type such as gingham.Int(), found {field!r}")
        for name, vector in vectors.items():
            check_name(name, "vector")
            if not isinstance(vector, (Dense, Sparse)):
                raise InvalidArgument(
                    f"vector {name!r} expects a vector type such as gingham.Dense(384), found {vector!r}"
                )
            if name in fields:
                raise InvalidArgument(f"the name {name!r} is used for a field and for a vector; rename one")
            source = getattr(vector, "source", None) or ()
            for text in (source,) if isinstance(source, str) else source:
                if not isinstance(fields.get(text), Text):
                    raise InvalidArgument(f"Dense(source=) of {name!r} expects text fields, found {text!r}")
        schema = cls(fields, vectors)
        schema._check_stored_form()
        return schema

    def _check_stored_form(self) -> None:
        """Raise InvalidArgument unless the schema can be read back: one that cannot would lock its database."""
        try:
            if msgspec.msgpack.decode(msgspec.msgpack.encode(self), type=Schema) == self:
                return
        except (msgspec.MsgspecError, TypeError, ValueError, OverflowError):
            pass
        raise InvalidArgument(f"a schema expects plain field and vector types, found {self!r:.200}")

    def field(self, name: str) -> Field:
        """Field of this name; raises SchemaMismatch with the nearest names otherwise."""
        check_named(name)
        if name not in self.fields:
            raise SchemaMismatch(unknown_name("field", name, self.fields))
        return self.fields[name]

    def vector(self, name: str | None) -> tuple[str, Dense]:
        """Dense vector of this name, or the only one where ``name`` is None."""
        if name is None:
            if len(self.dense) != 1:
                raise InvalidArgument(f"expected using= with one of the vectors {sorted(self.dense)}, found none named")
            return next(iter(self.dense.items()))
        check_named(name)
        if name not in self.dense:
            raise SchemaMismatch(unknown_name("dense vector", name, self.dense))
        return name, self.dense[name]

    def searchable(self, name: str | None, kind: type[Text | Sparse]) -> tuple[str, Text | Sparse]:
        """Text field with bm25=True, or sparse vector, of this name, or the only one where ``name`` is None."""
        known = {n: column for n, column in self.inverted.items() if isinstance(column, kind)}
        what = "sparse vector" if kind is Sparse else "text field with bm25=True"
        if name is None:
            if len(known) != 1:
                raise InvalidArgument(
                    f"the query expects the name of one {what}, found none named and {sorted(known)} in the collection"
                )
            return next(iter(known.items()))
        check_named(name)
        if name not in known:
            raise SchemaMismatch(unknown_name(what, name, known))
        return name, known[name]


def check_name(name: str, what: str) -> None:
    """Raise InvalidArgument unless ``name`` is an identifier of at most 64 characters that is not reserved."""
    if not isinstance(name, str) or not _NAME.match(name):
        raise InvalidArgument(f"a {what} name expects letters, digits and underscores, at most 64, found {name!r}")
    if name in RESERVED_NAMES:
        raise InvalidArgument(f"the {what} name {name!r} is reserved; choose another")


def check_named(name: object) -> None:
    """Raise InvalidArgument unless a name that a user gave is text."""
    if not isinstance(name, str):
        raise InvalidArgument(f"the name of a field or vector expects text, found {name!r:.60}")


def unknown_name(what: str, name: str, known: Mapping[str, object]) -> str:
    """Message for an unknown name, with the nearest known one."""
    import difflib

    near = difflib.get_close_matches(str(name), list(known), n=1)
    hint = f"; did you mean {near[0]!r}?" if near else f"; known are {sorted(known)}"
    return f"unknown {what} {name!r}{hint}"
