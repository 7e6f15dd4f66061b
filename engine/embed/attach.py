"""What is stored of an embedder, and whether one that is attached later is the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gingham.embed.protocol import check_embedder, fingerprint, same_fingerprint
from gingham.embed.record import EmbedderRecord
from gingham.errors import SchemaMismatch

if TYPE_CHECKING:
    from gingham.embed.protocol import Embedder


def embedder_record(embedder: Embedder, known: EmbedderRecord | None = None) -> EmbedderRecord:
    """Describe an embedder; raises SchemaMismatch where it is not the ``known`` one."""
    check_embedder(embedder)
    made = EmbedderRecord(str(embedder.name), str(embedder.revision), int(embedder.dim), fingerprint(embedder))
    if known is None:
        return made
    if (made.name, made.dim) != (known.name, known.dim) or not same_fingerprint(made.fingerprint, known.fingerprint):
        raise SchemaMismatch(
            f"the stored vectors come from {known.name!r} {known.revision!r} ({known.dim} dimensions), found the "
            f"embedder {made.name!r} {made.revision!r} ({made.dim} dimensions), whose vectors differ; attach the "
            "former, or embed the texts again into a new collection"
        )
    return known
