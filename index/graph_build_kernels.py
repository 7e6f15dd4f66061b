"""Kernels that choose the links of a proximity graph. Addresses are raw: the caller has checked shapes.

Rows are those of :mod:`gingham.index.working_rows`: eight float32, of which the first four are step, offset, what the
row adds to its distances, and the sum of its codes; then the codes, a byte a dimension. Products of codes are exact
integers, and sums have one order, so a graph has the same bytes on every CPU.
"""

import numpy as np
from numba import float32, int64, uint32, uint64

from gingham.codecs.beam_kernels import fetch, key_of, node_of, score_of
from gingham.codecs.intrinsics import (
    add_ints,
    function,
    inline,
    kernel,
    load_bytes_as_words,
    load_one_f32,
    load_one_u32,
    multiply_words,
    sum_ints,
    zero_ints,
)

HEADER = 32
NONE = np.uint32(0xFFFFFFFF)
"""After the last neighbour."""
_NOISE = np.float32(2e-6)
"""Distances that differ by less than this share of what both rows add are equal: rounding in float32."""


@inline
def _distance(x, y, width, dim):
    """Of two rows, and what rounding may have changed it by."""
    a, b = zero_ints(), zero_ints()
    for j in range(0, width, 32):
        o = uint64(HEADER + j)
        a = add_ints(a, multiply_words(load_bytes_as_words(x + o), load_bytes_as_words(y + o)))
        o += uint64(16)
        b = add_ints(b, multiply_words(load_bytes_as_words(x + o), load_bytes_as_words(y + o)))
    s, o, c = load_one_f32(x), load_one_f32(x + uint64(4)), load_one_f32(x + uint64(12))
    t, p, d = load_one_f32(y), load_one_f32(y + uint64(4)), load_one_f32(y + uint64(12))
    inner = s * t * float32(sum_ints(add_ints(a, b))) + s * p * c + t * o * d + float32(dim) * o * p
    p, d = load_one_f32(x + uint64(8)), load_one_f32(y + uint64(8))
    return p + d - float32(2.0) * inner, (abs(p) + abs(d)) * _NOISE


@function
def _choose(keys, count, self, rows, stride, width, dim, alpha, most, kept):
    """Keep candidates, nearest first, that none kept before is ``alpha`` times nearer to; returns how many.

    Source: algorithm 4 of HNSW, and algorithm 3 of DiskANN (Subramanya et al. 2019) for alpha; both are on squares.
    """
    chosen = int64(0)
    for i in range(count):
        v = node_of(keys[i])
        if v == self:
            continue
        if i + 1 < count:
            fetch(rows + uint64(node_of(keys[i + 1])) * uint64(stride), stride)
        distance = -score_of(keys[i])
        x = rows + uint64(v) * uint64(stride)
        good = True
        for j in range(chosen):
            between, noise = _distance(x, rows + uint64(kept[j]) * uint64(stride), width, dim)
            if alpha * between <= distance + noise:
                good = False
                break
        if good:
            kept[chosen] = v
            chosen += 1
            if chosen == most:
                break
    return chosen


@inline
def _set_links(links, v, kept, count):
    for j in range(links.shape[1]):
        links[v, j] = uint32(kept[j]) if j < count else NONE


@inline
def _count_links(links, v):
    count = int64(0)
    while count < links.shape[1] and links[v, count] != NONE:
        count += 1
    return count


@inline
def _choose_again(links, v, count, keys, rows, stride, width, dim, alpha, most, kept):
    """Keep the best of ``count`` candidates of v, whose keys have no distances yet."""
    x = rows + uint64(v) * uint64(stride)
    for i in range(count):
        u = node_of(keys[i])
        between, _ = _distance(x, rows + uint64(u) * uint64(stride), width, dim)
        keys[i] = key_of(-between, u)
    ordered = keys[:count]
    ordered.sort()
    _set_links(links, v, kept, _choose(ordered, count, v, rows, stride, width, dim, alpha, most, kept))


@kernel(
    "void(uint32[:,::1], uint64, int64, int64, int64, int64[::1], float32[:,::1], int64[:,::1], int64, float32,"
    "uint64[::1], int64[::1])"
)
def link_nodes(links, rows, stride, width, dim, nodes, scores, found, most, alpha, keys, kept):
    """Choose the neighbours of nodes among what a search found for each, best first."""
    for t in range(len(nodes)):
        count = int64(0)
        while count < found.shape[1] and found[t, count] >= 0:
            keys[count] = key_of(scores[t, count], found[t, count])
            count += 1
        count = _choose(keys, count, nodes[t], rows, stride, width, dim, alpha, most, kept)
        _set_links(links, nodes[t], kept, count)


@kernel(
    "void(uint32[:,::1], uint64, int64, int64, int64, uint64[::1], int64[::1], int64, int64, int64, float32,"
    "uint64[::1], int64[::1])"
)
def link_back(links, rows, stride, width, dim, pairs, starts, low, high, most, alpha, keys, kept):
    """Give the targets of groups low to high links to their sources; where there are too many the best are chosen.

    Parameters
    ----------
    pairs : target << 32 | source, ascending
    starts : of the groups of equal target, and their end
    most : neighbours that stay where there were more than columns
    keys : as long as candidates count; sources beyond are left out
    """
    for g in range(low, high):
        v = int64(pairs[starts[g]] >> uint64(32))
        count = _count_links(links, v)
        wanted = starts[g + 1] - starts[g]
        if count + wanted <= links.shape[1]:
            for i in range(wanted):
                links[v, count + i] = uint32(pairs[starts[g] + i] & uint64(0xFFFFFFFF))
            continue
        for i in range(count):
            keys[i] = key_of(float32(0.0), links[v, i])
        wanted = min(wanted, len(keys) - count)
        for i in range(wanted):
            keys[count + i] = key_of(float32(0.0), pairs[starts[g] + i] & uint64(0xFFFFFFFF))
        _choose_again(links, v, count + wanted, keys, rows, stride, width, dim, alpha, most, kept)


