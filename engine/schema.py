"""What a collection holds: payload fields and vector fields, and their Arrow form.

Every field is nullable. A field class is a frozen, tagged msgspec struct, so the schema is stored as
it is written and compared by value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING

import msgspec

from gingham.errors import InvalidArgument, SchemaMismatch
from gingham.vector_types import MAX_DIM as MAX_DIM
from gingham.vector_types import MOST_LISTS as MOST_LISTS
from gingham.vector_types import Dense as Dense
from gingham.vector_types import Metric as Metric
from gingham.vector_types import Sparse as Sparse
from gingham.vector_types import Tokens as Tokens
from gingham.vector_types import VectorDtype as VectorDtype

if TYPE_CHECKING:
    import pyarrow as pa

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


Vector = Dense | Sparse | Tokens
Column = Field | Sparse | Tokens
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
        return {**self.fields, **{name: v for name, v in self.vectors.items() if not isinstance(v, Dense)}}

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
            if not isinstance(vector, (Dense, Sparse, Tokens)):
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

    def tokens(self, name: str | None) -> tuple[str, Tokens]:
        """Token field of this name, or the only one where ``name`` is None."""
        known = {n: vector for n, vector in self.vectors.items() if isinstance(vector, Tokens)}
        if name is None:
            if len(known) != 1:
                raise InvalidArgument(f"expected the name of one of the token fields {sorted(known)}, found none named")
            return next(iter(known.items()))
        check_named(name)
        if name not in known:
            raise SchemaMismatch(unknown_name("token field", name, known))
        return name, known[name]

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

    near = difflib.get_close_matches(str(name)[:100], list(known), n=1)
    hint = f"; did you mean {near[0]!r}?" if near else f"; known are {sorted(known)}"
    return f"unknown {what} {name!r:.100}{hint}"
