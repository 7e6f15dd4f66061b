"""Another codec for a stored vector field: codes are made beside the old ones, and one transaction switches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from gingham.errors import SchemaMismatch
from gingham.schema import Schema
from gingham.storage.codes import encode_chunk, train_codec, write_arrays, write_codec
from gingham.storage.part import take_norms, take_vectors
from gingham.storage.records import blob_key
from gingham.storage.schema_moves import store_segment
from gingham.storage.staging import StagedBlobs

if TYPE_CHECKING:
    import numpy as np

    from gingham.schema import Dense
    from gingham.storage.catalog import ArrayRecord, CodecRecord, SegmentRecord
    from gingham.storage.segment import SegmentPart
    from gingham.storage.session import WriteSession
    from gingham.storage.store import Store

    Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class NewCodes:
    """Codes of one segment that nothing names yet: the codec, or None, and the arrays of each chunk."""

    codec: CodecRecord | None
    chunks: tuple[dict[str, ArrayRecord], ...]


class Recoding:
    """New codes of a vector field, from the first that is staged to the switch.

    Parameters
    ----------
    name : the field
    field : its type, as the caller checked the codec by it
    codec : spec of the new codec, or None for none

    Raises
    ------
    SchemaMismatch : the field was dropped or replaced meanwhile
    """

    def __init__(self, store: Store, cid: int, name: str, field: Dense, codec: str | None) -> None:
        self._store = store
        self._cid = cid
        self._name = name
        self._field = field
        self._codec = codec
        self._sink = StagedBlobs(store)
        self.made: dict[int, NewCodes] = {}

    def stage(self) -> None:
        """Make codes for the segments that have others or none.

        Notes
        -----
        Runs in the calling thread, beside readers and writers. A segment made meanwhile is not seen.
        """
        with self._store.read() as session:
            record = session.collection_by_id(self._cid)
            self._check_field(record.schema.dense.get(self._name))
            dense = msgspec.structs.replace(self._field, codec=self._codec)
            for part in session.segments(record):
                known = part.record.codecs.get(self._name)
                if (known.spec if known else None) != self._codec:
                    self.made[part.ref.sid] = self._make(part, dense)
        self._sink.flush()

    def _make(self, part: SegmentPart, dense: Dense) -> NewCodes:
        def sample(positions: Array) -> tuple[Array, Array]:
            return take_vectors(part, self._name, dense, positions), take_norms(part, self._name, positions)

        codec = train_codec(dense, part.rows, sample)
        if codec is None:
            return NewCodes(None, ())
        made = []
        for chunk in part.chunks(self._name):
            made.append(write_arrays(self._sink, encode_chunk(codec, dense, chunk.vectors, chunk.norms).arrays))
        return NewCodes(write_codec(self._sink, codec), tuple(made))

    def switch(self) -> None:
        """Name the staged codes and the codec, in one transaction."""

        def change(session: WriteSession) -> None:
            record = session.touch(self._cid)
            self._check_field(record.schema.dense.get(self._name))
            for ref in record.segments:
                if ref.sid in self.made:
                    old = session.segment_record(self._cid, ref.sid, record.schema_epoch)
                    new = with_codes(old, self._name, self.made[ref.sid])
                    store_segment(session, self._cid, ref.sid, old, new)
                    ref.nbytes = sum(blob.length for blob in new.blobs())
                    session.env.damaged.discard(("codes", ref.sid, self._name))
            dense = msgspec.structs.replace(record.schema.dense[self._name], codec=self._codec)
            record.schema = Schema(record.schema.fields, {**record.schema.vectors, self._name: dense})
            record.schema_epoch += 1
            self._drop_unused(session, {ref.sid for ref in record.segments})
            self._sink.adopt(session)

        self._store.write(change)

    def _check_field(self, found: Dense | None) -> None:
        if found is None or msgspec.structs.replace(found, codec=self._field.codec) != self._field:
            raise SchemaMismatch(
                f"recode() expects the dense vector {self._name!r} to stay {self._field}, found it "
                f"{'dropped' if found is None else found} meanwhile; the codes made for it are discarded"
            )

    def _drop_unused(self, session: WriteSession, sids: set[int]) -> None:
        """Remove the codes made for segments that are gone."""
        for sid in self.made.keys() - sids:
            made = self.made[sid]
            groups = [*([made.codec.arrays] if made.codec else []), *made.chunks]
            for array in (array for group in groups for array in group.values()):
                if array.blob is not None:
                    session.txn.delete(blob_key(array.blob.key), db=session.env.table("blobs"))

    def pending(self) -> bool:
        """Whether a segment has come up meanwhile that has codes of another codec."""
        with self._store.read() as session:
            parts = session.segments(session.collection_by_id(self._cid))
            known = [part.record.codecs.get(self._name) for part in parts if part.ref.sid not in self.made]
        return any(one is not None and one.spec != self._codec for one in known)

    def discard(self) -> None:
        """Give up what was staged."""
        self._sink.discard()


def with_codes(record: SegmentRecord, name: str, made: NewCodes) -> SegmentRecord:
    """The record of a segment with other codes of one vector."""
    chunks = record.vectors.get(name, ())
    codes = made.chunks or ({},) * len(chunks)
    codecs = {n: c for n, c in record.codecs.items() if n != name}
    if made.codec is not None:
        codecs[name] = made.codec
    coded = tuple(msgspec.structs.replace(c, codes=new) for c, new in zip(chunks, codes, strict=True))
    vectors = {**record.vectors, name: coded} if chunks else record.vectors
    return msgspec.structs.replace(record, vectors=vectors, codecs=codecs)
