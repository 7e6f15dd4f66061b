"""Kernels that search a proximity graph whose rows are codes. Addresses are raw: the caller has checked shapes.

A graph is uint32 (n, degree): the neighbours of each node, and numbers of n or more after the last, so that a damaged
number ends a list and nothing else. Above it stand layers, each a list of nodes and the graph of their places in that
list (HNSW: Malkov and Yashunin 2016). The search steps to the nearest neighbour in every layer, the uppermost of which
is scanned, and goes on with a beam below.

The beam of a query holds keys, ascending: see :mod:`gingham.codecs.beam_kernels`.

Several queries take turns, each with a slot: what one will read is asked for, and the others work until it is there.
A turn looks up neighbours, or scores them. With two slots a query of LVQ4 on 117,648 rows takes 0.74 of the time.
"""

import numpy as np
from numba import float32, int64, uint32, uint64

from gingham.codecs.affine_row_kernels import score_row
from gingham.codecs.beam_kernels import fetch, key_of, node_of, score_of
from gingham.codecs.float_row_kernels import score_float_row
from gingham.codecs.intrinsics import function, inline, kernel, load_one_u8, load_one_u32

QUERY, SIZE, POSITION, TURN, FOUND, FAR, STEPS, SCORED = 0, 1, 2, 3, 4, 5, 6, 7
"""Columns of the state of a slot: its query or -1; keys in the beam; the next to look at; what its turn does;
neighbours found; those that are not allowed; and of its last query, how many nodes were looked at and scored."""
LOOK, LOOK_FURTHER, SCORE = 0, 1, 2
SCAN_NODES = 16
"""Listed nodes whose rows are asked for while as many before them are scored."""


@inline
def _number(address, place):
    return int64(load_one_u32(address + uint64(4 * place)))


@function
def _score_found(coded, q, parameters, i, found, count, keys):
    """Keys of the nodes found; the commonest codes have loops of their own, in which their width is known."""
    kind, rows, stride, factors, width, bits = coded
    none = uint64(0)
    if kind != 0:
        for j in range(count):
            x = rows + uint64(found[j]) * stride
            keys[j] = key_of(score_float_row(x, kind - 1, q, width, factors, none, 0) + parameters[i, 0], found[j])
    elif bits == 4:
        for j in range(count):
            x = rows + uint64(found[j]) * stride
            keys[j] = key_of(score_row(x, factors, q, width, 4, none, parameters, i), found[j])
    else:
        for j in range(count):
            x = rows + uint64(found[j]) * stride
            keys[j] = key_of(score_row(x, factors, q, width, bits, none, parameters, i), found[j])


@function
def _descend(layered, coded, q, parameters, i, found, keys):
    """The key of the node of the lowest layer to begin at; the uppermost layer is scanned."""
    nodes, layers, starts, degree = layered
    count = starts[1]
    for place in range(count):
        found[place] = uint32(_number(nodes, place))
    _score_found(coded, q, parameters, i, found, count, keys)
    at = int64(np.argmin(keys[:count]))
    best = keys[at]
    for layer in range(1, len(starts) - 1):
        # A layer begins with the nodes of the one above, in the same order.
        first, size = starts[layer], starts[layer + 1] - starts[layer]
        moved = True
        while moved:
            moved = False
            line = (first + at) * degree
            count = int64(0)
            while count < degree and _number(layers, line + count) < size:
                found[count] = uint32(_number(nodes, first + _number(layers, line + count)))
                fetch(coded[1] + uint64(found[count]) * coded[2], coded[2])
                count += 1
            _score_found(coded, q, parameters, i, found, count, keys)
            for j in range(count):
                if keys[j] < best:
                    best, at, moved = keys[j], _number(layers, line + j), True
    return best


