"""MaxSim kernels against NumPy, torch and maxsim-cpu, one thread: a query of 32 tokens, 1,500 documents of about 117 tokens.

Bars: bytes at least 5 times as fast as torch's matmul and scatter_reduce, residuals of 4 bits at least 4 times.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from measure import arguments, interleaved, report
from threadpoolctl import threadpool_limits

import gingham as gg
from gingham.codecs import maxsim
from gingham.codecs.maxsim_intrinsics import DOTS, WIDE_DOTS

if TYPE_CHECKING:
    from collections.abc import Callable

CLUSTERS = 4096


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--documents", type=int, default=1500)
    parser.add_argument("--query-tokens", type=int, default=32)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    gg.set_threads(1)
    gg.warmup()
    data = Data(options.documents, options.query_tokens, options.dim)
    runs = {**data.ours(), **data.theirs()}
    with threadpool_limits(1):
        seconds = interleaved(runs, options.repeats)
        exact = runs["numpy"]()
        overlaps = {name: overlap(run(), exact) for name, run in runs.items()}
    rates = {name: data.starts[-1] / took / 1e6 for name, took in seconds.items()}
    result = {
        "bench": "maxsim",
        "documents": options.documents,
        "tokens": int(data.starts[-1]),
        "query_tokens": options.query_tokens,
        "dim": options.dim,
        "dots": "64 bytes" if WIDE_DOTS else "32 bytes" if DOTS else "none",
        "million_tokens_per_second": rates,
        "top_100_overlap": overlaps,
        **{
            f"over_{peer}": {name: rates[name] / rates[peer] for name in data.ours()}
            for peer in ("numpy", "torch", "maxsim-cpu")
            if peer in rates
        },
    }
    report(result, options.json)


def overlap(scores: np.ndarray, exact: np.ndarray) -> float:
    """Share of the best 100 documents."""
    return len(set(np.argsort(-scores)[:100]) & set(np.argsort(-exact)[:100])) / 100


class Data:
    """Unit tokens near random centres, in all forms."""

    def __init__(self, n: int, query_tokens: int, dim: int) -> None:
        rng = np.random.default_rng(0)
        lengths = np.clip(rng.normal(117, 40, n), 8, 220).astype(np.int64)
        self.starts, self.documents = np.concatenate([[0], np.cumsum(lengths)]), np.arange(n)
        centres = unit(rng.standard_normal((CLUSTERS, dim)))
        self.ids = rng.integers(0, CLUSTERS, self.starts[-1]).astype(np.int32)
        exact = unit(centres[self.ids] + rng.standard_normal((self.starts[-1], dim)) * (0.6 / np.sqrt(dim)))
        self.tokens, self.centres = exact, centres
        tokens = exact[rng.choice(len(exact), query_tokens)] + rng.standard_normal((query_tokens, dim)) * 0.05
        self.query = maxsim.QueryTokens(unit(tokens))

    def ours(self) -> dict[str, Callable[[], np.ndarray]]:
        """A run of each kernel."""
        query, starts, documents, ids = self.query, self.starts, self.documents, self.ids
        halves = self.tokens.astype(np.float16)
        low = self.tokens.min(axis=1)
        scales = ((self.tokens.max(axis=1) - low) / 255).astype(np.float32)
        width = -(-query.dim // 4) * 4
        codes = np.zeros((len(halves), width), np.uint8)
        codes[:, : query.dim] = np.rint((self.tokens - low[:, None]) / scales[:, None])
        near = query.centroid_scores(self.centres)
        runs = {
            "float16": lambda: maxsim.score_f16(query, halves, starts, documents),
            "bytes": lambda: maxsim.score_i8(query, codes, scales, low, starts, documents),
            "centroids": lambda: maxsim.score_centroids(query, ids, near, starts, documents),
        }
        for bits in (2, 4):
            packed, levels = residual_codes(self.tokens - self.centres[ids], bits)
            runs[f"residual of {bits} bits"] = lambda packed=packed, levels=levels, bits=bits: maxsim.score_residual(
                query, packed, bits, levels, ids, near, starts, documents
            )
        return runs

    def theirs(self) -> dict[str, Callable[[], Any]]:
        """The same over float32 by matrix products of all tokens."""
        tokens, asked, begin = self.tokens, self.query.tokens, self.starts[:-1]
        runs = {"numpy": lambda: np.maximum.reduceat(tokens @ asked.T, begin).sum(axis=1)}
        try:
            import maxsim_cpu
        except ImportError:
            pass
        else:
            pieces = np.split(tokens, begin[1:])
            runs["maxsim-cpu"] = lambda: maxsim_cpu.maxsim_scores_variable(asked, pieces)
        try:
            import torch
        except ImportError:
            return runs
        torch.set_num_threads(1)
        stored, query = torch.from_numpy(tokens), torch.from_numpy(asked)
        owners = torch.from_numpy(np.repeat(self.documents, np.diff(self.starts)))[:, None].expand(-1, len(asked))

        def scattered() -> np.ndarray:
            best = torch.full((len(begin), len(asked)), -torch.inf)
            return best.scatter_reduce_(0, owners, stored @ query.T, "amax").sum(1).numpy()

        return {**runs, "torch": scattered}


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows of length 1."""
    return np.ascontiguousarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def residual_codes(residuals: np.ndarray, bits: int) -> tuple[np.ndarray, maxsim.Levels]:
    """Buckets of equal counts, packed, and the medians of buckets."""
    sample = residuals[::10].ravel()
    cuts = np.quantile(sample, np.arange(1, 2**bits) / 2**bits)
    weights = np.quantile(sample, (np.arange(2**bits) + 0.5) / 2**bits)
    codes = np.searchsorted(cuts, residuals.ravel()).reshape(residuals.shape).astype(np.uint8)
    planes = (codes[:, :, None] >> np.arange(bits, dtype=np.uint8) & 1).reshape(len(codes), -1)
    return np.packbits(planes, axis=1, bitorder="little"), maxsim.Levels.of(weights)


if __name__ == "__main__":
    main()
