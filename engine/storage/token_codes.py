"""Codes of token fields: derived data like those of vectors, and the search they make quick."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gingham.codecs.token_products import token_codec_of, train_token_codec
from gingham.codecs.token_residuals import sample_count
from gingham.errors import Corrupt
from gingham.index.token_search import TokenSearch, centroid_lists
from gingham.storage.catalog import CodedRecord
from gingham.storage.codes import read_arrays, write_arrays
from gingham.token_arrays import token_arrays

if TYPE_CHECKING:
    import pyarrow as pa

    from gingham.schema import Tokens
    from gingham.storage.blobs import BlobSink
    from gingham.storage.session import Session

    Array = np.ndarray[Any, Any]

CODED_TOKENS = 1 << 17
"""Tokens of a segment below which all are scored as floats: 32 query tokens of 128 dimensions take 12 ms."""


def make_token_codes(sink: BlobSink, column: pa.Array, kind: Tokens) -> CodedRecord | None:
    """Codes of a column of token matrices, or None where its tokens are scored as they are.

    Notes
    -----
    Memory: the sample that centroids are trained on, and the codes.
    """
    tokens, starts = token_arrays(column, kind.dim)
    first, last = int(starts[0]), int(starts[-1])
    if kind.codec is None or last - first < CODED_TOKENS:
        return None
    count = sample_count(last - first)
    at = np.linspace(first, last - 1, count).astype(np.int64)
    residuals = train_token_codec(
        kind.codec, tokens[at].astype(np.float32), unit=kind.metric == "cosine", of_tokens=last - first
    )
    ids, codes = residuals.encode(tokens[first:last])
    begins, documents = centroid_lists(ids, starts - first, len(residuals.centroids))
    coded = {"ids": ids, "codes": codes, "begins": begins, "documents": documents}
    return CodedRecord(kind.codec, write_arrays(sink, residuals.arrays()), write_arrays(sink, coded))


def read_token_codes(session: Session, record: CodedRecord, column: pa.Array, kind: Tokens) -> TokenSearch:
    """Codes on the map; raises Corrupt."""
    _, starts = token_arrays(column, kind.dim)
    starts = starts - starts[0]
    learned = read_arrays(session, record.learned)
    blob = record.learned["centroids"].blob if "centroids" in record.learned else None
    residuals = session.kept(
        ("token centroids", None if blob is None else blob.key),
        lambda: token_codec_of(record.spec, learned, kind.dim),
    )
    arrays = read_arrays(session, record.codes)
    try:
        ids, codes, begins, documents = (arrays[name] for name in ("ids", "codes", "begins", "documents"))
    except KeyError as error:
        raise Corrupt(f"codes of tokens expect an array {error}; run verify()") from error
    n, n_centroids = int(starts[-1]), len(residuals.centroids)
    fit = ids.shape == (n,) and codes.shape == (n, residuals.code_bytes) and begins.shape == (n_centroids + 1,)
    fit = fit and ids.dtype == np.int32 and codes.dtype == np.uint8 and begins[-1] == len(documents)
    fit = fit and begins.dtype == np.int64 and documents.dtype == np.int32 and begins[0] == 0
    # Kernels trust them.
    fit = fit and (np.diff(begins) >= 0).all() and (n == 0 or (documents.min() >= 0 and documents.max() < len(column)))
    fit = fit and begins.dtype == np.int64 and documents.dtype == np.int32 and bool((np.diff(begins) >= 0).all())
    fit = fit and begins[0] == 0 and (not len(documents) or 0 <= documents.min() <= documents.max() < len(starts) - 1)
    if not fit or (n and (ids.min() < 0 or ids.max() >= n_centroids)):
        raise Corrupt(f"codes of tokens expect {n} tokens of {n_centroids} centroids, found others; run verify()")
    named = record.spec, *(tuple(array.blob for array in kept.values()) for kept in (record.learned, record.codes))
    return TokenSearch(residuals, ids, codes, starts, (begins, documents), session.resident(named))