@inline
def _begin(graph, layered, coded, q, parameters, i, allow, entries, seen, beam, found, keys, state):
    """Put a new query into a slot."""
    beam[0] = _descend(layered, coded, q, parameters, i, found, keys)
    node = node_of(beam[0])
    seen[:] = uint64(0)
    seen[node >> 6] = uint64(1) << uint64(node & 63)
    state[QUERY], state[SIZE], state[POSITION], state[TURN], state[FOUND] = i, 1, 0, LOOK, 0
    state[STEPS], state[SCORED] = 0, 0
    fetch(graph[0] + uint64(4 * node * graph[1]), 4 * graph[1])
    if allow != 0:
        count = int64(0)
        for j in range(entries.shape[1]):
            v = int64(entries[i, j])
            word, bit = seen[v >> 6], uint64(1) << uint64(v & 63)
            found[count] = uint32(v)
            count += int64((word & bit) == 0)
            seen[v >> 6] = word | bit
        state[FOUND] = count
        if load_one_u8(allow + uint64(node)) == 0:
            state[SIZE] = 0


@inline
def _look(graph, node, allow, seen, found, count, far):
    """Neighbours not seen before: those allowed are found, the others far; returns the counts of both."""
    links, degree, n = graph
    others = int64(0)
    for j in range(degree):
        v = _number(links, node * degree + j)
        if v >= n:
            break
        word, bit = seen[v >> 6], uint64(1) << uint64(v & 63)
        new = int64((word & bit) == 0)
        seen[v >> 6] = word | bit
        if allow == 0 or load_one_u8(allow + uint64(v)) != 0:
            found[count] = uint32(v)
            count += new
        else:
            far[others] = uint32(v)
            others += new
    return count, others


@inline
def _look_further(graph, far, others, allow, seen, found, count):
    """Allowed neighbours of nodes that are not allowed, until there are as many as a node has neighbours."""
    links, degree, n = graph
    for i in range(others):
        for j in range(degree):
            v = _number(links, int64(far[i]) * degree + j)
            if v >= n or count >= degree:
                break
            word, bit = seen[v >> 6], uint64(1) << uint64(v & 63)
            if word & bit == 0 and load_one_u8(allow + uint64(v)) != 0:
                seen[v >> 6] = word | bit
                found[count] = uint32(v)
                count += 1
    return count


@inline
def _look_on(graph, coded, allow, seen, beam, found, far, state):
    """Look at the neighbours of the best node not looked at, and ask for their rows."""
    links, degree, _ = graph
    count = state[FOUND]
    if state[TURN] == LOOK:
        node = node_of(beam[state[POSITION]])
        beam[state[POSITION]] |= uint64(1)
        state[POSITION] += 1
        count, others = _look(graph, node, allow, seen, found, count, far)
        state[FOUND], state[FAR] = count, others
        if others > 0:
            for j in range(others):
                fetch(links + uint64(4 * int64(far[j]) * degree), 4 * degree)
            state[TURN] = LOOK_FURTHER
            return
    else:
        count = _look_further(graph, far, state[FAR], allow, seen, found, count)
    for j in range(count):
        fetch(coded[1] + uint64(found[j]) * coded[2], coded[2])
    state[FOUND], state[TURN] = count, SCORE
    state[STEPS] += 1
    state[SCORED] += count


@inline
def _enter(beam, size, position, ef, keys, count):
    """Put keys into the beam, which holds ef; returns its size and the first place not looked at."""
    for j in range(count):
        key = keys[j]
        if size < ef or key < beam[size - 1]:
            if size == ef:
                size -= 1
            at = size
            while at > 0 and beam[at - 1] > key:
                beam[at] = beam[at - 1]
                at -= 1
            beam[at] = key
            size += 1
            position = min(position, at)
    while position < size and beam[position] & uint64(1) != 0:
        position += 1
    return size, position


@inline
def _write(beam, size, scores, rows, i):
    for j in range(scores.shape[1]):
        scores[i, j] = score_of(beam[j]) if j < size else float32(-np.inf)
        rows[i, j] = node_of(beam[j]) if j < size else -1


