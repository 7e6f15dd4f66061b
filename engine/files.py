"""Rows, queries and judgements in files."""

from __future__ import annotations

import json
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gingham.errors import InvalidArgument
from gingham.schema import Bool, Dense, Field, Float, Int, Json, Keyword, Schema, Text, Timestamp

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_CHUNK_ROWS = 10_000
_SAMPLE_ROWS = 1000
_SHORT_TEXT = 64
"""Text columns whose longest sampled value is shorter become keywords."""


def read_rows(path: Path) -> Iterator[pa.RecordBatch]:
    """Record batches of a Parquet or JSON-lines file."""
    try:
        if path.suffix == ".parquet":
            with pq.ParquetFile(path) as file:
                yield from file.iter_batches(_CHUNK_ROWS)
        elif path.suffix in (".jsonl", ".ndjson", ".json"):
            yield from _read_json_lines(path)
        else:
            raise InvalidArgument(f"ingest expects .parquet or .jsonl files, found {path}")
    except (OSError, ValueError) as error:
        if isinstance(error, InvalidArgument):
            raise
        raise InvalidArgument(f"ingest expects readable files, found {path}: {error}") from error


def _read_json_lines(path: Path) -> Iterator[pa.RecordBatch]:
    with path.open(encoding="utf-8") as file:
        while chunk := list(islice(file, _CHUNK_ROWS)):
            rows = [json.loads(line) for line in chunk if line.strip()]
            if rows:
                names = dict.fromkeys(name for row in rows for name in row)
                yield pa.record_batch({name: pa.array([row.get(name) for row in rows]) for name in names})


def infer_schema(path: Path, metric: Any) -> Schema:
    """Schema of a file: lists of floats of one length are vectors, everything else a field."""
    batch = next(read_rows(path), None)
    if batch is None:
        raise InvalidArgument(f"ingest expects at least one row to make a collection from, found none in {path}")
    fields: dict[str, Field] = {}
    vectors: dict[str, Dense] = {}
    for name in batch.schema.names:
        column = batch.column(name).slice(0, _SAMPLE_ROWS)
        if name == "id":
            continue
        dim = _vector_dim(column)
        if dim:
            vectors[name] = Dense(dim, metric)
        else:
            fields[name] = _field(column)
    return Schema.of(fields, vectors)


def _vector_dim(column: pa.Array) -> int:
    kind = column.type
    if pa.types.is_fixed_size_list(kind) and pa.types.is_floating(kind.value_type):
        return int(kind.list_size)
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)) or not pa.types.is_floating(kind.value_type):
        return 0
    lengths = {len(row) for row in column.to_pylist() if row is not None}
    return lengths.pop() if len(lengths) == 1 else 0


def _field(column: pa.Array) -> Field:
    kind = column.type
    many = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    one = kind.value_type if many else kind
    if pa.types.is_dictionary(one):
        return Keyword(many=many)
    if pa.types.is_boolean(one) and not many:
        return Bool()
    if pa.types.is_integer(one):
        return Int(many=many)
    if pa.types.is_floating(one) and not many:
        return Float()
    if (pa.types.is_timestamp(one) or pa.types.is_date(one)) and not many:
        return Timestamp()
    if pa.types.is_string(one) or pa.types.is_large_string(one):
        longest = max((len(text) for text in column.to_pylist() if isinstance(text, str)), default=0)
        return Keyword(many=True) if many else Keyword() if longest <= _SHORT_TEXT else Text()
    return Json()


def read_queries(path: Path) -> tuple[list[str], np.ndarray[Any, Any]]:
    """Names and vectors of JSON lines with ``id`` and ``vector``."""
    try:
        with path.open(encoding="utf-8") as file:
            rows = [json.loads(line) for line in file if line.strip()]
        return [str(row["id"]) for row in rows], np.array([row["vector"] for row in rows], np.float32)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidArgument(f"eval expects JSON lines with id and vector, found {path}: {error!r}") from error


def read_qrels(path: Path) -> dict[str, dict[str, int]]:
    """Judgements of a tab-separated file with a header line: query, document, grade."""
    out: dict[str, dict[str, int]] = {}
    try:
        for line in path.read_text("utf-8").splitlines()[1:]:
            query, document, grade = line.split("\t")
            out.setdefault(query, {})[document] = int(grade)
    except (OSError, ValueError) as error:
        raise InvalidArgument(f"eval expects lines of query, document, grade, found {path}: {error}") from error
    return out
