"""What the catalog keeps of an embedder."""

from __future__ import annotations

import msgspec


class EmbedderRecord(msgspec.Struct, array_like=True, frozen=True):
    """What embeds the text of a collection; the fingerprint tells another model of the same name apart."""

    name: str
    revision: str
    dim: int
    fingerprint: bytes
