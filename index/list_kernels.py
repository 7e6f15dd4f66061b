"""Which rows of lists queries scan, and which rows were found."""

import numpy as np
from numba import float32, int32, int64, uint64

from gingham.codecs.fast_scan_kernels import scan_block_spans
from gingham.codecs.float_kernels import nearest_in_chunks
from gingham.codecs.intrinsics import inline, kernel, load_one_u32
from gingham.codecs.reservoir_kernels import take_best

_SPARE = 256
"""Room of a line beside twice what is kept, as of :class:`gingham.codecs.reservoirs.Reservoirs`."""


@inline
def _put(spans, at, query, start, size):
    spans[at, 0], spans[at, 1], spans[at, 2] = query, start, start + size
    return size


@kernel("int64(int64[:,::1], int64[::1], int64[::1], int64[:,::1])")
def order_spans(probes, starts, sizes, spans):
    """What queries scan that probe these lists (n, nprobe), -1 for none: spans (n * nprobe, 3), query, start, stop.

    In the order of lists, so that queries that share one follow each other and find it in the cache; empty spans fill
    the end. Returns the rows of all.
    """
    n, nprobe = probes.shape
    total = int64(0)
    if n == 1:
        lists = np.sort(probes[0])
        for j in range(nprobe):
            if lists[j] < 0:
                spans[j, 0], spans[j, 1], spans[j, 2] = 0, 0, 0
            else:
                total += _put(spans, j, 0, starts[lists[j]], sizes[lists[j]])
        return total
    ends = np.zeros(len(starts) + 2, np.int64)
    for i in range(n):
        for j in range(nprobe):
            number = probes[i, j] if probes[i, j] >= 0 else len(starts)
            ends[number + 1] += 1
    for number in range(len(starts) + 1):
        ends[number + 1] += ends[number]
    for i in range(n):
        for j in range(nprobe):
            number = probes[i, j]
            if number >= 0:
                total += _put(spans, ends[number], i, starts[number], sizes[number])
                ends[number] += 1
            else:
                _put(spans, ends[len(starts)], i, 0, 0)
                ends[len(starts)] += 1
    return total


@kernel("void(int64[:,::1], uint64, int64[:,::1])")
def rows_at(places, rows, out):
    """The rows int32 that lie in some places, -1 for none."""
    for i in range(places.shape[0]):
        for j in range(places.shape[1]):
            out[i, j] = int32(load_one_u32(rows + uint64(4 * places[i, j]))) if places[i, j] >= 0 else -1


@kernel("void(float32[:,::1], float32[:,::1], float32[::1], float32[::1], int64[::1], int64[::1], float64, int64[::1])")
def second_list(products, between, squares, lengths, firsts, group, weight, out):
    """The list of each row of least loss but its first one, -1 where no loss is finite.

    From products of rows and centroids (n, nlist), of the centroids of first lists with all (m, nlist), squared lengths
    of centroids and rows, and the place of each row's first list among the m: |x - c|^2 + weight <r, x - c>^2 / |r|^2
    with r = x - c_first.
    """
    for i in range(products.shape[0]):
        own, first = group[i], firsts[i]
        along = lengths[i] - products[i, first]
        residual = along - products[i, first] + squares[first]
        factor = float32(0)
        if residual > float32(1e-6) * lengths[i]:
            factor = float32(weight) / residual
        best, chosen = float32(np.inf), int64(-1)
        for c in range(products.shape[1]):
            part = along - products[i, c] + between[own, c]
            loss = squares[c] - float32(2) * products[i, c] + factor * part * part
            if loss < best and c != first:
                best, chosen = loss, c
        out[i] = chosen


@kernel("void(float32[:,::1], int64[:,::1], uint64, int64[::1])")
def drop_repeated(scores, places, rows, counts):
    """Move the first place of each row int32 to the front of its line; how many there are goes to ``counts``."""
    m = places.shape[1]
    size = int64(16)
    while size < 2 * m:
        size *= 2
    seen = np.empty(size, np.int32)
    for i in range(places.shape[0]):
        seen[:] = -1
        count = int64(0)
        for j in range(m):
            if places[i, j] < 0:
                continue
            row = int32(load_one_u32(rows + uint64(4 * places[i, j])))
            slot = (int64(row) * int64(2654435761) >> int64(7)) & (size - 1)
            while seen[slot] >= 0 and seen[slot] != row:
                slot = (slot + 1) & (size - 1)
            if seen[slot] < 0:
                seen[slot] = row
                scores[i, count], places[i, count] = scores[i, j], places[i, j]
                count += 1
        counts[i] = count


