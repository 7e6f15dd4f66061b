"""The pages of an LMDB 0.9 data file, checked before LMDB follows them.

LMDB trusts its file: a damaged page number leads it out of the map, which ends the process. So the trees are
walked here first, level by level with NumPy, and never past the end of the file. The layout is that of
LMDB's ``mdb.c`` (MDB_page, MDB_node, MDB_db, MDB_meta); all integers are little-endian.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gingham.errors import Corrupt, NotAStore

if TYPE_CHECKING:
    from collections.abc import Container, Iterator

Array = np.ndarray[Any, Any]

PAGE_BYTES = 4096
_HEADER_BYTES = 16
_BRANCH, _LEAF, _OVERFLOW, _META = 1, 2, 4, 8
_BIGDATA, _SUBDATA = 1, 2
_MAGIC = 0xBEEFC0DE
_NO_PAGE = (1 << 64) - 1
_INTEGER_KEYS = 0x08
_FREE_FLAGS = _INTEGER_KEYS
_CHUNK_PAGES = 512
_MAX_DEPTH = 32
_MAX_PAGES = 1 << 40
_RETRIES = 20

_DB = struct.Struct("<IHHQQQQQ")
_META_HEAD = struct.Struct("<IIQQ")
_META_TAIL = struct.Struct("<QQ")


@dataclass(frozen=True)
class Damage:
    """A place in the file that is not as LMDB writes it."""

    where: str
    what: str


@dataclass(frozen=True)
class _Tree:
    """An MDB_db: what a meta page or a named node says of a tree."""

    pad: int
    flags: int
    depth: int
    branch_pages: int
    leaf_pages: int
    overflow_pages: int
    entries: int
    root: int


@dataclass(frozen=True)
class _Meta:
    page: int
    version: int
    free: _Tree
    main: _Tree
    last_page: int
    txn_id: int


class _Broken(Corrupt):
    """Carries the first damage of a tree."""

    def __init__(self, where: str, what: str) -> None:
        super().__init__(f"{where} {what}; run verify()")
        self.damage = Damage(where, what)


def check_header(path: str | os.PathLike[str]) -> None:
    """Check what LMDB reads before it maps the file; O(1).

    Raises
    ------
    NotAStore : the file does not begin like an LMDB file
    Corrupt : it is shorter than its last page, or a meta page is damaged
    """
    for _ in range(_RETRIES):
        head, size = _read_head(path)
        try:
            _check_metas(path, head, size)
            return
        except Corrupt:
            if _read_head(path) == (head, size):
                raise
    raise Corrupt(f"{path} changed {_RETRIES} times while its head was read; open it again")


def _read_head(path: str | os.PathLike[str]) -> tuple[bytes, int]:
    with open(path, "rb") as file:
        return file.read(2 * PAGE_BYTES), os.fstat(file.fileno()).st_size


def _check_metas(path: str | os.PathLike[str], head: bytes, size: int) -> None:
    if len(head) < 2 * PAGE_BYTES:
        raise Corrupt(f"{path} expects at least {2 * PAGE_BYTES} bytes, found {len(head)}; restore a backup")
    metas = [_meta(head, page) for page in (0, 1)]
    if metas[0] is None and metas[1] is None:
        raise NotAStore(f"{path} does not begin like an LMDB file; check the path")
    for number, meta in enumerate(metas):
        if meta is None or meta.version != 1 or meta.free.pad != PAGE_BYTES or meta.free.flags != _FREE_FLAGS:
            raise Corrupt(f"{path} has a damaged meta page {number}; restore a backup")
    first, second = metas
    assert first is not None
    assert second is not None
    if abs(first.txn_id - second.txn_id) != 1 and first.txn_id + second.txn_id != 0:
        raise Corrupt(
            f"{path} expects meta pages of consecutive transactions, found {first.txn_id} and {second.txn_id}; "
            "restore a backup"
        )
    newest = max(first, second, key=lambda meta: meta.txn_id)
    if newest.main.flags != 0:
        raise Corrupt(f"{path} has a damaged meta page {newest.page}; restore a backup")
    if newest.last_page < 1 or newest.last_page >= _MAX_PAGES:
        raise Corrupt(f"{path} has a damaged meta page {newest.page}; restore a backup")
    roots = [tree.root for tree in (newest.free, newest.main) if tree.root != _NO_PAGE]
    needed = (max(roots, default=1) + 1) * PAGE_BYTES
    if size < needed:
        raise Corrupt(f"{path} expects at least {needed} bytes, found {size}: it is cut off; restore a backup")


def _meta(head: bytes | memoryview, page: int) -> _Meta | None:
    at = page * PAGE_BYTES
    number, _, flags = struct.unpack_from("<QHH", head, at)
    magic, version, _, _ = _META_HEAD.unpack_from(head, at + 16)
    if magic != _MAGIC or number != page or flags & _META == 0:
        return None
    free, main = (_Tree(*_DB.unpack_from(head, at + 40 + 48 * i)) for i in (0, 1))
    last_page, txn_id = _META_TAIL.unpack_from(head, at + 136)
    return _Meta(page, version, free, main, last_page, txn_id)


def check_trees(
    path: str | os.PathLike[str],
    *,
    skip: Container[str] = (),
    free_pages: bool = True,
    pinned: int | None = None,
) -> list[Damage]:
    """Walk the trees of the newest commit.

    Parameters
    ----------
    skip : named trees to leave out
    free_pages : also check that every page is either in use or free, and none both; needs all trees
    pinned : transaction id that a reader slot of the caller protects; its commit is walked where its meta
        page still exists

    Returns
    -------
    list of Damage : at most one for each tree

    Notes
    -----
    Another process may commit meanwhile and reuse the pages walked: damage counts only if the meta pages are
    still the same afterwards, and the walk is repeated otherwise.
    """
    damage: list[Damage] = []
    for _ in range(_RETRIES):
        file = _File(path, pinned)
        damage = file.check(skip, free_pages=free_pages)
        if not damage or file.unchanged():
            return damage
    return []


def check_tree(path: str | os.PathLike[str], name: str) -> list[Damage]:
    """Walk one named tree of the newest commit; see :func:`check_trees`."""
    damage: list[Damage] = []
    for _ in range(_RETRIES):
        file = _File(path, None)
        damage = file.check_named(name)
        if not damage or file.unchanged():
            return damage
    return []


def free_bytes(path: str | os.PathLike[str]) -> int:
    """Bytes of the pages that the newest commit lists as free; 0 where commits come too fast to count them."""
    for _ in range(_RETRIES):
        head = _read_head(path)[0]
        try:
            return sum(len(pages) for pages in _File(path, None).free_lists()) * PAGE_BYTES
        except Corrupt:
            if _read_head(path)[0] == head:
                raise
    return 0


class _File:
    """The pages of one commit."""

    def __init__(self, path: str | os.PathLike[str], pinned: int | None) -> None:
        self._path = path
        head, size = _read_head(path)
        self._head = head
        _check_metas(path, head, size)
        metas = [meta for meta in (_meta(head, 0), _meta(head, 1)) if meta is not None]
        newest = max(metas, key=lambda meta: meta.txn_id)
        self.meta = next((meta for meta in metas if meta.txn_id == pinned), newest)
        # Pages at the end that were freed before they were ever written are missing from the file.
        present = min(self.meta.last_page + 1, size // PAGE_BYTES)
        self._pages: Array = np.memmap(path, np.uint8, "r", shape=(present, PAGE_BYTES))
        self._uses = np.zeros(present + 1, np.int32)

    def unchanged(self) -> bool:
        """Whether no commit came meanwhile."""
        return _read_head(self._path)[0] == self._head

    def check(self, skip: Container[str], *, free_pages: bool) -> list[Damage]:
        """Damage of all trees."""
        damage = []
        try:
            named = self._named_trees()
        except _Broken as broken:
            return [broken.damage]
        for name, tree in named.items():
            if name not in skip:
                damage += self._caught(name, tree)
        damage += self._caught("free pages", self.meta.free)
        if not damage and free_pages:
            damage += self._account()
        return damage

    def check_named(self, name: str) -> list[Damage]:
        """Damage of one named tree."""
        try:
            tree = self._named_trees().get(name)
        except _Broken as broken:
            return [broken.damage]
        return [Damage(f"tree {name!r}", "is missing")] if tree is None else self._caught(name, tree)

    def free_lists(self) -> Iterator[Array]:
        """Page numbers of each record of the free tree."""
        for key, value in self._walk("free pages", self.meta.free, values=True):
            numbers = value[: len(value) // 8 * 8].view("<u8")
            if len(key) != 8 or len(numbers) < 1 or numbers[0] != len(numbers) - 1:
                raise _Broken("tree 'free pages'", "a list of free pages has another length than it says")
            yield numbers[1:]

    def _caught(self, name: str, tree: _Tree) -> list[Damage]:
        try:
            for _ in self._walk(name, tree, values=False):
                pass
        except _Broken as broken:
            return [broken.damage]
        return []

    def _account(self) -> list[Damage]:
        """Every page from 2 on is used once or free once."""
        count = self.meta.last_page + 1
        if count > len(self._uses) + self._listed_free():
            return [Damage("the file", f"ends after {len(self._pages)} of {count} pages")]
        uses = np.zeros(count, np.int64)
        uses[: len(self._uses) - 1] = np.cumsum(self._uses[:-1])
        try:
            for numbers in self.free_lists_unmarked():
                if len(numbers) and (numbers.max() >= count or numbers.min() < 2):
                    return [Damage("tree 'free pages'", "a free page lies outside the file")]
                np.add.at(uses, numbers.astype(np.int64), 1)
        except _Broken as broken:
            return [broken.damage]
        wrong = np.flatnonzero(uses[2:] != 1)
        if not len(wrong):
            return []
        page = int(wrong[0]) + 2
        what = "neither in use nor free" if uses[page] == 0 else "in use or free more than once"
        return [Damage(f"page {page}", f"is {what}, with {len(wrong)} pages in all")]

    def _listed_free(self) -> int:
        """How many pages the free tree may list: bounds the memory that a damaged page count can ask for."""
        return self.meta.free.overflow_pages * 512 + self.meta.free.leaf_pages * 512 + 1

    def free_lists_unmarked(self) -> list[Array]:
        """The free lists again, without counting their pages a second time."""
        uses, self._uses = self._uses, np.zeros_like(self._uses)
        try:
            return list(self.free_lists())
        finally:
            self._uses = uses

    def _named_trees(self) -> dict[str, _Tree]:
        out = {}
        for key, value in self._walk("main", self.meta.main, values=True, flag=_SUBDATA):
            if len(value) != _DB.size:
                raise _Broken("tree 'main'", f"expects records of {_DB.size} bytes, found {len(value)}")
            tree = _Tree(*_DB.unpack(value.tobytes()))
            if tree.flags != 0 or tree.pad != 0:
                raise _Broken(f"tree {key!r}", f"expects no flags, found {tree.flags:#x}")
            out[key.decode("ascii", "replace")] = tree
        return out

    def _walk(self, name: str, tree: _Tree, *, values: bool, flag: int = 0) -> Iterator[tuple[bytes, Array]]:
        """Check a tree; yields its records where ``values`` is set."""
        walk = _Walk(self._pages, self._uses, name, tree, flag)
        yield from walk.run(values=values)


class _Walk:
    """One pass over one tree, level by level, in key order."""

    def __init__(self, pages: Array, uses: Array, name: str, tree: _Tree, flag: int) -> None:
        self._pages = pages
        self._uses = uses
        self._count = len(pages)
        self._name = name
        self._tree = tree
        self._flag = flag
        self._integers = bool(tree.flags & _INTEGER_KEYS)
        self._overflow = 0
        self._entries = 0

    def _fail(self, what: str, page: int | None = None) -> _Broken:
        where = f"tree {self._name!r}" if page is None else f"page {page} of tree {self._name!r}"
        return _Broken(where, what)

    def run(self, *, values: bool) -> Iterator[tuple[bytes, Array]]:
        tree = self._tree
        if tree.root == _NO_PAGE:
            if (tree.depth, tree.branch_pages, tree.leaf_pages, tree.overflow_pages, tree.entries) != (0,) * 5:
                raise self._fail("has no root and is not empty")
            return
        if not 1 <= tree.depth <= _MAX_DEPTH:
            raise self._fail(f"expects a depth of 1 to {_MAX_DEPTH}, found {tree.depth}")
        level = np.array([tree.root], np.uint64)
        lower: list[bytes | None] = [None]
        branches = 0
        for _ in range(tree.depth - 1):
            branches += len(level)
            if branches > tree.branch_pages:
                raise self._fail(f"expects {tree.branch_pages} branch pages, found more")
            level, lower = self._descend(level, lower)
        if branches != tree.branch_pages or len(level) != tree.leaf_pages:
            raise self._fail(
                f"expects {tree.branch_pages} branch and {tree.leaf_pages} leaf pages, "
                f"found {branches} and {len(level)}"
            )
        yield from self._leaves(level, lower, values=values)
        if self._entries != tree.entries or self._overflow != tree.overflow_pages:
            raise self._fail(
                f"expects {tree.entries} entries and {tree.overflow_pages} overflow pages, "
                f"found {self._entries} and {self._overflow}"
            )

    def _load(self, numbers: Array, kind: int) -> tuple[Array, Array, Array, Array]:
        """Pages of one kind: their bytes, and of each node the page index, its position and its header."""
        if len(numbers) and (numbers.max() >= self._count or numbers.min() < 2):
            raise self._fail(f"names page {int(numbers.max())}, the file ends after {self._count} pages")
        at = numbers.astype(np.int64)
        block = self._pages[at]
        if np.any(block[:, :8].copy().view("<u8")[:, 0] != numbers):
            raise self._fail("a page does not carry its own number", int(numbers[0]))
        head = block[:, 8:16].copy().view("<u2")
        flags, low, high = (head[:, i].astype(np.int64) for i in (1, 2, 3))
        if np.any(flags != kind):
            raise self._fail(f"a page expects kind {kind}, found {int(flags[flags != kind][0])}", int(numbers[0]))
        if np.any((low % 2) | (low <= _HEADER_BYTES) | (low > high) | (high > PAGE_BYTES)):
            raise self._fail("the bounds of a page are out of range", int(numbers[0]))
        np.add.at(self._uses, at, 1)
        np.add.at(self._uses, at + 1, -1)
        counts = (low - _HEADER_BYTES) // 2
        page = np.repeat(np.arange(len(at)), counts)
        nth = np.arange(len(page)) - np.repeat(np.cumsum(counts) - counts, counts)
        words = block.view("<u2")
        pointer = words[page, _HEADER_BYTES // 2 + nth].astype(np.int64)
        if np.any((pointer % 2) | (pointer < high[page]) | (pointer + 8 > PAGE_BYTES)):
            raise self._fail("a node lies outside its page", int(numbers[0]))
        nodes = np.stack([words[page, pointer // 2 + i] for i in range(4)], axis=1).astype(np.int64)
        size = 8 + nodes[:, 3]
        if self._integers and np.any(nodes[(kind == _LEAF) | (nth > 0), 3] != 8):
            raise self._fail("a key is not an integer of 8 bytes", int(numbers[0]))
        if kind == _LEAF:
            data = nodes[:, 0] | nodes[:, 1] << 16
            size = size + np.where(nodes[:, 2] & _BIGDATA, 8, data)
        self._check_tiling(page, pointer, size + size % 2, high, int(numbers[0]))
        return block, page, pointer, nodes

    def _check_tiling(self, page: Array, pointer: Array, size: Array, high: Array, first: int) -> None:
        """Nodes fill the upper part of their page without gap or overlap."""
        order = np.lexsort((pointer, page))
        start, end, owner = pointer[order], (pointer + size)[order], page[order]
        last = np.append(owner[1:] != owner[:-1], True)
        following = np.append(start[1:], 0)
        following[last] = PAGE_BYTES
        first_of = np.append(True, last[:-1])
        if np.any(end != following) or np.any(start[first_of] != high[owner[first_of]]):
            raise self._fail("the nodes of a page overlap or leave a gap", first)

    def _keys(self, block: Array, page: Array, pointer: Array, length: Array) -> Array:
        """Keys padded with zeros, as fixed-width bytes that compare like the keys."""
        width = max(1, int(length.max(initial=0)))
        columns = np.arange(width)
        if self._integers:
            columns = columns[::-1]
        at = np.minimum(pointer[:, None] + 8 + columns, PAGE_BYTES - 1)
        keys = block[page[:, None], at]
        keys[np.arange(width) >= length[:, None]] = 0
        return np.ascontiguousarray(keys).view(f"S{width}")[:, 0]

    def _descend(self, level: Array, lower: list[bytes | None]) -> tuple[Array, list[bytes | None]]:
        children, bounds = [], []
        for start in range(0, len(level), _CHUNK_PAGES):
            numbers = level[start : start + _CHUNK_PAGES]
            block, page, pointer, nodes = self._load(numbers, _BRANCH)
            children.append((nodes[:, 0] | nodes[:, 1] << 16 | nodes[:, 2] << 32).astype(np.uint64))
            first = np.append(True, page[1:] != page[:-1])
            for number in range(len(page)):
                if first[number]:
                    bounds.append(lower[start + int(page[number])])
                else:
                    bounds.append(self._key(block, page, pointer, nodes[:, 3], number))
        return np.concatenate(children), bounds

    def _leaves(self, level: Array, lower: list[bytes | None], *, values: bool) -> Iterator[tuple[bytes, Array]]:
        last: bytes | None = None
        for start in range(0, len(level), _CHUNK_PAGES):
            numbers = level[start : start + _CHUNK_PAGES]
            block, page, pointer, nodes = self._load(numbers, _LEAF)
            self._entries += len(page)
            length = nodes[:, 3]
            flags = nodes[:, 2]
            if np.any((flags & ~_BIGDATA) != self._flag):
                raise self._fail("a node has flags that are never written", int(numbers[0]))
            last = self._check_order(block, page, pointer, length, lower[start : start + len(numbers)], last, numbers)
            self._check_overflow(block, page, pointer, nodes)
            if values:
                for number in range(len(page)):
                    yield self._record(block[page[number]], int(pointer[number]), nodes[number])

    def _check_order(
        self,
        block: Array,
        page: Array,
        pointer: Array,
        length: Array,
        lower: list[bytes | None],
        last: bytes | None,
        numbers: Array,
    ) -> bytes:
        """Keys ascend through the whole level and lie within their parents' separators; returns the last one."""
        keys = self._keys(block, page, pointer, length)
        before, after = keys[:-1], keys[1:]
        shorter = length[:-1] < length[1:]
        if np.any(~((before < after) | ((before == after) & shorter))):
            raise self._fail("keys are not in order", int(numbers[0]))
        starts = np.flatnonzero(np.append(True, page[1:] != page[:-1]))
        for number, at in enumerate(starts):
            first = self._key(block, page, pointer, length, int(at))
            previous = last if at == 0 else self._key(block, page, pointer, length, int(at) - 1)
            bound = lower[number]
            if (previous is not None and previous >= first) or (
                bound is not None and (first < bound or (previous is not None and previous >= bound))
            ):
                raise self._fail("keys lie outside the bounds of their page", int(numbers[number]))
        return self._key(block, page, pointer, length, len(page) - 1)

    def _key(self, block: Array, page: Array, pointer: Array, length: Array, number: int) -> bytes:
        """One key, as bytes that compare like it: an integer in LMDB's own order of bytes is turned round."""
        begin = int(pointer[number]) + 8
        key = bytes(block[page[number], begin : begin + int(length[number])].tobytes())
        return key[::-1] if self._integers else key

    def _check_overflow(self, block: Array, page: Array, pointer: Array, nodes: Array) -> None:
        for number in np.flatnonzero(nodes[:, 2] & _BIGDATA):
            begin = int(pointer[number]) + 8 + int(nodes[number, 3])
            first = int.from_bytes(block[page[number], begin : begin + 8].tobytes(), "little")
            size = int(nodes[number, 0] | nodes[number, 1] << 16)
            expected = -(-(_HEADER_BYTES + size) // PAGE_BYTES)
            if not 2 <= first <= self._count - expected:
                raise self._fail(f"names overflow page {first}, the file ends after {self._count} pages")
            head = self._pages[first, :_HEADER_BYTES].tobytes()
            own, _, flags, pages = struct.unpack("<QHHI", head)
            if (own, flags, pages) != (first, _OVERFLOW, expected):
                raise self._fail(f"expects {expected} overflow pages, found {pages}", first)
            self._overflow += pages
            self._uses[first] += 1
            self._uses[first + pages] -= 1

    def _record(self, page: Array, pointer: int, node: Array) -> tuple[bytes, Array]:
        key_end = pointer + 8 + int(node[3])
        key = page[pointer + 8 : key_end].tobytes()
        size = int(node[0] | node[1] << 16)
        if not node[2] & _BIGDATA:
            return key, page[key_end : key_end + size].copy()
        first = int.from_bytes(page[key_end : key_end + 8].tobytes(), "little")
        flat = self._pages.reshape(-1)
        begin = first * PAGE_BYTES + _HEADER_BYTES
        return key, np.array(flat[begin : begin + size])