@kernel(
    "void(uint64, int64, int64, uint64, uint64, int64[::1], int64, int64, uint64, int64, int64, int64, int64,"
    "int8[:,::1], float32[:,::1], uint64, uint32[:,::1], int64[::1], uint64[:,::1], uint64[:,::1], uint32[:,:,::1],"
    "uint64[::1], int64[:,::1], float32[:,::1], int64[:,::1])",
    allocates=False,
)
def search_graph(
    links, degree, n, nodes, layers, starts, layer_degree,
    kind, codes, stride, factors, width, bits, queries, parameters,
    allow, entries, hidden, visited, beams, around, keys, slots, scores, rows,
):  # fmt: skip
    """Find the best nodes of each query, as many as ``scores`` has columns.

    Parameters
    ----------
    links, nodes, layers : addresses of uint32: the graph, the nodes of all layers from the uppermost down, their graphs
    starts : where each layer begins in ``nodes``, and where the last ends
    kind to parameters : see :class:`gingham.codecs.row_scores.RowScores`
    allow : address of a bool a node, of those that may be found, or 0 for all; neighbours of others are looked through
    entries : (n_queries, any) allowed nodes to begin at beside that of the layers; none without ``allow``
    hidden : a node for each query that it is not to find nor to pass; empty where there is none
    visited : (slots, words of a bit a node); beams : (slots, ef + 1); keys : as wide as ``around``
    around : (slots, 2, at least degree + entries and the uppermost layer): neighbours found, and those not allowed
    slots : (slots, 8) the state
    scores, rows : (n_queries, ef), descending, (-inf, -1) pads
    """
    graph = (links, degree, n)
    layered = (nodes, layers, starts, layer_degree)
    coded = (kind, codes, uint64(stride), factors, width, bits)
    n_queries, ef = scores.shape[0], scores.shape[1]
    first = uint64(queries.ctypes.data)
    coming, done = int64(0), int64(0)
    slots[:, QUERY] = -1
    while done < n_queries:
        for slot in range(len(slots)):
            state, beam, seen = slots[slot], beams[slot], visited[slot]
            found, far = around[slot, 0], around[slot, 1]
            i = state[QUERY]
            if i < 0:
                if coming < n_queries:
                    q = first + uint64(coming * queries.shape[1])
                    _begin(graph, layered, coded, q, parameters, coming, allow, entries, seen, beam, found, keys, state)
                    if len(hidden) > 0:
                        seen[hidden[coming] >> 6] |= uint64(1) << uint64(hidden[coming] & 63)
                    coming += 1
            elif state[TURN] != SCORE:
                _look_on(graph, coded, allow, seen, beam, found, far, state)
            else:
                q = first + uint64(i * queries.shape[1])
                _score_found(coded, q, parameters, i, found, state[FOUND], keys)
                size, position = _enter(beam, state[SIZE], state[POSITION], ef, keys, state[FOUND])
                state[SIZE], state[POSITION], state[FOUND], state[TURN] = size, position, 0, LOOK
                if position < size:
                    fetch(links + uint64(4 * node_of(beam[position]) * degree), 4 * degree)
                else:
                    _write(beam, size, scores, rows, i)
                    state[QUERY] = -1
                    done += 1


@kernel(
    "void(int64, uint64, int64, int64, int64, int64, int8[:,::1], float32[:,::1], uint32[::1], uint64[:,::1],"
    "uint64[::1], float32[:,::1], int64[:,::1])"
)
def scan_nodes(kind, codes, stride, factors, width, bits, queries, parameters, nodes, beams, keys, scores, rows):
    """Find the best of listed nodes for each query, as many as ``scores`` has columns.

    Parameters
    ----------
    kind to parameters : see :class:`gingham.codecs.row_scores.RowScores`
    beams : (n_queries, ef + 1); keys : at least 2 * SCAN_NODES; both scratch
    """
    coded = (kind, codes, uint64(stride), factors, width, bits)
    n, ef, first = len(nodes), scores.shape[1], uint64(queries.ctypes.data)
    sizes = np.zeros(len(scores), np.int64)
    for start in range(0, n, SCAN_NODES):
        count = min(int64(SCAN_NODES), n - start)
        for j in range(start + count, min(start + count + SCAN_NODES, n)):
            fetch(codes + uint64(nodes[j]) * uint64(stride), stride)
        for i in range(len(scores)):
            q = first + uint64(i * queries.shape[1])
            _score_found(coded, q, parameters, i, nodes[start:], count, keys)
            sizes[i] = _enter(beams[i], sizes[i], int64(0), ef, keys, count)[0]
    for i in range(len(scores)):
        _write(beams[i], sizes[i], scores, rows, i)
