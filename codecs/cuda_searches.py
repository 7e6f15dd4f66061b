"""Searches of arrays on an NVIDIA device: sign codes, tables, tokens, centroids and graphs, for many queries at once.

Each takes arrays of NumPy, which are copied to the device in use, or arrays that are there already; what
:func:`sign_columns` and :func:`code_columns` return stays there for the next call. A context of
:meth:`gingham.codecs.devices.Device.active` chooses the device. Results come back as arrays of NumPy.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from gingham.codecs.row_scores import F32, PACKED
from gingham.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Callable

    from gingham.codecs.row_scores import RowScores

    Array = np.ndarray[Any, Any]

BLOCKS = 512
"""Blocks that a scan is split into at least, where there are rows enough: about four for each multiprocessor."""
KEYS = 4096
"""Keys that a block has room for: 32 KiB; tables leave 16 KiB for them."""
TILE, ROWS = 8, 16
"""Queries that a block compares sign codes with together; rows whose table entries a thread sums."""
COMPARERS, THREADS, SORTERS = 128, 256, 256
"""Threads of a block that compares sign codes, that sums table entries, and that merges what blocks found."""
STAGED, STAGED_SMALL = 6, 24
"""Words of codes whose tables lie in shared memory at once: 24 KiB, of float32 and of uint8."""
SPLIT, DIMENSIONS, TOKEN_WORDS = (16, 8), 16, 32
"""Threads over centroids and rows, dimensions of a step; words of a token that lie in shared memory at once."""
TOKENS = (8, 16)
"""Threads over query tokens and tokens of a document."""
WALKERS, MOST_EF, MOST_WORDS = 128, 1024, 2048
"""Threads of a query in a graph; its widest beam; and the longest query, in words of 4 bytes."""
MOST_SHARED = 48 << 10
"""Bytes of shared memory that a block gets without asking for more."""
LEAST_ROOM, LEAST_FOUND, LEAST_TABLE, LEAST_WORDS = 64, 32, 2048, 256
"""Of a walk: keys of the beam, nodes found in a turn, nodes that it remembers, and words of a query."""
UPLOAD_BYTES, COPIERS = 64 << 20, 256
"""Bytes of rows copied at once, before they are turned into columns, and threads of a block that turns them."""


def sign_columns(codes: Array) -> Any:
    """Sign codes on the device.

    Parameters
    ----------
    codes : uint64 (n, words)

    Returns
    -------
    columns : on the device, uint64 (words, n)
    """
    _expect("codes", codes, np.uint64, 2)
    return _columns(codes, len(codes), lambda piece: np.ascontiguousarray(piece, np.uint64))


def nearest_signs(columns: Any, queries: Array, k: int, *, allow: Array | None = None) -> tuple[Array, Array]:
    """The sign codes that differ from each query in the fewest bits.

    Parameters
    ----------
    columns : as :func:`sign_columns` returns them
    queries : uint64 (n_queries, words)
    k : from 1 to 2048
    allow : bool (n,), or None for all

    Returns
    -------
    tuple : bits that differ, int32 (n_queries, k), ascending, ties by ascending row; and rows, int64; (-1, -1) pads
    """
    words, n = columns.shape
    _expect("queries", queries, np.uint64, 2, words)
    capacity = _capacity(k, KEYS)
    tile = min(TILE, KEYS // capacity, _power(len(queries)))
    tiles = -(-len(queries) // tile)
    span, parts = _spans(n, COMPARERS, tiles)
    keys = _empty((len(queries), parts, k), np.uint64)
    _signs_kernel(tile, capacity, COMPARERS)[(parts, tiles), COMPARERS](
        columns, n, _there(queries), _mask(allow, n), span, keys
    )
    found = _merged(keys, capacity)
    rows = _rows_of(found)
    return np.where(rows < 0, -1, 0xFFFFFFFF - (found >> np.uint64(32)).astype(np.int64)).astype(np.int32), rows


def code_columns(rows: Array) -> Any:
    """Rows of codes on the device.

    Parameters
    ----------
    rows : uint8 (n, stride), float32 headers included

    Returns
    -------
    columns : on the device, int32 (stride / 4 rounded up, n rounded up)
    """
    _expect("rows", rows, np.uint8, 2)
    padded = -(-len(rows) // (ROWS * THREADS)) * ROWS * THREADS
    return _columns(rows, padded, lambda piece: np.pad(piece, ((0, 0), (0, -piece.shape[1] % 4))).view(np.int32))


def column_bytes(rows: Array) -> int:
    """Bytes that :func:`sign_columns` or :func:`code_columns` take on the device, of their argument."""
    (n, width), together = rows.shape, ROWS * THREADS
    return int(8 * n * width) if rows.dtype == np.uint64 else int(4 * -(-width // 4) * -(-n // together) * together)


def small_tables(tables: Array) -> tuple[Array, Array]:
    """Tables rounded to bytes, for candidates: every entry is off by half of a step at most.

    Parameters
    ----------
    tables : float32 (n_queries, m, entries)

    Returns
    -------
    tuple : uint8 of the same shape, and float32 (n_queries, 2): score = first * sum + second
    """
    least = tables.min(axis=2, keepdims=True)
    steps = (tables - least).max(axis=(1, 2), keepdims=True) / np.float32(255)
    rounded = np.rint((tables - least) / np.where(steps > 0, steps, np.float32(1))).astype(np.uint8)
    return rounded, np.stack([steps[:, 0, 0], least.sum(axis=(1, 2))], axis=1).astype(np.float32)


def best_by_tables(
    columns: Any, n: int, tables: Array, scales: Array, k: int, *, header: int = 0, allow: Array | None = None
) -> tuple[Array, Array]:
    """The rows of the greatest sums of table entries.

    Parameters
    ----------
    columns : as :func:`code_columns` returns them
    n : rows
    tables : float32 or uint8 (n_queries, m, 256), of each code of a row
    scales : float32 (n_queries, 2): the factor of sums of uint8, and what is added to each score
    k : from 1 to 1024
    header : 1 where rows begin with a float32 that is added to their score, else 0
    allow : bool (n,), or None for all

    Returns
    -------
    tuple : scores float32 (n_queries, k), descending, ties by ascending row; and rows, int64; (-inf, -1) pads

    Notes
    -----
    Scores by float32 tables have the bits of those of the CPU.
    """
    small = tables.dtype == np.uint8
    _expect("tables", tables, np.uint8 if small else np.float32, 3, 256)
    _expect("scales", scales, np.float32, 2, 2)
    m, width = tables.shape[1], columns.shape[0] - header
    if -(-m // 4) != width or n > columns.shape[1]:
        raise InvalidArgument(f"tables expects those of {4 * width} codes and {columns.shape[1]} rows, found {m}, {n}")
    padded = np.zeros((len(tables), 4 * width, 256), tables.dtype)
    padded[:, :m] = tables
    capacity = _capacity(k, KEYS // 2)
    span, parts = _spans(n, ROWS * THREADS, len(tables))
    keys = _empty((len(tables), parts, k), np.uint64)
    kernel = _tables_kernel(small, STAGED_SMALL if small else STAGED, ROWS, capacity, THREADS)
    there = _there(padded.reshape(len(tables), width, 1024))
    kernel[(len(tables), parts), THREADS](columns, header, n, there, _there(scales), _mask(allow, n), span, keys)
    found = _merged(keys, capacity)
    return _scores_of(found), _rows_of(found)


def maxsim_scores(
    codes: Any, scales: Any, offsets: Any, starts: Any, documents: Array, integers: Array, parameters: Array
) -> Array:
    """MaxSim of documents of tokens ``scale levels + offset``.

    Parameters
    ----------
    codes : uint8 (n_tokens, width), width a multiple of 4, or its words on the device, int32 (n_tokens, width / 4)
    scales, offsets : float32 (n_tokens,)
    starts : int64 (n_documents + 1,), where the tokens of each document begin; they are trusted
    documents : int64 (n_queries, m) or (1, m), numbers of documents, -1 for none
    integers : int8 (n_queries, query tokens, width), at most 65,535 queries
    parameters : float32 (n_queries, 3, query tokens), as of :class:`gingham.codecs.maxsim.QueryTokens`

    Returns
    -------
    scores : float32 (n_queries, m); -inf of documents without tokens
    """
    words = _words(codes)
    _expect("integers", integers, np.int8, 3, 4 * words.shape[1])
    _expect("parameters", parameters, np.float32, 3, integers.shape[1])
    _expect("documents", documents, np.int64, 2)
    if len(documents) not in (1, len(integers)) or documents.max(initial=-1) + 1 >= len(starts):
        raise InvalidArgument(
            f"documents expects 1 or {len(integers)} lines of numbers below {len(starts) - 1}, found {documents.shape}"
        )
    scores = _empty((len(integers), documents.shape[1]), np.float32)
    _maxsim_kernel(*TOKENS, TOKEN_WORDS)[(documents.shape[1], len(integers)), TOKENS[0] * TOKENS[1]](
        _there(words), _there(scales), _there(offsets), _there(starts), _there(documents),
        _there(np.ascontiguousarray(integers).view(np.int32)), _there(parameters),
        _there(np.zeros((1, 1, 1), np.float32)), scores,
    )  # fmt: skip
    return _here(scores)


def maxsim_near(
    words: Any, scales: Any, ids: Any, starts: Any, documents: Array, integers: Array, parameters: Array, centroids: Any
) -> Array:
    """MaxSim of documents of tokens that are a centroid and ``scale levels``.

    Parameters
    ----------
    words : int32 (n_tokens, width / 4), levels of a byte
    scales : float32 (n_tokens,)
    ids : int32 (n_tokens,), numbers of centroids; they and starts are trusted
    starts, documents, integers : as of :func:`maxsim_scores`
    parameters : float32 (n_queries, 2, query tokens), as of :func:`gingham.codecs.maxsim.level_parameters`
    centroids : float32 (n_queries, n_centroids, query tokens), inner products of the query tokens with each

    Returns
    -------
    scores : float32 (n_queries, m); -inf of documents without tokens
    """
    tokens = parameters.shape[2]
    _expect("integers", integers, np.int8, 3, 4 * words.shape[1])
    _expect("documents", documents, np.int64, 2)
    _expect("centroids", centroids, np.float32, 3, tokens)
    if len(documents) not in (1, len(integers)) or integers.shape[1] != tokens or len(centroids) != len(integers):
        raise InvalidArgument(
            f"integers expects {tokens} tokens of {len(centroids)} queries, and documents 1 or as many lines, found "
            f"{integers.shape} and {documents.shape}"
        )
    scores = _empty((len(integers), documents.shape[1]), np.float32)
    _maxsim_kernel(*TOKENS, TOKEN_WORDS, near=True)[(documents.shape[1], len(integers)), TOKENS[0] * TOKENS[1]](
        _there(words), _there(scales), _there(ids), _there(starts), _there(documents),
        _there(np.ascontiguousarray(integers).view(np.int32)), _there(parameters), _there(centroids), scores,
    )  # fmt: skip
    return _here(scores)


def nearest_centroids(vectors: Any, centroids: Array) -> tuple[Array, Array]:
    """The nearest centroid of each vector.

    Parameters
    ----------
    vectors : float32 (n, dim)
    centroids : float32 (k, dim)

    Returns
    -------
    tuple : their numbers, int32 (n,), the lower one of equals; and ``<x, c> - |c|^2 / 2``, float32 (n,)
    """
    from gingham.codecs.cuda_kmeans_kernels import SIDE

    _expect("centroids", centroids, np.float32, 2, vectors.shape[1])
    halves = (-0.5 * np.square(centroids, dtype=np.float64).sum(axis=1)).astype(np.float32)
    nearest, best = _empty((len(vectors),), np.int32), _empty((len(vectors),), np.float32)
    across, down = SPLIT
    _nearest_kernel(across, down, DIMENSIONS)[-(-len(vectors) // (SIDE * down)), across * down](
        _there(vectors), _there(centroids), _there(halves), nearest, best
    )
    return _here(nearest), _here(best)


def graph_best(links: Any, rows: Any, coded: RowScores, entries: Array, ef: int) -> tuple[Array, Array, Array]:
    """The best nodes of each query that a walk over a graph finds.

    Parameters
    ----------
    links : uint32 (n, degree), the neighbours of each node; numbers of n or more are none
    rows : bytes of all rows, uint8 (n, stride) with a stride of a multiple of 4, or their words, int32
    coded : of the queries, of packed rows of 8 bits or of float32; its address is not read
    entries : int32 (n_queries, any) or (1, any), nodes to begin at
    ef : nodes found for each query, from 1 to 1024

    Returns
    -------
    tuple : scores float32 (n_queries, ef), descending, ties by ascending node; nodes int64; (-inf, -1) pads; and int32
        (n_queries, 2), nodes looked at and nodes scored

    Notes
    -----
    Scores of packed rows have the bits of those of the CPU; sums of floats have another order.
    """
    packed = coded.kind == PACKED
    if coded.kind not in (PACKED, F32) or (packed and coded.bits != 8):
        raise InvalidArgument(f"rows expects codes of 8 bits or float32, found kind {coded.kind}, {coded.bits} bits")
    queries = np.ascontiguousarray(coded.queries).view(np.int32)
    n_queries, wide = queries.shape
    if not 1 <= ef <= MOST_EF or wide > MOST_WORDS:
        raise InvalidArgument(
            f"ef expects 1 to {MOST_EF} and queries at most {4 * MOST_WORDS} bytes, found {ef} and {4 * wide}"
        )
    _expect("entries", entries, np.int32, 2)
    words = _words(rows)
    if len(words) != len(links) or wide != (2 * (words.shape[1] - coded.factors) if packed else words.shape[1]):
        raise InvalidArgument(
            f"rows expects {len(links)} that fit queries of {4 * wide} bytes, found {len(words)} of "
            f"{4 * words.shape[1]}"
        )
    if len(entries) not in (1, n_queries):
        raise InvalidArgument(f"entries expects 1 or {n_queries} lines, found {len(entries)}")
    kernel = _graph_kernel(packed, coded.factors, *walk_shape(ef, links.shape[1], wide))
    keys, visits = _empty((n_queries, ef), np.uint64), _empty((n_queries, 2), np.int32)
    kernel[n_queries, WALKERS](
        _there(links.view(np.int32) if isinstance(links, np.ndarray) else links),
        _there(words), _there(queries), _there(np.ascontiguousarray(coded.parameters)), _there(entries), keys, visits,
    )  # fmt: skip
    found = _here(keys)
    nodes = _rows_of(found)
    return _scores_of(found), np.where(nodes < 0, -1, nodes >> 1), _here(visits)


def walk_shape(ef: int, degree: int, words: int) -> tuple[int, int, int, int, int]:
    """What :func:`gingham.codecs.cuda_graph_kernels.graph_kernel` is made for, powers of two, so that few are made."""
    room, most = max(LEAST_ROOM, _power(ef)), max(LEAST_FOUND, _power(degree))
    return room, most, max(LEAST_TABLE, 2 * _power(room + most)), max(LEAST_WORDS, _power(words)), WALKERS


def walk_fits(ef: int, degree: int, words: int) -> bool:
    """Whether a block has room for the beam and the query, of so many words of 4 bytes, of a walk."""
    room, most, table, query, _ = walk_shape(ef, degree, words)
    shared = 16 * room + 44 * most + 4 * (table + query) + 12
    return ef <= MOST_EF and words <= MOST_WORDS and shared <= MOST_SHARED


def on_device(array: Array) -> Any:
    """A copy on the device in use."""
    return _there(array)


def room_for(n: int, words: int) -> Any:
    """Memory of the device in use, int32 (n, words), whatever is there."""
    return _empty((n, words), np.int32)


def _power(number: int) -> int:
    """The power of two that is not less."""
    return 1 << max(0, number - 1).bit_length()


def _capacity(k: int, most: int) -> int:
    """Keys that a block is to have room for so that it seldom sorts."""
    if not 1 <= k <= most // 2:
        raise InvalidArgument(f"k expects 1 to {most // 2} on a device, found {k}")
    return max(min(2 * SORTERS, most), _power(2 * k))


def _spans(n: int, step: int, queries: int) -> tuple[int, int]:
    """Rows of a block, a multiple of ``step``, and the spans that they make."""
    parts = max(1, min(-(-n // step), -(-BLOCKS // queries)))
    span = -(-n // (parts * step)) * step
    return span, -(-n // span)


def _merged(keys: Any, capacity: int) -> Array:
    """The best of each query, of keys there, (n_queries, parts, k)."""
    n_queries, parts, k = keys.shape
    if parts == 1:
        return _here(keys)[:, 0]
    best = _empty((n_queries, k), np.uint64)
    _merge_kernel(capacity, SORTERS)[n_queries, SORTERS](keys.reshape(n_queries, parts * k), best)
    return _here(best)


def _rows_of(keys: Array) -> Array:
    rows: Array = np.where(keys == 0, -1, 0xFFFFFFFF - (keys & np.uint64(0xFFFFFFFF)).astype(np.int64))
    return rows


def _scores_of(keys: Array) -> Array:
    ordered = (keys >> np.uint64(32)).astype(np.int64) - (1 << 31)
    bits = np.where(ordered >= 0, ordered, -1 - ordered - (1 << 31)).astype(np.int32)
    scores: Array = np.where(keys == 0, np.float32(-np.inf), bits.view(np.float32))
    return scores


def _expect(name: str, array: Array, dtype: type, ndim: int, last: int | None = None) -> None:
    if array.dtype != dtype or array.ndim != ndim or last not in (None, array.shape[-1]):
        shape = "any" if last is None else last
        raise InvalidArgument(
            f"{name} expects {np.dtype(dtype)} of {ndim} dimensions, the last of {shape}, found {array.dtype} "
            f"{array.shape}"
        )


def _columns(rows: Array, room: int, words: Callable[[Array], Array]) -> Any:
    """Columns of words, with room for so many rows, copied piece by piece; what is beyond the rows is anything."""
    from gingham.codecs.cuda_kernels import transpose_words

    first = words(rows[:1])
    out = _empty((first.shape[1], room), first.dtype.type)
    step = max(1, UPLOAD_BYTES // max(1, rows.itemsize * rows.shape[1]))
    for start in range(0, len(rows), step):
        piece = _there(words(rows[start : start + step]))
        transpose_words[-(-len(piece) // COPIERS), COPIERS](piece, start, out)
    return out


def _words(rows: Any) -> Any:
    """Rows of bytes as words, unless they are words already."""
    if not isinstance(rows, np.ndarray) or rows.dtype == np.int32:
        return rows
    if rows.dtype != np.uint8 or rows.ndim != 2 or rows.shape[1] % 4:
        raise InvalidArgument(
            f"rows of codes expect uint8 (n, a multiple of 4) or int32, found {rows.dtype} {rows.shape}"
        )
    return np.ascontiguousarray(rows).view(np.int32)


def _mask(allow: Array | None, n: int) -> Any:
    if allow is None:
        return _there(np.empty(0, np.uint8))
    _expect("allow", allow, np.bool_, 1, n)
    return _there(np.ascontiguousarray(allow).view(np.uint8))


def _there(array: Any) -> Any:
    from numba import cuda

    return cuda.to_device(np.ascontiguousarray(array)) if isinstance(array, np.ndarray) else array


def _empty(shape: tuple[int, ...], dtype: type) -> Any:
    from numba import cuda

    return cuda.device_array(shape, dtype)


def _here(array: Any) -> Array:
    copied: Array = array.copy_to_host()
    return copied


@cache
def _signs_kernel(*shape: int) -> Any:
    from gingham.codecs.cuda_hamming_kernels import signs_kernel

    return signs_kernel(*shape)


@cache
def _tables_kernel(small: bool, *shape: int) -> Any:
    from gingham.codecs.cuda_tables_kernels import tables_kernel

    return tables_kernel(small, *shape)


@cache
def _merge_kernel(*shape: int) -> Any:
    from gingham.codecs.cuda_select_kernels import merge_kernel

    return merge_kernel(*shape)


@cache
def _maxsim_kernel(across: int, down: int, staged: int, near: bool = False) -> Any:
    from gingham.codecs.cuda_maxsim_kernels import maxsim_kernel

    return maxsim_kernel(across, down, staged, near)


@cache
def _nearest_kernel(*shape: int) -> Any:
    from gingham.codecs.cuda_kmeans_kernels import nearest_kernel

    return nearest_kernel(*shape)


@cache
def _graph_kernel(packed: bool, *shape: int) -> Any:
    from gingham.codecs.cuda_graph_kernels import graph_kernel

    return graph_kernel(packed, *shape)
