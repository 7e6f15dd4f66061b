"""What the page asks and what it is told: the JSON of the console."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from gingham.errors import InvalidArgument

if TYPE_CHECKING:
    from gingham.types import UserId

MOST_HITS = 100
MOST_QUERIES = 1_000
MOST_POINTS = 3_000


class Id(msgspec.Struct, frozen=True, omit_defaults=True):
    """An id as text, since JavaScript rounds large integers; bytes are hexadecimal.

    Attributes
    ----------
    kind : None where a person typed the text: it may be the id of a row of any kind
    """

    text: str
    kind: Literal["str", "int", "uuid", "bytes"] | None = None

    @classmethod
    def of(cls, user_id: UserId) -> Id:
        """The id of a row."""
        if isinstance(user_id, str):
            return cls(user_id, "str")
        if isinstance(user_id, bytes):
            return cls(user_id.hex(), "bytes")
        return cls(str(user_id), "uuid" if isinstance(user_id, uuid.UUID) else "int")

    def read_as(self) -> list[UserId]:
        """The ids it may stand for, the likeliest first; raises InvalidArgument where there is none."""
        readers: dict[str, Any] = {"str": str, "int": int, "uuid": uuid.UUID, "bytes": bytes.fromhex}
        found: list[UserId] = []
        for kind, read in readers.items():
            if self.kind in (kind, None) and self.text:
                try:
                    found.append(read(self.text))
                except ValueError:
                    continue
        if not found:
            raise InvalidArgument(f"an id expects the text of a {self.kind or 'str'}, found {self.text[:60]!r}")
        return found


class _Asked(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What all questions say: a collection, a field of it, and which rows."""

    collection: str
    using: str | None = None
    where: str | None = None


class AskedSearch(_Asked, frozen=True, kw_only=True):
    """A search by a text, or by the vector of a stored row."""

    text: str | None = None
    like: Id | None = None
    k: int = 10


class AskedMap(_Asked, frozen=True, kw_only=True):
    """A map of at most ``n`` rows, coloured by a field."""

    colour: str | None = None
    n: int = 2_000


class AskedMeasure(_Asked, frozen=True, kw_only=True):
    """A measurement with ``n`` stored rows as queries."""

    k: int = 10
    n: int = 100


class Column(msgspec.Struct, frozen=True):
    """A field or vector, as a schema prints it."""

    name: str
    kind: str


class Way(msgspec.Struct, frozen=True):
    """A way to search: the words of a text field, the meaning of a text, or rows like a stored one."""

    by: Literal["words", "meaning", "like"]
    using: str


class CollectionAnswer(msgspec.Struct, frozen=True):
    """What a collection has; ``figures`` is None where the key of the server does not allow to read them."""

    name: str
    rows: int
    figures: dict[str, Any] | None
    columns: list[Column]
    ways: list[Way]
    colours: list[str]


class Overview(msgspec.Struct, frozen=True):
    """The collections of a database."""

    version: str
    name: str
    collections: list[CollectionAnswer]


class HitAnswer(msgspec.Struct, frozen=True):
    """A row found."""

    id: Id
    score: float
    fields: dict[str, Any]


class StepAnswer(msgspec.Struct, frozen=True):
    """A step of a search; ``label`` begins with the branch of the tree that leads to it."""

    label: str
    milliseconds: float
    rows: int
    detail: str


class SearchAnswer(msgspec.Struct, frozen=True):
    """Rows found, why there are fewer than k, and how the search went."""

    hits: list[HitAnswer]
    why: str
    milliseconds: float
    steps: list[StepAnswer]


class MapAnswer(msgspec.Struct, frozen=True):
    """Points of a map.

    Attributes
    ----------
    rows : of the collection, or those of the filter
    first : rows that the sample was drawn from: the first ones by id
    shares : of the variance that both axes show
    values : of the field that colours them; None without one
    """

    rows: int
    first: int
    shares: list[float]
    ids: list[Id]
    x: list[float]
    y: list[float]
    values: list[Any] | None


class LatencyAnswer(msgspec.Struct, frozen=True):
    """Milliseconds of single searches."""

    queries: int
    median: float
    p99: float
    slowest: float


class ErrorAnswer(msgspec.Struct, frozen=True):
    """Why there is no answer: a type of :mod:`gingham.errors`, and its message."""

    kind: str
    error: str
