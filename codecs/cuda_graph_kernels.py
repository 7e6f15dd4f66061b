"""Searching a proximity graph for many queries at once on an NVIDIA device, a block a query.

A beam of ``ef`` keys, descending, lies in shared memory beside the numbers of nodes that were met, in a hash table.
Each turn the block looks at the neighbours of the best node not looked at, a neighbour a thread, and scores those not
met before, a team of threads a row, so that it reads whole sectors. Each key, of the beam and new, then counts the keys
that are better, which is its place in the next beam. So a turn has five barriers and sorts nothing.

When the table fills up it is emptied, and the nodes of the beam are put back. No result depends on that: nodes that it
forgets have left the beam or never entered, so that all keys of the beam were better then, and are now.

Keys are those of :func:`gingham.codecs.cuda_kernels.key_of` of ``2 node + 1``: the lowest bit, 0 at first, is set once
the neighbours of the node were looked at. A number out of bounds in ``links`` is no node.

Based on Ootomo et al., "CAGRA: highly parallel graph construction and approximate nearest neighbor search for GPUs",
2023 (arXiv:2308.15136): teams of threads, and the hash table in shared memory that forgets. Here one node is looked at
a turn, as by the CPU.

Roofline: with ef 64, 32 links a node and about 15 new rows a turn a query reads 1,000 rows: 0.4 MB of 396-byte codes
(384 dimensions), for 0.26 us of an A100 (1.56 TB/s) and 0.12 us of an H100 (3.35 TB/s), 4 and 8 million queries a
second. Adding takes 0.2M of the instructions that add two products, at 64 a cycle and multiprocessor (108 at 1.41 GHz,
132 at 1.7 GHz): 0.02 us on either. But a turn waits for two reads that depend on each other and for five barriers, so
that a query alone takes about as many microseconds as it takes turns, and hundreds have to be under way at once to come
near the bound: up to ef 128 a block takes 13 KiB of shared memory and 72 registers a thread, so that 7 share a
multiprocessor of an A100, and 9 one of an H100.
"""

from numba import cuda, float32, int32, int64, uint64

from gingham.codecs.cuda_intrinsics import add, add_pairs_high, add_pairs_low, float_of, multiply
from gingham.codecs.cuda_kernels import key_of

TEAM = 8
"""Threads that score a row: words of 32 bytes, a sector, at a time."""
COUNT, POSITION, FILLED = 0, 1, 2
"""Of the state of a block: nodes found in this turn; the best place not looked at; entries of the table."""
ONES = 0xFFFFFFFF
NOWHERE = 0x7FFFFFFF


@cuda.jit(device=True, inline=True)
def node_of(key):
    """The node of a key."""
    return (int64(ONES) - int64(key & uint64(ONES))) >> int64(1)


@cuda.jit(device=True, inline=True)
def _greater(keys, count, key):
    """Of some keys, the number that is greater."""
    greater = 0
    for j in range(count):
        if keys[j] > key:
            greater += 1
    return greater


def _meeting(table: int, most: int, threads: int):
    """Functions of a block that empty the hash table but for a beam, and that find the nodes of a line that are new."""

    @cuda.jit(device=True, inline=True)
    def insert(node, met):
        """Whether a node is new."""
        place = ((int64(node) * int64(0x9E3779B1)) >> int64(12)) & int64(table - 1)
        while True:
            before = cuda.atomic.cas(met, place, int32(-1), int32(node))
            if before == -1:
                return True
            if before == node:
                return False
            place = (place + 1) & int64(table - 1)

    @cuda.jit(device=True, inline=True)
    def forget(thread, beam, size, met):
        for j in range(thread, table, threads):
            met[j] = -1
        cuda.syncthreads()
        for j in range(thread, size, threads):
            insert(node_of(beam[j]), met)
        cuda.syncthreads()

    @cuda.jit(device=True, inline=True)
    def meet(thread, line, begin, n, met, found, state):
        for j in range(begin + thread, min(begin + most, line.shape[0]), threads):
            node = line[j]
            if 0 <= node < n and insert(node, met):
                found[cuda.atomic.add(state, COUNT, 1)] = node

    return forget, meet


