"""Rows as a Parquet file."""

from __future__ import annotations

import uuid
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gingham.errors import InvalidArgument
from gingham.types import shown

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator


def write_parquet(path: str | os.PathLike[str], batches: Iterator[pa.RecordBatch], empty: pa.RecordBatch) -> int:
    """Write record batches under a temporary name that is renamed last; ``empty`` is written where there are none.

    Returns
    -------
    int : rows written

    Raises
    ------
    InvalidArgument : the folder cannot be written to, or the batches have ids of several kinds
    """
    try:
        target = Path(path)
    except TypeError:
        raise InvalidArgument(f"to_parquet() expects a path, found {shown(path)}") from None
    unfinished = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
    try:
        rows = _write(unfinished, batches, empty)
        unfinished.replace(target)
    except OSError as error:
        raise InvalidArgument(f"to_parquet() expects a path that can be written, found {target} ({error})") from error
    finally:
        unfinished.unlink(missing_ok=True)
    return rows


def _write(path: Path, batches: Iterator[pa.RecordBatch], empty: pa.RecordBatch) -> int:
    first = _portable(next(batches, empty))
    rows = 0
    with pq.ParquetWriter(path, first.schema) as writer:
        for batch in chain([first], map(_portable, batches)):
            if batch.schema != first.schema:
                raise InvalidArgument(
                    f"to_parquet() expects ids of one kind, found {first.schema.field('id').type} and "
                    f"{batch.schema.field('id').type}; read the rows with scan()"
                )
            writer.write_batch(batch)
            rows += batch.num_rows
    return rows


def _portable(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Vectors as lists: Arrow up to release 20 neither writes nor reads lists of fixed size some of which are null."""
    schema = batch.schema
    columns = batch.columns
    for at, column in enumerate(columns):
        if pa.types.is_fixed_size_list(column.type):
            columns[at] = _lists(column)
            schema = schema.set(at, pa.field(schema.field(at).name, columns[at].type))
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _lists(column: pa.FixedSizeListArray) -> pa.ListArray:
    present = column.is_valid().to_numpy(zero_copy_only=False)
    ends = np.concatenate([[0], np.cumsum(present)]) * column.type.list_size
    values = column.drop_null().flatten()
    return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), values, mask=pa.array(~present))
