"""Transforms in front of a codec, as one codec."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from gingham import deadline
from gingham.parallel import run_blocks

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from gingham.codecs.protocol import Codec, Codes, SpanCodec, Transform
    from gingham.codecs.reservoirs import Reservoirs
    from gingham.codecs.row_scores import RowScores
    from gingham.schema import Metric

    Array = np.ndarray[Any, Any]

BLOCK_ROWS = 4096
"""Rows transformed at once, a multiple of the rows of a block of codes: at 1536 dimensions they take 25 MB."""


@dataclass(frozen=True, eq=False)
class Pipeline:
    """Transforms, in order, and the codec of what they give.

    Attributes
    ----------
    metric : what scores estimate; the codec's own may be dot where this is cosine
    transforms : at least one
    codec : of the dimensions that the last transform gives

    Notes
    -----
    Each transform learns from what the one before gives, queries too. A query is transformed once and what transforms
    add to its scores goes to the codec, so scans cost what they cost without transforms.
    """

    metric: Metric
    transforms: tuple[Transform, ...]
    codec: Codec

    @property
    def spec(self) -> str:
        """Such as ``"PCA128,LVQ8"``."""
        return ",".join([part.spec for part in self.transforms] + [self.codec.spec])

    @property
    def dim(self) -> int:
        """Dimensions of a vector before the first transform."""
        return self.transforms[0].dim

    @property
    def trained(self) -> bool:
        """Whether all parts are."""
        return self.codec.trained and all(transform.trained for transform in self.transforms)

    @property
    def code_size(self) -> int:
        """Bytes of a vector."""
        return self.codec.code_size

    @property
    def levels(self) -> int:
        """Those of the codec."""
        return self.codec.levels

    @property
    def _exact(self) -> bool:
        """Whether transforms keep scores as they are, but for rounding."""
        return all(transform.out_dim >= transform.dim for transform in self.transforms)

    def train(self, sample: Array, *, queries: Array | None = None, seed: int = 0) -> Pipeline:
        """Train every part, each with a seed of its own."""
        transforms = []
        for number, part in enumerate(self.transforms):
            transform = part.train(sample, queries=queries, seed=seed + number)
            transforms.append(transform)
            sample = _in_blocks(transform.apply, sample)
            if queries is not None:
                queries = _in_blocks(partial(_turned, transform), queries)
        codec = self.codec.train(sample, queries=queries, seed=seed + len(transforms))
        return replace(self, transforms=tuple(transforms), codec=codec)

    def encode(self, vectors: Array) -> Codes:
        """Transform and encode rows, some at a time."""
        parts = []
        for start in range(0, max(len(vectors), 1), BLOCK_ROWS):
            deadline.check()
            rows = vectors[start : start + BLOCK_ROWS]
            for transform in self.transforms:
                rows = transform.apply(rows)
            parts.append(self.codec.encode(np.ascontiguousarray(rows)))
        return parts[0] if len(parts) == 1 else self.codec.join(parts)

    def decode(self, codes: Codes) -> Array:
        """The vectors that codes stand for, transformed back."""
        rows = self.codec.decode(codes)
        for transform in reversed(self.transforms):
            deadline.check()
            rows = transform.invert(np.ascontiguousarray(rows))
        return rows

    def join(self, parts: Sequence[Codes]) -> Codes:
        """Codes of all rows of several parts."""
        return self.codec.join(parts)

    def prepare(self, queries: Array, bias: Array | None = None) -> Any:
        """Transform queries and prepare them for the codec."""
        total = np.zeros(len(queries)) if bias is None else bias.astype(np.float64)
        for transform in self.transforms:
            queries, added = transform.apply_queries(queries)
            total = total + added
        return self.codec.prepare(np.ascontiguousarray(queries), total.astype(np.float32))

    def scan(self, prepared: Any, codes: Codes, start: int, stop: int, allow: int, scores: Array, rows: Array) -> None:
        """Offer rows to heaps."""
        self.codec.scan(prepared, codes, start, stop, allow, scores, rows)

    def scan_spans(self, prepared: Any, codes: Codes, spans: Array, allow: int, found: Reservoirs) -> None:
        """Gather spans of rows, of a codec that does."""
        cast("SpanCodec", self.codec).scan_spans(prepared, codes, spans, allow, found)

    def score(self, prepared: Any, codes: Codes, rows: Array, out: Array) -> None:
        """Score listed rows."""
        self.codec.score(prepared, codes, rows, out)

    def refine(self, prepared: Any, codes: Codes, rows: Array, out: Array) -> None:
        """Score listed rows as precisely as the codes allow."""
        self.codec.refine(prepared, codes, rows, out)

    def row_scores(self, prepared: Any, codes: Codes) -> RowScores | None:
        """Those of the codec."""
        return self.codec.row_scores(prepared, codes)

    def bound(self, prepared: Any, codes: Codes, rows: Array) -> Array | None:
        """That of the codec; None where a transform drops dimensions, of which the codec knows nothing."""
        return self.codec.bound(prepared, codes, rows) if self._exact else None

    def optimistic(self, prepared: Any) -> Any:
        """As of the codec, where there is a bound."""
        return self.codec.optimistic(prepared) if self._exact else None

    def arrays(self) -> dict[str, Array]:
        """What all parts learned: ``"0.mean"`` of the first transform, ``"codec.lows"`` of the codec."""
        named = [(str(number), part.arrays()) for number, part in enumerate(self.transforms)]
        named.append(("codec", self.codec.arrays()))
        return {f"{part}.{name}": array for part, arrays in named for name, array in arrays.items()}

    def with_arrays(self, arrays: Mapping[str, Array]) -> Pipeline:
        """A trained copy."""
        transforms = [t.with_arrays(_under(f"{number}.", arrays)) for number, t in enumerate(self.transforms)]
        return replace(self, transforms=tuple(transforms), codec=self.codec.with_arrays(_under("codec.", arrays)))


def _in_blocks(work: Callable[[Array], Array], rows: Array) -> Array:
    blocks = run_blocks(
        lambda start: work(rows[start : start + BLOCK_ROWS]), list(range(0, max(len(rows), 1), BLOCK_ROWS))
    )
    return np.ascontiguousarray(blocks[0] if len(blocks) == 1 else np.concatenate(blocks))


def _turned(transform: Transform, queries: Array) -> Array:
    return transform.apply_queries(queries)[0]


def _under(prefix: str, arrays: Mapping[str, Array]) -> dict[str, Array]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
