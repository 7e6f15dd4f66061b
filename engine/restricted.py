"""A collection of which some rows only are there: those that a filter selects."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import pyarrow as pa

from gingham.collection import Collection, check_texts
from gingham.errors import InvalidArgument, PermissionDenied, SchemaMismatch
from gingham.query.bind import bind, filter_node
from gingham.query.explain import Explanation, Step
from gingham.query.hits import BatchHits
from gingham.query.select import find, selected_ids
from gingham.storage import writes
from gingham.types import RowBatch, WriteResult, is_id
from gingham.view import Reader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from gingham.query.ast import Node
    from gingham.query.bind import Where
    from gingham.query.hits import Hits
    from gingham.schema import Schema
    from gingham.storage.session import Session, WriteSession
    from gingham.storage.snapshot import Pin


def _refused(name: str) -> Callable[..., Any]:
    def method(self: object, *args: Any, **kwargs: Any) -> NoReturn:
        raise PermissionDenied(f"{name}() expects access to all rows of a collection, found access through a filter")

    method.__name__ = name
    method.__doc__ = "Concerns all rows; raises PermissionDenied."
    return method


class RestrictedCollection(Collection):
    """A collection in which rows outside a filter are as if they were not there.

    Parameters
    ----------
    collection : all of it
    where : filter of the rows that are there; a row for which it is null is not

    Raises
    ------
    PermissionDenied : the collection has not the fields of the filter; also by a write whose rows would be outside it,
        or whose ids rows outside it have, and by methods that concern all rows

    Notes
    -----
    Document frequencies and lengths of BM25, recall and facets are those of these rows alone. Indexes and codes are
    those of all rows, which may be felt in the time that a search takes and in which rows an approximate one misses.
    """

    def __init__(self, collection: Collection, where: Where) -> None:
        node = filter_node(where)
        if node is None:
            raise InvalidArgument("a restricted collection expects a filter, found none")
        self._where = node
        super().__init__(
            _ScopedReader(collection._reader, collection._cid, node), collection._cid, collection._embedder
        )
        with self._reader.session():
            pass  # refuses a filter of fields that are not there

    def _upsert_prepared(self, session: WriteSession, prepared: writes.PreparedRows) -> WriteResult:
        node = scope_of(session, self._cid, self._where)
        self._check_inside(session, node, prepared.batch.ids)
        result = super()._upsert_prepared(session, prepared)
        self._check_inside(session, node, prepared.batch.ids)
        return result

    def _update_seen(
        self, changes: list[tuple[RowBatch, dict[str, list[Any]]]], schema: Schema, session: WriteSession
    ) -> WriteResult:
        total, node = WriteResult(0), scope_of(session, self._cid, self._where)
        for whole, read in changes:
            known = self._found(session, node, whole.ids)
            at = [place for place, encoded in enumerate(whole.ids) if encoded in known]
            batch, seen = whole, read
            if len(at) < len(whole):
                batch = _taken(whole, at)
                seen = {name: [texts[place] for place in at] for name, texts in read.items()}
            check_texts(session, self._cid, batch.ids, seen)
            total += writes.update_rows(session, self._cid, batch, schema)
            total += WriteResult(total.version, missing=len(whole) - len(at))
            self._check_inside(session, node, batch.ids)
        return total

    def delete(self, *, ids: Any = None, where: Where = None) -> WriteResult:
        """Remove rows by id or by filter in one commit; ids that no row inside has are counted as missing."""
        from gingham.rows import encode_ids

        if (ids is None) == (where is None):
            raise InvalidArgument("delete() expects either ids= or where=, found both or neither")
        encoded = None if ids is None else list(dict.fromkeys(encode_ids([ids] if is_id(ids) else ids)))
        condition = filter_node(where)

        def change(session: WriteSession) -> WriteResult:
            record = session.collection_by_id(self._cid)
            scoped = session.scoped(scope_of(session, self._cid, self._where))
            if encoded is None:
                return writes.delete_ids(
                    session, self._cid, selected_ids(scoped, record, bind(condition, record.schema))
                )
            known = find(scoped, record, encoded)
            done = writes.delete_ids(session, self._cid, list(known))
            return done + WriteResult(done.version, missing=len(encoded) - len(known))

        return self._store.write(change)

    def search(self, *args: Any, **kwargs: Any) -> Any:
        """Find the nearest rows, or those with the words of a text; what is explained counts no rows."""
        return _unexplained(super().search(*args, **kwargs))

    def query(self, *args: Any, **kwargs: Any) -> Any:
        """Run a query; what is explained counts no rows."""
        return _unexplained(super().query(*args, **kwargs))

    def _found(self, session: WriteSession, node: Node, ids: Sequence[bytes]) -> dict[bytes, int]:
        return find(session.scoped(node), session.collection_by_id(self._cid), ids)

    def _check_inside(self, session: WriteSession, node: Node, ids: Sequence[bytes]) -> None:
        """Raise PermissionDenied where a row of these ids is outside; the write is undone by it."""
        stored = writes.find_rows(session, self._cid, ids)
        if len(self._found(session, node, ids)) < len(stored):
            raise PermissionDenied(
                "a write through a filter expects rows that it selects, before and after, found others; give other "
                "values or other ids"
            )

    add_field = _refused("add_field")
    add_vector = _refused("add_vector")
    calibrate = _refused("calibrate")
    drop_field = _refused("drop_field")
    drop_vector = _refused("drop_vector")
    maintain = _refused("maintain")
    recode = _refused("recode")
    reindex = _refused("reindex")
    stats = _refused("stats")
    verify = _refused("verify")


def scope_of(session: Session, cid: int, where: Node) -> Node:
    """A filter bound to a collection; raises PermissionDenied where that has other fields."""
    try:
        bound = bind(where, session.collection_by_id(cid).schema)
    except SchemaMismatch as error:
        raise PermissionDenied(
            f"access through a filter expects a collection with its fields, found: {error}"
        ) from None
    assert bound is not None
    return bound


class _ScopedReader(Reader):
    """Opens sessions that see what a filter selects."""

    def __init__(self, reader: Reader, cid: int, where: Node) -> None:
        super().__init__(reader.store)
        self._reader, self._cid, self._where = reader, cid, where

    def session(self) -> contextlib.AbstractContextManager[Session]:
        return self._scoped(self._reader.session())

    def pin(self) -> Pin:
        return _ScopedPin(self, self._reader.pin())  # type: ignore[return-value]

    def unpin(self, pin: Pin) -> None:
        self._reader.unpin(pin.whole if isinstance(pin, _ScopedPin) else pin)

    @contextlib.contextmanager
    def _scoped(self, opened: contextlib.AbstractContextManager[Session]) -> Iterator[Session]:
        with opened as session:
            yield session.scoped(scope_of(session, self._cid, self._where))


class _ScopedPin:
    """A pinned session that sees what a filter selects."""

    def __init__(self, reader: _ScopedReader, whole: Pin) -> None:
        self._reader, self.whole = reader, whole

    def read(self) -> contextlib.AbstractContextManager[Session]:
        """The session for the time of a block."""
        return self._reader._scoped(self.whole.read())


def _taken(batch: RowBatch, at: list[int]) -> RowBatch:
    rows = np.array(at, np.int64)
    return RowBatch(
        [batch.ids[place] for place in at],
        {name: vectors[rows] for name, vectors in batch.vectors.items()},
        {name: column.take(pa.array(rows)) for name, column in batch.fields.items()},
    )


def _unexplained(results: Hits | BatchHits) -> Hits | BatchHits:
    """Without what steps say of rows and parts, which are of all rows."""
    plain: dict[int, Explanation] = {}
    for hits in results if isinstance(results, BatchHits) else [results]:
        told = hits._explanation
        hits._explanation = plain.setdefault(id(told), Explanation(_bare(told.root)))
    return results


def _bare(step: Step) -> Step:
    return Step(step.name, seconds=step.seconds, steps=[_bare(one) for one in step.steps])