def _scoring(packed: bool, factors: int, threads: int):
    """The function of a block that makes keys of nodes found; ``shares`` is room for what threads of teams add."""

    @cuda.jit(device=True, inline=True)
    def share(rows, node, query, lane):
        if packed:
            product = int32(0)
            for w in range(lane, rows.shape[1] - factors, TEAM):
                word = rows[node, factors + w]
                product = add_pairs_high(query[2 * w + 1], word, add_pairs_low(query[2 * w], word, product))
            return product
        total = float32(0.0)
        for w in range(lane, rows.shape[1], TEAM):
            x, y = float_of(rows[node, w]), float_of(query[w])
            total += -(x - y) * (x - y) if factors == 2 else x * y
        return total

    @cuda.jit(device=True, inline=True)
    def score(total, rows, node, parameters, i):
        if not packed:
            return total + parameters[i, 0]
        s = add(multiply(parameters[i, 0], float32(total)), parameters[i, 1])
        if factors == 1:
            return add(add(s, multiply(float_of(rows[node, 0]), parameters[i, 3])), parameters[i, 4])
        s = add(multiply(float_of(rows[node, 0]), s), multiply(float_of(rows[node, 1]), parameters[i, 2]))
        return add(add(s, multiply(float_of(rows[node, 2]), parameters[i, 3])), parameters[i, 4])

    @cuda.jit(device=True, inline=True)
    def score_found(thread, rows, query, parameters, i, found, count, shares, fresh):
        for j in range(thread, count * TEAM, threads):
            shares[j // TEAM, j % TEAM] = share(rows, int64(found[j // TEAM]), query, j % TEAM)
        cuda.syncthreads()
        for j in range(thread, count, threads):
            total = shares[j, 0]
            for lane in range(1, TEAM):
                total += shares[j, lane]
            node = int64(found[j])
            fresh[j] = key_of(score(total, rows, node, parameters, i), 2 * node + 1)

    return score_found


@cuda.jit(device=True, inline=True)
def _place(key, at, beam, state):
    """Put a key at its place in the next beam."""
    if at < beam.shape[0]:
        beam[at] = key
        if key & uint64(1) == uint64(0):
            cuda.atomic.min(state, POSITION, int32(at))


def _merging(threads: int):
    """The function that makes the next beam of one beam and of keys found; both arrays end at ``ef``."""

    @cuda.jit(device=True, inline=True)
    def merge(thread, beam, size, fresh, count, after, state):
        for j in range(thread, size, threads):
            _place(beam[j], j + _greater(fresh, count, beam[j]), after, state)
        for j in range(thread, count, threads):
            key, low, high = fresh[j], 0, size
            while low < high:
                middle = (low + high) >> 1
                if beam[middle] > key:
                    low = middle + 1
                else:
                    high = middle
            _place(key, low + _greater(fresh, count, key), after, state)

    return merge


def graph_kernel(packed: bool, factors: int, room: int, most: int, table: int, words: int, threads: int):
    """The kernel; grid (n_queries,).

    Parameters
    ----------
    packed, factors : whether rows are 8-bit codes behind so many float32, else float32 and the metric, 0 dot and 2 l2
    room : for keys of a beam, at least ef
    most : nodes found in a turn, at least the degree
    table : entries of the hash table, a power of two of at least ``2 (room + most)``
    words : of 4 bytes of a query, at most
    threads : a multiple of TEAM

    Notes
    -----
    ``search_graph(links, rows, queries, parameters, entries, keys, visits)`` writes the best keys of each query. links
    int32 (n, degree); rows int32 (n, words of a row); queries int32 (n_queries, words of a query); parameters float32
    (n_queries, 5 or 1); entries int32 (n_queries or 1, any), where to begin; keys uint64 (n_queries, ef), descending, 0
    pads; visits int32 (n_queries, 2), nodes looked at and nodes scored.
    """
    forget, meet = _meeting(table, most, threads)
    score_found = _scoring(packed, factors, threads)
    merge, full, part = _merging(threads), table // 4 * 3, int32 if packed else float32

    @cuda.jit
    def search_graph(links, rows, queries, parameters, entries, keys, visits):
        query = cuda.shared.array(words, int32)
        beams = cuda.shared.array((2, room), uint64)
        met = cuda.shared.array(table, int32)
        found = cuda.shared.array(most, int32)
        fresh = cuda.shared.array(most, uint64)
        shares = cuda.shared.array((most, TEAM), part)
        state = cuda.shared.array(3, int32)
        thread, i, n, ef = cuda.threadIdx.x, cuda.blockIdx.x, links.shape[0], keys.shape[1]
        side, size, begin, looked, scored = 0, 0, 0, 0, 0
        for j in range(thread, queries.shape[1], threads):
            query[j] = queries[i, j]
        if thread == 0:
            state[COUNT], state[POSITION], state[FILLED] = 0, NOWHERE, 0
        forget(thread, beams[side], size, met)
        while True:
            position, filled = int64(state[POSITION]), int64(state[FILLED])
            entering = begin < entries.shape[1]
            if not entering and position >= size:
                break
            line = entries[i % entries.shape[0]] if entering else links[node_of(beams[side, position])]
            cuda.syncthreads()
            if filled + most > full:
                forget(thread, beams[side], size, met)
                filled = size
            meet(thread, line, begin if entering else 0, n, met, found, state)
            if thread == 0:
                state[POSITION] = NOWHERE
                if not entering:
                    beams[side, position] |= uint64(1)
            begin, looked = begin + (most if entering else 0), looked + (0 if entering else 1)
            cuda.syncthreads()
            count = int64(state[COUNT])
            score_found(thread, rows, query, parameters, i, found, count, shares, fresh)
            cuda.syncthreads()
            if thread == 0:
                state[COUNT], state[FILLED] = 0, filled + count
            merge(thread, beams[side], size, fresh, count, beams[1 - side, :ef], state)
            side, size, scored = 1 - side, min(ef, size + count), scored + count
            cuda.syncthreads()
        for j in range(thread, ef, threads):
            keys[i, j] = beams[side, j] if j < size else uint64(0)
        if thread == 0:
            visits[i, 0], visits[i, 1] = looked, scored

    return search_graph
