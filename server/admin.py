"""The RPCs of administration."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from gingham.deadline import check
from gingham.errors import GinghamError, InvalidArgument
from gingham.server.calls import Scans, answered, streamed
from gingham.server.convert import array_of, texts_of
from gingham.server.proto import gingham_pb2 as pb
from gingham.server.proto import gingham_pb2_grpc as services

if TYPE_CHECKING:
    from collections.abc import Generator

    from gingham.server.views import Views

PIECE_BYTES = 1 << 20
"""Of a message of a backup."""


class AdminService(services.AdminServiceServicer):
    """What is done to a database now and then."""

    def __init__(self, views: Views, scans: Scans) -> None:
        self._views = views
        self._db = views.database
        self._scans = scans

    @answered
    def RenameCollection(self, request: pb.RenameCollectionRequest) -> pb.RenameCollectionResponse:
        """Rename a collection."""
        self._db.rename_collection(request.name, request.new_name)
        return pb.RenameCollectionResponse()

    @answered
    def Reindex(self, request: pb.ReindexRequest) -> pb.ReindexResponse:
        """Change codec or index of a vector."""
        given = {name: getattr(request, name) or None for name in ("index", "codec") if request.HasField(name)}
        report = self._db[request.collection].reindex(request.name, min_recall=request.min_recall, **given)
        return pb.ReindexResponse(**asdict(report))

    @answered
    def Calibrate(self, request: pb.CalibrateRequest) -> pb.CalibrateResponse:
        """Measure indexes."""
        kind = request.WhichOneof("queries")
        if kind is None:
            raise InvalidArgument("calibrate expects vectors or texts, found neither")
        queries = array_of(request.vectors) if kind == "vectors" else texts_of(request.texts)
        using = request.using if request.HasField("using") else None
        return pb.CalibrateResponse(indexes=self._db[request.collection].calibrate(queries, using=using))

    @answered
    def Verify(self, request: pb.VerifyRequest) -> pb.VerifyResponse:
        """Read everything."""
        if request.HasField("collection"):
            report = self._views.collection(request).verify(progress=lambda _: check())
        else:
            report = self._db.verify(progress=lambda _: check())
        damage = [pb.Damage(where=one.where, what=one.what) for one in report.damage]
        return pb.VerifyResponse(damage=damage, records=report.records, blob_bytes=report.blob_bytes)

    @answered
    def Compact(self, request: pb.CompactRequest) -> pb.CompactResponse:
        """Give free pages back."""
        del request
        before, after = self._db.compact()
        return pb.CompactResponse(before=before, after=after)

    @streamed
    def Backup(self, request: pb.BackupRequest) -> Generator[pb.BackupResponse]:
        """Send a copy, which is made in the folder for temporary files."""
        del request
        with self._scans.one(), tempfile.TemporaryDirectory(prefix="gingham-backup-") as folder:
            try:
                copy = self._db.backup(Path(folder) / "copy")
            except GinghamError as error:
                error.args = (str(error).replace(folder, "the folder of temporary files"),)
                raise
            (file,) = copy.rglob("data.mdb")
            yield pb.BackupResponse(length=file.stat().st_size)
            with file.open("rb") as opened:
                while data := opened.read(PIECE_BYTES):
                    yield pb.BackupResponse(data=data)