@kernel("void(uint32[:,::1], uint64, int64, int64, int64, int64, int64, int64, float32, uint64[::1], int64[::1])")
def shorten(links, rows, stride, width, dim, low, high, most, alpha, keys, kept):
    """Choose the best neighbours of nodes low to high that have more than ``most``."""
    for v in range(low, high):
        count = _count_links(links, v)
        if count > most:
            for i in range(count):
                keys[i] = key_of(float32(0.0), links[v, i])
            _choose_again(links, v, count, keys, rows, stride, width, dim, alpha, most, kept)


@kernel(
    "void(uint64, int64, int64, int64[::1], uint32[:,::1], uint64, int64, int64, int64, int64, int64, int64, float32,"
    "uint64[::1], int64[::1])"
)
def carry_over(old, degree, n, places, links, rows, stride, width, dim, low, high, most, alpha, keys, kept):
    """Copy the links of nodes low to high to the places where nodes are from now on.

    Parameters
    ----------
    old : address of the links before, uint32 (n, degree)
    places : of each node, -1 for one that is gone; whoever had a link to it chooses anew among its neighbours too

    Notes
    -----
    Source: algorithm 4 of FreshDiskANN (Singh et al. 2021), for nodes that are gone.
    """
    for v in range(low, high):
        if places[v] < 0:
            continue
        count, gone = int64(0), False
        for j in range(degree):
            u = int64(load_one_u32(old + uint64(4 * (v * degree + j))))
            if u >= n:
                break
            if places[u] >= 0:
                keys[count] = key_of(float32(0.0), places[u])
                count += 1
                continue
            gone = True
            for i in range(degree):
                w = int64(load_one_u32(old + uint64(4 * (u * degree + i))))
                if w >= n or count >= len(keys) - degree:
                    break
                if places[w] >= 0 and w != v:
                    keys[count] = key_of(float32(0.0), places[w])
                    count += 1
        if gone:
            _choose_again(links, places[v], count, keys, rows, stride, width, dim, alpha, most, kept)
        else:
            for j in range(links.shape[1]):
                links[places[v], j] = uint32(node_of(keys[j])) if j < count else NONE


@kernel("int64(uint32[:,::1], int64, uint32[::1], uint32[::1])")
def mark_reachable(links, start, parents, queue):
    """Give every node that links lead to from one the node whose link came to it first; returns how many they are.

    Parameters
    ----------
    parents : NONE for all; that of ``start`` becomes itself
    """
    parents[start] = uint32(start)
    queue[0] = uint32(start)
    head, tail = int64(0), int64(1)
    while head < tail:
        v = int64(queue[head])
        head += 1
        for j in range(_count_links(links, v)):
            u = int64(links[v, j])
            if parents[u] == NONE:
                parents[u] = uint32(v)
                queue[tail] = uint32(u)
                tail += 1
    return tail


@inline
def _spare(links, w, most, parents):
    """The place of a link of a reached node that can be set without making another unreachable, or -1."""
    count = _count_links(links, w)
    if count < most:
        return count
    place = count - 1
    while place >= 0 and parents[links[w, place]] == uint32(w):
        place -= 1
    return place


@kernel("int64(uint32[:,::1], int64[::1], int64[:,::1], int64, uint32[::1], int64, boolean)")
def attach(links, nodes, found, most, parents, other, hubs):
    """Give each node a link from the best found that has fewer than ``most``, else in place of one that it can spare.

    Parameters
    ----------
    parents : of :func:`mark_reachable`; only nodes reached give links
    other : nodes from this on are tried in turn where none of those found can give one; returns the next
    hubs : whether most find the same few, as under dot, which would lose the links among these: of those found the
        last that has fewer gives one, and none gives one in place of another

    Notes
    -----
    A link can be spared where its target was reached by another first: the links that came first are a tree, so that
    all nodes in it stay reachable. A node without links gets one to the best found.
    """
    width = found.shape[1]
    for t in range(len(nodes)):
        u = nodes[t]
        best, giver, place = int64(-1), int64(-1), int64(-1)
        for j in range(width):
            w = found[t, width - 1 - j if hubs else j]
            if w < 0 or w == u:
                continue
            best = w if hubs or best < 0 else best
            if parents[w] == NONE or (hubs and giver >= 0):
                continue
            spare = _spare(links, w, most, parents)
            room = spare >= 0 and links[w, spare] == NONE
            if room or (giver < 0 and spare >= 0 and not hubs):
                giver, place = w, spare
            if room and not hubs:
                break
        while giver < 0 and other < len(links):
            if parents[other] != NONE:
                place = _spare(links, other, most, parents)
                giver = other if place >= 0 else giver
            if giver < 0:
                other += 1
        if best >= 0 and links[u, 0] == NONE:
            links[u, 0] = uint32(best)
        if giver >= 0:
            links[giver, place] = uint32(u)
            parents[u] = uint32(giver)
    return other
