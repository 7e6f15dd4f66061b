"""Keys of clients: a file of salted hashes, who may do what with which collections, and until when.

The file has one JSON object a line and is replaced as a whole, so that a server reads an old state of it or a new one.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import logging
import os
import re
import secrets
import tempfile
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import msgspec

from gingham.errors import GinghamError, InvalidArgument, NotFound, ResourceExhausted, Unauthenticated, Unavailable
from gingham.query.bind import filter_node
from gingham.storage.gate import FileLock
from gingham.storage.generation import CURRENT

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

LOG = logging.getLogger("gingham.server")

Scope = Literal["read", "write", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
"""Each may do what those before it may."""
KEYS_FILE = "keys.jsonl"
"""Name of the file in the folder of a database."""
SCRYPT_N, SCRYPT_R, SCRYPT_P = 1 << 14, 8, 1
"""Cost of a new hash: 16 MiB, the interactive parameters of scrypt (Percival 2009; RFC 7914, section 2)."""
SECRET_BYTES = 32
MOST_WAITING = 4
"""Calls whose secrets are hashed, one after the other, or wait for it: each holds a thread."""
HASHING_SECONDS = 0.2
"""What these take."""
_LOCK_SECONDS = 10.0
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_TOKEN = re.compile(r"gg_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")


class Key(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is known of a key: all but its secret.

    Attributes
    ----------
    id : 12 hexadecimal digits, not secret
    salt, hash : scrypt of the secret
    cost : N of that scrypt
    scope : read, write or admin
    collections : names, or beginnings of names that end with ``*``
    created : when it was made
    filter : rows that are there to its holder, in the filter language; None for all
    expires : from when on it is refused; None for never
    """

    id: str
    salt: bytes
    hash: bytes
    scope: Scope
    collections: tuple[str, ...]
    created: datetime
    filter: str | None = None
    expires: datetime | None = None
    cost: int = 1 << 14

    def reaches(self, collection: str) -> bool:
        """Whether it is good for a collection."""
        return any(
            collection.startswith(one[:-1]) if one.endswith("*") else collection == one for one in self.collections
        )

    @property
    def reaches_all(self) -> bool:
        """Whether it is good for every collection, those to come included."""
        return "*" in self.collections

    @property
    def expired(self) -> bool:
        """Whether its time is over."""
        return self.expires is not None and datetime.now(UTC) >= self.expires


def keys_path(path: str | os.PathLike[str]) -> Path:
    """The file of keys of a database folder; any other path is that of the file itself."""
    found = Path(path)
    return found / KEYS_FILE if found.is_dir() else found


def lifetime(text: str) -> timedelta:
    """A time such as ``30d``; raises InvalidArgument."""
    found = re.fullmatch(r"([1-9]\d{0,5})([mhdw])", text)
    if found is None:
        raise InvalidArgument(f"expires= expects a number of m, h, d or w, such as 30d, found {text!r:.40}")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


def create_key(
    path: str | os.PathLike[str],
    *,
    scope: Scope = "read",
    collections: Sequence[str] = ("*",),
    filter: str | None = None,  # noqa: A002
    expires: timedelta | None = None,
) -> tuple[str, Key]:
    """Make a key and write it into a file, which only its owner may read.

    Parameters
    ----------
    path : folder of a database, or the file
    scope : ``"read"``, ``"write"``, which also reads, or ``"admin"``, which also makes and changes collections
    collections : names, or beginnings of names that end with ``*``
    filter : rows that are there to its holder: others are neither found nor counted, and cannot be written
    expires : time after which it is refused; None for never

    Returns
    -------
    tuple : the token, which is stored nowhere, and what is

    Raises
    ------
    InvalidArgument : an argument is out of range, or the folder has no database
    FilterSyntaxError : the filter is not in the grammar
    Unavailable : the file cannot be read or written
    """
    if scope not in SCOPES:
        raise InvalidArgument(f"scope= expects one of {', '.join(SCOPES)}, found {scope!r:.40}")
    names = tuple(dict.fromkeys(collections))
    if not names or not all(re.fullmatch(r"\w{1,64}\*?|\*", name) for name in names):
        raise InvalidArgument(
            f"collections= expects names, or beginnings of names that end with *, such as 'docs' or 'tenant_*', found "
            f"{list(names)!r:.80}"
        )
    filter_node(filter)
    if filter is not None and scope == "admin":
        raise InvalidArgument(
            "a key with a filter expects the scope read or write, found admin, which concerns all rows"
        )
    now = datetime.now(UTC).replace(microsecond=0)
    secret = secrets.token_urlsafe(SECRET_BYTES)
    salt = secrets.token_bytes(16)
    key = Key(
        id=secrets.token_hex(6), salt=salt, hash=_scrypt(secret, salt, SCRYPT_N), cost=SCRYPT_N, scope=scope,
        collections=names, created=now, filter=filter, expires=None if expires is None else now + expires,
    )  # fmt: skip
    with _changing(path) as keys:
        keys.append(key)
    return f"gg_{key.id}_{secret}", key


def list_keys(path: str | os.PathLike[str]) -> list[Key]:
    """The keys of a file; raises Unavailable where it cannot be read."""
    return _read(keys_path(path))


def revoke_key(path: str | os.PathLike[str], key_id: str) -> None:
    """Take a key out of a file: servers refuse it from then on; raises NotFound."""
    with _changing(path) as keys:
        kept = [key for key in keys if key.id != key_id]
        if len(kept) == len(keys):
            raise NotFound(f"a key expects an id of the file, found {key_id!r:.40}; `gingham keys list` shows them")
        keys[:] = kept