@kernel(
    "void(uint8[:,:,::1], float32[:,::1], int64, uint64[::1], int64[:,::1], uint64, float32[:,::1], int64[:,::1],"
    "float32[::1], int64[::1])"
)
def _gather(tables, parameters, pairs, blocks, spans, allow, scores, places, line, found):
    """The best of one query among spans, as many as there is room for in ``scores``, in no order; (-inf, -1) pads."""
    k = scores.shape[1]
    room = 2 * k + _SPARE
    counts, floors = np.zeros(1, np.int64), np.empty(1, np.float32)
    floors[0] = float32(-np.inf)
    scores_of, places_of = line[:room].reshape((1, room)), found[:room].reshape((1, room))
    scan_block_spans(
        blocks[0], pairs, tables, parameters, blocks[1], blocks[2], blocks[3], spans, allow, scores_of, places_of,
        counts, floors, k,
    )  # fmt: skip
    take_best(scores_of, places_of, counts, scores, places)


@kernel(
    "int64(uint8[:,:,::1], float32[:,::1], uint64, int64, int64, uint64[::1], uint64[::1], uint64[::1], int64[::1],"
    "uint64, uint64[::1], int64[::1], int64[::1], uint64, uint64, uint64[::1], uint64[::1], int64[::1], boolean, int64,"
    "int64, int64, int64, float32[:,::1], int64[:,::1])"
)
def search_one(
    tables, parameters, query, dim, pairs, centroid_blocks, centroids, centroid_norms, centroid_form, numbers,
    blocks, starts, sizes, row_at, allow, vectors, norms, form, twice, nprobe, near, most, wanted, scores, rows,
):  # fmt: skip
    """Probe lists, scan them and score the best from vectors, for one query; returns the rows scanned, or -1.

    The same as :meth:`gingham.index.list_search.ListSearch.run` does step by step for many.

    Parameters
    ----------
    tables, parameters : of :class:`gingham.codecs.nibble_blocks.BlockQueries`
    query : address of float32 (dim,)
    centroid_blocks, blocks : addresses of codes, and of their add, mul and error or zeros
    centroids, centroid_norms, centroid_form : of :attr:`gingham.index.chunked_rows.ChunkedRows.addressed`
    numbers : address of int32 (nlist,), ascending
    starts, sizes, row_at : of :class:`gingham.index.code_lists.CodeLists`; ``row_at`` is an address
    allow : address of a bool for each place; 0 allows all
    vectors, norms, form : as of the centroids, of all rows
    twice : rows may lie in two lists
    nprobe, near : lists scanned, and those whose centroids are scored precisely
    most : places scanned at most, or else nothing is done and -1 returned
    wanted : rows scored from vectors
    scores, rows : (1, k), descending; (-inf, -1) pads
    """
    nlist, probes = len(sizes), np.empty((1, nprobe), np.int64)
    room = 2 * max(near, (1 + int64(twice)) * wanted) + _SPARE
    line, found = np.empty(room, np.float32), np.empty(room, np.int64)
    if nprobe == nlist:
        for j in range(nlist):
            probes[0, j] = j
    else:
        span = np.empty((1, 3), np.int64)
        span[0, 0], span[0, 1], span[0, 2] = 0, 0, nlist
        close, lists, kept = (
            np.empty((1, near), np.float32),
            np.empty((1, near), np.int64),
            np.empty((1, nprobe), np.float32),
        )
        _gather(tables, parameters, pairs, centroid_blocks, span, uint64(0), close, lists, line, found)
        nearest_in_chunks(
            centroids, centroid_norms, centroid_form[0], centroid_form[1], query, dim, centroid_form[2], lists, 0,
            near, numbers, kept, probes,
        )  # fmt: skip
    spans = np.empty((nprobe, 3), np.int64)
    total = order_spans(probes, starts, sizes, spans)
    if total > most:
        return int64(-1)
    best, places = np.empty((1, wanted), np.float32), np.empty((1, wanted), np.int64)
    if twice:
        both, where = np.empty((1, 2 * wanted), np.float32), np.empty((1, 2 * wanted), np.int64)
        counts = np.empty(1, np.int64)
        _gather(tables, parameters, pairs, blocks, spans, allow, both, where, line, found)
        drop_repeated(both, where, row_at, counts)
        take_best(both, where, counts, best, places)
    else:
        _gather(tables, parameters, pairs, blocks, spans, allow, best, places, line, found)
    nearest_in_chunks(
        vectors, norms, form[0], form[1], query, dim, form[2], places, int64(0), wanted, row_at, scores, rows
    )
    return total
