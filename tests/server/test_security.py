"""Keys, what each of them may do, TLS, and what is told to nobody."""

from __future__ import annotations

import json
import logging
import os
import re
import stat
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest
from typer.testing import CliRunner

import gingham as gg
from gingham import errors
from gingham.cli import app
from gingham.server import keys as key_files
from gingham.server import main
from gingham.server.access import RULES
from gingham.server.keys import KeyRing, create_key, list_keys, revoke_key
from gingham.server.main import Server, address_of, serve
from gingham.server.proto import gingham_pb2 as pb
from gingham.server.tls import TlsFiles, _Certificates
from gingham.types import RowBatch
from gingham.wire import pack_batch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

METHODS = {
    f"{service.name}/{method.name}": method
    for service in pb.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
BEFORE = {"read": None, "write": "read", "admin": "write"}
"""The scope below each."""


class Served:
    """A served database with a key of each kind."""

    def __init__(self, folder: Path) -> None:
        self.db = gg.open(folder / "db")
        for name in ("docs", "docs_2", "other"):
            self.db.create_collection(name, fields={"tenant": gg.Keyword()}, vectors={"dense": gg.Dense(2)})
            self.db[name].upsert([{"id": 1, "tenant": "a"}, {"id": 2, "tenant": "b"}])
        self.file = folder / "keys.jsonl"
        made = {
            "read": {}, "write": {"scope": "write"}, "admin": {"scope": "admin"},
            "docs": {"scope": "admin", "collections": ["docs"]}, "docs*": {"collections": ["docs*"]},
            "filtered": {"scope": "write", "filter": "tenant = 'a'"}, "expired": {"scope": "admin", "expires": timedelta(0)},
        }  # fmt: skip
        self.tokens: dict[str, str] = {
            name: create_key(self.file, **options)[0]
            for name, options in made.items()  # type: ignore[arg-type]
        }
        self.server = Server(self.db, listen="127.0.0.1:0", max_workers=2, keys=self.file)
        self.channel = grpc.insecure_channel(self.server.address)

    def call(self, method: str, request: Any, token: str | None) -> list[bytes]:
        """Answers, not decoded; raises what the client raises."""
        metadata = () if token is None else (("authorization", f"Bearer {token}"),)
        make = (
            self.channel.unary_stream
            if method in ("RowService/Scan", "AdminService/Backup")
            else self.channel.unary_unary
        )
        answer = make(f"/gingham.v1.{method}", request_serializer=type(request).SerializeToString)(
            request, metadata=metadata, timeout=20
        )
        return list(answer) if hasattr(answer, "__next__") else [answer]

    def refused(self, method: str, request: Any, token: str | None) -> str:
        with pytest.raises(grpc.RpcError) as caught:
            self.call(method, request, token)
        return str(caught.value.code().name)

    def open(self, name: str) -> Any:
        return gg.open(self.server.url, token=self.tokens[name])

    def close(self) -> None:
        self.channel.close()
        self.server.stop(0)
        self.db.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(key_files, "SCRYPT_N", 1 << 8)
        made = Served(tmp_path_factory.mktemp("served"))
    yield made
    made.close()


def request_of(method: str, collection: str) -> Any:
    """A request that names a collection wherever it can."""
    kind = METHODS[method].input_type
    request = getattr(pb, kind.name)()
    for name in ("collection", "name", "new_name"):
        if name in kind.fields_by_name and (name != "name" or "collection" not in kind.fields_by_name):
            setattr(request, name, collection)
    if method == "RowService/WriteBatch":
        request.changes.add().delete.collection = collection
    return request


def test_every_rpc_has_a_rule_and_every_rule_an_rpc() -> None:
    assert set(RULES) == set(METHODS)
    assert {name for name, rule in RULES.items() if rule.scope == "read" and not name.endswith("Snapshot")} == {
        "CollectionService/ListCollections", "CollectionService/GetSchema", "CollectionService/GetCollectionStats",
        "CollectionService/GetDatabaseStats", "CollectionService/Recall", "RowService/Get", "RowService/Count",
        "RowService/Facets", "RowService/Scan", "QueryService/Search", "QueryService/Query",
    }  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
def test_a_call_without_the_right_key_is_refused_and_changes_nothing(served: Served, method: str) -> None:
    rule, before, tokens = RULES[method], served.db.stats(), served.tokens
    request = request_of(method, "docs")
    wrong = tokens["admin"][:-1] + ("A" if tokens["admin"][-1] != "A" else "B")
    for token in (None, "", "nonsense", wrong, "gg_" + "0" * 12 + "_" + "A" * 43, tokens["expired"]):
        assert served.refused(method, request, token) == "UNAUTHENTICATED", token
    if BEFORE[rule.scope] is not None:
        assert served.refused(method, request, tokens[str(BEFORE[rule.scope])]) == "PERMISSION_DENIED"
    elsewhere = request_of(method, "other")
    if rule.collections(elsewhere) != []:
        assert served.refused(method, elsewhere, tokens["docs"]) == "PERMISSION_DENIED"
        assert served.refused(method, request_of(method, "docs_2"), tokens["docs"]) == "PERMISSION_DENIED"
    if not rule.filtered:
        assert served.refused(method, request, tokens["filtered"]) == "PERMISSION_DENIED"
    elif "snapshot" in METHODS[method].input_type.fields_by_name:
        request.snapshot = "x"
        assert served.refused(method, request, tokens["filtered"]) == "PERMISSION_DENIED"
    assert served.db.stats() == before


def test_an_rpc_without_a_rule_is_refused(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(RULES, "RowService/Count")
    assert served.refused("RowService/Count", pb.CountRequest(collection="docs"), served.tokens["admin"]) == (
        "PERMISSION_DENIED"
    )


def test_renaming_needs_a_key_for_both_names(served: Served) -> None:
    request = pb.RenameCollectionRequest(name="docs", new_name="mine")
    assert served.refused("AdminService/RenameCollection", request, served.tokens["docs"]) == "PERMISSION_DENIED"
    batch = pb.WriteBatchRequest()
    batch.changes.add().delete.collection = "docs"
    batch.changes.add().delete.collection = "other"
    assert served.refused("RowService/WriteBatch", batch, served.tokens["docs"]) == "PERMISSION_DENIED"


def test_a_key_sees_its_collections_and_hears_of_no_others(served: Served) -> None:
    with served.open("docs*") as db:
        assert db.collections() == ["docs", "docs_2"]
        assert db["docs_2"].count() == 2
        with db.snapshot() as pinned:
            assert pinned.collections() == ["docs", "docs_2"]
        with pytest.raises(errors.PermissionDenied, match=r"docs\*"):
            db["other"]
        with pytest.raises(errors.CollectionNotFound) as caught:
            db["docs_3"]
        assert "docs_2" not in str(caught.value)
        with pytest.raises(errors.PermissionDenied, match="all collections"):
            db.stats()
        with pytest.raises(errors.PermissionDenied, match="scope write"):
            db["docs"].delete(ids=1)


def test_a_key_with_a_filter_finds_and_changes_its_rows_alone(served: Served) -> None:
    with served.open("filtered") as db:
        docs = db["docs"]
        before = served.db["docs"].get(2)
        assert (docs.count(), docs.get([1, 2])[1], docs.facets("tenant"), len(list(docs.scan()))) == (
            1,
            None,
            {"a": 1},
            1,
        )
        assert docs.upsert([{"id": 3, "tenant": "a", "dense": [1.0, 0.0]}]).inserted == 1
        assert docs.search([1.0, 0.0], k=9).ids == [3]
        assert docs.query([gg.near("dense", [1.0, 0.0])])[0].ids == [3]
        assert docs.recall(k=1).queries == 1
        with pytest.raises(errors.NotFound):
            docs.query(gg.like(2))
        for write in (lambda: docs.upsert([{"id": 2, "tenant": "a"}]), lambda: docs.update([{"id": 1, "tenant": "b"}]),
                      db.snapshot, db["docs"].stats, lambda: docs.add_field("x", gg.Int())):  # fmt: skip
            with pytest.raises(errors.PermissionDenied):
                write()
        with pytest.raises(errors.PermissionDenied), db.transaction() as change:
            change["docs"].delete(ids=[2])
        assert docs.update([{"id": 2, "tenant": "a"}]).missing == 1
        assert (docs.delete(ids=[2, 3]).deleted, docs.delete(where="tenant = 'b'").deleted) == (1, 0)
        assert served.db["docs"].get(2) == before


def test_texts_that_a_client_says_to_have_seen_tell_nothing_of_rows_outside(served: Served) -> None:
    rows, schema = served.db["docs"], served.db["docs"].schema
    changes = RowBatch([b"i" + ((1 << 71) + 2).to_bytes(9, "big")], {"dense": np.ones((1, 2), np.float32)}, {})
    packed = pack_batch(changes, leave_out_nulls=False)
    answers = []
    for seen in ("a", "b"):
        column = gg.rows.field_column("tenant", [seen], schema.fields["tenant"], 1)
        text = pack_batch(RowBatch(changes.ids, {}, {"tenant": column}), leave_out_nulls=False)
        request = pb.UpdateRequest(collection="docs", batches=[packed], embedded=True, seen=[text])
        (answer,) = served.call("RowService/Update", request, served.tokens["filtered"])
        answers.append(pb.UpdateResponse.FromString(answer))
    assert answers[0].texts_moved == answers[1].texts_moved
    assert answers[0].result.missing == answers[1].result.missing == 1
    assert rows.get(2, include_vectors=True)["dense"] is None


def test_a_token_is_checked_by_scrypt_once_and_a_changed_file_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "keys"
    token, key = create_key(file)
    other, _ = create_key(file, scope="write")
    calls: list[str] = []
    hashed = key_files._scrypt
    monkeypatch.setattr(key_files, "_scrypt", lambda *given: calls.append(given[0]) or hashed(*given))
    ring = KeyRing(file)
    for _ in range(5):
        assert ring.verify(token) == key
    assert len(calls) == 1
    with pytest.raises(errors.Unauthenticated):
        ring.verify(token[:-3] + "AAA")
    assert len(calls) == 1, "the right secret is known by then"
    assert ring.verify(other).scope == "write"
    revoke_key(file, key.id)
    with pytest.raises(errors.Unauthenticated, match="revoked"):
        ring.verify(token)
    assert ring.verify(other).scope == "write"
    file.write_text("{}")
    with pytest.raises(errors.Unavailable, match="its log says why"):
        ring.verify(other)
    file.unlink()
    with pytest.raises(errors.Unavailable):
        ring.verify(other)


def test_a_file_of_keys_holds_no_secrets_and_is_its_owners_alone(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    token, key = create_key(file, scope="write", collections=["docs", "t_*"], filter="n > 3", expires=timedelta(days=1))
    assert stat.S_IMODE(os.stat(file).st_mode) == 0o600
    secret = token.removeprefix(f"gg_{key.id}_")
    assert len(secret) > 20
    assert secret not in file.read_text()
    assert list_keys(file) == [key]
    assert [key.reaches(name) for name in ("docs", "docs2", "t_", "t_x", "t")] == [True, False, True, True, False]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["keys", "keys.lock"]


@pytest.mark.parametrize(
    "options",
    [
        {"scope": "all"}, {"collections": []}, {"collections": ["a b"]}, {"collections": ["*docs"]}, {"filter": "n >"},
        {"scope": "admin", "filter": "n > 3"}, {"collections": ["docs**"]},
    ],
    ids=str,
)  # fmt: skip
def test_keys_that_make_no_sense_are_refused_and_not_written(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(errors.InvalidArgument):
        create_key(tmp_path / "keys", **options)
    with pytest.raises(errors.InvalidArgument, match="folder"):
        create_key(tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_commands_make_list_and_revoke_keys(tmp_path: Path) -> None:
    gg.open(tmp_path / "db").close()
    run = CliRunner()
    folder = str(tmp_path / "db")
    made = run.invoke(
        app, ["keys", "create", folder, "--scope", "write", "-c", "docs", "--filter", "n > 3", "--expires", "2h"]
    )
    token = made.output.strip()
    assert re.fullmatch(r"gg_[0-9a-f]{12}_[\w-]{43}", token), made.output
    shown = run.invoke(app, ["keys", "list", folder]).output
    assert re.fullmatch(rf"{token[3:15]}  write  docs  where n > 3  expires 20\S+\n", shown)
    assert json.loads(run.invoke(app, ["keys", "list", folder, "--json"]).output)[0]["scope"] == "write"
    assert isinstance(run.invoke(app, ["keys", "create", folder, "--expires", "2"]).exception, errors.InvalidArgument)
    assert isinstance(run.invoke(app, ["keys", "revoke", folder, "nothing"]).exception, errors.NotFound)
    assert run.invoke(app, ["keys", "revoke", folder, token[3:15]]).exit_code == 0
    assert run.invoke(app, ["keys", "list", folder]).output == ""
    assert KeyRing(folder)._keys == {}, "a file without keys lets nobody in"
    with (
        gg.open(tmp_path / "db") as db,
        Server(db, listen="127.0.0.1:0", keys=folder) as server,
        pytest.raises(errors.Unauthenticated),
    ):
        gg.open(server.url, token=token)


def test_changes_and_refusals_leave_a_line_in_the_audit_log(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gingham.audit")
    key = served.tokens["write"][3:15]
    with served.open("write") as db:
        docs = db["docs"]
        docs.upsert([{"id": 9}])
        docs.count()
        docs.delete(ids=[9])
        with pytest.raises(errors.PermissionDenied):
            db.drop_collection("docs\nkey=forged")
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 3
    assert re.fullmatch(
        rf"key={key} method=RowService/Upsert collections=\['docs'\] outcome=done version=\d+ inserted=1 updated=0 deleted=0 missing=0",
        lines[0],
    )
    assert "Delete" in lines[1]
    assert (
        lines[2]
        == f"key={key} method=CollectionService/DropCollection collections=['docs\\nkey=forged'] refused=PermissionDenied"
    )
    assert not any(token.split("_", 2)[2] in "".join(lines) for token in served.tokens.values())


def test_errors_tell_no_path(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    where = served.db.path / "generation-000001" / "data.mdb"

    def fail(self: object, **_: object) -> int:
        raise errors.Corrupt(f"the file {where} is damaged, as '{where.parent}' says")

    monkeypatch.setattr(gg.Collection, "count", fail)
    with served.open("read") as db, pytest.raises(errors.Corrupt) as caught:
        db["docs"].count()
    assert str(caught.value) == "the file the database is damaged, as 'the database' says"


def test_a_stream_ends_when_its_key_is_revoked(tmp_path: Path, db: gg.Database) -> None:
    db.create_collection("docs").upsert(ids=[f"{at:0400}" for at in range(9000)])
    token, key = create_key(tmp_path / "keys")
    with Server(db, listen="127.0.0.1:0", keys=tmp_path / "keys") as server, gg.open(server.url, token=token) as remote:
        scan = remote["docs"].scan(batch_size=50)
        next(scan)
        revoke_key(tmp_path / "keys", key.id)
        with pytest.raises(errors.Unauthenticated):
            list(scan)


def rows_and_then(act: Any, *last: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """So many rows that they go in a stream, then something that happens, then others."""
    yield from ({"id": at, "tenant": "a"} for at in range(100, 10_101))
    act()
    yield from last


def test_a_stream_of_rows_is_admitted_as_other_writes_are(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gingham.audit")
    docs, key = served.db["docs"], served.tokens["filtered"][3:15]
    with served.open("filtered") as db:
        with pytest.raises(errors.PermissionDenied) as caught:
            db["docs"].upsert(rows_and_then(lambda: None, {"id": 2, "tenant": "a"}))
        assert caught.value.durable_rows == 10_000
        assert (docs.get(2)["tenant"], docs.count()) == ("b", 10_002)
        db["docs"].upsert(rows_and_then(lambda: None))
    assert docs.delete(ids=list(range(100, 10_101))).deleted == 10_001
    lines = [record.getMessage() for record in caplog.records if "Ingest" in record.getMessage()]
    assert re.match(
        rf"key={key} method=RowService/Ingest collections=\['docs'\] outcome=failed .*inserted=10000", lines[0]
    )
    assert re.match(
        rf"key={key} method=RowService/Ingest collections=\['docs'\] outcome=done .*updated=10000", lines[1]
    )
    for name in ("read", "docs*", "expired"):
        with pytest.raises((errors.PermissionDenied, errors.Unauthenticated)), served.open(name) as db:
            db["docs"].upsert(rows_and_then(lambda: None))
    assert docs.count() == 2


def test_a_stream_of_rows_ends_when_its_key_is_revoked(tmp_path: Path, db: gg.Database) -> None:
    db.create_collection("docs", fields={"tenant": gg.Keyword()})
    token, key = create_key(tmp_path / "keys", scope="write")
    with (
        Server(db, listen="127.0.0.1:0", keys=tmp_path / "keys") as server,
        gg.open(server.url, token=token) as remote,
        pytest.raises(errors.Unauthenticated),
    ):
        remote["docs"].upsert(rows_and_then(lambda: revoke_key(tmp_path / "keys", key.id)))
    assert db["docs"].count() in (0, 10_000)


def test_a_server_for_other_machines_needs_tls_and_keys(tmp_path: Path) -> None:
    for secured, missing in (({}, "TLS.* and keys"), ({"tls": True}, "without keys"), ({"keys": True}, "without TLS")):
        with pytest.raises(errors.InvalidArgument, match=missing):
            address_of("0.0.0.0:7443", **secured)
    assert address_of("0.0.0.0:7443", tls=True, keys=True) == ("0.0.0.0", 7443)
    with pytest.raises(errors.InvalidArgument, match="TLS"):
        serve(tmp_path / "db", listen="0.0.0.0:0", keys=tmp_path / "keys")
    assert not (tmp_path / "db").exists()
    for options in ({"tls_cert": "c"}, {"tls_cert": "c", "client_ca": "a"}, {"client_ca": "a"}):
        with pytest.raises(errors.InvalidArgument, match="together"):
            gg.connect.serve(tmp_path / "db", listen="127.0.0.1:0", max_workers=1, **options)  # type: ignore[arg-type]


def test_a_token_never_travels_unencrypted_to_another_machine(tmp_path: Path) -> None:
    for address, options, why in (
        ("grpc://10.0.0.1:7443", {"token": "t"}, "TLS"), ("grpc://example.com:7443", {"token": "t"}, "TLS"),
        ("grpc://127.0.0.1:7443", {"tls_ca": "x"}, "grpcs://"), ("grpcs://127.0.0.1:1", {"tls_cert": "x"}, "both"),
        ("grpcs://127.0.0.1:1", {"tls_ca": tmp_path / "none"}, "No such file"), (tmp_path / "db", {"token": "t"}, "server"),
        ("grpcs://127.0.0.1:1", {"token": "two\nlines"}, "keys create"),
    ):  # fmt: skip
        with pytest.raises(errors.InvalidArgument, match=why):
            gg.open(address, **options)  # type: ignore[arg-type]


def test_a_connection_is_trusted_by_its_certificate(db: gg.Database, authority: Any) -> None:
    db.create_collection("docs")
    cert, key = authority.issue("server")
    with Server(db, listen="127.0.0.1:0", tls=TlsFiles(cert, key)) as server:
        assert server.url.startswith("grpcs://127.0.0.1:")
        with gg.open(server.url, tls_ca=authority.ca) as remote:
            assert remote.collections() == ["docs"]
            assert repr(remote) == f"<RemoteDatabase {server.url}>"
        with pytest.raises(errors.Unavailable, match="tls_ca="):
            gg.open(server.url)


def test_clients_show_certificates_where_the_server_asks_for_them(db: gg.Database, authority: Any) -> None:
    cert, key = authority.issue("server")
    mine, my_key = authority.issue("client")
    with Server(db, listen="127.0.0.1:0", tls=TlsFiles(cert, key, authority.ca)) as server:
        with gg.open(server.url, tls_ca=authority.ca, tls_cert=mine, tls_key=my_key) as remote:
            assert remote.collections() == []
        with pytest.raises(errors.Unavailable):
            gg.open(server.url, tls_ca=authority.ca)


def test_a_renewed_certificate_is_shown_to_the_next_connection(db: gg.Database, authority: Any, tmp_path: Path) -> None:
    cert, key = tmp_path / "cert", tmp_path / "key"

    def place(name: str, host: str) -> None:
        for made, target in zip(authority.issue(name, host), (cert, key), strict=True):
            os.replace(made, target)

    place("renewed", "DNS:elsewhere.example")
    with Server(db, listen="127.0.0.1:0", tls=TlsFiles(cert, key)) as server:
        with pytest.raises(errors.Unavailable):
            gg.open(server.url, tls_ca=authority.ca)
        followed = _Certificates(TlsFiles(cert, key))
        assert followed.renewed() is None
        cert.write_text("no certificate")
        assert followed.renewed() is None, "the old one is still shown"
        place("renewed", "IP:127.0.0.1")
        assert followed.renewed() is followed.current
        assert followed.renewed() is None
        with gg.open(server.url, tls_ca=authority.ca) as remote:
            assert remote.collections() == []


def test_certificates_that_cannot_be_used_are_said_to_be(db: gg.Database, authority: Any, tmp_path: Path) -> None:
    cert, key = authority.issue("server")
    other = authority.issue("client")[1]
    for files in (
        TlsFiles(cert, other),
        TlsFiles(key, cert),
        TlsFiles(tmp_path / "none", key),
        TlsFiles(cert, key, key),
    ):
        with pytest.raises(errors.InvalidArgument, match="PEM files"):
            Server(db, listen="127.0.0.1:0", tls=files)


def test_a_folder_with_keys_is_never_served_without_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Seen(Exception):
        """Ends serve()."""

    def start(database: gg.Database, **options: Any) -> None:
        raise Seen(options["keys"])

    monkeypatch.setattr(main, "Server", start)
    gg.open(tmp_path).close()
    for expected in (None, tmp_path / "keys.jsonl"):
        with pytest.raises(Seen) as caught:
            serve(tmp_path, listen="127.0.0.1:0")
        assert caught.value.args == (expected,)
        create_key(tmp_path)