class KeyRing:
    """The keys that a server takes; its file is read again when it changes.

    Parameters
    ----------
    path : folder of a database, or the file

    Notes
    -----
    A hash that was verified is remembered as a keyed digest of the secret, in memory alone, so that a call costs a
    look at the file's state and no scrypt. Where the file cannot be read any more, no key is good.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = keys_path(path)
        self._lock, self._hashing = threading.Lock(), threading.Lock()
        self._waiting = threading.BoundedSemaphore(MOST_WAITING)
        self._state: object = None
        self._keys: dict[str, Key] = {}
        self._digests: dict[tuple[str, bytes], bytes] = {}
        self._pepper = secrets.token_bytes(32)
        self._load(_state(self._path))

    def verify(self, token: str | None) -> Key:
        """The key that a token belongs to.

        Raises
        ------
        Unauthenticated : there is none, it is unknown, wrong or expired
        Unavailable : the file cannot be read
        ResourceExhausted : it has not been seen yet, and so many of these wait to be hashed
        """
        return self._found(token, hashing=True)

    def check(self, token: str | None) -> None:
        """Raise the same as :meth:`verify` for a token that is not good, as far as that takes no time.

        A key that no call has shown yet passes with any secret.
        """
        self._found(token, hashing=False)

    def _found(self, token: str | None, *, hashing: bool) -> Key:
        self._refresh()
        if token is None:
            raise Unauthenticated("the server expected a key, found none; give one with open(token=)")
        found = _TOKEN.fullmatch(token)
        key = None if found is None else self._keys.get(found[1])
        if found is None or key is None or not self._is_right(key, found[2], hashing=hashing):
            raise Unauthenticated("the server expected a key that it knows, found another; was it revoked or cut?")
        if key.expired:
            raise Unauthenticated(f"the server expected a key in its time, found {key.id} expired; ask for another")
        return key

    def _is_right(self, key: Key, secret: str, *, hashing: bool) -> bool:
        known = self._digests.get((key.id, key.hash))
        if known is None and not hashing:
            return True
        digest = hashlib.blake2b(secret.encode(), key=self._pepper).digest()
        return hmac.compare_digest(digest, known) if known is not None else self._is_hashed(key, secret, digest)

    def _is_hashed(self, key: Key, secret: str, digest: bytes) -> bool:
        """The same of a key that no call has shown yet."""
        if not self._waiting.acquire(blocking=False):
            error = ResourceExhausted(
                f"the server expected at most {MOST_WAITING} calls at once with keys that it has not seen since it "
                "began, found one more; call again in a moment"
            )
            error.retry_after = HASHING_SECONDS
            raise error
        try:
            with self._hashing:  # wrong secrets take one core and 16 MiB at most
                known = self._digests.get((key.id, key.hash))  # by a call that this one has waited for
                if known is not None:
                    return hmac.compare_digest(digest, known)
                right = hmac.compare_digest(_scrypt(secret, key.salt, key.cost), key.hash)
                if right:
                    self._digests[key.id, key.hash] = digest
                return right
        finally:
            self._waiting.release()

    def _refresh(self) -> None:
        try:
            state = _state(self._path)
            if state != self._state:
                with self._lock:
                    self._load(state)
        except GinghamError as error:
            LOG.error("keys: %s", error)
            raise Unavailable("the server expected to read its keys, could not; its log says why") from None

    def _load(self, state: object) -> None:
        if state != self._state:
            self._keys = {key.id: key for key in _read(self._path)}
            self._state = state


def _scrypt(secret: str, salt: bytes, cost: int) -> bytes:
    return hashlib.scrypt(secret.encode(), salt=salt, n=cost, r=SCRYPT_R, p=SCRYPT_P, maxmem=64 << 20, dklen=32)


def _state(path: Path) -> object:
    """What differs once a file was replaced."""
    with _typed(path):
        found = path.stat()
    return found.st_ino, found.st_mtime_ns, found.st_size


def _read(path: Path) -> list[Key]:
    with _typed(path):
        text = path.read_bytes()
    try:
        return msgspec.json.Decoder(Key).decode_lines(text)
    except msgspec.MsgspecError as error:
        raise Unavailable(f"a file of keys expects one as JSON on each line, found {error} in {path}") from None


@contextlib.contextmanager
def _changing(path: str | os.PathLike[str]) -> Iterator[list[Key]]:
    """The keys of a file, which are written as they are at the end of the block; one process at a time."""
    file = keys_path(path)
    if file.parent == Path(path) and not (file.parent / CURRENT).exists():
        raise InvalidArgument(f"keys expect the folder of a database, or a file, found the folder {path} without one")
    lock = FileLock(file.with_name(f"{file.name}.lock"))
    lock.acquire(_LOCK_SECONDS)
    try:
        keys = _read(file) if file.exists() else []
        yield keys
        with _typed(file):
            _replace(file, msgspec.json.Encoder().encode_lines(keys))
    finally:
        lock.close()


def _replace(file: Path, data: bytes) -> None:
    """Write a file beside the old one, readable by its owner alone, and put it in its place."""
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")  # its mode is 0600
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        os.replace(name, file)
    except BaseException:
        os.unlink(name)
        raise


@contextlib.contextmanager
def _typed(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Unavailable(
            f"keys expect a file that can be read and written, found {error.strerror} at {path}; make it with: gingham "
            f"keys create {path}"
        ) from None
