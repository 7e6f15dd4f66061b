"""Who may call what: a rule for each RPC, and what a call sees of the database under its key.

An RPC without a rule is refused, and so is anything of a database that nobody thought of for keys with a filter.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from gingham.errors import CollectionNotFound, GinghamError, PermissionDenied
from gingham.query.bind import filter_node
from gingham.restricted import RestrictedCollection
from gingham.server.keys import SCOPES
from gingham.wire import MOST_MESSAGE_CHARACTERS, message_in_headers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gingham.collection import Collection
    from gingham.database import Database
    from gingham.query.ast import Node
    from gingham.server.keys import Key, Scope


@dataclass(frozen=True)
class Caller:
    """On whose behalf a call runs.

    Attributes
    ----------
    key : of the caller; None where the server has no keys, and all may do everything
    root : folder of the database, which callers are not told
    """

    key: Key | None
    root: str


_CALLER: contextvars.ContextVar[Caller | None] = contextvars.ContextVar("gingham_caller", default=None)


@contextlib.contextmanager
def called_by(caller: Caller) -> Iterator[None]:
    """Run a block on behalf of a caller."""
    token = _CALLER.set(caller)
    try:
        yield
    finally:
        _CALLER.reset(token)


def call_for(caller: Caller) -> None:
    """Run the rest of this context on behalf of a caller."""
    _CALLER.set(caller)


def _none(request: Any) -> list[str]:
    del request
    return []


def _all(request: Any) -> None:
    """The whole database."""
    del request


def _collection(request: Any) -> list[str]:
    return [request.collection]


def _name(request: Any) -> list[str]:
    return [request.name]


def _both_names(request: Any) -> list[str]:
    return [request.name, request.new_name]


def _one_or_all(request: Any) -> list[str] | None:
    return [request.collection] if request.HasField("collection") else None


def _begun(request: Any) -> list[str]:
    return [request.header.collection] if request.HasField("header") else []


def _changed(request: Any) -> list[str]:
    kinds = [(change, change.WhichOneof("kind")) for change in request.changes]
    return [getattr(change, kind).collection for change, kind in kinds if kind is not None]


def _reached(key: Key, response: Any) -> None:
    """Leave the names out that a key is not for."""
    names = [name for name in response.names if key.reaches(name)]
    del response.names[:]
    response.names.extend(names)


@dataclass(frozen=True)
class Rule:
    """What an RPC asks of a key.

    Attributes
    ----------
    scope : least scope
    collections : names that a request is about; None for the whole database, which needs a key for all collections
    filtered : a key with a filter may call it, because it goes through :class:`gingham.restricted.RestrictedCollection`
    trim : takes out of an answer what the key is not for
    """

    scope: Scope
    collections: Callable[[Any], list[str] | None]
    filtered: bool = False
    trim: Callable[[Key, Any], None] | None = None


RULES: dict[str, Rule] = {
    "CollectionService/ListCollections": Rule("read", _none, filtered=True, trim=_reached),
    "CollectionService/CreateCollection": Rule("admin", _name),
    "CollectionService/DropCollection": Rule("admin", _name),
    "CollectionService/GetSchema": Rule("read", _name, filtered=True),
    "CollectionService/GetCollectionStats": Rule("read", _name),
    "CollectionService/GetDatabaseStats": Rule("read", _all),
    "CollectionService/AddField": Rule("admin", _collection),
    "CollectionService/DropField": Rule("admin", _collection),
    "CollectionService/AddVector": Rule("admin", _collection),
    "CollectionService/DropVector": Rule("admin", _collection),
    "CollectionService/Maintain": Rule("admin", _one_or_all),
    "CollectionService/Recall": Rule("read", _collection, filtered=True),
    "CollectionService/AttachEmbedder": Rule("admin", _collection),
    "CollectionService/OpenSnapshot": Rule("read", _none),
    "CollectionService/CloseSnapshot": Rule("read", _none),
    "RowService/Upsert": Rule("write", _collection, filtered=True),
    "RowService/Update": Rule("write", _collection, filtered=True),
    "RowService/Delete": Rule("write", _collection, filtered=True),
    "RowService/WriteBatch": Rule("write", _changed),
    "RowService/Ingest": Rule("write", _begun, filtered=True),
    "RowService/Get": Rule("read", _collection, filtered=True),
    "RowService/Count": Rule("read", _collection, filtered=True),
    "RowService/Facets": Rule("read", _collection, filtered=True),
    "RowService/Scan": Rule("read", _collection, filtered=True),
    "QueryService/Search": Rule("read", _collection, filtered=True),
    "QueryService/Query": Rule("read", _collection, filtered=True),
    "AdminService/RenameCollection": Rule("admin", _both_names),
    "AdminService/Reindex": Rule("admin", _collection),
    "AdminService/Calibrate": Rule("admin", _collection),
    "AdminService/Verify": Rule("admin", _one_or_all),
    "AdminService/Compact": Rule("admin", _all),
    "AdminService/Backup": Rule("admin", _all),
}
"""By service and method of gingham.v1."""


def check_callable(method: str, key: Key) -> Rule:
    """The rule of an RPC; raises PermissionDenied where a key is not good for any request of it."""
    rule = RULES.get(method)
    if rule is None:
        raise PermissionDenied(f"the server expected a call that keys are good for, found {method}")
    if SCOPES.index(key.scope) < SCOPES.index(rule.scope):
        raise PermissionDenied(f"{method} expects a key of the scope {rule.scope}, found {key.scope}")
    if key.filter is not None and not rule.filtered:
        raise PermissionDenied(f"{method} expects a key for all rows, found one with a filter")
    return rule


def check_allowed(method: str, key: Key, request: Any) -> None:
    """Raise PermissionDenied unless a key is good for a request."""
    rule = check_callable(method, key)
    names = rule.collections(request)
    if names is None and not key.reaches_all:
        raise PermissionDenied(f"{method} expects a key for all collections, found one for {_listed(key)}")
    for name in names or ():
        if not key.reaches(name):
            raise PermissionDenied(f"the key expects collections {_listed(key)}, found {name!r:.80}")
    if key.filter is not None and "snapshot" in request.DESCRIPTOR.fields_by_name and request.HasField("snapshot"):
        raise PermissionDenied("a snapshot expects a key for all rows, found one with a filter; read the newest commit")


def _listed(key: Key) -> str:
    return ", ".join(key.collections)


class GuardedDatabase:
    """A database as the caller of a call may see it; outside calls, and without keys, all of it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def __getitem__(self, name: str) -> Collection:
        found, where = self._database[name], _filter_of_caller()
        return found if where is None else RestrictedCollection(found, where)

    def collections(self) -> list[str]:
        """Names of the collections, sorted; the rule of the RPC takes out those that the key is not for."""
        return self._database.collections()

    def __getattr__(self, name: str) -> Any:
        if _filter_of_caller() is not None:
            raise PermissionDenied("the call expects a key for all rows, found one with a filter")
        return getattr(self._database, name)


