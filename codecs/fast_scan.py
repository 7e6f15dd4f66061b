"""Product quantization with 16 centroids in each sub-space, scanned 32 rows at a time.

Source: Jegou, Douze and Schmid, "Product quantization for nearest neighbor search", TPAMI 2011; Andre et al., "Cache
locality is not enough", VLDB 2015, for tables of bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from gingham.codecs.nibble_blocks import BlockQueries, NibbleBlocks
from gingham.codecs.protocol import Codes
from gingham.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gingham.codecs.reservoirs import Reservoirs
    from gingham.schema import Metric

    Array = np.ndarray[Any, Any]

CENTROIDS = 16


@dataclass(frozen=True, eq=False)
class FastScan:
    """PQ of 4-bit codes.

    Attributes
    ----------
    dim : dimensions, a multiple of ``m``
    metric : what scores estimate
    m : sub-spaces, each of dim / m neighbouring dimensions
    codebooks : float32 (m, 16, dim / m), learned

    Notes
    -----
    A score is that of the decoded vector, but for the rounding of a query's tables to bytes with one step, that is of
    at most m / 2 steps. Array of codes: "blocks" uint8 (n_blocks, m / 2, 32), of
    :mod:`gingham.codecs.fast_scan_kernels`.
    """

    dim: int
    metric: Metric
    m: int
    codebooks: Array | None = None

    def __post_init__(self) -> None:
        if self.m < 1 or self.dim % self.m:
            raise InvalidArgument(
                f"{self.spec} expects as many sub-spaces as divide the {self.dim} dimensions, found {self.m}; "
                "choose a divisor"
            )
        _ = self._layout

    @property
    def spec(self) -> str:
        """``"PQ96x4fs"``."""
        return f"PQ{self.m}x4fs"

    @property
    def trained(self) -> bool:
        """Whether the codebooks are known."""
        return self.codebooks is not None

    @property
    def code_size(self) -> int:
        """Bytes of a vector."""
        return self._layout.pairs

    @property
    def levels(self) -> int:
        """1."""
        return 1

    @cached_property
    def _layout(self) -> NibbleBlocks:
        return NibbleBlocks(self.m)

    @property
    def _codebooks(self) -> Array:
        if self.codebooks is None:
            raise InvalidArgument(f"{self.spec} expects to be trained before it is used; call train() first")
        return self.codebooks

    @cached_property
    def _lanes(self) -> Array:
        """Codebooks with the centroids side by side: float32 (m, dim / m, 16)."""
        return np.ascontiguousarray(self._codebooks.transpose(0, 2, 1))

    def train(self, sample: Array, *, queries: Array | None = None, seed: int = 0) -> FastScan:
        """Learn the codebooks by k-means in each sub-space."""
        from gingham.codecs.product import train_codebooks

        return replace(self, codebooks=train_codebooks(sample, self.m, CENTROIDS, seed=seed))

    def encode(self, vectors: Array) -> Codes:
        """Encode rows by the nearest centroid of each sub-space."""
        from gingham.codecs import byte_table_kernels

        values = np.empty((len(vectors), self.m), np.uint8)
        byte_table_kernels.nearest_centroids(
            vectors.ctypes.data, self._lanes.ctypes.data, self.m, self.dim // self.m, values
        )
        return Codes(len(vectors), {"blocks": self._layout.pack(values)})

    def decode(self, codes: Codes) -> Array:
        """The centroids of rows, side by side."""
        values = self._layout.unpack(codes.arrays["blocks"], 0, codes.n)
        return self._codebooks[np.arange(self.m), values].reshape(codes.n, self.dim)

    def join(self, parts: Sequence[Codes]) -> Codes:
        """Codes of all rows of several parts, packed again where a part does not fill its blocks."""
        blocks = self._layout.join([(part.n, part.arrays["blocks"]) for part in parts])
        return Codes(sum(part.n for part in parts), {"blocks": blocks})

    def prepare(self, queries: Array, bias: Array | None = None) -> BlockQueries:
        """Tables of queries: products with the centroids, or negative squared distances."""
        from gingham.codecs import byte_table_kernels

        prepared = self._layout.queries(len(queries))
        byte_table_kernels.product_tables(
            queries.ctypes.data, self._lanes.ctypes.data, self.m, self.dim // self.m, self.metric == "l2",
            prepared.tables, prepared.parameters,
        )  # fmt: skip
        if bias is not None:
            prepared.parameters[:, 1] += bias
        return prepared

    def scan(
        self, prepared: BlockQueries, codes: Codes, start: int, stop: int, allow: int, scores: Array, rows: Array
    ) -> None:
        """Offer rows to heaps."""
        self._layout.scan(prepared, codes.arrays["blocks"], start, stop, allow, scores, rows)

    def scan_spans(self, prepared: BlockQueries, codes: Codes, spans: Array, allow: int, found: Reservoirs) -> None:
        """Gather spans of rows."""
        self._layout.scan_spans(prepared, codes, spans, allow, found)

    def score(self, prepared: BlockQueries, codes: Codes, rows: Array, out: Array) -> None:
        """Score listed rows."""
        self._layout.score(prepared, codes.arrays["blocks"], rows, out)

    def refine(self, prepared: BlockQueries, codes: Codes, rows: Array, out: Array) -> None:
        """As :meth:`score`."""
        self.score(prepared, codes, rows, out)

    def row_scores(self, prepared: BlockQueries, codes: Codes) -> None:
        """None: rows are not scored by themselves."""

    def bound(self, prepared: BlockQueries, codes: Codes, rows: Array) -> Array | None:
        """None: theory bounds no score of PQ."""
        return None

    def optimistic(self, prepared: BlockQueries) -> BlockQueries | None:
        """None, as there is no bound."""
        return None

    def arrays(self) -> dict[str, Array]:
        """The codebooks."""
        return {"codebooks": self._codebooks}

    def with_arrays(self, arrays: Mapping[str, Array]) -> FastScan:
        """A trained copy."""
        return replace(self, codebooks=np.ascontiguousarray(arrays["codebooks"], np.float32))
