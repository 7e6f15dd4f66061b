"""Rows, queries, judgements and runs in files."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gingham.errors import InvalidArgument, SchemaMismatch
from gingham.evaluation import rank
from gingham.schema import Bool, Dense, Field, Float, Int, Json, Keyword, Schema, Text, Timestamp, unknown_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from gingham.evaluation import Ranking

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
    except (OSError, ValueError, TypeError, OverflowError) as error:
        if isinstance(error, InvalidArgument):
            raise
        raise InvalidArgument(f"ingest expects readable files, found {path}: {error}") from error


def _read_json_lines(path: Path) -> Iterator[pa.RecordBatch]:
    with path.open(encoding="utf-8") as file:
        while chunk := list(islice(file, _CHUNK_ROWS)):
            rows = [json.loads(line) for line in chunk if line.strip()]
            wrong = next((row for row in rows if not isinstance(row, dict)), None)
            if wrong is not None:
                raise InvalidArgument(f"ingest expects one JSON object on each line of {path}, found {wrong!r:.60}")
            if rows:
                names = dict.fromkeys(name for row in rows for name in row)
                yield pa.record_batch({name: pa.array([row.get(name) for row in rows]) for name in names})


def infer_schema(path: Path, metric: Any, vectors: Sequence[str] = ()) -> Schema:
    """Schema of a file, from its first rows.

    Parameters
    ----------
    vectors : columns that are vectors; where none is named, those of lists of floats of one length are, and where
        there are none either, those of lists of integers of one length; everything else is a field

    Raises
    ------
    InvalidArgument : a file that cannot be read, no rows, a named column that holds no vectors of one width
    """
    batch = next(read_rows(path), None)
    if batch is None:
        raise InvalidArgument(f"ingest expects at least one row to make a collection from, found none in {path}")
    columns = {name: batch.column(name).slice(0, _SAMPLE_ROWS) for name in batch.schema.names if name != "id"}
    wide = {name: dim for name, column in columns.items() if (dim := _vector_dim(column))}
    for name in vectors:
        if name not in columns:
            raise SchemaMismatch(unknown_name("column", name, columns))
        if name not in wide:
            raise SchemaMismatch(
                f"the vector column {name!r} expects lists of numbers of one length, found {columns[name].type}"
            )
    floats = [name for name in wide if pa.types.is_floating(columns[name].type.value_type)]
    dense = {name: Dense(wide[name], metric) for name in vectors or floats or wide}
    return Schema.of({name: _field(column) for name, column in columns.items() if name not in dense}, dense)


def _vector_dim(column: pa.Array) -> int:
    """Length of the lists of numbers of a column, 0 where it holds others or they differ."""
    kind = column.type
    if not _is_list(kind) or not (pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type)):
        return 0
    lengths = pc.list_value_length(column).unique().drop_null().to_pylist()
    return int(lengths[0]) if len(lengths) == 1 else 0


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _field(column: pa.Array) -> Field:
    kind = column.type
    many = _is_list(kind)
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
        return Keyword(many=True) if many else Keyword() if longest <= _SHORT_TEXT else Text(bm25=True)
    return Json()


def read_queries(path: Path) -> tuple[list[str], np.ndarray[Any, Any] | list[str]]:
    """Names of JSON lines with ``id``, and their ``vector`` each, or their ``text`` each."""
    try:
        with path.open(encoding="utf-8") as file:
            rows = [json.loads(line) for line in file if line.strip()]
        names = [str(row["id"]) for row in rows]
        if rows and "vector" not in rows[0]:
            return names, [str(row["text"]) for row in rows]
        return names, np.array([row["vector"] for row in rows], np.float32)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidArgument(f"eval expects JSON lines with id and vector or text, found {path}: {error!r}") from error


def read_qrels(path: Path) -> dict[str, dict[str, int]]:
    """Judgements of a tab-separated file: query, document, grade; a first line without a grade is its header."""
    out: dict[str, dict[str, int]] = {}
    try:
        for number, line in enumerate(path.read_text("utf-8").splitlines()):
            query, document, grade = line.split("\t")
            if number == 0 and not grade.strip().lstrip("-").isdigit():
                continue
            out.setdefault(query, {})[document] = int(grade)
    except (OSError, ValueError) as error:
        raise InvalidArgument(f"eval expects lines of query, document, grade, found {path}: {error}") from error
    return out


def read_run(path: Path) -> dict[str, dict[str, float]]:
    """Per query the scores of the documents found.

    Parameters
    ----------
    path : lines of query, Q0, document, rank, score and tag, or ``{query: {document: score}}`` in a ``.json`` file

    Raises
    ------
    InvalidArgument : a file that cannot be read, a malformed line, a document twice under a query

    Notes
    -----
    As in trec_eval the scores make the order; the ranks in the file are not looked at.
    """
    try:
        if path.suffix == ".json":
            return _checked_run(json.loads(path.read_text("utf-8")))
        with path.open(encoding="utf-8") as file:
            return _parse_run(file)
    except (OSError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidArgument(f"a run expects a readable file, found {path}: {error}") from error


def _checked_run(data: Any) -> dict[str, dict[str, float]]:
    if not isinstance(data, dict):
        raise ValueError("it is no JSON object of queries")
    for query, found in data.items():
        if not isinstance(found, dict):
            raise ValueError(f"query {query!r:.60} holds no object of documents and scores")
        for document, score in found.items():
            if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
                raise ValueError(f"query {query!r:.60}, document {document!r:.60} has no finite score: {score!r:.60}")
    return {query: {document: float(score) for document, score in found.items()} for query, found in data.items()}


def _parse_run(lines: Iterator[str]) -> dict[str, dict[str, float]]:
    out: dict[str, dict[str, float]] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        columns = line.split()
        if len(columns) != 6:
            raise ValueError(f"line {number} has {len(columns)} columns, not query, Q0, document, rank, score and tag")
        query, _, document, _, text, _ = columns
        found = out.setdefault(query, {})
        if document in found:
            raise ValueError(f"line {number} has document {document!r} a second time under query {query!r}")
        try:
            found[document] = float(text)
        except ValueError:
            raise ValueError(f"line {number} has no number as its score: {text!r}") from None
        if not math.isfinite(found[document]):
            raise ValueError(f"line {number} has no finite score: {text!r}")
    return out


def write_run(path: Path, run: Mapping[Any, Ranking], *, tag: str = "gingham") -> None:
    """Write a run so that :func:`read_run`, or trec_eval, finds the same rankings.

    Parameters
    ----------
    path : file to write, as JSON where it ends in ``.json``
    run : as :func:`gingham.evaluate` takes it, ids as their text; ids in rank order get the scores n to 1
    tag : name of the run, the last column

    Raises
    ------
    InvalidArgument : a name with whitespace, a score that is not finite, a file that cannot be written

    Notes
    -----
    The columns have no form for a query that found nothing: it is left out, and counts 0 either way.
    """
    scored = {str(query): _scores(found) for query, found in run.items()}
    for query, found in scored.items():
        for document, score in found.items():
            if not math.isfinite(score):
                raise InvalidArgument(f"a run expects finite scores, found {score} at {query!r:.60}, {document!r:.60}")
    # The text is made first, so that a refused name leaves no half a file.
    text = json.dumps(scored) if path.suffix == ".json" else "".join(_run_lines(scored, tag))
    try:
        path.write_text(text, "utf-8")
    except (OSError, ValueError) as error:
        raise InvalidArgument(f"a run expects a file that can be written, found {path}: {error}") from error


def _scores(found: Ranking) -> dict[str, float]:
    """Score of each document, the best first."""
    order = rank(found)
    if isinstance(found, Mapping):
        return {str(document): float(found[document]) for document in order}
    return {str(document): float(len(order) - place) for place, document in enumerate(order)}


def _run_lines(scored: dict[str, dict[str, float]], tag: str) -> Iterator[str]:
    for query, found in scored.items():
        for place, (document, score) in enumerate(found.items(), 1):
            for what, name in (("query ids", query), ("document ids", document), ("a tag", tag)):
                if name.split() != [name]:
                    raise InvalidArgument(
                        f"a run in columns expects {what} without whitespace, found {name!r:.60}; "
                        "a .json file takes any text"
                    )
            yield f"{query} Q0 {document} {place} {score!r} {tag}\n"
