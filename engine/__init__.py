"""Gingham: an embedded-first vector database and retrieval engine.

>>> import gingham as gg
>>> db = gg.open("./library")                                            # doctest: +SKIP
>>> docs = db.create_collection("docs", vectors={"dense": gg.Dense(384)})  # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gingham.collection import Collection as Collection
    from gingham.connect import aopen as aopen
    from gingham.connect import open as open  # noqa: A004
    from gingham.connect import restore as restore
    from gingham.database import Database as Database
    from gingham.database import Snapshot as Snapshot
    from gingham.embed import words as words
    from gingham.embed.fixed_encoding import FixedEncoding as FixedEncoding
    from gingham.embed.gaussian import gaussian_queries as gaussian_queries
    from gingham.embed.gaussian import gaussian_rows as gaussian_rows
    from gingham.embed.hyde import hyde as hyde
    from gingham.embed.sparse_tokens import SparseTokens as SparseTokens
    from gingham.errors import GinghamError as GinghamError
    from gingham.evaluation import Comparison as Comparison
    from gingham.evaluation import compare as compare
    from gingham.evaluation import evaluate as evaluate
    from gingham.index.warmup import warmup as warmup
    from gingham.parallel import set_threads as set_threads
    from gingham.query.ast import F as F
    from gingham.query.combine import combine as combine
    from gingham.query.expansion import fuse_queries as fuse_queries
    from gingham.query.expansion import step_back as step_back
    from gingham.query.gain import measure_gain as measure_gain
    from gingham.query.hits import BatchHits as BatchHits
    from gingham.query.hits import Hit as Hit
    from gingham.query.hits import Hits as Hits
    from gingham.query.hits import Span as Span
    from gingham.query.nodes import DBSF as DBSF
    from gingham.query.nodes import RRF as RRF
    from gingham.query.nodes import MinMax as MinMax
    from gingham.query.nodes import Query as Query
    from gingham.query.nodes import cross_encoder as cross_encoder
    from gingham.query.nodes import fuse as fuse
    from gingham.query.nodes import like as like
    from gingham.query.nodes import match as match
    from gingham.query.nodes import maxsim as maxsim
    from gingham.query.nodes import near as near
    from gingham.query.nodes import sparse as sparse
    from gingham.schema import Bool as Bool
    from gingham.schema import Dense as Dense
    from gingham.schema import Float as Float
    from gingham.schema import Int as Int
    from gingham.schema import Json as Json
    from gingham.schema import Keyword as Keyword
    from gingham.schema import Schema as Schema
    from gingham.schema import Sparse as Sparse
    from gingham.schema import Text as Text
    from gingham.schema import Timestamp as Timestamp
    from gingham.schema import Tokens as Tokens
    from gingham.storage.answers import HydeCache as HydeCache
    from gingham.transaction import Transaction as Transaction
    from gingham.types import WriteResult as WriteResult

__version__ = "0.1.0"

_EXPORTS = {
    "Span": "gingham.query.hits",
    "Sparse": "gingham.schema",
    "SparseTokens": "gingham.embed.sparse_tokens",
    "Query": "gingham.query.nodes",
    "sparse": "gingham.query.nodes",
    "near": "gingham.query.nodes",
    "maxsim": "gingham.query.nodes",
    "cross_encoder": "gingham.query.nodes",
    "match": "gingham.query.nodes",
    "like": "gingham.query.nodes",
    "fuse": "gingham.query.nodes",
    "fuse_queries": "gingham.query.expansion",
    "hyde": "gingham.embed.hyde",
    "gaussian_queries": "gingham.embed.gaussian",
    "gaussian_rows": "gingham.embed.gaussian",
    "measure_gain": "gingham.query.gain",
    "HydeCache": "gingham.storage.answers",
    "step_back": "gingham.query.expansion",
    "RRF": "gingham.query.nodes",
    "MinMax": "gingham.query.nodes",
    "DBSF": "gingham.query.nodes",
    "BatchHits": "gingham.query.hits",
    "Bool": "gingham.schema",
    "Collection": "gingham.collection",
    "Comparison": "gingham.evaluation",
    "Database": "gingham.database",
    "Dense": "gingham.schema",
    "F": "gingham.query.ast",
    "FixedEncoding": "gingham.embed.fixed_encoding",
    "Float": "gingham.schema",
    "GinghamError": "gingham.errors",
    "Hit": "gingham.query.hits",
    "Hits": "gingham.query.hits",
    "Int": "gingham.schema",
    "Json": "gingham.schema",
    "Keyword": "gingham.schema",
    "Schema": "gingham.schema",
    "Snapshot": "gingham.database",
    "Text": "gingham.schema",
    "Timestamp": "gingham.schema",
    "Tokens": "gingham.schema",
    "Transaction": "gingham.transaction",
    "WriteResult": "gingham.types",
    "aopen": "gingham.connect",
    "combine": "gingham.query.combine",
    "compare": "gingham.evaluation",
    "evaluate": "gingham.evaluation",
    "open": "gingham.connect",
    "restore": "gingham.connect",
    "set_threads": "gingham.parallel",
    "warmup": "gingham.index.warmup",
}
_MODULES = {
    "embed": "gingham.embed",
    "errors": "gingham.errors",
    "index": "gingham.index",
    "words": "gingham.embed.words",
}

__all__ = sorted([*_EXPORTS, *_MODULES])  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> object:
    if name in _EXPORTS:
        return getattr(import_module(_EXPORTS[name]), name)
    if name in _MODULES:
        return import_module(_MODULES[name])
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
