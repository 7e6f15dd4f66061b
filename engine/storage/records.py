"""Keys and checksummed values of the LMDB tables."""

from __future__ import annotations

import struct

import xxhash

from gingham.errors import ChecksumMismatch

FORMAT_VERSION = 1
"""Version of the file format that this code writes; see FORMAT.md."""

STORE_KEY = b"store"
PIECE_BYTES = 4 << 20
"""Blobs are checked in pieces of 4 MiB, so that a point read does not pay for a whole column."""

_CHECK = struct.Struct("<Q")
_ROW = struct.Struct("<QI")


def collection_key(cid: int) -> bytes:
    """Key of a collection record: ``c`` and the collection number, big-endian."""
    return b"c" + cid.to_bytes(4, "big")


def receipt_key(name: bytes) -> bytes:
    """Key of a receipt, or of what leads to it."""
    return b"r" + name


def child_key(cid: int, number: int) -> bytes:
    """Key of a tail batch, segment record or tombstone bitmap of a collection."""
    return cid.to_bytes(4, "big") + number.to_bytes(8, "big")


def blob_key(number: int) -> bytes:
    """Key of a blob."""
    return number.to_bytes(8, "big")


def id_key(cid: int, encoded_id: bytes) -> bytes:
    """Key of a user id within its collection."""
    return cid.to_bytes(4, "big") + encoded_id


def seal_record(key: bytes, payload: bytes) -> bytes:
    """Prefix a payload with the xxh3-64 of key and payload."""
    return _CHECK.pack(xxhash.xxh3_64_intdigest(payload, _seed(key))) + payload


def open_record(table: str, key: bytes, value: bytes | memoryview) -> memoryview:
    """Payload of a sealed record; raises ChecksumMismatch where it does not fit its key or checksum."""
    view = memoryview(value)
    if len(view) < _CHECK.size:
        raise ChecksumMismatch(
            f"record {key.hex()} of table {table!r} expects at least {_CHECK.size} bytes, "
            f"found {len(view)}; run verify()"
        )
    (stored,) = _CHECK.unpack_from(view)
    payload = view[_CHECK.size :]
    computed = xxhash.xxh3_64_intdigest(payload, _seed(key))
    if stored != computed:
        raise ChecksumMismatch(
            f"record {key.hex()} of table {table!r} expects checksum {stored:016x}, "
            f"found {computed:016x}; run verify() or restore a backup"
        )
    return payload


def seal_row(key: bytes, row: int) -> bytes:
    """Value of the ids table: row id and a 32-bit checksum of key and row id."""
    return _ROW.pack(row, _row_check(key, row))


def open_row(key: bytes, value: bytes | memoryview) -> int:
    """Row id of an ids value; raises ChecksumMismatch."""
    if len(value) == _ROW.size:
        row, stored = _ROW.unpack(value)
        if stored == _row_check(key, row):
            return int(row)
    raise ChecksumMismatch(f"the ids record {key.hex()} does not have its checksum; run verify() or restore a backup")


def piece_checks(data: memoryview) -> bytes:
    """xxh3-64 of each piece of a blob, little-endian, one after the other."""
    return b"".join(
        _CHECK.pack(xxhash.xxh3_64_intdigest(data[start : start + PIECE_BYTES]))
        for start in range(0, len(data), PIECE_BYTES)
    )


def _seed(key: bytes) -> int:
    return xxhash.xxh3_64_intdigest(key)


def _row_check(key: bytes, row: int) -> int:
    return xxhash.xxh3_64_intdigest(key, row) & 0xFFFF_FFFF