def known_by(*parts: object) -> bytes:
    """16 bytes that a job or a write of the caller is known by; those of other keys are others."""
    caller = _CALLER.get()
    key = None if caller is None or caller.key is None else caller.key.id
    return hashlib.blake2b(msgspec.msgpack.encode((key, *parts)), digest_size=16).digest()


def keyed() -> bool:
    """Whether the caller has a key."""
    caller = _CALLER.get()
    return caller is not None and caller.key is not None


def _filter_of_caller() -> Node | None:
    caller = _CALLER.get()
    return None if caller is None or caller.key is None else _parsed(caller.key.filter)


@functools.lru_cache(256)
def _parsed(text: str | None) -> Node | None:
    return filter_node(text)


def for_caller(error: GinghamError) -> GinghamError:
    """An error that tells a caller neither the folder of the database nor collections, and that fits into headers."""
    caller = _CALLER.get()
    if caller is None:
        return error
    told = str(error)[: 4 * MOST_MESSAGE_CHARACTERS]
    if isinstance(error, CollectionNotFound) and caller.key is not None and not caller.key.reaches_all:
        told = "the name of a collection expects one that is there, found another"
    told = re.sub(re.escape(caller.root) + r"[^\s'\",;:()]*", "the database", told)
    told = message_in_headers(told)
    if told != str(error):
        error.args = (told,)
    return error
