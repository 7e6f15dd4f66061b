"""What a collection holds: payload fields and vector fields, and their Arrow form.

Every field is nullable. A field class is a frozen, tagged msgspec struct, so the schema is stored as
it is written and compared by value.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

import msgspec

from gingham.errors import InvalidArgument, SchemaMismatch

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa

Metric = Literal["cosine", "dot", "l2"]
VectorDtype = Literal["float32", "float16"]

MAX_DIM = 65_535
"""Largest vector width: the smallest limit among the peers read is 16,000 (pgvector); codes index by uint16."""

RESERVED_NAMES = frozenset({"id", "score"})
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}\Z")


class _Field(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """Base of the payload fields."""

    @property
    def arrow_type(self) -> pa.DataType:
        """Arrow type of the stored column."""
        raise TypeError(f"{type(self).__name__} has no Arrow type")


class Int(_Field, frozen=True, tag="int"):
    """Signed 64-bit integers; ``many=True`` stores a list of them per row."""

    many: bool = False

    @property
    def arrow_type(self) -> pa.DataType:
        """``int64`` or ``list<int64>``."""
        import pyarrow as pa

        return pa.list_(pa.int64()) if self.many else pa.int64()


class Float(_Field, frozen=True, tag="float"):
    """64-bit floating point numbers; NaN is refused, null is not."""

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

    @property
    def arrow_type(self) -> pa.DataType:
        """``string`` or ``list<string>``."""
        import pyarrow as pa

        return pa.list_(pa.string()) if self.many else pa.string()


class Text(_Field, frozen=True, tag="text"):
    """Text that is stored and returned, and filtered like a keyword."""

    @property
    def arrow_type(self) -> pa.DataType:
        """``large_string``: a segment may hold more than 2 GiB of text."""
        import pyarrow as pa

        return pa.large_string()


class Timestamp(_Field, frozen=True, tag="timestamp"):
    """Instants in UTC with microsecond precision; a naive datetime is taken as UTC."""

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
        L2 scores are negative squared distances
    dtype : ``"float32"`` (default) or ``"float16"``, the stored precision

    Raises
    ------
    InvalidArgument : dim, metric or dtype is none of the above
    """

    dim: int
    metric: Metric = msgspec.field(default="cosine")
    dtype: VectorDtype = msgspec.field(default="float32")

    def __post_init__(self) -> None:
        if isinstance(self.dim, bool) or not isinstance(self.dim, int) or not 1 <= self.dim <= MAX_DIM:
            raise InvalidArgument(f"Dense(dim=) expects an integer from 1 to {MAX_DIM}, found {self.dim!r}")
        if self.metric not in ("cosine", "dot", "l2"):
            raise InvalidArgument(f"Dense(metric=) expects 'cosine', 'dot' or 'l2', found {self.metric!r}")
        if self.dtype not in ("float32", "float16"):
            raise InvalidArgument(f"Dense(dtype=) expects 'float32' or 'float16', found {self.dtype!r}")


class Schema(msgspec.Struct, frozen=True):
    """Fields and vectors of one collection; their names share one namespace."""

    fields: dict[str, Field]
    vectors: dict[str, Dense]

    @classmethod
    def of(cls, fields: Mapping[str, Field] | None = None, vectors: Mapping[str, Dense] | None = None) -> Schema:
        """Build a schema after checking every name and type.

        Raises
        ------
        InvalidArgument : a name is malformed, reserved or used twice, or a value is no field
        """
        fields, vectors = dict(fields or {}), dict(vectors or {})
        for name, field in fields.items():
            check_name(name, "field")
            if not isinstance(field, _Field):
                raise InvalidArgument(f"field {name!r} expects a field type such as gingham.Int(), found {field!r}")
        for name, vector in vectors.items():
            check_name(name, "vector")
            if not isinstance(vector, Dense):
                raise InvalidArgument(
                    f"vector {name!r} expects a vector type such as gingham.Dense(384), found {vector!r}"
                )
            if name in fields:
                raise InvalidArgument(f"the name {name!r} is used for a field and for a vector; rename one")
        return cls(fields, vectors)

    def field(self, name: str) -> Field:
        """Field of this name; raises SchemaMismatch with the nearest names otherwise."""
        try:
            return self.fields[name]
        except KeyError:
            raise SchemaMismatch(unknown_name("field", name, self.fields)) from None

    def vector(self, name: str | None) -> tuple[str, Dense]:
        """Vector of this name, or the only vector where ``name`` is None."""
        if name is None:
            if len(self.vectors) != 1:
                raise InvalidArgument(
                    f"expected using= with one of the vectors {sorted(self.vectors)}, found none named"
                )
            return next(iter(self.vectors.items()))
        try:
            return name, self.vectors[name]
        except KeyError:
            raise SchemaMismatch(unknown_name("vector", name, self.vectors)) from None


def check_name(name: str, what: str) -> None:
    """Raise InvalidArgument unless ``name`` is an identifier of at most 64 characters that is not reserved."""
    if not isinstance(name, str) or not _NAME.match(name):
        raise InvalidArgument(f"a {what} name expects letters, digits and underscores, at most 64, found {name!r}")
    if name in RESERVED_NAMES:
        raise InvalidArgument(f"the {what} name {name!r} is reserved; choose another")


def unknown_name(what: str, name: str, known: Mapping[str, object]) -> str:
    """Message for an unknown name, with the nearest known one."""
    import difflib

    near = difflib.get_close_matches(str(name), list(known), n=1)
    hint = f"; did you mean {near[0]!r}?" if near else f"; known are {sorted(known)}"
    return f"unknown {what} {name!r}{hint}"
