"""Administration, snapshots and transactions behind gRPC do what embedded ones do."""

from __future__ import annotations

import asyncio
import pickle
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import gingham as gg
from gingham import F, errors, match, near
from gingham.server import views
from library import filled
from likeness import raised, same, same_hits

if TYPE_CHECKING:
    from pathlib import Path

X = np.random.default_rng(4).standard_normal((4200, 16), np.float32)


@pytest.fixture(scope="module")
def coded(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A collection large enough for codes and graphs, and the same over gRPC."""
    from gingham.server.main import Server

    path = tmp_path_factory.mktemp("coded") / "db"
    with (
        gg.open(path) as db,
        Server(db, listen="127.0.0.1:0", max_workers=2) as server,
        gg.open(f"grpc://{server.address}") as remote,
    ):
        db.create_collection("docs", vectors={"dense": gg.Dense(16)}).upsert(ids=range(4200), vectors={"dense": X})
        db.maintain()
        yield db["docs"], remote["docs"]


def test_codecs_and_indexes_are_changed_measured_and_reported_alike(coded: tuple[Any, Any]) -> None:
    here, there = coded
    reports = [docs.recode("dense", codec) for docs, codec in ((here, "LVQ8"), (here, None), (there, "LVQ8"))]
    assert reports[0] == reports[2]
    assert here.schema.dense["dense"].codec == "LVQ8"
    made = there.reindex("dense", index="HNSW8")
    assert (made.new_index, made.switched, there.stats().vectors["dense"].indexed_rows) == ("HNSW8", True, 4200)
    assert there.calibrate(X[:50]) == here.calibrate(X[:50]) == 1
    same_hits(here.search(X[:3], target_recall=0.9), there.search(X[:3], target_recall=0.9))
    assert there.reindex("dense", index=None, codec=None).new_index is None
    refused = [docs.recode("dense", "RaBitQ1", min_recall=1.0) for docs in (here, there)]
    assert refused[0] == refused[1]
    assert not refused[1].switched


WRONG: dict[str, Any] = {
    "reindexing nothing": lambda db: db["docs"].reindex("dense"),
    "an index that does not parse": lambda db: db["docs"].reindex("dense", index="HNSWx"),
    "a codec that does not parse": lambda db: db["docs"].recode("dense", "LVQ3x"),
    "a recall above 1": lambda db: db["docs"].recode("dense", "LVQ8", min_recall=2),
    "recoding no vector": lambda db: db["docs"].recode("dens", "LVQ8"),
    "recoding a name that is none": lambda db: db["docs"].recode(3, "LVQ8"),
    "calibration of no vector": lambda db: db["docs"].calibrate(np.eye(8), using="dens"),
    "calibration without queries": lambda db: db["docs"].calibrate(np.empty((0, 8)), using="dense"),
    "calibration of another width": lambda db: db["docs"].calibrate(np.eye(3), using="dense"),
    "calibration of texts": lambda db: db["docs"].calibrate(["words"], using="dense"),
    "renaming what is not there": lambda db: db.rename_collection("nope", "other"),
    "a new name that is taken": lambda db: db.rename_collection("docs", "docs"),
    "a malformed new name": lambda db: db.rename_collection("docs", "a b"),
    "a snapshot of no collection": lambda db: db.snapshot()["nope"],
    "a transaction on no collection": lambda db: db.transaction()["nope"],
    "tokens of another width": lambda db: db["pages"].upsert([{"id": 1, "tokens": np.ones((2, 3))}]),
    "no tokens": lambda db: db["pages"].upsert([{"id": 1, "tokens": []}]),
    "tokens of NaN": lambda db: db["pages"].update([{"id": 1, "tokens": [[np.nan] * 4]}]),
    "tokens that do not fit float16": lambda db: db["pages"].upsert([{"id": 1, "dots": [[1e6, 0]]}]),
    "export to where nothing can be": lambda db: db["docs"].to_parquet("/nowhere/at/all.parquet"),
    "export of ids of several kinds": lambda db: db["docs"].to_parquet("all.parquet"),
}


def test_errors_are_the_same(both: tuple[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    filled(both[0])
    both[0].create_collection("pages", vectors={"tokens": gg.Tokens(4), "dots": gg.Tokens(2, "dot")})
    for name, call in WRONG.items():
        one, other = (raised(lambda database=database, call=call: call(database)) for database in both)
        assert (type(one), str(one)) == (type(other), str(other)), name


def test_a_name_that_is_no_text_is_of_no_collection(both: tuple[Any, Any]) -> None:
    name: Any = 3
    for place in both:
        for call in (lambda p: p.rename_collection(name, "other"), lambda p: p.drop_collection(name),
                     lambda p: p.snapshot()[name], lambda p: p.transaction()[name], lambda p: p[name]):  # fmt: skip
            assert type(raised(lambda call=call, place=place: call(place))) is errors.CollectionNotFound


def test_token_matrices_are_written_as_embedded_ones_are(both: tuple[Any, Any]) -> None:
    rng = np.random.default_rng(6)
    kinds = {"tokens": gg.Tokens(4, pool_factor=2, protected=1, max_tokens=9), "dots": gg.Tokens(3, "dot")}
    rows = [
        {"id": at, "tokens": rng.standard_normal((1 + at * 3, 4)), "dots": rng.integers(-5, 5, (at, 3)) if at else None}
        for at in range(8)
    ]  # fmt: skip
    changes = [{"id": 1, "dots": np.ones((2, 3))}, {"id": 2, "tokens": None}, {"id": 3, "tokens": [[1, 0, 0, 0.5]]}]
    for place, name in zip(both, ("here", "there"), strict=True):
        made = place.create_collection(name, vectors=kinds)
        made.upsert(rows)
        assert made.update(changes).updated == 3
    one, other = (both[0][name].get(range(8), include_vectors=True) for name in ("here", "there"))
    assert same(one, other)
    assert len(one[5]["tokens"]) == 5, "pooled once"
    query = rng.standard_normal((2, 4))
    same_hits(both[0]["here"].search(query, using="tokens"), both[1]["there"].search(query, using="tokens"))


def test_a_collection_is_renamed(either: Any) -> None:
    filled(either)
    either.rename_collection("docs", "papers")
    assert (either.collections(), either["papers"].count()) == (["papers"], 7)


def test_everything_that_is_stored_is_verified_and_compacted(both: tuple[Any, Any]) -> None:
    embedded, remote = both
    filled(embedded)
    seen: list[int] = []
    for here, there in ((embedded, remote), (embedded["docs"], remote["docs"])):
        assert here.verify() == there.verify(progress=seen.append)
    assert len(seen) == 2
    before, after = remote.compact()
    assert 0 < after <= before
    assert remote["docs"].count() == 7


def test_a_backup_comes_over_and_is_a_database_of_its_own(both: tuple[Any, Any], tmp_path: Path) -> None:
    embedded, remote = both
    docs = filled(embedded)
    assert remote.backup(tmp_path / "copy") == tmp_path / "copy"
    with gg.open(tmp_path / "copy", mode="r") as copy:
        assert same(copy["docs"].get(["a", "bare"]), docs.get(["a", "bare"]))
    assert type(raised(lambda: remote.backup(tmp_path / "copy"))) is errors.AlreadyExists
    assert [path.name for path in tmp_path.iterdir() if "copy" in path.name] == ["copy"]


@pytest.mark.parametrize("where", [None, "year > 2021", "year < 0"])
def test_an_export_is_the_same_file(both: tuple[Any, Any], tmp_path: Path, where: Any) -> None:
    import pyarrow.parquet as pq

    docs = filled(both[0])
    docs.delete(ids=[1, -(1 << 70), b"\x00\xff"])
    docs.delete(where="year = 2024")  # the one of a UUID
    paths = [tmp_path / "here.parquet", tmp_path / "there.parquet"]
    one, other = (place["docs"].to_parquet(path, where=where) for place, path in zip(both, paths, strict=True))
    assert one == other == docs.count(where=where)
    here, there = map(pq.read_table, paths)
    assert here.equals(there, check_metadata=True)


def test_a_snapshot_stays_as_it_was(either: Any) -> None:
    docs = filled(either)
    with either.snapshot() as snapshot:
        version, then = snapshot.version, snapshot["docs"]
        docs.delete(where=F.year > 2021)
        docs.add_field("late", gg.Int())
        either.create_collection("more")
        assert snapshot.collections() == ["docs"]
        assert (then.count(), docs.count(), "late" in then.schema.fields) == (7, 3, False)
        assert then.get("a")["year"] == 2022
        assert [row["id"] for row in then.scan(where=F.year > 2021)] != []
        assert len(then.search(np.ones(8), using="dense")) == 6
        assert len(then.query(match("title", "row"))) == 6
        assert then.facets("lang") == {"de": 3, "en": 3}
        assert then.recall(using="dense").queries == 6
        assert (then.stats().rows, then.verify().ok, snapshot.version) == (7, True, version)
    for call in (then.count, lambda: snapshot["docs"], lambda: snapshot.version, snapshot.collections):
        assert type(raised(call)) is errors.SnapshotExpired
    snapshot.close()


def test_open_snapshots_are_limited_and_dropped_ones_are_given_up(
    both: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = both[1]
    monkeypatch.setattr(views, "MOST_SNAPSHOTS", 2)
    held = [remote.snapshot(), remote.snapshot()]
    with pytest.raises(errors.ResourceExhausted, match="at most 2 open snapshots"):
        remote.snapshot()
    del held[0]
    held.append(remote.snapshot())
    remote.close()
    with gg.open(repr(remote).split()[1], mode="r") as again:
        assert [again.snapshot().version, again.snapshot().version]


def test_an_expired_snapshot_says_so_and_makes_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gingham.server.main import Server

    monkeypatch.setattr(views, "MOST_SNAPSHOTS", 1)
    with (
        gg.open(tmp_path / "brief", snapshot_timeout=0.05) as db,
        Server(db, listen="127.0.0.1:0") as server,
        gg.open(f"grpc://{server.address}") as remote,
    ):
        db.create_collection("docs")
        snapshot = remote.snapshot()
        views_of = server._views
        ((_, pinned),) = views_of._snapshots.values()
        pinned._pin.end_because("is older than snapshot_timeout=0.05 s")
        with pytest.raises(errors.SnapshotExpired, match="older than snapshot_timeout"):
            snapshot.collections()
        assert remote.snapshot().version == db.stats().version


def test_a_transaction_is_one_commit_and_reads_see_the_state_before(either: Any) -> None:
    docs = filled(either)
    other = either.create_collection("other", fields={"n": gg.Int()}, vectors={"tokens": gg.Tokens(2)})
    version = either.stats().version
    with either.transaction() as changes:
        changes["docs"].upsert([{"id": "new", "year": 1}, {"id": "a", "year": 2}])
        changes["other"].upsert(ids=[1, 2], fields={"n": [1, 2]}, vectors={"tokens": [np.ones((3, 2)), None]})
        changes["docs"].update([{"id": "new", "title": "late words"}, {"id": "bare", "year": 5}])
        changes["docs"].delete(where="year = 5")
        changes["other"].delete(ids=2)
        assert (changes["docs"].count(), changes.result) == (7, None)
        assert changes["docs"].get("new") is None
    assert either.stats().version == version + 1
    assert (changes.result.inserted, changes.result.updated, changes.result.deleted) == (3, 3, 2)
    assert (docs.get("new")["title"], docs.get("bare"), docs.get("a")["year"]) == ("late words", None, 2)
    assert [row["id"] for row in other.scan()] == [1]
    assert type(raised(lambda: changes["docs"].delete(ids=1))) is errors.Closed


def test_a_transaction_that_ends_with_an_error_or_is_aborted_changes_nothing(either: Any) -> None:
    docs = filled(either)
    version = either.stats().version
    with pytest.raises(errors.SchemaMismatch), either.transaction() as changes:
        changes["docs"].delete(ids="a")
        changes["docs"].upsert([{"id": "b", "year": "text"}])
    with either.transaction() as changes:
        changes["docs"].delete(ids="a")
        changes.abort()
    with either.transaction() as nothing:
        pass
    assert (either.stats().version, docs.count(), changes.result, nothing.result) == (version, 7, None, None)


def test_an_async_connection_does_the_same(both: tuple[Any, Any]) -> None:
    filled(both[0])

    async def use(target: str) -> Any:
        async with gg.aopen(target) as db:
            docs = await db.collection("docs")
            found = await docs.search(np.ones(8), using="dense")
            rows = [row["id"] async for row in docs.scan(fields=[])]
            async with db.snapshot() as snapshot, db.transaction() as changes:
                await changes["docs"].delete(ids="a")
                assert await snapshot["docs"].count() == 7
            with pytest.raises(errors.DeadlineExceeded):
                await docs.search(np.ones(8), using="dense", timeout=1e-9)
            return found, rows, await docs.count()

    hits, rows, left = asyncio.run(use(repr(both[1]).split()[1][:-1]))
    assert (len(hits), len(rows), left) == (6, 7, 6)


def test_a_cancelled_task_ends_its_call(both: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    import threading
    import time

    from gingham import deadline

    filled(both[0])
    began, ended = threading.Event(), threading.Event()

    def spin(self: object, **_: object) -> int:
        began.set()
        try:
            for _at in range(5000):
                deadline.check()
                time.sleep(0.002)
        finally:
            ended.set()
        return 0

    async def use(target: str) -> None:
        async with gg.aopen(target) as db:
            docs = await db.collection("docs")
            monkeypatch.setattr(gg.Collection, "count", spin)
            task = asyncio.create_task(docs.count())
            while not began.is_set():
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(use(repr(both[1]).split()[1][:-1]))
    assert ended.wait(5)


def test_reads_and_writes_are_asked_again_where_the_server_is_away(
    both: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(both[0])
    there, calls = both[1]["docs"], {"count": 0, "delete": 0}

    def away(name: str, most: int) -> Any:
        real = getattr(gg.Collection, name)

        def call(self: Any, **given: Any) -> Any:
            calls[name] += 1
            if calls[name] <= most:
                raise errors.Unavailable("away for a moment")
            return real(self, **given)

        return call

    monkeypatch.setattr(gg.Collection, "count", away("count", 2))
    monkeypatch.setattr(gg.Collection, "delete", away("delete", 1))
    assert there.count() == 7
    assert there.delete(ids="a").deleted == 1
    assert calls == {"count": 3, "delete": 2}


def test_a_pickled_collection_connects_anew(both: tuple[Any, Any]) -> None:
    filled(both[0])
    again = pickle.loads(pickle.dumps(both[1]["docs"]))
    assert again.count() == 7
    assert again.delete(ids="a").deleted == 1
    again._channel.close()


def test_a_client_loads_no_numba(both: tuple[Any, Any]) -> None:
    filled(both[0])
    code = (
        "import sys, gingham as gg\n"
        f"with gg.open({repr(both[1]).split()[1][:-1]!r}) as db:\n"
        "    docs = db['docs']\n"
        "    docs.upsert([{'id': 'z', 'dense': [1.0] * 8, 'title': 'z'}])\n"
        "    assert docs.search([1.0] * 8, using='dense').ids[0] == 'z'\n"
        "    assert docs.query(gg.match('title', 'z')).highlights('title')\n"
        "print([m for m in ('numba', 'llvmlite') if m in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_near_and_match_in_a_transaction_are_those_of_its_collection(both: tuple[Any, Any]) -> None:
    docs = filled(both[0])
    with both[1].transaction() as changes:
        same_hits(docs.query(near("dense", np.ones(8))), changes["docs"].query(near("dense", np.ones(8))))


def test_codecs_of_tokens_are_carried_with_the_schema(both: tuple[Any, Any]) -> None:
    kinds = {"tokens": gg.Tokens(32, codec="PQ16")}
    for place, name in zip(both, ("here", "there"), strict=True):
        made = place.create_collection(name, vectors=kinds)
        made.upsert([{"id": at, "tokens": np.eye(32)[at : at + 2]} for at in range(9)])
        made.add_vector("more", gg.Tokens(64, codec="PQ64"))
        assert made.schema.vectors == kinds | {"more": gg.Tokens(64, codec="PQ64")}
    query = np.eye(32)[3:6]
    same_hits(both[0]["here"].search(query, using="tokens"), both[1]["there"].search(query, using="tokens"))
